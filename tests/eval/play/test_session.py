"""A session against models and environments of the test's own; what keys mean; what the page is sent."""

import io
import json
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import envs
from agent.runs.checkpoint import CheckpointError
from agent.runs.fields import ConfigError
from agent.training.load import load_run
from eval.play.actions import describe
from eval.play.models import Models
from eval.play.session import Session
from replay import load_episode
from tests.eval.play_runs import ENV, made, one_hot
from worldmodel import State


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [made(folder / "first", seed=0), made(folder / "second", seed=1)]


@pytest.fixture
def session(runs):
    session = Session(Models(runs))
    ask(session, do="latents", sample=False)  # deterministic
    yield session
    session.close()


def ask(session: Session, **message) -> tuple[dict, list]:
    """The header, and the images: arrays, or lists of vectors."""
    data = session.do(message)
    length = int.from_bytes(data[:4], "big")
    header, at, images = json.loads(data[4 : 4 + length]), 4 + length, []
    for image in header["images"]:
        if "values" in image:
            images.append(image["values"])
            continue
        images.append(np.asarray(Image.open(io.BytesIO(data[at : at + image["bytes"]]))))
        at += image["bytes"]
    assert at == len(data)
    return header, images


def real_frames(env: str, seed: int, actions: list) -> list[np.ndarray]:
    environment = envs.make(env)
    frames = [environment.reset(seed=seed)[0]] + [environment.step(action)[0] for action in actions]
    environment.close()
    return frames


def observed(run: Path, observation: np.ndarray, action: np.ndarray) -> tuple:
    """The run's model, and its State after these rows (T, ...), in one call."""
    _, learner, _ = load_run(run)
    first = np.zeros((1, len(action)), bool)
    first[0, 0] = True
    arrays = {"observation": observation[None], "action": action[None], "is_first": first}
    nothing = {"reward": np.zeros((1, len(action)), np.float32), "terminated": np.zeros((1, len(action)), bool)}
    with torch.no_grad():
        batch = learner.batch(arrays | nothing)
        return learner.model, learner.model.observe(batch, learner.model.initial(1), sample=False).last_state


def imagined(model, state: State, actions: list[int]) -> State:
    with torch.no_grad():
        for action in actions:
            state = model.dream(state, torch.from_numpy(one_hot(action, model.actions))[None], sample=False)
    return state


def without_memory(model, state: State) -> State:
    return state.clone().update({"memory": model.initial(1)["memory"]})


def decoded(model, state: State) -> np.ndarray:
    with torch.no_grad():
        return (model.decode(model.feature(state))[0].clamp(0, 1) * 255).numpy()


def assert_shows(shown: np.ndarray, model, state: State) -> None:
    assert np.abs(shown - decoded(model, state)).max() < 1.1  # rounded


def test_imagination_is_the_models_own_after_the_same_frame_and_actions(session, runs):
    ask(session, do="new", frames=1, seed=5)
    shows = [ask(session, do="act", action=action) for action in (1, 3, 0)]
    header, (shown,) = shows[-1]
    assert not np.array_equal(shown, shows[0][1][0])
    model, start = observed(runs[0], real_frames(ENV, 5, [])[0][None], np.zeros((1, 4), np.float32))
    end = imagined(model, start, [1, 3, 0])
    assert_shows(shown, model, end)
    assert (header["observed"], header["imagined"], header["memory_frames"], header["step"]) == (1, 3, 4, 7)
    with torch.no_grad():
        feature = model.feature(end)
        assert header["reward"] == pytest.approx(float(model.reward(feature)), rel=1e-3)
        assert header["continue_prob"] == pytest.approx(float(model.continue_prob(feature)), rel=1e-3)


def test_norms_are_of_every_tensor_in_memory_by_layer(session, runs):
    ask(session, do="new", frames=1, seed=5)
    header, _ = ask(session, do="act", action=2)
    model, start = observed(runs[0], real_frames(ENV, 5, [])[0][None], np.zeros((1, 4), np.float32))
    memory = imagined(model, start, [2])["memory"]
    assert set(header["norms"]) == {"layer 1", "layer 2"}
    ssm = float(np.sqrt(np.square(memory["1", "0", "ssm"].numpy()).sum()))
    assert header["norms"]["layer 2"]["block_scan ssm"] == pytest.approx(ssm, rel=1e-3)
    assert set(header["norms"]["layer 1"]) == {
        "block_scan conv",
        "block_scan ssm",
        "local_attention kv",
    }  # but no flags


def test_resetting_memory_keeps_the_frame(session, runs):
    ask(session, do="new", frames=6, seed=5)
    before, (shown,) = ask(session, do="act", action=2)
    after, (same,) = ask(session, do="reset_memory")
    assert np.array_equal(shown, same)
    assert before["memory_frames"] == 7 and after["memory_frames"] == 0 and after["memory_resets"] == 1
    assert before["norms"]["layer 1"]["block_scan ssm"] > 0
    assert {value for layer in after["norms"].values() for value in layer.values()} == {0.0}
    # What follows comes from the frame's own features and the action.
    model, start = observed(runs[0], session.past.observation, session.past.action)
    _, (next_frame,) = ask(session, do="act", action=1)
    assert_shows(next_frame, model, imagined(model, without_memory(model, imagined(model, start, [2])), [1]))


