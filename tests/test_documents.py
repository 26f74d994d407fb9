"""The commands of README.md, CONTRIBUTING.md and docs/, run as printed but at a small size, in a folder of their own.

`tests.documents` says which blocks are run. RUN, NAME and `[RUN ...]` stand for what earlier commands make. Where a
command has an option twice, the last one counts: so is it made small.
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

import worldmodel
from agent.runs.config import AGENTS, unchecked
from agent.runs.fields import fields
from tests import documents

NOT_RUN = {
    "pip install 'setuptools>=77' wheel packaging ninja": "needs the network",
    "pip install --no-build-isolation -e '.[cuda]'": "needs nvcc and the network",
    "pip install -e '.[play]'": "needs the network; `make test` has installed it",
    "torchrun --standalone --nproc-per-node 4 train_agent.py --env MemoryMaze": "four processes that draw mazes; "
    "tests/agent/training/test_distributed.py has two under torchrun",
    "tensorboard --logdir runs": "a server of another package",
    "wandb sync RUN/wandb/offline-run-*": "needs an account",
    'train_agent.py() { python train_agent.py "$@"; }': "a shell function",
    "python -m eval.play RUN --port 8000": "the port may be taken",
    "python train_agent.py --env gym:CartPole-v1 --worldmodel mine --preset debug": "`mine` is the reader's; the same "
    "with examples.minimal_gru is run",
}
"""Commands of the documents that are not run here, with the reason."""

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
    "python -m replay.collect --env MemoryMaze --episodes 40 --policy waypoints --out data/maze",
]
"""What makes MAZE_RUN, RUN, OTHER_RUN and data/maze."""


@dataclass(frozen=True)
class Case:
    """What goes for each command in which `pattern` is found."""

    pattern: str
    small: str = ""
    """Options that make it small, appended."""
    prints: str = ""
    """A pattern in its output."""
    leaves: tuple[str, ...] = ()
    """Files that it must leave."""


MADE = ("config.yaml", "metrics.jsonl", "plots/returns.png", "checkpoints/step-000000080", "videos/openloop.mp4")
CASES = [
    Case(r"(train_agent.py|lssvwm train) --env", "--preset debug --steps 80 --envs 1", r"80/80|80 steps already"),
    Case(r"--agent ppo", "--agent.batch-size 16"),
    Case(r"train(_agent.py)? --env (?!.*--agent)", "--train.prefill 70 --train.replay-ratio 2 --train.log-every 1"),
    Case(r"--env MemoryMaze( |-.*)--worldmodel", "--env ObjectRecall:size=32,delay=50"),  # a maze takes long to begin
    Case(
        r"--env MemoryMaze$",
        f"--env MemoryMaze:time_limit=60 --run-dir {MAZE_RUN}",
        "",
        tuple(f"{MAZE_RUN}/{name}" for name in MADE),
    ),
    Case(r"--env MemoryMaze-15x15", f"--run-dir {RUN}"),
    Case(r"--worldmodel mamba", f"--run-dir {OTHER_RUN}"),
    Case(r"--replay.batch-length", "--replay.batch-size 2 --replay.batch-length 16 --env ObjectRecall:size=32,delay=2"),
    Case(r"quick_tour", prints=r"the same features, True", leaves=("runs/quick-tour/dream.png",)),
    Case(r"eval.plot", prints=r"returns\.png", leaves=("returns.png",)),
    Case(r"eval.report", prints=r"report\.html", leaves=("report.html",)),
    Case(r"eval.returns", "--episodes 1 --envs 1", r"return: mean \d", (f"{RUN}/eval.json",)),
    Case(
        r"eval.ablate",
        "--worldmodels lssvwm --seeds 0 --episodes 1 --preset debug --steps 40 --envs 1 --train.prefill 20 "
        "--train.replay-ratio 1",
        r"ablation\.png",
        ("runs/ablation/ablation.json", "runs/ablation/ablation.png"),
    ),
    Case(r"eval.dream_ppo", "--steps 64 --dreams 4 --horizon 8 --episodes 1 --envs 1", r"the run's own agent +\d"),
    Case(
        r"eval.openloop",
        "--episodes 1 --horizon 5",
        r"reconstruction( +\d+\.\d){5}",
        (f"{RUN}/plots/openloop.png", f"{RUN}/videos/heldout.mp4"),
    ),
    Case(
        r"eval.retention",
        "--updates 1 --data 2 --episodes 1 --delays 2 --no-match-parameters --preset debug",
        r"retention\.png",
        ("runs/retention/retention.json", "runs/retention/retention.png"),
    ),
    Case(
        r"eval.probe",
        "--hidden 16 --layers 1 --updates 5",
        r"never in view( +\d+\.\d+){2}",
        (f"{MAZE_RUN}/probe.json", f"{MAZE_RUN}/plots/probe.png"),
    ),
    Case(r"replay.collect", "--episodes 3 --steps 40 --workers 1", r"3 episodes collected"),
    Case(r"benchmark envs", "--steps 20", r"MemoryMaze( +\d+\.\d+){3}"),
    Case(r"benchmark update", "--preset debug --batch 1 --frames 16 --repeats 1", r"frames_per_s +\d"),
    Case(r"benchmark scaling", "--models lssvwm --lengths 16", r"lssvwm +16( +\d+\.\d){2}", ("scaling.png",)),
    Case(r"benchmark remat", "--windows 1x32 --segments 0 16 --size 32 --rounds 1", r"1x32 +16( +\d+(\.\d+)?){3}"),
    Case(r"benchmark kernels", "--rounds 1", r"rms_norm"),
    Case(r"benchmark (dream|act)", "--preset debug --histories 64 --rounds 1", r"\n1 +\d+\.\d+"),
    Case(r"pytest", "-q -p no:cacheprovider", r"\d+ passed"),
    Case(r"^source", "; complete -p train_agent.py", r"complete -.* train_agent.py"),
]

PRINTED = [command for command in documents.commands(marked=True) if command not in NOT_RUN]
COMMANDS = [command for command in PRINTED if "eval.play" not in command]
PLAIN_PYTHON = re.compile(r"([A-Z_]+=\S+ )*python [^;|&<>]*$")


def cases(command: str) -> list[Case]:
    """The cases of a printed command."""
    return [case for case in CASES if re.search(case.pattern, command)]


def named(command: str) -> str:
    """A printed command with names for its placeholders."""
    for placeholder, name in STANDS_FOR:
        command = re.sub(placeholder, name, command)
    return command


SERVERS = list(dict.fromkeys(named(command) for command in PRINTED if "eval.play" in command))


@dataclass
class Checkout:
    """A folder from which commands run as in a clone; what they write stays there."""

    folder: Path
    launcher: subprocess.Popen[str]
    outputs: dict[str, str] = field(default_factory=dict)

    def run(self, command: str) -> str:
        """The output of a printed command, made small; it runs once and must succeed."""
        if command not in self.outputs:
            words = " ".join([named(command), *(case.small for case in cases(command) if case.small)])
            status, output = self._python(words) if PLAIN_PYTHON.match(words) else self._bash(words)
            assert status == 0, f"{words}\n{output}"
            self.outputs[command] = output
        return self.outputs[command]

    def _python(self, command: str) -> tuple[int, str]:
        """`[NAME=VALUE ...] python WORDS`, by the launcher."""
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
            env=environment(self.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout


def environment(folder: Path) -> dict[str, str]:
    """With this Python as `python`, which finds modules in the folder that the command runs in."""
    sizes = {"UPDATES": "5", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}  # UPDATES: of examples/quick_tour.py
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": "."} | sizes


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The repository's code by links, the console command, the documents' own files, and what `FIRST` makes."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("agent", "envs", "eval", "examples", "replay", "tests", "worldmodel", "train_agent.py"):
        (folder / name).symlink_to(documents.ROOT / name)
    console = f"#!{sys.executable}\nfrom agent.runs.command import main\n\nmain()\n"  # as an installer writes it
    for name, text in {**documents.files(), "bin/lssvwm": console}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "bin" / "lssvwm").chmod(0o755)
    launcher = subprocess.Popen(
        [sys.executable, documents.ROOT / "tests" / "warm_python.py"],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with launcher:
        made = Checkout(folder, launcher)
        for command in FIRST:
            made.run(command)
        yield made


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_as_printed(checkout: Checkout, command: str):
    output = checkout.run(command)
    expected = [case.prints for case in cases(command) if case.prints]
    assert expected, "no case says what it prints"
    assert [pattern for pattern in expected if not re.search(pattern, output)] == [], output
    left = [path for case in cases(command) for path in case.leaves]
    assert [path for path in left if not (checkout.folder / path).exists()] == []


@pytest.mark.parametrize("command", SERVERS)
def test_server_gives_its_page_and_stops(checkout: Checkout, command: str):
    server = subprocess.Popen(
        shlex.split(command),
        cwd=checkout.folder,
        env=environment(checkout.folder),
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
def test_python_in_a_document_runs(checkout: Checkout, number: int):
    """It ends with a decoded frame of the size that its comment says."""
    checked = "assert frame.shape == (1, 64, 64, 3) and 0 <= frame.min() < frame.max() <= 1"
    (checkout.folder / f"script_{number}.py").write_text(f"{documents.scripts()[number]}\n{checked}\n")
    checkout.run(f"python script_{number}.py")


PAGES = [*documents.DOCUMENTS, documents.ROOT / "CHANGELOG.md", *(documents.ROOT / "docs" / "results").glob("*.md")]
OPTION = re.compile(r"--((?:worldmodel|agent|replay|train)\.[a-z][a-z_-]*[a-z])\b(?!<)")
LINK = re.compile(r"\]\(([^)#:]+)[^):]*\)")


def test_documents_have_no_faults():
    known = {name for model in worldmodel.MODELS for agent in AGENTS for name in fields(unchecked(model, agent))}
    texts = {page: page.read_text() for page in PAGES}
    most = {page: 120 if page.parent.name == "results" else 150 for page in PAGES}
    most |= {documents.ROOT / "README.md": 130}
    inline = {*documents.inline_commands()} - {*NOT_RUN}
    python = {command for command in documents.commands() if documents.PYTHON.match(command)}
    faults = {
        "options of no configuration": {o for t in texts.values() for o in OPTION.findall(t)}
        - {name.replace("_", "-") for name in known},
        "broken links": {
            link for page, text in texts.items() for link in LINK.findall(text) if not (page.parent / link).exists()
        },
        "longer than they may be": {page.name for page, text in texts.items() if text.count("\n") > most[page]},
        "neither run nor in NOT_RUN": python - {*PRINTED, *NOT_RUN},
        "in a sentence, and the beginning of none that is run": {
            i for i in inline if not any(c.startswith(i) for c in PRINTED)
        },
        "in NOT_RUN alone": {*NOT_RUN} - {*documents.commands(), *documents.inline_commands()},
        "cases of no command": {case.pattern for case in CASES if not any(re.search(case.pattern, c) for c in PRINTED)},
    }
    assert {what: found for what, found in faults.items() if found} == {}
