"""Commands in processes: order, places, what they say, how they fail, and that none is left behind."""

import os
import sys
from pathlib import Path

import pytest

from eval.ablate.jobs import Job, run

WAITS = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print('ready', os.getpid(), flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print('saved', flush=True)
    sys.exit(130)
"""


def python(tmp_path: Path, name: str, code: str) -> Job:
    return Job(name, lambda place: [sys.executable, "-c", code, str(place)], tmp_path / "logs" / f"{name}.log")


def test_in_order_one_at_a_time(tmp_path: Path):
    said: list[str] = []
    started = tmp_path / "started"
    code = f"import sys; n = open({str(started)!r}, 'a+'); n.seek(0); print(len(n.read()), *sys.argv[1:]); n.write('x')"
    assert run([python(tmp_path, name, code) for name in "abc"], 1, said.append) == {}
    assert said == ["a: 0 0", "b: 1 0", "c: 2 0"]
    assert (tmp_path / "logs" / "b.log").read_text() == "1 0\n"


def test_places_of_those_that_run_at_once_differ(tmp_path: Path):
    """Each of the first two waits until the other is there: run one after the other, they would never end."""
    code = (
        "import sys, time, pathlib; here = pathlib.Path({!r}); (here / sys.argv[1]).touch()\n"
        "while len(list(here.iterdir())) < 2: time.sleep(0.01)\n"
    ).format(str(tmp_path / "places"))
    (tmp_path / "places").mkdir()
    assert run([python(tmp_path, name, code) for name in "ab"], 2, lambda line: None) == {}
    assert sorted(path.name for path in (tmp_path / "places").iterdir()) == ["0", "1"]


def test_failures_are_told_by_their_last_line_and_stop_nothing(tmp_path: Path):
    said: list[str] = []
    failed = run(
        [
            python(tmp_path, "raises", "print('x'); raise ValueError('too wide')"),
            python(tmp_path, "silent", "raise SystemExit(3)"),
            python(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"),
            python(tmp_path, "good", "print('done', end='')"),
        ],
        1,
        said.append,
    )
    assert failed == {"raises": "ValueError: too wide", "silent": "exit 3", "killed": "killed by SIGKILL"}
    assert said[-1] == "good: done"


def test_an_old_log_is_added_to_and_not_said_again(tmp_path: Path):
    said: list[str] = []
    for _ in range(2):
        run([python(tmp_path, "a", "print('once')")], 1, said.append)
    assert said == ["a: once"] * 2
    assert (tmp_path / "logs" / "a.log").read_text() == "once\n" * 2


def test_an_interrupt_lets_them_save_and_leaves_none(tmp_path: Path):
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if sum("ready" in words for words in said) == 2 and "ready" in line:
            raise KeyboardInterrupt

    began = [python(tmp_path, name, WAITS) for name in ("a", "b")]
    with pytest.raises(KeyboardInterrupt):
        run([*began, python(tmp_path, "c", "print('never')")], 2, say)
    assert {"a: saved", "b: saved"} <= set(said) and "c: never" not in said
    for pid in [int(line.split()[-1]) for line in said if "ready" in line]:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_that_does_not_heed_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("eval.ablate.jobs.GRACE", 0.3)
    pids: list[int] = []

    def say(line: str) -> None:
        pids.append(int(line.split()[-1]))
        raise KeyboardInterrupt

    code = "import os, signal, time; signal.signal(2, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run([python(tmp_path, "deaf", code)], 1, say)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