@pytest.mark.parametrize("model", ["rssm", "examples.minimal_gru:MinimalGRU"])
def test_a_model_whose_h_is_its_memory_keeps_the_latents_at_a_reset(tmp_path, model):
    session = Session(Models([made(tmp_path / "run", "gym:CartPole-v1", model=model)]))
    ask(session, do="latents", sample=False)
    before, _ = ask(session, do="act", action=1)
    z = session.simulator.state["z"]
    after, _ = ask(session, do="reset_memory")
    assert before["norms"]["h"]["memory"] > 0 and after["norms"]["h"]["memory"] == 0
    assert torch.equal(session.simulator.state["z"], z)
    assert ask(session, do="act", action=1)[0]["memory_frames"] == 1
    session.close()


def test_real_environment_goes_under_the_same_actions_also_when_asked_for_late(session):
    ask(session, do="new", frames=1, seed=9)
    actions = [0, 1, 1, 2]
    for action in actions[:3]:
        ask(session, do="act", action=action)
    ask(session, do="real", on=True)
    header, (_, beside) = ask(session, do="act", action=actions[3])
    assert np.array_equal(beside, real_frames(ENV, 9, actions)[-1])
    assert header["real"]["reward"] == 0.0
    ask(session, do="restart")
    _, (_, again) = ask(session, do="act", action=3)
    assert np.array_equal(again, real_frames(ENV, 9, [3])[-1])
    assert len(ask(session, do="real", on=False)[1]) == 1


def test_real_environments_end_is_said(session):
    ask(session, do="new", frames=1, seed=9)
    ask(session, do="real", on=True)
    for _ in range(60):  # an episode is shorter
        header, _ = ask(session, do="act", action=0)
    assert "the episode has ended" in header["real"]["words"] and header["imagined"] == 60


def test_more_frames_are_observed_under_random_actions_and_a_restart_shows_them_again(session):
    header, (shown,) = ask(session, do="new", frames=12, seed=3)
    assert header["observed"] == header["memory_frames"] == 12 and "11 random actions" in header["past"]
    ask(session, do="act", action=0)
    again, (same,) = ask(session, do="restart")
    assert again["imagined"] == 0 and np.array_equal(shown, same)
    taken = session.past.action[1:].argmax(-1)
    assert np.array_equal(session.past.observation, np.stack(real_frames(ENV, 3, list(taken))))


def test_recorded_episode_is_observed_up_to_the_frame_asked_for(session, runs):
    episode = load_episode(next((runs[0] / "episodes").glob("*.npz")))
    header, (shown,) = ask(session, do="recorded", frames=25)
    model, state = observed(runs[0], episode.observation[:25], episode.action[:25])
    assert header["observed"] == 25 and "recorded episode 00000000-" in header["past"]
    assert_shows(shown, model, state)
    header, (_, beside) = ask(session, do="real", on=True)
    assert np.array_equal(beside, episode.observation[24]) and "cannot be set" in header["real"]["words"]
    assert ask(session, do="recorded", frames=2000)[0]["observed"] == len(episode)


def test_another_model_imagines_the_same_actions(session, runs):
    ask(session, do="new", frames=1, seed=5)
    ask(session, do="act", action=1)
    ask(session, do="reset_memory")
    ask(session, do="act", action=3)
    header, (shown,) = ask(session, do="model", index=1)
    model, state = observed(runs[1], real_frames(ENV, 5, [])[0][None], np.zeros((1, 4), np.float32))
    assert_shows(shown, model, imagined(model, without_memory(model, imagined(model, state, [1])), [3]))
    assert header["model"] == 1 and header["imagined"] == 2


def test_two_sessions_share_no_state(runs):
    models = Models(runs)
    one, other = Session(models), Session(models)
    for session in (one, other):
        ask(session, do="latents", sample=False)
    _, (before,) = ask(other, do="new", frames=1, seed=5)
    ask(one, do="new", frames=1, seed=5)
    for _ in range(5):
        ask(one, do="act", action=1)
    header, (after,) = ask(other, do="look")
    assert header["imagined"] == 0 and np.array_equal(before, after)
    _, (step,) = ask(other, do="act", action=2)
    model, state = observed(runs[0], real_frames(ENV, 5, [])[0][None], np.zeros((1, 4), np.float32))
    assert_shows(step, model, imagined(model, state, [2]))
    one.close()
    other.close()


