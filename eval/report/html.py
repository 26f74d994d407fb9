"""The pieces of a page that stands alone: text (escaped), tables, figures in two widths, videos; no script."""

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

LARGEST = 8_000_000
"""Bytes of a file that is put into the page."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; max-width: 1080px;
       padding: 16px; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin: .3em 0; } h2 { font-size: 1.25rem; margin: 2em 0 .4em; border-top: 1px solid #ddd;
     padding-top: .8em; } h3 { font-size: 1rem; margin: 1.2em 0 .3em; }
nav a { margin-right: 1em; white-space: nowrap; } a { color: #0060a0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; margin: .5em 0; }
th, td { text-align: left; padding: .3em .8em .3em 0; border-bottom: 1px solid #e4e4e4; vertical-align: top;
         min-width: 4em; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.differs { background: #fff3d6; } tr.differs th::after { content: " \\2260"; color: #a05000; }
code { font-size: .85em; background: #f3f3f3; padding: .1em .3em; overflow-wrap: anywhere; }
.missing { color: #555; } figure { margin: .5em 0 1em; } figcaption { font-size: .875rem; color: #444; }
img, video { max-width: 100%; height: auto; display: block; } .figure img { width: 100%; }
video { background: #000; } img.strip { image-rendering: pixelated; }
.runs { display: flex; flex-wrap: wrap; gap: .2em 1.4em; font-size: .875rem; margin: .4em 0; }
.runs span { display: inline-block; width: 1.8em; border-top: 4px solid; margin-right: .4em;
                        vertical-align: middle; }
.share { display: flex; height: 1.1em; width: 100%; max-width: 620px; margin: .2em 0 .8em; }
.share div { height: 100%; border-right: 1px solid #fff; }
@media (max-width: 640px) { body { padding: 12px; font-size: 15px; } h2 { margin-top: 1.4em; } }
@media print { details { display: block; } }
"""


def text(words: object) -> str:
    """Any text, escaped."""
    return html.escape(str(words))


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def section(identity: str, title: str, parts: Iterable[str]) -> str:
    """A part with a heading."""
    return f'<section id="{text(identity)}">\n<h2>{text(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def paragraph(words: str) -> str:
    """Plain text."""
    return f"<p>{text(words)}</p>"


def missing(what: str, command: str = "") -> str:
    """What is left out, and the command that makes it."""
    return f'<p class="missing">{text(what)}' + (f": <code>{text(command)}</code>" if command else "") + "</p>"


def table(head: Sequence[object], rows: Iterable[Sequence[object]], marked: Sequence[bool] = ()) -> str:
    """A table that scrolls where it is too wide; numbers are aligned right; `marked` rows are highlighted."""
    cells = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    lines = []
    for i, (first, *rest) in enumerate(rows):
        kind = ' class="differs"' if i < len(marked) and marked[i] else ""
        lines.append(f'<tr{kind}><th scope="row">{text(first)}</th>' + "".join(map(_cell, rest)) + "</tr>")
    return f'<div class="scroll"><table>\n<tr>{cells}</tr>\n' + "\n".join(lines) + "\n</table></div>"


def _cell(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'<td class="number">{value:,.6g}</td>' if number else f"<td>{text(value)}</td>"


def legend(items: Iterable[tuple[str, str, str]]) -> str:
    """A line sample for each (name, colour, CSS border style)."""
    samples = (
        f'<div><span style="border-color: {colour}; border-top-style: {line}"></span>{text(name)}</div>'
        for name, colour, line in items
    )
    return f'<div class="runs">{"".join(samples)}</div>'


def share(name: str, shares: Mapping[str, float], colours: Mapping[str, str]) -> str:
    """A bar divided by shares of 1."""
    words = ", ".join(f"{part} {value:.0%}" for part, value in shares.items())
    parts = "".join(
        f'<div style="width: {100 * value:.2f}%; background: {colours[part]}"></div>' for part, value in shares.items()
    )
    return f'<div>{text(name)}</div><div class="share" role="img" aria-label="{text(words)}">{parts}</div>'


def figure(draw: Callable[[bool], Figure], words: str) -> str:
    """A drawing as SVG, wide and, by `draw(True)`, for a narrow screen; `words` describe it."""
    wide, narrow = (_data("image/svg+xml", _svg(draw(small))) for small in (False, True))
    return (
        f'<figure class="figure"><picture><source media="(max-width: 640px)" srcset="{narrow}">'
        f'<img src="{wide}" alt="{text(words)}"></picture></figure>'
    )


def _svg(drawing: Figure) -> bytes:
    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "report"}):  # the same figures give the same file
        drawing.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def image(path: Path, words: str) -> str:
    """A PNG of a run's folder."""
    return _within(path, lambda: f'<img class="strip" src="{_file("image/png", path)}" alt="{text(words)}">', words)


def video(path: Path, words: str) -> str:
    """An mp4, looped when played."""
    return _within(
        path,
        lambda: (
            f'<video controls loop muted playsinline preload="metadata" src="{_file("video/mp4", path)}" '
            f'aria-label="{text(words)}"></video>'
        ),
        words,
    )


def _within(path: Path, element: Callable[[], str], words: str) -> str:
    size = path.stat().st_size
    if size > LARGEST:
        return missing(
            f"{path} is left out: {size / 1e6:.0f} MB, and a page holds files of up to {LARGEST / 1e6:.0f} MB"
        )
    return f"<figure>{element()}<figcaption>{text(words)}</figcaption></figure>"


def _file(kind: str, path: Path) -> str:
    return _data(kind, path.read_bytes())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
