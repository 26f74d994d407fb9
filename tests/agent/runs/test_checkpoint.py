"""Checkpoints stay whole whatever happens, and damaged ones are found out."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from agent.runs import checkpoint
from agent.runs.checkpoint import DiskFull, load, load_latest, match, save
from agent.runs.flatten import (
    CheckpointError,
    flatten,
    optimizer_tensors,
    restore_optimizer,
    restore_rng,
    rng_state,
    unflatten,
)


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a": torch.full((2, 3), value), "b": torch.tensor(3, dtype=torch.int64)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path: Path):
    base = torch.arange(6.0)
    saved = {
        "bfloat16": torch.randn(3).bfloat16(),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 4),
        "shared": base,
        "shared too": base[2:],
        "strided": base.reshape(2, 3).T,
        "scalar": torch.tensor(2.5),
        "weight": torch.nn.Parameter(torch.ones(2)),
    }
    path = save(tmp_path / "checkpoints", 12_000, saved, {"episodes": 3, "nested": {"x": [1, None]}}, keep=2)
    assert path == tmp_path / "checkpoints/step-000012000"
    step, loaded, meta = load(path)
    assert (step, meta) == (12_000, {"episodes": 3, "nested": {"x": [1, None]}})
    assert loaded.keys() == saved.keys()
    for name, tensor in saved.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)


def test_the_last_few_are_kept(tmp_path: Path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, tensors(step), {}, keep=2)
    assert names(tmp_path) == ["step-000000003", "step-000000004"]
    latest = load_latest(tmp_path)
    assert latest is not None and latest[0] == 4


def test_nothing_there(tmp_path: Path):
    assert load_latest(tmp_path / "checkpoints") is None
    (tmp_path / "step-1.txt").write_text("not one")
    assert load_latest(tmp_path) is None


def damage_tensors(path: Path, change) -> None:
    file = path / checkpoint.TENSORS
    file.write_bytes(change(file.read_bytes()))


def rewrite_with_digest(path: Path, data: bytes) -> None:
    """As somebody who means harm would: the SHA-256 agrees."""
    (path / checkpoint.TENSORS).write_bytes(data)
    record = json.loads((path / checkpoint.META).read_text())
    record["sha256"] = hashlib.sha256(data).hexdigest()
    (path / checkpoint.META).write_text(json.dumps(record))


def hostile_header(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


DAMAGE = {
    "truncated": lambda path: damage_tensors(path, lambda data: data[:-5]),
    "empty": lambda path: damage_tensors(path, lambda data: b""),
    "bit rot": lambda path: damage_tensors(path, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "no tensors": lambda path: (path / checkpoint.TENSORS).unlink(),
    "no meta": lambda path: (path / checkpoint.META).unlink(),
    "meta is garbage": lambda path: (path / checkpoint.META).write_bytes(b"\xff\x00{"),
    "meta is torn": lambda path: (path / checkpoint.META).write_text('{"step": 5, "sha'),
    "meta is a list": lambda path: (path / checkpoint.META).write_text("[1]"),
    "meta lacks fields": lambda path: (path / checkpoint.META).write_text("{}"),
    "meta has wrong types": lambda path: (path / checkpoint.META).write_text('{"step": "5", "sha256": 1, "meta": 2}'),
    "meta is too deep": lambda path: (path / checkpoint.META).write_text("[" * 100_000),
    "a pickle": lambda path: rewrite_with_digest(path, b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."),
    "a huge header": lambda path: rewrite_with_digest(path, (2**62).to_bytes(8, "little") + b"{}"),
    "a header of garbage": lambda path: rewrite_with_digest(path, hostile_header(b"\xff\xfe")),
    "offsets out of range": lambda path: rewrite_with_digest(
        path, hostile_header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}')
    ),
    "an unknown dtype": lambda path: rewrite_with_digest(
        path, hostile_header(b'{"a":{"dtype":"EVIL","shape":[1],"data_offsets":[0,4]}}') + b"1234"
    ),
    "a folder in place of a file": lambda path: (
        (path / checkpoint.TENSORS).unlink(),
        (path / checkpoint.TENSORS).mkdir(),
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_and_the_one_before_is_taken(tmp_path: Path, kind: str):
    save(tmp_path, 4, tensors(4), {"n": 4}, keep=2)
    newest = save(tmp_path, 5, tensors(5), {"n": 5}, keep=2)
    DAMAGE[kind](newest)
    with pytest.raises(CheckpointError) as error:
        load(newest)
    assert str(newest) in str(error.value) and "\n" not in str(error.value)
    with pytest.warns(UserWarning, match="checkpoint passed over") as caught:
        latest = load_latest(tmp_path)
    assert latest is not None and (latest[0], latest[2]) == (4, {"n": 4})
    assert torch.equal(latest[1]["a"], tensors(4)["a"])
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert names(tmp_path) == ["step-000000004", "step-000000005"]


@given(cut=st.integers(0, 200), junk=st.binary(max_size=20))
def test_no_bytes_bring_anything_but_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
):
    path = save(tmp_path_factory.mktemp("run"), 1, tensors(), {}, keep=1)
    data = (path / checkpoint.TENSORS).read_bytes()
    rewrite_with_digest(path, data[:cut] + junk + data[cut + len(junk) :])
    try:
        load(path)
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_after_going_back_a_save_takes_the_damaged_ones_place(tmp_path: Path):
    save(tmp_path, 4, tensors(4), {}, keep=1)
    newest = save(tmp_path, 6, tensors(6), {}, keep=1)
    DAMAGE["bit rot"](newest)
    save(tmp_path, 5, tensors(5), {}, keep=1)
    assert names(tmp_path) == ["step-000000005"]
    save(tmp_path, 5, tensors(7), {}, keep=1)
    assert names(tmp_path) == ["step-000000005"]
    assert load(tmp_path / "step-000000005")[1]["a"][0, 0] == 7


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "agent.runs.checkpoint._write"])
@pytest.mark.parametrize("step", [4, 5])
def test_a_full_disk_leaves_the_last_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, step: int):
    save(tmp_path, 4, tensors(4), {}, keep=1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(DiskFull) as error:
        patched.setattr(call, full)
        save(tmp_path, step, tensors(5), {}, keep=1)
    assert "disk full" in str(error.value) and "\n" not in str(error.value)
    assert names(tmp_path) == ["step-000000004"]
    latest = load_latest(tmp_path)
    assert latest is not None and torch.equal(latest[1]["a"], tensors(4)["a"])
    save(tmp_path, 5, tensors(5), {}, keep=1)
    assert names(tmp_path) == ["step-000000005"]


def save_and_be_killed(folder: Path, step: int, at: int) -> None:
    """Save, and die by SIGKILL before the `at`-th call that changes the disk. In a forked process."""
    calls = 0

    def deadly(original):
        def wrapped(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        return wrapped

    for name in ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir"):
        setattr(os, name, deadly(getattr(os, name)))
    save(folder, step, tensors(9), {"n": 9}, keep=1)


def test_killed_at_any_moment_a_whole_checkpoint_stays(tmp_path: Path):
    # A step that is new, and one that takes the place of another.
    for step in (4, 5):
        died = 0
        for at in range(1, 40):
            folder = tmp_path / f"{step}-{at}"
            save(folder, 4, tensors(4), {"n": 4}, keep=1)
            pid = os.fork()
            if pid == 0:
                # A fork, not a fresh interpreter: importing torch thirty times over takes minutes.
                try:
                    save_and_be_killed(folder, step, at)
                    os._exit(0)
                except BaseException:
                    os._exit(1)
            status = os.waitpid(pid, 0)[1]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                latest = load_latest(folder)
            assert latest is not None and (latest[0], latest[2]["n"]) in {(4, 4), (step, 9)}
            save(folder, 6, tensors(6), {}, keep=1)
            assert names(folder) == ["step-000000006"]
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0
                break
            died += 1
            assert os.WTERMSIG(status) == signal.SIGKILL
        assert died > 5 and os.WIFEXITED(status)


def test_reading_runs_no_code(tmp_path: Path):
    path = save(tmp_path, 1, tensors(), {}, keep=1)
    DAMAGE["a pickle"](path)
    script = f"from agent.runs.checkpoint import load; from pathlib import Path; load(Path({str(path)!r}))"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert "CheckpointError" in done.stderr and not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": (2, 3)}, "checkpoint lacks tensor b (4,)"),
        ({"a": (2, 4), "b": (4,)}, "checkpoint's tensor a is (2, 4), expected (2, 3)"),
        ({"a": (2, 3), "b": (4,), "c": (1,)}, "checkpoint has a tensor too many: c (1,)"),
    ],
)
def test_match_names_the_first_difference(found: dict[str, tuple[int, ...]], message: str):
    expected = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    match(expected, expected)
    with pytest.raises(CheckpointError) as error:
        match({name: torch.zeros(shape) for name, shape in found.items()}, expected)
    assert str(error.value) == message


leaves = st.integers(-9, 9).map(torch.tensor)
trees = st.recursive(
    st.dictionaries(st.text(max_size=4), leaves, min_size=1, max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=4), inner | leaves, min_size=1, max_size=3),
    max_leaves=8,
)


@given(trees)
def test_flatten_round_trips(tree):
    flat = flatten("state", tree)
    assert all(name.startswith("state/") for name in flat)
    assert unflatten("state", flat | {"states/a": torch.tensor(0), "other": torch.tensor(0)}) == tree


def test_flatten_takes_tensordicts():
    state = TensorDict({"h": torch.ones(2, 3), "mixers": {"0": {"ssm": torch.zeros(2, 4)}}}, batch_size=[2])
    flat = flatten("state", state)
    assert flat.keys() == {"state/h", "state/mixers/0/ssm"}
    back = TensorDict(unflatten("state", flat), batch_size=[2])
    assert (back == state).all()


def test_flatten_refuses_what_is_not_a_tensor():
    with pytest.raises(TypeError, match="p/a/b: a leaf must be a tensor, got int"):
        flatten("p", {"a": {"b": 3}})
    with pytest.raises(TypeError, match="names must be texts"):
        flatten("p", {3: torch.tensor(1)})  # type: ignore[dict-item]


@pytest.mark.parametrize("flat", [("p/a", "p/a/b"), ("p/a/b", "p/a")])
def test_unflatten_refuses_names_that_contradict(flat: tuple[str, ...]):
    with pytest.raises(CheckpointError, match="p/a"):
        unflatten("p", {name: torch.tensor(0) for name in flat})


def network_and_optimizer() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    groups = [{"params": network[0].parameters(), "lr": 0.03}, {"params": network[2].parameters()}]
    return network, torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9))


def train(network: torch.nn.Module, optimizer: torch.optim.Optimizer, updates: int) -> None:
    for _ in range(updates):
        optimizer.zero_grad()
        network(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()


def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path: Path):
    network, optimizer = network_and_optimizer()
    train(network, optimizer, 3)
    parts, groups = optimizer_tensors("optimizer", optimizer)
    saved = flatten("network", network.state_dict()) | parts | rng_state("rng")
    save(tmp_path, 3, saved, {"optimizer": groups}, keep=1)
    train(network, optimizer, 3)
    whole = [parameter.detach().clone() for parameter in network.parameters()]

    latest = load_latest(tmp_path)
    assert latest is not None
    _, loaded, meta = latest
    again, fresh = network_and_optimizer()
    again.load_state_dict(unflatten("network", loaded))
    restore_optimizer("optimizer", fresh, loaded, meta["optimizer"])
    restore_rng("rng", loaded)
    train(again, fresh, 3)
    for one, two in zip(again.parameters(), whole, strict=True):
        assert torch.equal(one, two)
    assert [group["lr"] for group in fresh.param_groups] == [0.03, 0.01]


def test_an_optimizers_state_of_other_parameters_is_refused():
    network, optimizer = network_and_optimizer()
    train(network, optimizer, 1)
    parts, groups = optimizer_tensors("o", optimizer)
    _, fresh = network_and_optimizer()
    with pytest.raises(CheckpointError, match="not this optimiser's"):
        restore_optimizer("o", fresh, parts, groups[:1])
    with pytest.raises(CheckpointError, match="damaged"):
        restore_optimizer("o", fresh, parts, "groups")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"o/0/exp_avg: is not of the parameter's shape \(4, 3\)"):
        restore_optimizer("o", fresh, parts | {"o/0/exp_avg": torch.zeros(7)}, groups)
    with pytest.raises(CheckpointError, match="o/9: is not the state of one of 4 parameters"):
        restore_optimizer("o", fresh, {"o/9/step": torch.tensor(1.0)}, groups)
    assert not fresh.state_dict()["state"]


def test_a_damaged_random_state_is_refused():
    for tensors in ({}, {"rng/torch": torch.zeros(3, dtype=torch.uint8)}, {"rng/torch": torch.zeros(3)}):
        with pytest.raises(CheckpointError, match="rng: random state is damaged"):
            restore_rng("rng", tensors)
