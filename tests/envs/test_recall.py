"""Memory environments: frames, questions and rewards, labels, seeds, and the classification of images."""

import itertools

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.recall import drawing
from envs.recall.env import BACK, CHOICE, GONE, SHOWN, ObjectRecall, ObjectRecallChoice, SceneCut

NAMES = ["ObjectRecall", "ObjectRecall-Choice", "SceneCut"]
SIZES = st.sampled_from(drawing.SIZES)
FRAMES = st.integers(1, 6)
SEEDS = st.integers(0, 10**6)


def play(env, seed=None, actions=None):
    """An episode's frames (L, H, W, 3), labels {name: (L, ...)} and rewards (L,); actions are the same if not given."""
    rng = np.random.default_rng(0)
    frame, info = env.reset(seed=seed)
    frames, infos, rewards, over = [frame], [info], [0.0], False
    while not over:
        action = rng.integers(env.action_space.n) if actions is None else actions[len(frames) - 1]
        frame, reward, over, truncated, info = env.step(action)
        assert not truncated
        frames.append(frame)
        infos.append(info)
        rewards.append(reward)
    return np.stack(frames), {name: np.stack([info[name] for info in infos]) for name in infos[0]}, np.array(rewards)


def same(frames, colour):
    """(L, H, W) bool: the pixels of exactly this colour."""
    return (frames == np.asarray(colour)).all(-1)


def gray(frames):
    return same(frames, drawing.GRAY)


def border(frames):
    """(L, pixels, 3): the outermost pixels."""
    size = frames.shape[1]
    edge = np.ones((size, size), bool)
    edge[1:-1, 1:-1] = False
    return frames[:, edge]


@pytest.mark.parametrize("name", [*NAMES, "ObjectRecall:size=64", "ObjectRecall-Choice:choices=7"])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.filterwarnings("error")
def test_passes_the_checker(name, labels):
    check_env(envs.make(name, labels=labels), skip_render_check=True)


@settings(max_examples=60)
@given(SIZES, FRAMES, FRAMES, FRAMES, st.integers(1, 8), SEEDS)
def test_object_is_shown_gone_and_back(size, delay, shown, back, colours, seed):
    env = envs.make("ObjectRecall", size=size, delay=delay, shown=shown, back=back, colours=colours, labels=True)
    frames, labels, rewards = play(env, seed)
    assert frames.shape == (shown + delay + back, size, size, 3) and frames.dtype == np.uint8
    assert labels["phase"].tolist() == [SHOWN] * shown + [GONE] * delay + [BACK] * back
    colour, place = int(labels["colour"][0]), int(labels["place"][0])
    assert colour < colours and (labels["delay"] == delay).all() and not rewards.any()
    inside = np.zeros((size, size), bool)
    inside[drawing.squares(size)[place]] = True
    object_ = same(frames, drawing.PALETTE[colour])
    here = np.isin(labels["phase"], [SHOWN, BACK])
    # The object is just where the label says, but for the distractor over it, which leaves most of it to see.
    assert (object_[here] == (inside & ~gray(frames[here]))).all()
    assert (object_[here].sum((1, 2)) >= 0.7 * inside.sum()).all()
    # In the gap there is nothing but background and distractor, and at the end of it the cue.
    for position in np.flatnonzero(~here):
        cue = position == shown + delay - 1
        background = same(frames[position], drawing.BACKGROUND)
        white = same(frames[position], drawing.WHITE)
        assert (background | white | gray(frames[position])).all()
        assert white.any() == cue
    cues = (border(frames) == drawing.WHITE).all((1, 2))
    assert np.flatnonzero(cues).tolist() == [shown + delay - 1]


