"""The progress line, for what lies above replay: see `replay.progress`, which collecting uses as well."""

from replay.progress import Progress, duration, track

__all__ = ["Progress", "duration", "track"]
