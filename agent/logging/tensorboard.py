"""A run's log as TensorBoard's event files, in RUN/tensorboard: `tensorboard --logdir runs` shows every run in it."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from PIL import Image

from agent.logging.sinks import Sink
from agent.runs.fields import ConfigError

FOLDER = "tensorboard"
WIDTH = 320
"""Pixels: the width of a video's GIF, at most about."""


class TensorBoard(Sink):
    """An event file for each time that the run starts or resumes."""

    def __init__(self, folder: Path):
        """Raises ConfigError where the package is missing."""
        self._summary, self._writer_class = package()
        self._folder = folder / FOLDER
        self._opened: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Sink`."""
        writer = self._writer()
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def image(self, step: int, name: str, path: Path) -> None:
        """See `Sink`."""
        self._log_image(step, name, path.read_bytes())

    def video(self, step: int, name: str, path: Path) -> None:
        """See `Sink`; as an animated GIF, which its page plays."""
        self._log_image(step, name, animated_gif(imageio.imread(path, plugin="pyav")))

    def truncate_after(self, step: int) -> None:
        """See `Sink`; a mark at which readers drop all that comes after the step."""
        self._opened = self._writer_class(str(self._folder), purge_step=step + 1)

    def close(self) -> None:
        """See `Sink`."""
        if self._opened is not None:
            self._opened.close()

    def _writer(self) -> Any:
        if self._opened is None:
            self._opened = self._writer_class(str(self._folder))
        return self._opened

    def _log_image(self, step: int, name: str, encoded: bytes) -> None:
        """An encoded image, which may be animated; `add_image` takes pixels of one frame."""
        with Image.open(io.BytesIO(encoded)) as opened:
            image = self._summary.Image(
                height=opened.height, width=opened.width, colorspace=3, encoded_image_string=encoded
            )
        summary = self._summary(value=[self._summary.Value(tag=name, image=image)])
        writer = self._writer()
        writer.file_writer.add_summary(summary, step)
        writer.flush()


def package() -> tuple[Any, Any]:
    """The classes Summary and SummaryWriter. Raises ConfigError where the package is missing."""
    try:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("--tensorboard True needs a package: pip install 'lssvwm[tensorboard]'") from None
    return Summary, SummaryWriter


def animated_gif(frames: np.ndarray, fps: int = 8) -> bytes:
    """(T, H, W, 3) uint8 -> a GIF that repeats, scaled down by a whole factor to about `WIDTH`."""
    every = max(1, round(frames.shape[2] / WIDTH))
    images = [Image.fromarray(frame[::every, ::every]) for frame in frames]
    out = io.BytesIO()
    images[0].save(
        out, format="GIF", save_all=True, append_images=images[1:], duration=1000 // fps, loop=0, optimize=False
    )
    return out.getvalue()
