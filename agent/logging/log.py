"""The log of a run: metrics.jsonl and, under the same names, TensorBoard and Weights & Biases."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.logging.sinks import JsonLines, Sink
from agent.runs.config import Config


def check(config: Config) -> None:
    """Raises ConfigError where TensorBoard or W&B is on and its package is missing."""
    if config.tensorboard:
        from agent.logging import tensorboard

        tensorboard.package()
    if config.wandb != "disabled":
        from agent.logging import wandb

        wandb.package(config.wandb)


class RunLog:
    """The log of one run; a resumed run appends to it."""

    def __init__(self, folder: Path, config: Config):
        """Raises ConfigError where TensorBoard or W&B is on and cannot be used."""
        self._sinks: list[Sink] = [JsonLines(folder)]
        if config.tensorboard:
            from agent.logging.tensorboard import TensorBoard

            self._sinks.append(TensorBoard(folder))
        if config.wandb != "disabled":
            from agent.logging.wandb import WeightsAndBiases

            self._sinks.append(WeightsAndBiases(folder, config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics, numbers or tensors of one element, at an environment step."""
        numbers = {name: float(value) for name, value in metrics.items()}
        for sink in self._sinks:
            sink.log(step, numbers)

    def image(self, step: int, name: str, path: Path) -> None:
        """Logs an image file (PNG)."""
        for sink in self._sinks:
            sink.image(step, name, path)

    def video(self, step: int, name: str, path: Path) -> None:
        """Logs a video file (mp4)."""
        for sink in self._sinks:
            sink.video(step, name, path)

    def truncate_after(self, step: int) -> None:
        """Drops what was logged after a step: a run that resumes from its checkpoint logs that again."""
        for sink in self._sinks:
            sink.truncate_after(step)

    def close(self) -> None:
        """Flushes and closes all sinks."""
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