@settings(max_examples=40)
@given(st.integers(2, 8), st.data(), SIZES, FRAMES, FRAMES, FRAMES, SEEDS)
def test_choice_rewards_the_remembered_colour_only(choices, data, size, delay, shown, back, seed):
    colours = data.draw(st.integers(choices, 8))
    env = ObjectRecallChoice(size, delay, shown, back, colours, choices, labels=True)
    asked = shown + delay
    seen, labels, _ = play(env, seed, [0] * (asked + back))
    assert env.action_space.n == choices and len(seen) == asked + 1 + back
    assert labels["phase"].tolist() == [SHOWN] * shown + [GONE] * delay + [CHOICE] + [BACK] * back
    # K patches of different colours, of which the right one has the colour that was shown.
    palette = drawing.PALETTE[:colours]
    offered = [
        np.flatnonzero([same(seen[asked][spot], colour).any() for colour in palette]).item()
        for spot in drawing.patches(size, choices)
    ]
    assert len(set(offered)) == choices
    assert offered[labels["answer"][0]] == labels["colour"][0] and len(set(labels["answer"])) == 1
    for action in range(choices):
        # All other frames get the right action, which is worth nothing there.
        actions = [labels["answer"][0]] * (asked + back)
        actions[asked] = action
        frames, _, rewards = play(env, seed, actions)
        expected = np.zeros(len(frames))
        expected[asked + 1] = action == labels["answer"][0]
        np.testing.assert_array_equal(rewards, expected)


def test_directions_are_right_up_left_down():
    np.testing.assert_allclose(drawing.directions(4), [(1, 0), (0, -1), (-1, 0), (0, 1)], atol=1e-12)


def test_patches_stand_where_actions_push():
    env = ObjectRecallChoice(choices=4, delay=40, labels=True)
    for action, spot in enumerate(drawing.patches(32, 4)):
        frames, _, _ = play(env, 0, [action] * 60)
        centres = [np.argwhere(gray(frame)).mean(0) for frame in (frames[0], frames[40])]
        for along, moved in zip(spot, centres[1] - 15.5, strict=True):
            offset = (along.start + along.stop - 1) / 2 - 15.5
            # On the axis of the push, the distractor ends on the patch's side.
            assert abs(offset) < 1 or np.sign(offset) == np.sign(moved)


