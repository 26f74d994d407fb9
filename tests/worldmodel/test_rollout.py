"""Rollouts: windows in order, and which action leads to which imagined frame."""

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from tests.worldmodel.small import assert_close, assert_equal, random_batch, small_model
from worldmodel import ObserveOutput, SequenceBatch, State, WorldModel
from worldmodel.rollout import Imagination, imagine, observe_episode

HORIZON = 5


class Counter(WorldModel):
    """Counts by 10, and by what the action says; its reward is the count, which ends at 100."""

    actions, tokens, feature_width = 3, 1, 1

    def initial(self, batch: int) -> State:
        return TensorDict({"count": torch.zeros(batch)}, batch_size=[batch])

    def dream(self, state: State, action: Tensor, sample: bool = True) -> State:
        return TensorDict({"count": state["count"] + 10 + action.argmax(-1)}, batch_size=state.batch_size)

    def feature(self, state: State) -> Tensor:
        return state["count"][..., None, None]

    def reward(self, feature: Tensor) -> Tensor:
        return feature[..., 0, 0]

    def continue_prob(self, feature: Tensor) -> Tensor:
        return (feature[..., 0, 0] < 100).float()

    def observe(self, batch: SequenceBatch, state: State, sample: bool = True) -> ObserveOutput:
        raise AssertionError("imagination does not observe")

    def loss(self, batch: SequenceBatch, state: State) -> tuple[dict[str, Tensor], ObserveOutput, dict[str, Tensor]]:
        raise AssertionError("imagination does not compute a loss")

    def kl(self, batch: SequenceBatch, state: State) -> Tensor:
        raise AssertionError("imagination has no posterior")

    def loss_scales(self) -> dict[str, float]:
        raise AssertionError("imagination has no loss")

    def decode(self, feature: Tensor) -> Tensor:
        return feature[..., 0]


def policy(feature: Tensor) -> Tensor:
    """(M, N, F) -> (M, A): always the same for the same feature, and not for others."""
    return torch.nn.functional.one_hot(feature.sum((-1, -2)).mul(7).floor().long() % 3, 3).float()


def test_an_action_leads_to_the_next_frame() -> None:
    model, start = Counter(), TensorDict({"count": torch.tensor([0.0, 80.0])}, batch_size=[2])
    d = imagine(model, start, policy, HORIZON)
    count = d.feature[..., 0, 0]
    assert count[0].tolist() == [0, 80]
    for t in range(HORIZON):
        assert torch.equal(d.action[t], policy(d.feature[t]))  # chosen at t
        assert torch.equal(count[t + 1], count[t] + 10 + d.action[t].argmax(-1))  # leads to t + 1
        assert torch.equal(d.reward[t], count[t + 1])
        assert torch.equal(d.continue_prob[t], (count[t + 1] < 100).float())
    assert len(set(d.action.argmax(-1).flatten().tolist())) > 1
    assert start["count"].tolist() == [0, 80]


def starts(model: WorldModel, kind: str) -> State:
    """(2 * 2,) States with a past."""
    torch.manual_seed(0)
    output = model.observe(random_batch(kind, 2, 7), model.initial(2))
    return output.start_states.detach().reshape(-1)


@pytest.fixture(scope="module", params=["image", "vector"])
def dreamed(request: pytest.FixtureRequest) -> tuple[WorldModel, State, State, Imagination]:
    """A small model, start States, a copy of them from before, and what was imagined."""
    model = small_model("lssvwm", request.param)
    start = starts(model, request.param)
    before = start.clone()
    torch.manual_seed(5)
    return model, start, before, imagine(model, start, policy, HORIZON)


def test_shapes(dreamed: tuple[WorldModel, State, State, Imagination]) -> None:
    model, _, _, d = dreamed
    assert d.feature.shape == (HORIZON + 1, 4, model.tokens, model.feature_width)
    assert d.action.shape == (HORIZON, 4, 3)
    assert d.reward.shape == (HORIZON, 4)
    assert d.continue_prob.shape == (HORIZON, 4)
    assert d.state.batch_size == (4,) and not d.observation.numel()


def test_nothing_carries_gradients(dreamed: tuple[WorldModel, State, State, Imagination]) -> None:
    model, _, _, d = dreamed
    assert not any(x.requires_grad for x in (d.feature, d.action, d.reward, d.continue_prob))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_start_is_left_as_it_was(dreamed: tuple[WorldModel, State, State, Imagination]) -> None:
    _, start, before, _ = dreamed
    assert_equal(start, before)


def test_a_dream_is_its_frames_one_by_one(dreamed: tuple[WorldModel, State, State, Imagination]) -> None:
    model, start, _, d = dreamed
    torch.manual_seed(5)
    state = start
    with torch.no_grad():
        torch.testing.assert_close(d.feature[0], model.feature(start))
        for t in range(HORIZON):
            action = policy(model.feature(state))
            state = model.dream(state, action)
            feature = model.feature(state)
            torch.testing.assert_close(d.action[t], action)
            torch.testing.assert_close(d.feature[t + 1], feature, atol=1e-5, rtol=0)
            torch.testing.assert_close(d.reward[t], model.reward(feature), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(d.continue_prob[t], model.continue_prob(feature), atol=1e-5, rtol=0)
    assert d.reward.std() > 0 and (d.feature[1:] - d.feature[:-1]).abs().amax((1, 2, 3)).min() > 0.1


def test_given_actions_and_decoded_frames(dreamed: tuple[WorldModel, State, State, Imagination]) -> None:
    model, start, _, d = dreamed
    torch.manual_seed(5)
    again = imagine(model, start, d.action, HORIZON, decode=True)
    torch.testing.assert_close(again.action, d.action)
    torch.testing.assert_close(again.reward, d.reward, atol=1e-5, rtol=1e-4)
    assert_close(again.state, d.state)
    with torch.no_grad():
        frames = model.decode(d.feature[1:])
    want = frames.clamp(0, 1) if frames.ndim == 5 else frames
    torch.testing.assert_close(again.observation, want, atol=1e-4, rtol=1e-4)
    assert not again.feature.numel()


@pytest.mark.parametrize("window", [3, 4, 50])
def test_an_episode_through_windows_is_the_whole(window: int) -> None:
    model = small_model("lssvwm", "vector")
    batch = random_batch("vector", 2, 11, firsts=[(1, 6)])
    whole = model.observe(batch, model.initial(2), sample=False)
    cut = observe_episode(model, batch, model.initial(2), window, sample=False)
    torch.testing.assert_close(cut.feature, whole.feature, atol=1e-4, rtol=1e-4)
    assert_close(cut.last_state, whole.last_state)
    assert set(whole.start_index.tolist()) <= set(cut.start_index.tolist()) or window == 3
    for k, frame in enumerate(cut.start_index.tolist()):
        torch.testing.assert_close(model.feature(cut.start_states[:, k]), cut.feature[:, frame])
