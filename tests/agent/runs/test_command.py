"""The command `lssvwm`, and commands in a folder that holds packages of the names of ours."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agent.runs import command

ROOT = Path(__file__).parents[3]
TRAIN = "--env gym:CartPole-v1 --preset debug --steps 104 --train.replay-ratio 0.5 --run-dir run".split()


def script() -> str:
    """What the installer makes of the entry point."""
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["lssvwm"]
    module, function = entry.split(":")
    return f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with packages of all our names that cannot be imported."""
    for name in ("agent", "envs", "eval", "replay", "worldmodel"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lssvwm").write_text(script())
    return tmp_path / "work"


def run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], cwd=folder, text=True, capture_output=True)


def test_the_console_command_runs_where_folders_have_our_names(folder: Path):
    lssvwm = folder.parent / "bin" / "lssvwm"
    trained = run(folder, lssvwm, "train", *TRAIN)
    assert trained.returncode == 0, trained.stderr
    evaluated = run(folder, lssvwm, "eval", "returns", "run", "--episodes", "2")
    assert evaluated.returncode == 0 and "over 2 episodes" in evaluated.stdout, evaluated.stderr


def test_the_script_runs_where_folders_have_our_names(folder: Path):
    trained = run(folder, ROOT / "train_agent.py", *TRAIN)
    assert trained.returncode == 0, trained.stderr


@pytest.mark.parametrize("hidden", ["agent", "envs", "replay", "worldmodel"])
def test_a_hidden_package_is_one_line(tmp_path: Path, hidden: str):
    (tmp_path / hidden).mkdir()  # without __init__.py too
    done = run(tmp_path, "-m", "eval.returns", "run")
    line = f"{tmp_path / hidden} hides lssvwm's package {hidden}: run this from another folder, or use `lssvwm eval`\n"
    assert (done.returncode, done.stderr) == (1, line)


@pytest.mark.parametrize(
    ("words", "listed"),
    [
        ([], ["train", "collect", "eval"]),
        (["eval"], ["ablate", "openloop", "play", "probe", "report", "retention", "returns"]),
        (["eval", "--help"], ["returns"]),
    ],
)
def test_without_a_name_it_lists_what_there_is(words: list[str], listed: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    usage, *lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0 and usage.startswith("usage: lssvwm ")
    assert set(listed) <= {line.split()[0] for line in lines} and all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("words", [["trian"], ["eval", "retruns"]])
def test_an_unknown_name_is_refused_with_the_list(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and not out and err.startswith(f"lssvwm: no command {words[-1]!r}\nusage: ")