@pytest.mark.parametrize(("size", "choices"), [*itertools.product(drawing.SIZES, range(2, 9))])
def test_patches_are_whole_and_apart(size, choices):
    counted = np.zeros((size, size), int)
    for spot in drawing.patches(size, choices):
        counted[spot] += 1
    assert counted.max() == 1 and counted.sum() == choices * (size // 5) ** 2


@settings(max_examples=40)
@given(SIZES, FRAMES, FRAMES, FRAMES, st.integers(1, 9), SEEDS)
def test_room_comes_back_as_it_was(size, delay, shown, back, objects, seed):
    env = SceneCut(size, delay, shown, back, objects, labels=True)
    frames, labels, rewards = play(env, seed)
    assert labels["phase"].tolist() == [SHOWN] * shown + [GONE] * delay + [BACK] * back
    assert labels["place"].shape == labels["colour"].shape == (len(frames), objects) and not rewards.any()
    corner = frames[:, 0, 0]  # the floor, or the cue
    (floor,) = np.unique(corner[labels["phase"] != GONE], axis=0)
    assert (corner[labels["phase"] == GONE] != floor).any(-1).all()
    room = np.full((size, size, 3), floor)
    places = labels["place"][0]
    assert len(set(places)) == objects
    for place, colour in zip(places, labels["colour"][0], strict=True):
        room[drawing.squares(size)[place]] = drawing.PALETTE[colour]
    for frame in frames[labels["phase"] != GONE]:
        assert ((frame == room).all(-1) | gray(frame)).all()
    cues = (border(frames) == drawing.WHITE).all((1, 2))
    assert np.flatnonzero(cues).tolist() == [shown + delay - 1]


@pytest.mark.parametrize("size", drawing.SIZES)
def test_distractor_is_whole_and_moves(size):
    frames, _, _ = play(ObjectRecall(size, delay=300), 1)
    assert (gray(frames).sum((1, 2)) == (size // 8) ** 2).all()
    centres = np.array([np.argwhere(gray(frame)).mean(0) for frame in frames])
    assert np.abs(np.diff(centres, axis=0)).max() <= 2 * size / 32 + 1
    assert np.ptp(centres, axis=0).min() > size / 2


def test_distractor_turns_at_random_and_keeps_its_speed():
    distractor, rng = drawing.Distractor(64, 4), np.random.default_rng(0)
    distractor.reset(rng)
    headings = []
    for action in rng.integers(4, size=1000):
        distractor.move(action, rng)
        headings.append((distractor._dx, distractor._dy))
    np.testing.assert_allclose(np.hypot(*np.transpose(headings)), 64 / 32)
    # A bounce changes signs only; a turn changes the rest too, at about one step in ten.
    turns = (np.diff(np.abs(headings), axis=0) != 0).any(-1).sum()
    assert 50 < turns < 150


@pytest.mark.parametrize("name", NAMES)
def test_distractor_moves_on_through_the_gap(name):
    frames, _, _ = play(envs.make(name, size=64, delay=30), 3)
    centres = np.array([np.argwhere(gray(frame)).mean(0) for frame in frames])
    moved = np.abs(np.diff(centres, axis=0)).sum(-1)
    assert moved.max() <= 2 * (4 + 1) and (moved > 0).mean() > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name):
    env, other = (envs.make(name, labels=True, delay=(2, 9)) for _ in range(2))
    # The same from a seed on, also in the episodes that follow it without one, which differ among themselves.
    other.reset(seed=1)
    episodes = []
    for seed in (5, None, None):
        mine, others = play(env, seed), play(other, seed)
        np.testing.assert_equal(mine, others)
        episodes.append(mine[0].tobytes())
    assert len(set(episodes)) == 3
    assert play(env, 5)[0].tobytes() == episodes[0] != play(env, 6)[0].tobytes()


def test_actions_do_not_change_what_is_asked():
    env = ObjectRecallChoice(labels=True)
    (left, labels, _), (right, others, _) = (play(env, 4, [action] * 200) for action in (0, 2))
    np.testing.assert_equal(labels, others)
    assert (left != right).any()


@pytest.mark.parametrize("name", NAMES)
def test_frames_and_labels_are_not_shared(name):
    env, other = envs.make(name, labels=True, delay=3), envs.make(name, labels=True, delay=3)
    expected = play(other, 2)
    frames, infos = zip(env.reset(seed=2), strict=True)
    rng, over = np.random.default_rng(0), False
    while not over:
        kept = frames[-1].copy()
        frame, _, over, _, info = env.step(rng.integers(4))
        np.testing.assert_array_equal(frames[-1], kept)
        frames, infos = (*frames, frame.copy()), (*infos, {k: v.copy() for k, v in info.items()})
        frame[:] = 7
        for value in info.values():
            value[...] = 7
    np.testing.assert_array_equal(np.stack(frames), expected[0])
    for key, values in expected[1].items():
        np.testing.assert_array_equal(np.stack([info[key] for info in infos]), values)


@pytest.mark.parametrize("name", NAMES)
def test_labels(name):
    per_episode = {"colour", "place", "delay"} | ({"answer"} if name == "ObjectRecall-Choice" else set())
    env = envs.make(name, labels=True)
    _, info = env.reset(seed=0)
    for labels in (info, env.step(0)[4]):
        assert set(labels) == {"phase"} | per_episode
        for key, value in labels.items():
            assert isinstance(value, np.ndarray) and value.dtype == np.int64
            assert value.shape == ((3,) if name == "SceneCut" and key in ("colour", "place") else ())
    plain = envs.make(name)
    frame, info = plain.reset(seed=0)
    assert info == {} and plain.step(0)[4] == {}
    np.testing.assert_array_equal(frame, env.reset(seed=0)[0])


def near_uniform(values, options):
    """Whether each of 0..options-1 is drawn as often as chance allows: six standard deviations of the count."""
    counts = np.bincount(values, minlength=options)
    expected = len(values) / options
    return len(counts) == options and (np.abs(counts - expected) < 6 * np.sqrt(expected)).all()


def test_what_is_asked_is_uniform():
    env = ObjectRecallChoice(delay=(3, 23), colours=6, choices=3, labels=True)
    env.reset(seed=0)
    drawn = [env.reset()[1] for _ in range(3000)]
    column = {key: np.array([info[key] for info in drawn]) for key in drawn[0]}
    assert near_uniform(column["colour"], 6) and near_uniform(column["place"], drawing.PLACES)
    assert near_uniform(column["answer"], 3)
    # Delays double evenly: as many from 3 to 5 as from 6 to 11 and from 12 to 23.
    assert column["delay"].min() == 3 and column["delay"].max() == 23
    assert near_uniform(np.digitize(column["delay"], [6, 12]), 3)
    # Colour and place are drawn apart from each other.
    assert near_uniform(column["colour"] * drawing.PLACES + column["place"], 6 * drawing.PLACES)


def test_rooms_are_uniform():
    env = SceneCut(labels=True)
    env.reset(seed=0)
    drawn = [env.reset()[1] for _ in range(2000)]
    assert near_uniform(np.concatenate([info["colour"] for info in drawn]), drawing.COLOURS)
    assert near_uniform(np.concatenate([info["place"] for info in drawn]), drawing.PLACES)


@pytest.mark.parametrize("choices", [2, 4, 8])
def test_random_policy_gets_one_in_k(choices):
    env = ObjectRecallChoice(delay=1, shown=1, back=1, choices=choices)
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    returns = []
    for _ in range(3000):
        env.reset()
        returns.append(sum(env.step(rng.integers(choices))[1] for _ in range(3)))
    chance = 1 / choices
    assert set(returns) == {0.0, 1.0}
    assert abs(np.mean(returns) - chance) < 5 * np.sqrt(chance * (1 - chance) / len(returns))


def floats(frames):
    return np.asarray(frames, np.float32) / 255


@pytest.mark.parametrize("size", drawing.SIZES)
def test_classify_frame_is_right_wherever_the_distractor_is(size):
    """Every colour, every place, and the distractor anywhere (a coarser grid in larger images): all right."""
    side = size // 8
    hidden = np.arange(1, size - side, 1 if size == 32 else 4)
    for place, spot in enumerate(drawing.squares(size)):
        for colour in range(drawing.COLOURS):
            frames = np.full((len(hidden), len(hidden), size, size, 3), drawing.BACKGROUND)
            frames[:, :, *spot] = drawing.PALETTE[colour]
            for (i, y), (j, x) in itertools.product(enumerate(hidden), repeat=2):
                frames[i, j, y : y + side, x : x + side] = drawing.GRAY
            colours, places = drawing.classify_frame(floats(frames))
            assert (colours == colour).all() and (places == place).all()


@pytest.mark.parametrize("name", ["ObjectRecall:colours=5", "ObjectRecall", "ObjectRecall-Choice"])
def test_classify_frame_on_real_frames(name):
    env = envs.make(name, delay=1, shown=30, back=30, labels=True)
    env.reset(seed=0)
    for _ in range(30):
        frames, labels, _ = play(env)
        here = np.isin(labels["phase"], [SHOWN, BACK])
        colours, places = env.classify_frame(floats(frames[here]))
        np.testing.assert_array_equal(colours, labels["colour"][here])
        np.testing.assert_array_equal(places, labels["place"][here])


@pytest.mark.parametrize("spoilt", ["faded", "blurred", "noisy"])
def test_classify_frame_on_decoded_frames(spoilt):
    for size, colour, place in itertools.product((32, 64), range(drawing.COLOURS), range(drawing.PLACES)):
        frame = np.full((size, size, 3), drawing.BACKGROUND)
        frame[drawing.squares(size)[place]] = drawing.PALETTE[colour]
        image = floats(frame)
        if spoilt == "faded":
            image = 0.6 * image + 0.4 * drawing.BACKGROUND / 255
        elif spoilt == "blurred":
            shifts = range(-size // 16, size // 16 + 1)
            blurred = [np.roll(image, (y, x), (0, 1)) for y, x in itertools.product(shifts, repeat=2)]
            image = np.mean(blurred, axis=0)
        else:
            image = image + np.random.default_rng(place).normal(0, 0.3, image.shape)
        assert drawing.classify_frame(image) == (colour, place)


def test_classify_frame_is_least_squares_over_the_squares():
    """As defined: over all templates, the least squared error on the nine squares, also for random drawing."""
    frames = np.random.default_rng(0).random((20, 32, 32, 3))
    spots = drawing.squares(32)
    templates = np.full((drawing.COLOURS, drawing.PLACES, 32, 32, 3), drawing.BACKGROUND)
    for colour, place in itertools.product(range(drawing.COLOURS), range(drawing.PLACES)):
        templates[colour, place][spots[place]] = drawing.PALETTE[colour]
    used = np.zeros((32, 32), bool)
    for spot in spots:
        used[spot] = True
    differences = (frames[:, None, None] - templates / 255)[..., used, :]  # (20, 8, 9, pixels, 3)
    errors = (differences**2).sum((-2, -1)).reshape(20, -1)
    colours, places = drawing.classify_frame(frames)
    np.testing.assert_array_equal(colours * drawing.PLACES + places, errors.argmin(1))


def test_classify_frame_takes_any_leading_shape_and_refuses_others():
    empty = np.full((2, 3, 32, 32, 3), drawing.BACKGROUND) / 255
    colours, places = drawing.classify_frame(empty)
    assert colours.shape == places.shape == (2, 3) and colours.dtype == places.dtype == np.int64
    assert (colours < drawing.COLOURS).all() and (places < drawing.PLACES).all()
    for wrong in (empty[0, 0, 0], empty[..., 0], empty[..., :28, :], empty[..., :30, :30, :], empty > 0):
        with pytest.raises(ValueError):
            drawing.classify_frame(wrong)
    # The environment's own classification knows its own colours only.
    violet = np.full((32, 32, 3), drawing.PALETTE[7]) / 255
    assert drawing.classify_frame(violet)[0] == 7 and ObjectRecall(colours=3).classify_frame(violet)[0] == 2
    with pytest.raises(ValueError, match="colours"):
        drawing.classify_frame(empty, colours=9)


@pytest.mark.parametrize("name", NAMES)
def test_steps_out_of_order(name):
    env = envs.make(name, delay=1, shown=1, back=1)
    with pytest.raises(ResetNeeded):
        env.step(0)
    with pytest.raises(ValueError, match="not action 4"):
        env.reset()
        env.step(4)
    play(env)
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset()
    env.step(0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {"size": size}) for name in NAMES for size in (28, 33, 68, 32.0, "big", True)],
        *[(name, {"delay": delay}) for name in NAMES for delay in (0, 2.5, (0, 3), (5, 4), (1, 2, 3), "long", True)],
        *[(name, {key: value}) for name in NAMES for key in ("shown", "back") for value in (0, 1.5)],
        *[("ObjectRecall", {"colours": colours}) for colours in (0, 9)],
        *[("ObjectRecall-Choice", {"colours": 3, "choices": choices}) for choices in (1, 4)],
        ("ObjectRecall-Choice", {"choices": 2, "colours": 1}),
        *[("SceneCut", {"objects": objects}) for objects in (0, 10)],
    ],
)
def test_wrong_parameters(name, options):
    with pytest.raises(ValueError) as raised:
        envs.make(name, **options)
    wrong = list(options)[-1]
    assert wrong in str(raised.value) and str(options[wrong]) in str(raised.value) and "\n" not in str(raised.value)
