"""PPO trained in imagination: what it observes there and outside, that it learns, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import train_agent
from agent.training.learner import Learner
from eval import dream_ppo
from tests.agent.training.test_replay_states import certain, episode
from worldmodel import State
from worldmodel.env import flat


class Recorder:
    """Acts at random, and keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.acted: list[np.ndarray] = []
        self.random = np.random.default_rng(0)

    def predict(self, observation: np.ndarray) -> tuple[np.ndarray, None]:
        self.seen.append(observation)
        self.acted.append(self.random.integers(3, size=len(observation)))
        return self.acted[-1], None


def test_outside_imagination_a_policy_observes_the_models_features():
    """Frame by frame with the actions it chose, what the model makes of the whole episode at once."""
    learner, past, recorder = certain(), episode(12), Recorder()
    actor = dream_ppo.FeaturePolicy(learner, 1, recorder)
    for t in range(12):
        action = actor(past.observation[t : t + 1], np.array([t == 0]), {})
        assert action.tolist() == recorder.acted[-1].tolist()
    batch = learner.episodes([past])
    chosen = torch.eye(3)[np.concatenate(recorder.acted[:-1])]
    batch.action = torch.cat([torch.zeros(1, 3), chosen]).unsqueeze(0)
    with torch.no_grad():
        wanted = learner.model.observe(batch, learner.model.initial(1), sample=False).feature[0]
    np.testing.assert_allclose(np.concatenate(recorder.seen), flat(wanted), atol=1e-4)


class Treadmill(Learner):
    """A learner in whose imagination one action alone is rewarded."""

    def __init__(self) -> None:
        made = certain()
        self.__dict__.update(made.__dict__)
        dream, self.paid = self.model.dream, torch.zeros(0)

        def rewarded(state: State, action: torch.Tensor, sample: bool = True) -> State:
            self.paid = action[:, 2]
            return dream(state, action, sample)

        self.model.dream = rewarded
        self.model.reward = lambda feature: self.paid.expand(feature.shape[:-2])
        self.model.continue_prob = lambda feature: torch.ones(feature.shape[:-2])


def test_ppo_learns_what_is_rewarded_in_imagination():
    learner = Treadmill()
    with torch.no_grad():
        start = learner.model.observe(learner.episodes([episode(12)]), learner.model.initial(1)).start_states.reshape(
            -1
        )
    protocol = dream_ppo.Protocol(steps=8192, dreams=16, horizon=10)
    policy, _, imagined = dream_ppo.train(learner, lambda n: start[:1].expand(n), protocol, seed=0, continuous=False)
    # at random, a third of 10 steps is rewarded
    assert imagined is not None and 5 < imagined <= 10
    feature = flat(learner.model.feature(start[:1].expand(8)))
    assert (policy.predict(feature, deterministic=True)[0] == 2).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train_agent.main(["--env", "gym:CartPole-v1", "--preset", "debug", "--steps", "200", "--run-dir", str(folder)])
    return folder


@pytest.mark.parametrize("observe", ["features", "frames"])
def test_the_command(run: Path, observe: str, capsys: pytest.CaptureFixture[str]):
    before = sorted(path.name for path in (run / "episodes").iterdir())
    command = [str(run), "--observe", observe, "--steps", "1000", "--seeds", "0,1", "--episodes", "3", "--horizon", "8"]
    dream_ppo.main(command)
    printed = capsys.readouterr().out
    stored = json.loads((run / f"dream-ppo-{observe}.json").read_text())
    assert list(stored["policies"]) == ["PPO, seed 0", "PPO, seed 1", "random", "the run's own agent"]
    assert all(name in printed for name in stored["policies"])
    for row in stored["policies"].values():
        assert len(row["returns"]) == 3 and row["mean"] == pytest.approx(sum(row["returns"]) / 3)
    assert stored["protocol"] == "dream-ppo-1" and stored["observe"] == observe and stored["horizon"] == 8
    assert stored["ppo"]["frame_stack"] == (1 if observe == "features" else 4)
    assert stored["policies"]["PPO, seed 0"]["imagined_return"] is not None
    assert (
        stored["policies"]["PPO, seed 0"]["imagined_steps"] == 1_024 and "1,024 imagined steps" in printed
    )  # one rollout
    assert sorted(path.name for path in (run / "episodes").iterdir()) == before

    dream_ppo.main([*command, "--json"])
    again = json.loads(capsys.readouterr().out)
    assert again == stored | {"command": stored["command"] + " --json"}


def test_a_run_without_episodes_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "checkpoints"):
        (tmp_path / "run" / name).symlink_to(run / name)
    with pytest.raises(SystemExit) as stop:
        dream_ppo.main([str(tmp_path / "run"), "--steps", "100"])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "holds no episodes" in err and err.count("\n") == 1


@pytest.mark.parametrize("words", [["--steps", "0"], ["--dreams", "0"], ["--horizon", "-1"], ["--episodes", "0"]])
def test_wrong_numbers_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        dream_ppo.main(["run", *words])
    assert stop.value.code == 2 and words[0] in capsys.readouterr().err
