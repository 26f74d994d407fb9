"""What README.md and docs/*.md tell a reader to type: fenced blocks, their marks, and the commands in them.

A block that is to be run has a comment, which no reader sees, on the line above its fence:

    <!-- run -->             each line is a command; a Python block is a script
    <!-- file: a/b.py -->    a Python block is written to that file, for the commands after it
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(r"^(?:<!-- (?P<mark>.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
PYTHON = re.compile(r"(?:source <\()?(?:[A-Z_]+=\S+ )*(?:python|torchrun) \S")


@dataclass(frozen=True)
class Block:
    """A fenced block: `mark` is what the comment above it says, "" where there is none."""

    document: str
    language: str
    mark: str
    text: str

    def commands(self) -> list[str]:
        """Its lines without comments, of one that is not Python."""
        lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line and self.language not in ("python", "toml")]


def blocks() -> Iterator[Block]:
    """All of them, in order."""
    for path in DOCUMENTS:
        for found in BLOCK.finditer(path.read_text()):
            yield Block(path.name, found["language"], found["mark"] or "", found["text"])


def marked() -> list[str]:
    """Commands of the blocks marked `run`, each once."""
    return list(dict.fromkeys(c for block in blocks() if block.mark == "run" for c in block.commands()))


def scripts() -> list[Block]:
    """Python blocks marked `run`."""
    return [block for block in blocks() if block.mark == "run" and block.language == "python"]


def files() -> dict[str, str]:
    """Contents of the Python blocks marked `file: PATH`, by path."""
    marks = ((block, block.mark.partition("file: ")) for block in blocks())
    return {path: block.text for block, (_, file, path) in marks if file}


def python_commands() -> set[str]:
    """All commands in blocks, marked or not, that start Python."""
    return {command for block in blocks() for command in block.commands() if PYTHON.match(command)}


def inline_commands() -> set[str]:
    """Those that stand within a sentence or a table."""
    texts = (BLOCK.sub("", path.read_text()) for path in DOCUMENTS)
    return {span for text in texts for span in INLINE.findall(text) if PYTHON.match(span)}
