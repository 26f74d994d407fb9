"""Files that are whole or not there, by `replay.atomic`: of any kind, and of text."""

from pathlib import Path

from replay.atomic import replace_atomically, sync_folder

__all__ = ["replace_atomically", "sync_folder", "write_text_atomically"]


def write_text_atomically(path: Path, text: str) -> None:
    """Replace the UTF-8 text of `path` in one step."""
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
