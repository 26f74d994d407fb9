"""The console command `lssvwm`, which runs `train_agent`, `replay.collect` and the tools of `eval` by short names.

Beside it stay `python train_agent.py`, `python -m replay.collect` and `python -m eval.NAME`.
"""

import ast
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {"train": "train_agent", "collect": "replay.collect"}


def main(argv: list[str] | None = None) -> None:
    """The command, by default with the process's own arguments. Without a name it lists what there is, and exits."""
    words = sys.argv[1:] if argv is None else list(argv)
    name = words.pop(0) if words else ""
    if name in COMMANDS:
        _run(COMMANDS[name], words)
    tools = _tools()
    if name == "eval":
        tool = words.pop(0) if words else ""
        if tool in tools:
            _run(tools[tool], words)
        _list("usage: lssvwm eval NAME [options]; lssvwm eval NAME --help", tools, tool)
    _list("usage: lssvwm COMMAND [options]; lssvwm COMMAND --help", COMMANDS | {"eval": "eval"}, name)


def _tools() -> dict[str, str]:
    """Modules of `eval` that are commands, by name."""
    files = [*(ROOT / "eval").glob("*.py"), *(ROOT / "eval").glob("*/__main__.py")]
    names = sorted(f.parent.name if f.name == "__main__.py" else f.stem for f in files if _is_command(f))
    return {name: f"eval.{name}" for name in names}


def _is_command(file: Path) -> bool:
    return '\nif __name__ == "__main__":' in file.read_text(encoding="utf-8")


def _list(usage: str, modules: dict[str, str], unknown: str) -> None:
    """Prints the modules, a line each, and exits; with 2 where a name is unknown."""
    lines = [usage, *(f"  {name:<12}{_summary(module)}" for name, module in modules.items())]
    if unknown and unknown not in ("-h", "--help"):
        print("\n".join([f"lssvwm: no command {unknown!r}", *lines]), file=sys.stderr)
        raise SystemExit(2)
    print("\n".join(lines))
    raise SystemExit(0)


def _summary(module: str) -> str:
    """The first sentence of a module's docstring; nothing is imported."""
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__main__.py", path / "__init__.py")
    file = next(candidate for candidate in candidates if candidate.exists())
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def _run(module: str, words: list[str]) -> None:
    """Runs a module as `python -m` does, and exits.

    Our packages are found before folders of the same names in the working folder, which comes last; worker processes
    leave it out.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    sys.path.append(os.getcwd())
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    raise SystemExit(0)
