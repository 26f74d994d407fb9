"""What a run measures: metrics.jsonl, and under the same names TensorBoard and W&B where asked."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.logging.sinks import JsonLines, Row, Sink, read_metrics
from agent.runs.config import Config

__all__ = ["Row", "RunLog", "check", "read_metrics"]


def check(config: Config) -> None:
    """A ConfigError where TensorBoard or W&B is wanted and its package is missing."""
    if config.tensorboard:
        from agent.logging import tensorboard

        tensorboard.package()
    if config.wandb != "disabled":
        from agent.logging import wandb

        wandb.package(config.wandb)


class RunLog:
    """The log of one run, appended to where the run is taken up again."""

    def __init__(self, folder: Path, config: Config):
        """Raises ConfigError where TensorBoard or W&B is wanted and cannot be used."""
        self._sinks: list[Sink] = [JsonLines(folder)]
        if config.tensorboard:
            from agent.logging.tensorboard import TensorBoard

            self._sinks.append(TensorBoard(folder))
        if config.wandb != "disabled":
            from agent.logging.wandb import WeightsAndBiases

            self._sinks.append(WeightsAndBiases(folder, config))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Report figures, numbers or tensors of one element, at an environment step."""
        numbers = {name: float(value) for name, value in figures.items()}
        for sink in self._sinks:
            sink.log(step, numbers)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Report an image file (PNG)."""
        for sink in self._sinks:
            sink.picture(step, name, path)

    def video(self, step: int, name: str, path: Path) -> None:
        """Report a video file (mp4)."""
        for sink in self._sinks:
            sink.video(step, name, path)

    def truncate_after(self, step: int) -> None:
        """Drop what was reported after a step: a run taken up from its checkpoint reports that again."""
        for sink in self._sinks:
            sink.truncate_after(step)

    def close(self) -> None:
        """Flush and end everything that is written to."""
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
