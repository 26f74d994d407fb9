"""Commands in README.md, CONTRIBUTING.md and docs/*.md: fenced blocks, their marks, and code spans.

A block that is run has a comment, which no reader sees, on the line above its fence:

    <!-- run -->             each line is a command; a Python block is a script
    <!-- file: a/b.py -->    a Python block is written to that file, for the commands after it
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(r"^(?:<!-- (?P<mark>.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
PYTHON = re.compile(r"(?:source <\()?(?:[A-Z_]+=\S+ )*(?:python|torchrun|lssvwm) \S")


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is the comment above it, "" where there is none."""

    language: str
    mark: str
    text: str

    def commands(self) -> list[str]:
        """Its lines without comments; none of a Python block."""
        lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line and self.language not in ("python", "toml")]


def blocks() -> Iterator[Block]:
    """All blocks, in order."""
    for path in DOCUMENTS:
        for found in BLOCK.finditer(path.read_text()):
            yield Block(found["language"], found["mark"] or "", found["text"])


def commands(marked: bool = False) -> list[str]:
    """Commands of all blocks, or of those marked `run`, each once."""
    chosen = (block for block in blocks() if block.mark == "run" or not marked)
    return list(dict.fromkeys(command for block in chosen for command in block.commands()))


def inline_commands() -> list[str]:
    """Code spans that start Python."""
    texts = (BLOCK.sub("", path.read_text()) for path in DOCUMENTS)
    return [span for text in texts for span in INLINE.findall(text) if PYTHON.match(span)]


def scripts() -> list[str]:
    """Python blocks marked `run`."""
    return [block.text for block in blocks() if block.mark == "run" and block.language == "python"]


def files() -> dict[str, str]:
    """Contents of the Python blocks marked `file: PATH`, by path."""
    return {block.mark.removeprefix("file: "): block.text for block in blocks() if block.mark.startswith("file: ")}