def test_vectors_and_continuous_actions(tmp_path):
    session = Session(Models([made(tmp_path / "pendulum", "gym:Pendulum-v1")]))
    ask(session, do="new", frames=1, seed=2)
    ask(session, do="real", on=True)
    header, (imagined, beside) = ask(session, do="act", action=[-0.5])
    assert len(imagined) == 3 and beside == pytest.approx(real_frames("gym:Pendulum-v1", 2, [[-0.5]])[-1], abs=1e-3)
    for wrong in (0, [0.1, 0.2], [1.5], ["a"], [True], None):
        with pytest.raises(ConfigError, match="1 numbers from -1 to 1"):
            session.do({"do": "act", "action": wrong})
    session.close()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"do": "fly"}, "unknown command 'fly'"),
        ({}, "unknown command None"),
        ({"do": "act", "action": 4}, "from 0 to 3, not 4"),
        ({"do": "act", "action": -1}, "from 0 to 3, not -1"),
        ({"do": "act", "action": True}, "not True"),
        ({"do": "new", "frames": 0}, "frames wants a whole number from 1 to 2000"),
        ({"do": "new", "frames": 1e9}, "frames wants a whole number"),
        ({"do": "model", "index": 2}, "index wants a whole number from 0 to 1"),
    ],
)
def test_wrong_messages_are_refused_in_words_and_change_nothing(session, message, words):
    before, images = ask(session, do="look")
    with pytest.raises(ConfigError, match=words):
        session.do(message)
    after, same = ask(session, do="look")
    assert np.array_equal(images, same)
    assert {**before, "server_ms": 0} == {**after, "server_ms": 0}


def test_vanished_runs_broken_checkpoints_and_foreign_episodes_are_named(runs, tmp_path):
    copies = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    models = Models(copies)
    session = Session(models, episodes=made(tmp_path / "pole", "gym:CartPole-v1") / "episodes")
    with pytest.raises(ConfigError, match="pole.*not those of ObjectRecall.*--episodes"):
        session.do({"do": "recorded", "frames": 5})
    tensors = copies[1] / "checkpoints" / "step-000000007" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="second has no whole checkpoint yet; .*tensors.safetensors: damaged"):
        session.do({"do": "model", "index": 1})
    shutil.rmtree(copies[0])
    with pytest.raises(ConfigError, match="first holds no run"):
        session.do({"do": "newest"})
    assert ask(session, do="act", action=0)[0]["imagined"] == 1  # what is loaded goes on
    with pytest.raises(ConfigError, match="first.episodes holds no recorded episodes"):
        Session(models).do({"do": "recorded", "frames": 5})
    session.close()


def test_older_checkpoint_in_a_damaged_ones_place_is_said(runs, tmp_path, capsys):
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    newer = Path(shutil.copytree(run / "checkpoints" / "step-000000007", run / "checkpoints" / "step-000000009"))
    (newer / "tensors.safetensors").write_bytes(b"")
    loaded = Models([run]).get(0)
    assert loaded.step == 7 and "step-000000009" in loaded.note and "damaged" in loaded.note
    assert "step-000000009" in capsys.readouterr().err


def test_runs_of_different_environments_are_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="pole was made in gym:CartPole-v1, .*first in ObjectRecall"):
        Models([runs[0], made(tmp_path / "pole", "gym:CartPole-v1")])
    with pytest.raises(ConfigError, match="nowhere holds no run"):
        Models([tmp_path / "nowhere"])


class Named(gymnasium.Env):
    """Says what its actions mean, as Atari's environments do."""

    observation_space = gymnasium.spaces.Box(0, 1, (2,))
    action_space = gymnasium.spaces.Discrete(6)

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "FIRE", "UP", "LEFT", "UPLEFT", "UPLEFTFIRE"]


def test_keys_follow_from_what_actions_are_called():
    named = describe("gym:Named-v0", gymnasium.wrappers.TimeLimit(Named(), 5))
    assert [set(chord) for chord in named.chords] == [
        set(),
        {"fire"},
        {"up"},
        {"left"},
        {"up", "left"},
        {"up", "left", "fire"},
    ]
    assert named.idle == 0 and named.names[1] == "fire"
    grid = describe("MiniGrid/MemoryS7", envs.make("MiniGrid/MemoryS7"))
    assert grid.names == ("left", "right", "forward") and grid.chords == (("left",), ("right",), ("up",))
    car = describe("gym:MountainCar-v0", envs.make("gym:MountainCar-v0"))
    assert car.chords == (("left",), (), ("right",)) and car.idle == 1
    unnamed = describe("gym:Taxi-like-v0", envs.make("gym:CartPole-v1"))
    assert unnamed.names == ("action 0", "action 1") and unnamed.chords == ((), ())
    assert describe("gym:Pendulum-v1", envs.make("gym:Pendulum-v1")).continuous == 1


def test_memory_mazes_actions_do_what_they_are_called():
    environment = envs.make("MemoryMaze", labels=True)
    actions = describe("MemoryMaze", environment)
    moves = {}
    for name in ("forward", "left", "right"):
        _, before = environment.reset(seed=0)
        for _ in range(4):
            _, _, _, _, after = environment.step(actions.names.index(name))
        (x, y), (to_x, to_y) = before["agent_dir"], after["agent_dir"]
        turn = x * to_y - y * to_x  # positive: against the clock
        moves[name] = float(turn), float((after["agent_pos"] - before["agent_pos"]) @ before["agent_dir"])
    environment.close()
    assert actions.chords == ((), ("up",), ("left",), ("right",), ("left", "up"), ("right", "up"))
    assert moves["left"][0] > 0.1 and moves["right"][0] < -0.1
    assert abs(moves["forward"][0]) < 0.1 < moves["forward"][1]
