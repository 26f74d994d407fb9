"""Atari games: frames and rewards against ale-py's own environment, protocols, occlusion, scores."""

import itertools

import numpy as np
import pytest
from ale_py import AtariEnv
from PIL import Image

import envs
import envs.atari.env
from envs.atari.scores import SCORES
from envs.atari.suites import SUITES
from envs.occlusion import REGIONS, Occlusion

NOOP = 0

# Mean returns of Alonso et al. (arXiv 2405.12399, table 1), whose mean human-normalized score is given as 1.459.
DIAMOND = {
    "Alien": 744.1,
    "Amidar": 225.8,
    "Assault": 1526.4,
    "Asterix": 3698.5,
    "BankHeist": 19.7,
    "BattleZone": 4702.0,
    "Boxing": 86.9,
    "Breakout": 132.5,
    "ChopperCommand": 1369.8,
    "CrazyClimber": 99167.8,
    "DemonAttack": 288.1,
    "Freeway": 33.3,
    "Frostbite": 274.1,
    "Gopher": 5897.9,
    "Hero": 5621.8,
    "Jamesbond": 427.4,
    "Kangaroo": 5382.2,
    "Krull": 8610.1,
    "KungFuMaster": 18713.6,
    "MsPacman": 1958.2,
    "Pong": 20.4,
    "PrivateEye": 114.3,
    "Qbert": 4499.3,
    "RoadRunner": 20673.2,
    "Seaquest": 551.2,
    "UpNDown": 3856.3,
}


def episode(name, actions, seed=0):
    """Images (steps + 1, 64, 64, 3), rewards, and (terminated, truncated) of the last step; to an episode's end."""
    env = envs.make(name)
    images, rewards, over = [env.reset(seed=seed)[0]], [], (False, False)
    for action in actions:
        image, reward, *over, _ = env.step(action)
        images.append(image)
        rewards.append(reward)
        if any(over):
            break
    return np.stack(images), rewards, tuple(over)


def some_actions(name, steps, seed=0):
    return np.random.default_rng(seed).integers(envs.make(name).action_space.n, size=steps)


def reference(game, no_ops, actions):
    """The same from ale-py's environment of single frames: the brighter of an action's last two, resized."""
    env = AtariEnv(game, frameskip=1, repeat_action_probability=0.0)
    screen, _ = env.reset(seed=0)
    for _ in range(no_ops):
        screen, *_ = env.step(NOOP)
    images, rewards = [resized(screen)], []
    for action in actions:
        screens, total = [], 0.0
        for _ in range(4):
            screen, reward, *_ = env.step(action)
            screens.append(screen)
            total += reward
        images.append(resized(np.maximum(*screens[-2:])))
        rewards.append(total)
    return np.stack(images), rewards


def resized(screen):
    return np.asarray(Image.fromarray(screen).resize((64, 64), Image.Resampling.BOX))


@pytest.mark.parametrize(("name", "game"), [("Atari/Pong", "pong"), ("Atari/MsPacman", "ms_pacman")])
def test_100k_equals_ale_py_after_no_ops(name, game):
    actions = some_actions(name, 100)
    drawn = set()
    for seed in range(3):
        env = envs.make(name)
        env.reset(seed=seed)
        drawn.add(env._ale.getEpisodeFrameNumber())
        images, rewards, _ = episode(name, actions, seed)
        wanted, scores = reference(game, env._ale.getEpisodeFrameNumber(), actions)
        np.testing.assert_array_equal(images, wanted)
        assert rewards == scores
    assert len(drawn) > 1 and drawn <= set(range(31))
    if game == "ms_pacman":
        assert max(rewards) >= 10  # as the game counts, not clipped


def test_actions_of_the_protocols():
    assert envs.make("Atari/Pong").action_space.n == 6
    assert envs.make("Atari/Breakout").action_space.n == 4
    assert envs.make("Atari/Breakout:protocol=200m").action_space.n == 18


def test_only_200m_is_sticky():
    # Without sticky actions a game without no-ops is the same whatever the seed.
    actions = some_actions("Atari/Pong", 60)
    images = [episode("Atari/Pong:protocol=200m", actions, seed)[0] for seed in (0, 0, 1, 2)]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2]) and not np.array_equal(images[2], images[3])
    np.testing.assert_array_equal(images[0][0], images[2][0])


def test_an_episode_ends_with_the_game_and_not_with_a_life():
    env = envs.make("Atari/MsPacman")
    env.reset(seed=0)
    lives = []
    for _ in range(2000):
        *_, terminated, truncated, _ = env.step(NOOP)
        lives.append(env._ale.lives())
        assert not truncated
        if terminated:
            break
    assert terminated and set(lives) == {0, 1, 2, 3}
    with pytest.raises(Exception, match="reset"):
        env.step(NOOP)


