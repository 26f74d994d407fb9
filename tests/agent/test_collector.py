"""SequenceBatch written by the collector: the action stands in the row of what came of it, across automatic resets."""

import numpy as np

import envs
from agent.actor import RandomPolicy
from agent.training.collector import Collector
from replay import Replay


def test_episodes_replayed_in_the_environment_give_the_same_rows(tmp_path):
    vector = envs.make_vector("gym:CartPole-v1", 2)
    replay = Replay(tmp_path, 10_000)
    try:
        collector = Collector(vector, replay, actions=2, seed=5)
        explorer = RandomPolicy(2, seed=0)
        steps, finished = 0, []
        while len(finished) < 6:
            collector.begin(explorer)
            made, done = collector.finish()
            steps += made
            finished += done
    finally:
        vector.close()

    episodes = [replay.get(name) for name in replay.names()]
    assert [e.steps for e in episodes] == [f.length for f in finished]
    assert [e.ret for e in episodes] == [f.ret for f in finished]
    assert replay.steps <= steps
    # the first episode of each environment, played again from its seed under the recorded actions
    again = envs.make("gym:CartPole-v1")
    match_parameters = 0
    for seed in (5, 6):
        first, _ = again.reset(seed=seed)
        episode = next(e for e in episodes if np.array_equal(e.observation[0], first))
        assert not episode.action[0].any()
        for row in range(1, len(episode.reward)):
            frame, reward, terminated, _, _ = again.step(int(episode.action[row].argmax()))
            np.testing.assert_array_equal(frame, episode.observation[row])
            assert (reward, terminated) == (episode.reward[row], episode.terminated[row])
        match_parameters += 1
    assert match_parameters == 2


def test_random_actions_hold_but_not_over_an_episodes_start():
    explorer = RandomPolicy(6, seed=0, hold=1.0)
    first = explorer(np.zeros((50, 1)), np.ones(50, bool))
    np.testing.assert_array_equal(explorer(np.zeros((50, 1)), np.zeros(50, bool)), first)
    assert (explorer(np.zeros((50, 1)), np.ones(50, bool)) != first).any()
