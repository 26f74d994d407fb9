"""When things are due, and runs that are interrupted at their worst moments."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.logging.means import Means
from agent.logging.sinks import read_metrics
from agent.runs.checkpoint import load_latest
from agent.runs.cli import parse
from agent.runs.fields import ConfigError
from agent.runs.folder import open_run
from agent.training import distributed, loop, offline, online
from agent.training.online import OnlineTraining
from agent.training.schedule import Schedule
from replay import Replay


def test_due_once_a_period_and_once_at_the_end():
    schedule = Schedule({"save": 10}, end=25)
    done = []
    for step in range(0, 27, 3):
        if schedule.due("save", step):
            done.append(step)
            schedule.done("save", step)
    assert done == [12, 21]
    assert schedule.due("save", 27) and not schedule.due("save", 24)
    schedule.done("save", 27)
    assert not schedule.any_due(27)
    schedule.restore({}, 27)
    assert not schedule.any_due(27)
    longer = Schedule({"save": 10}, end=40)
    longer.restore(schedule.last, 27)
    assert not longer.due("save", 29) and longer.due("save", 30) and longer.due("save", 41)


def test_means_pass_over_what_is_no_number():
    means = Means()
    for value in (1.0, float("nan"), 4.0):
        means.add({"loss": torch.tensor(value), "half": torch.tensor(value / 2)} if value == value else {})
    means.add({"loss": torch.tensor(float("inf"))})
    assert means.updates == 4 and means.take() == {"loss": 2.5, "half": 1.25}
    assert means.updates == 0 and means.take() == {}


def made(folder: Path, *options: str) -> OnlineTraining:
    words = ["--env", "gym:CartPole-v1", "--preset", "debug", "--run-dir", str(folder), *options]
    config = parse(words)
    return OnlineTraining(config, open_run(config))


def test_an_interrupted_evaluation_at_the_end_is_made_up_for(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    config = parse(["--env", "gym:CartPole-v1", "--preset", "debug", "--steps", "240", "--run-dir", str(tmp_path)])
    with monkeypatch.context() as patched:
        patched.setattr(loop, "evaluate", interrupt)
        patched.setattr(config.train, "eval_every", 1_000)
        with pytest.raises(KeyboardInterrupt):
            online.train(config, open_run(config))
    assert not any("eval/return" in row for row in read_metrics(tmp_path / "metrics.jsonl"))
    online.train(config, open_run(config))
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "eval/return" in row]
    assert len(rows) == 1 and rows[0]["step"] >= 240 and (tmp_path / "plots/returns.png").exists()


def test_an_interrupted_update_is_done_again(tmp_path, monkeypatch):
    """Places and State of the sampler stay together, whatever is interrupted."""
    run = made(tmp_path, "--steps", "400")
    update = run.learner.update

    def interrupted(*given, **named):
        if run.learner.updates == 3:
            raise KeyboardInterrupt
        return update(*given, **named)

    monkeypatch.setattr(run.learner, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    places, state = run.sampler.sampler.state_dict(), run.sampler.sampler.state["h"].clone()
    run.close()
    again = made(tmp_path)
    again.close()
    assert again.learner.updates == 3 and again.sampler.sampler.state_dict() == places
    assert torch.equal(again.sampler.sampler.state["h"], state)


def test_a_run_killed_before_its_first_checkpoint_collects_other_episodes(tmp_path):
    for _ in range(2):
        run = made(tmp_path)
        while run.step < 90:  # prefill
            run.advance()
        run.close()
    replay = Replay(tmp_path / "episodes", 10_000)
    first = [replay.get(name).observation[0] for name in replay.names()]
    assert len(first) > 2 and len(np.unique(first, axis=0)) == len(first)


def test_one_process_goes_on_at_its_own_pace_where_four_were(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(distributed, "processes", lambda: 4)
        run = made(tmp_path, "--steps", "300")
        while run.step < 260:
            run.advance()
        run.save()
        run.close()
    assert run.learner.updates == pytest.approx((260 - 100) * 8 / 32 / 4, abs=1)
    alone = made(tmp_path)
    before = alone.learner.updates
    alone.advance()
    alone.close()
    assert alone.learner.updates - before <= 1
    found = load_latest(tmp_path / "checkpoints")
    assert found is not None and found[2]["processes"] == 4


def test_steps_and_updates_are_not_taken_for_one_another(tmp_path):
    run = made(tmp_path / "acts", "--steps", "60")
    run.run()
    run.close()
    with pytest.raises(ConfigError, match="give another folder"):
        offline.train_offline(run.config, tmp_path / "acts", tmp_path / "acts/episodes", 100)
    config = parse(["--env", "gym:CartPole-v1", "--preset", "debug", "--run-dir", str(tmp_path / "offline")])
    offline.train_offline(config, open_run(config), tmp_path / "acts/episodes", 3)
    with pytest.raises(ConfigError, match="in updates: give another --run-dir"):
        made(tmp_path / "offline")