def test_an_episode_is_truncated_at_its_frames(monkeypatch):
    monkeypatch.setattr(envs.atari.env, "EPISODE_FRAMES", 400)
    images, _, over = episode("Atari/Pong:protocol=200m", [NOOP] * 200)
    assert len(images) == 101 and over == (False, True)


def black(images):
    return (images == 0).all((1, 2, 3))


def test_flicker_hides_about_its_share():
    actions = some_actions("Atari/Pong", 400)
    full, rewards, _ = episode("Atari/Pong", actions)
    hidden, as_before, _ = episode("Atari/Pong:flicker=0.3", actions)
    assert not black(full).any() and rewards == as_before
    assert 0.2 < black(hidden).mean() < 0.4
    np.testing.assert_array_equal(hidden[~black(hidden)], full[~black(hidden)])
    assert black(episode("Atari/Pong:flicker=1", actions[:9])[0]).all()


def test_blackout_hides_the_last_of_each_period():
    actions = some_actions("Atari/Breakout", 45)
    full, hidden = (episode(name, actions)[0] for name in ("Atari/Breakout", "Atari/Breakout:blackout=3..10"))
    wanted = np.array([False] * 7 + [True] * 3)[np.arange(46) % 10]
    np.testing.assert_array_equal(black(hidden), wanted)
    np.testing.assert_array_equal(hidden[~wanted], full[~wanted])


@pytest.mark.parametrize("region", REGIONS)
def test_a_mask_hides_its_region_alone(region):
    covered = np.zeros((64, 64), bool)
    for row, column in itertools.product(range(64), repeat=2):
        covered[row, column] = {
            "top": row < 32,
            "bottom": row >= 32,
            "left": column < 32,
            "right": column >= 32,
            "middle": 16 <= row < 48 and 16 <= column < 48,
        }[region]
    actions = some_actions("Atari/MsPacman", 12)
    full, hidden = (episode(name, actions)[0] for name in ("Atari/MsPacman", f"Atari/MsPacman:mask={region}"))
    assert (hidden[:, covered] == 0).all() and full[:, covered].any()
    np.testing.assert_array_equal(hidden[:, ~covered], full[:, ~covered])


def test_gray_has_one_channel_three_times():
    gray, colour = (episode(name, [NOOP] * 5)[0] for name in ("Atari/Pong:gray=true", "Atari/Pong"))
    assert gray.shape == colour.shape
    np.testing.assert_array_equal(gray, gray[..., :1].repeat(3, -1))
    brightness = colour @ np.array([0.299, 0.587, 0.114])
    assert abs(gray[..., 0] - brightness).max() < 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("protocol=100m", "one of 100k, 200m"),
        ("flicker=1.5", "probability from 0 to 1, not 1.5"),
        ("flicker=often", "probability from 0 to 1, not 'often'"),
        ("blackout=8", "n..m with 0 < n < m"),
        ("blackout=32..8", "n..m with 0 < n < m"),
        ("mask=centre", "one of top, bottom, left, right, middle, not 'centre'"),
        ("gray=yes", "true or false, not 'yes'"),
    ],
)
def test_wrong_values_are_one_line(options, says):
    with pytest.raises(ValueError, match=says) as raised:
        envs.make(f"Atari/Pong:{options}")
    assert "\n" not in str(raised.value)


def test_nothing_is_hidden_by_default():
    random = np.random.default_rng(0)
    assert not any(Occlusion().hides(index, random) for index in range(100))


def test_scores_are_the_published_table():
    assert len(SCORES) == 26 and {f"Atari/{game}" for game in SCORES} <= set(SUITES["atari-100k"])
    assert set(DIAMOND) == set(SCORES)
    normalized = [(score - SCORES[game][0]) / (SCORES[game][1] - SCORES[game][0]) for game, score in DIAMOND.items()]
    assert np.mean(normalized) == pytest.approx(1.459, abs=2e-3)


def test_suites_are_known_names():
    for suite in SUITES.values():
        assert len(set(suite)) == len(suite)
        for name in suite:
            envs.check_name(name)
    games = {name.partition(":")[0] for name in SUITES["atari-memory"]}
    assert all(f"{game}{view}" in SUITES["atari-memory"] for game in games for view in ("", ":blackout=8..32"))


def test_actions_have_names():
    assert envs.make("Atari/Pong").get_action_meanings() == ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    assert len(envs.make("Atari/Pong:protocol=200m").get_action_meanings()) == 18
