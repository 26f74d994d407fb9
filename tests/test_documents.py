"""Every command that README.md and docs/ tell a reader to type, run as printed but small, in a folder of its own.

Which blocks are run their marks say: see `tests.documents`. RUN, NAME and `[RUN ...]` stand for what earlier commands
of the same documents made. Where one command has two values of an option, the last counts: so is it made small.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import documents

NOT_RUN = {
    "pip install -e '.[cuda]'": "needs nvcc and the network",
    "pip install -e '.[play]'": "needs the network; `make test` has installed it",
    "torchrun --standalone --nproc-per-node 4 train_agent.py --env MemoryMaze": "four processes that draw mazes; "
    "tests/agent/test_distributed.py has two under torchrun",
    "tensorboard --logdir runs": "a server of another package's",
    "wandb sync RUN/wandb/offline-run-*": "needs an account",
    'train_agent.py() { python train_agent.py "$@"; }': "a shell function",
    "python -m eval.play RUN --port 8000": "the port may be taken",
    "python train_agent.py --env gym:CartPole-v1 --worldmodel mine --preset debug": "`mine` is the reader's; the same "
    "with examples.minimal_gru is run",
}
"""Commands of marked blocks, and those in sentences, that are not run here, with the reason."""

MAZE_RUN, RUN, OTHER_RUN = "runs/MemoryMaze-lssvwm-s0", "runs/one", "runs/other"
STANDS_FOR = [
    (r"(?<=eval.probe )RUN\b", MAZE_RUN),
    (r"\[RUN \.\.\.\]", OTHER_RUN),
    (r"\bRUN\b", RUN),
    (r"\bNAME\b", "counting.environment:Count"),
]

TRAIN = "python train_agent.py --env MemoryMaze"
FIRST = [
    TRAIN,
    f"{TRAIN}-15x15 --seed 1 --worldmodel.blocks 1x1,2x2",
    f"{TRAIN} --worldmodel mamba",
    "python -m replay.collect --env MemoryMaze --episodes 40 --policy waypoints --out data/walks",
]
"""What makes MAZE_RUN, RUN, OTHER_RUN and data/walks."""

SMALL = [
    (r"train_agent.py --env", "--preset debug --steps 80 --envs 1"),
    (r"--agent ppo", "--agent.batch_size 16"),
    (r"train_agent.py --env (?!.*--agent)", "--train.prefill 70 --train.replay_ratio 2 --train.log-every 1"),
    (r"--env MemoryMaze( |-.*)--worldmodel", "--env ObjectRecall:size=32,delay=50"),  # a maze takes seconds to begin
    (r"train_agent.py --env MemoryMaze$", f"--env MemoryMaze:time_limit=60 --run-dir {MAZE_RUN}"),
    (r"--env MemoryMaze-15x15", f"--run-dir {RUN}"),
    (r"--worldmodel mamba", f"--run-dir {OTHER_RUN}"),
    (r"--replay.batch_length", "--replay.batch_size 2 --replay.batch_length 16 --env ObjectRecall:size=32,delay=2"),
    (r"eval.returns", "--episodes 1 --envs 1"),
    (r"eval.dream_ppo", "--steps 64 --dreams 4 --horizon 8 --episodes 1 --envs 1"),
    (r"eval.openloop", "--episodes 1 --horizon 5"),
    (r"eval.ablate", "--worldmodels lssvwm --seeds 0 --episodes 1"),
    (r"eval.ablate", "--preset debug --steps 40 --envs 1 --train.prefill 20 --train.replay_ratio 1"),
    (r"eval.retention", "--updates 1 --data 2 --episodes 1 --delays 2 --no-match-parameters --preset debug"),
    (r"eval.probe", "--hidden 16 --layers 1 --updates 5"),
    (r"replay.collect", "--episodes 3 --steps 40 --workers 1"),
    (r"benchmark envs", "--steps 20"),
    (r"benchmark update", "--preset debug --batch 1 --frames 16 --repeats 1"),
    (r"benchmark scaling", "--models lssvwm --lengths 16"),
    (r"benchmark checkpointing", "--windows 1x32 --segments 0 16 --size 32 --rounds 1"),
    (r"benchmark (dream|act)", "--preset debug --histories 64 --rounds 1"),
    (r"pytest", "-q -p no:cacheprovider"),
    (r"^source", "; complete -p train_agent.py"),
]
"""What makes a command small: appended where the pattern is found, all that are."""

SAYS = [
    (r"train_agent.py --env", r"steps 8\d/80"),
    (r"quick_tour", r"the same features, True"),
    (r"train_agent.py --help", r"--worldmodel\.blocks"),
    (r"eval.plot", r"returns\.png"),
    (r"eval.report", r"report\.html"),
    (r"eval.returns", r"return: mean \d"),
    (r"eval.ablate", r"ablation\.png"),
    (r"eval.dream_ppo", r"the run's own agent +\d"),
    (r"eval.openloop", r"reconstruction( +\d+\.\d){5}"),
    (r"eval.retention", r"retention\.png"),
    (r"eval.probe", r"never in view( +\d+\.\d+){2}"),
    (r"replay.collect", r"3 episodes collected"),
    (r"benchmark envs", r"MemoryMaze( +\d+\.\d+){3}"),
    (r"benchmark update", r"frames_per_s +\d"),
    (r"benchmark scaling", r"lssvwm +16( +\d+\.\d){2}"),
    (r"benchmark checkpointing", r"1x32 +16( +\d+(\.\d+)?){3}"),
    (r"benchmark (dream|act)", r"\n1 +\d+\.\d+"),
    (r"pytest", r"\d+ passed"),
    (r"^source", r"complete -.* train_agent.py"),
]
"""What a command must print: the first line whose pattern is found in it."""

LEAVES = [
    (r"--env MemoryMaze$", [f"{MAZE_RUN}/{name}" for name in ("config.yaml", "metrics.jsonl", "plots/returns.png")]),
    (r"--env MemoryMaze$", [f"{MAZE_RUN}/checkpoints/step-000000080", f"{MAZE_RUN}/videos/openloop.mp4"]),
    (r"quick_tour", ["runs/quick-tour/dream.png"]),
    (r"eval.plot", ["returns.png"]),
    (r"eval.report", ["report.html"]),
    (r"eval.returns", [f"{RUN}/eval.json"]),
    (r"eval.ablate", ["runs/ablation/ablation.json", "runs/ablation/ablation.png"]),
    (r"eval.openloop", [f"{RUN}/plots/openloop.png", f"{RUN}/videos/heldout.mp4"]),
    (r"eval.retention", ["runs/retention/retention.json", "runs/retention/retention.png"]),
    (r"eval.probe", [f"{MAZE_RUN}/probe.json", f"{MAZE_RUN}/plots/probe.png"]),
    (r"--plot", ["scaling.png"]),
]
"""Files that a command must have left."""


def named(command: str) -> str:
    """A printed command with names for its placeholders."""
    for placeholder, name in STANDS_FOR:
        command = re.sub(placeholder, name, command)
    return command


EVERY = [command for command in documents.marked() if command not in NOT_RUN]
SERVERS = list(dict.fromkeys(named(command) for command in EVERY if "eval.play" in command))
COMMANDS = [command for command in EVERY if "eval.play" not in command]


@dataclass
class House:
    """A folder from which commands run as they do in a clone: what they write stays here."""

    folder: Path
    launcher: subprocess.Popen[str]
    said: dict[str, str] = field(default_factory=dict)

    def run(self, command: str) -> str:
        """What a printed command says, made small and run; once, however often it is asked for. It must succeed."""
        if command not in self.said:
            words = small(command)
            status, output = self._python(words) if PLAIN_PYTHON.match(words) else self._bash(words)
            assert status == 0, f"{words}\n{output}"
            self.said[command] = output
        return self.said[command]

    def _python(self, command: str) -> tuple[int, str]:
        """`[NAME=VALUE ...] python WORDS` by the launcher."""
        words = shlex.split(command)
        at = words.index("python")
        output = self.folder / "output.log"
        asked = {
            "words": words[at + 1 :],
            "environment": dict(word.split("=", 1) for word in words[:at]),
            "output": str(output),
        }
        assert self.launcher.stdin and self.launcher.stdout
        print(json.dumps(asked), file=self.launcher.stdin, flush=True)
        return int(self.launcher.stdout.readline()), output.read_text()

    def _bash(self, command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout


PLAIN_PYTHON = re.compile(r"([A-Z_]+=\S+ )*python [^;|&<>]*$")


def small(command: str) -> str:
    """The same with what makes it small."""
    return " ".join([named(command), *(words for pattern, words in SMALL if re.search(pattern, command))])


def environment() -> dict[str, str]:
    """With this Python as `python`, which finds modules in the folder that the command runs in."""
    sizes = {"UPDATES": "5", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}  # UPDATES: of examples/quick_tour.py
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": "."} | sizes


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The repository's code by links, the documents' own files, and what `FIRST` makes."""
    folder = tmp_path_factory.mktemp("house")
    for name in ("agent", "envs", "eval", "examples", "replay", "tests", "worldmodel", "train_agent.py"):
        (folder / name).symlink_to(documents.ROOT / name)
    for name, text in documents.files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    launcher = subprocess.Popen(
        [sys.executable, documents.ROOT / "tests" / "warm_python.py"],
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with launcher:
        made = House(folder, launcher)
        for command in FIRST:
            made.run(command)
        yield made


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_as_printed(house: House, command: str):
    output = house.run(command)
    expected = next(words for pattern, words in SAYS if re.search(pattern, command))
    assert re.search(expected, output), output
    for pattern, paths in LEAVES:
        if re.search(pattern, command):
            assert [path for path in paths if not (house.folder / path).exists()] == []


@pytest.mark.parametrize("command", SERVERS)
def test_server_gives_its_page_and_stops(house: House, command: str):
    server = subprocess.Popen(
        shlex.split(command),
        cwd=house.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # tests that run in the background of a shell have SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert server.stdout
        address = server.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=\S+", address), server.communicate()[1]
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"<canvas" in page.read()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address.partition("?")[0], timeout=30)
        server.send_signal(signal.SIGINT)
        assert "stopped" in server.communicate(timeout=60)[1] and server.returncode == 0
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("number", range(len(documents.scripts())))
def test_python_in_a_document_runs(house: House, number: int):
    """It ends with the decoded frame, a picture of the size that its comment says."""
    script = documents.scripts()[number]
    checked = "assert frame.shape == (1, 64, 64, 3) and 0 <= frame.min() < frame.max() <= 1"
    (house.folder / f"script_{number}.py").write_text(f"{script.text}\n{checked}\n")
    house.run(f"python script_{number}.py")


def test_no_command_in_a_document_goes_untested():
    """A new one is to be marked, or named in NOT_RUN with the reason."""
    assert documents.python_commands() - {*EVERY, *NOT_RUN} == set()


def test_a_command_in_a_sentence_begins_one_that_is_run():
    inline = documents.inline_commands() - {*NOT_RUN}
    assert {short for short in inline if not any(whole.startswith(short) for whole in EVERY)} == set()


def test_what_is_not_run_is_in_a_document():
    found = {command for block in documents.blocks() for command in block.commands()} | documents.inline_commands()
    assert NOT_RUN.keys() - found == set()


def test_each_small_size_is_of_some_command():
    """A table whose lines match nothing hides that a command has another name now."""
    patterns = [pattern for pattern, _ in SMALL + SAYS + LEAVES]
    assert [pattern for pattern in patterns if not any(re.search(pattern, command) for command in EVERY)] == []
