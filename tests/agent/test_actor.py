"""Acting frame by frame is the same model as training on whole windows, and forgets at an episode's start."""

import numpy as np
import torch

from agent.training.learner import Learner
from tests.agent.training.test_learner import ACTIONS, SHAPE, small


def test_memory_of_acting_equals_that_of_a_window():
    torch.manual_seed(0)
    learner = Learner(small(unimix=0.0), SHAPE, ACTIONS)
    # latents without chance, so that two passes can be compared
    learner.model.observe = _at_mode(learner.model.observe)  # type: ignore[method-assign]
    actor = learner.policy(2)
    frames = np.random.default_rng(0).normal(size=(7, 2, *SHAPE))
    first = np.zeros((7, 2), bool)
    first[0] = first[4, 1] = True
    actions = np.stack([actor(frame, start, {}) for frame, start in zip(frames, first, strict=True)])

    batch = learner.batch(
        {
            "observation": frames.astype(np.float32).swapaxes(0, 1),
            "action": np.eye(ACTIONS, dtype=np.float32)[np.concatenate([actions[:1], actions[:-1]])].swapaxes(0, 1),
            "reward": np.zeros((2, 7), np.float32),
            "is_first": first.T.copy(),
            "terminated": np.zeros((2, 7), bool),
        }
    )
    with torch.no_grad():
        whole = learner.model.observe(batch, learner.model.initial(2))
    for name in (("memory", "0", "0", "ssm"), ("memory", "1", "1", "kv"), ("h",)):
        torch.testing.assert_close(actor.state[name], whole.last_state[name], atol=1e-4, rtol=1e-4)


def _at_mode(observe):
    return lambda batch, state: observe(batch, state, sample=False)


def test_sticky_exploration_repeats_actions_but_not_over_an_episodes_start():
    torch.manual_seed(0)
    policy = Learner(small(), SHAPE, ACTIONS).policy(60, hold=1.0)
    frames, nothing = np.zeros((60, *SHAPE)), np.zeros(60, bool)
    first = policy(frames, ~nothing, {})
    assert len(set(first)) == ACTIONS
    np.testing.assert_array_equal(policy(frames, nothing, {}), first)
    assert (policy(frames, ~nothing, {}) != first).any()
