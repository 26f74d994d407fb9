"""What every world model satisfies, whatever is inside (the suite of the interface in worldmodel/base.py).

A new world model of ours is tested here as soon as `worldmodel.MODELS` has it; if it is large by default, its small
options go to `small.SMALL`. Another one is checked by its name, as its configuration's defaults make it:
`python -m pytest tests/worldmodel/test_conformance.py --worldmodel package.module:Class`.
"""

import pytest
import torch

import worldmodel
from tests.worldmodel.small import (
    ACTIONS,
    SHAPES,
    VARIANTS,
    actions,
    assert_close,
    assert_equal,
    leaves,
    random_batch,
    small_model,
)
from worldmodel import ObserveOutput, SequenceBatch, State, total

B, T = 2, 11
FIRSTS = [(0, 2), (0, 7), (1, 0), (1, 5), (1, 6)]


class World:
    """A world model, the kind of its observations, and a State that has observed some frames."""

    def __init__(self, name: str, kind: str):
        self.name, self.kind = name, kind
        self.model = small_model(name, kind)
        if kind == "vector":  # so that normalisation is not the identity
            self.model.loss(self.rows(seed=8), self.model.initial(B))
        with torch.no_grad():
            self.state: State = self.model.observe(self.rows(seed=9), self.model.initial(B), sample=False).last_state

    def rows(self, seed: int = 0, frames: int = T, firsts: list[tuple[int, int]] | None = None) -> SequenceBatch:
        """(B, frames) of noise."""
        return random_batch(self.kind, B, frames, seed, firsts or [])

    def observe(self, rows: SequenceBatch, state: State | None = None) -> ObserveOutput:
        """With the most likely latents, from that State unless another is given."""
        with torch.no_grad():
            return self.model.observe(rows, self.state if state is None else state, sample=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" in metafunc.fixturenames:
        names = metafunc.config.getoption("--worldmodel") or [*worldmodel.MODELS, *VARIANTS]
        worlds = [(name, kind) for name in names for kind in SHAPES]
        metafunc.parametrize("world", worlds, indirect=True, ids="-".join, scope="module")


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> World:
    """Every world model, small, on images and on vectors; one from outside may refuse either."""
    try:
        return World(*request.param)
    except ValueError as refusal:
        if request.param[0].split()[0] in worldmodel.MODELS:
            raise
        pytest.skip(str(refusal))


def replace(rows: SequenceBatch, other: SequenceBatch, frames: slice, batch: slice = slice(None)) -> SequenceBatch:
    """`rows` with everything but is_first taken from `other` in these frames."""
    out = rows.clone()
    for field in ("observation", "action", "reward", "terminated"):
        getattr(out, field)[batch, frames] = getattr(other, field)[batch, frames]
    return out


# 1. in parallel and step by step


def test_frames_at_once_are_frames_one_by_one(world: World) -> None:
    rows = world.rows(firsts=FIRSTS)
    whole = world.observe(rows)
    assert whole.feature.shape == (B, T, world.model.tokens, world.model.feature_width)
    state, features = world.state, []
    for t in range(T):
        step = world.observe(rows[:, t : t + 1], state)
        state = step.last_state
        features.append(step.feature)
    torch.testing.assert_close(torch.cat(features, 1), whole.feature, atol=1e-4, rtol=0)
    assert_close(state, whole.last_state)


# 2. cut and carried


@pytest.mark.parametrize("cut", range(1, T))
def test_a_window_cut_anywhere_is_the_whole(world: World, cut: int) -> None:
    rows = world.rows(firsts=FIRSTS)
    whole = world.observe(rows)
    left = world.observe(rows[:, :cut])
    right = world.observe(rows[:, cut:], left.last_state)
    torch.testing.assert_close(torch.cat([left.feature, right.feature], 1), whole.feature, atol=1e-4, rtol=0)
    assert_close(right.last_state, whole.last_state)


def test_starts_are_the_states_of_prefixes(world: World) -> None:
    rows = world.rows(firsts=FIRSTS)
    output = world.observe(rows)
    index = output.start_index.tolist()
    assert output.start_states.batch_size == (B, len(index))
    assert index == sorted(set(index)) and index[-1] == T - 1
    for k, t in enumerate(index):
        assert_close(output.start_states[:, k], world.observe(rows[:, : t + 1]).last_state)
    assert_equal(output.start_states[:, -1], output.last_state)


# 3. what may depend on what


@pytest.mark.parametrize("first", [0, 1, 5, 10])
def test_nothing_before_an_episode_matters_to_it(world: World, first: int) -> None:
    rows = world.rows(firsts=[(b, first) for b in range(B)])
    # a first row's action is zero by convention; a model must not rely on that
    other = replace(rows, world.rows(seed=1), slice(0, first))
    other.action[:, first] = actions(B, seed=3)
    seen, unseen = world.observe(rows), world.observe(other, world.model.initial(B))
    torch.testing.assert_close(unseen.feature[:, first:], seen.feature[:, first:], atol=1e-4, rtol=0)
    # what is remembered is the same too: it gives the same future
    ahead = world.rows(seed=2, frames=6)
    later = [world.observe(ahead, output.last_state).feature for output in (seen, unseen)]
    torch.testing.assert_close(later[0], later[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("frames", [1, T])
def test_what_is_not_a_number_ends_with_its_episode(world: World, frames: int) -> None:
    """A first row resets even a State of NaNs; plugins need not."""
    if world.name.split()[0] not in worldmodel.MODELS:
        return
    rows = world.rows(firsts=[(0, 0), *FIRSTS])[:, :frames]
    broken, empty = world.state.clone(), world.state.clone()
    empty[0] = world.model.initial(B)[0]
    for leaf in leaves(broken).values():
        if leaf.is_floating_point():
            leaf[0] = torch.nan
    got, want = world.observe(rows, broken), world.observe(rows, empty)
    torch.testing.assert_close(got.feature, want.feature)
    assert_close(got.last_state, want.last_state)
    assert all(loss.isfinite() for loss in world.model.loss(rows, broken)[0].values())


@pytest.mark.parametrize("at", [1, 5, 10])
def test_no_row_depends_on_a_later_one(world: World, at: int) -> None:
    rows = world.rows(firsts=[(0, 2)])
    other = replace(rows, world.rows(seed=1), slice(at, None))
    a, b = world.observe(rows).feature, world.observe(other).feature
    torch.testing.assert_close(b[:, :at], a[:, :at], atol=1e-5, rtol=0)
    assert (b[:, at:] - a[:, at:]).abs().amax((0, 2, 3)).min() > 1e-3


def test_all_of_the_past_matters(world: World) -> None:
    """Without this, a model that remembers nothing would pass the tests of resets."""
    rows = world.rows()
    h = world.observe(rows).last_state["h"]
    assert (world.observe(rows, world.model.initial(B)).last_state["h"] - h).abs().max() > 1e-6
    for field in ("observation", "action"):
        other = rows.clone()
        getattr(other, field)[:, 0] = getattr(world.rows(seed=1), field)[:, 0]
        other.action[:, 0] = other.action[:, 0].roll(1, -1) if field == "action" else other.action[:, 0]
        assert (world.observe(other).last_state["h"] - h).abs().max() > 1e-6, field


def test_memory_is_of_the_frames_before_and_the_actions_up_to_now(world: World) -> None:
    rows = world.rows(frames=1)
    h = world.observe(rows).last_state["h"]
    seen, acted = rows.clone(), rows.clone()
    seen.observation[:] = world.rows(seed=1, frames=1).observation
    acted.action[:] = rows.action.roll(1, -1)
    torch.testing.assert_close(world.observe(seen).last_state["h"], h, atol=0, rtol=0)
    assert (world.observe(acted).last_state["h"] - h).abs().max() > 1e-3


# 4. dreams


def dreamed(world: World, state: State, frames: int = 4, seed: int = 0, sample: bool = True) -> list[State]:
    """The States of a dream with given actions."""
    torch.manual_seed(seed)
    out = []
    with torch.no_grad():
        for t in range(frames):
            state = world.model.dream(state, actions(len(state), seed=t), sample)
            out.append(state)
    return out


def test_a_kept_state_can_be_dreamed_from_twice(world: World) -> None:
    before = world.state.clone()
    first, second, other = (dreamed(world, world.state, seed=seed) for seed in (0, 0, 1))
    assert_equal(world.state, before)
    for a, b in zip(first, second, strict=True):
        assert_equal(a, b)
    assert (other[-1]["z"] - first[-1]["z"]).abs().max() > 0.5  # it does draw
    assert first[-1].batch_size == (B,) and not first[-1]["z"].requires_grad


def test_observing_leaves_the_state_as_it_was(world: World) -> None:
    before = world.state.clone()
    world.observe(world.rows(firsts=FIRSTS))
    assert_equal(world.state, before)


def test_dreaming_and_observing_are_one_transition(world: World) -> None:
    """h_t depends on z_<t and action_<=t alone, so an imagined frame has the memory of an observed one."""
    rows = world.rows()
    output = world.observe(rows)
    for k, t in enumerate(output.start_index.tolist()[:-1]):
        with torch.no_grad():
            state = world.model.dream(output.start_states[:, k], rows.action[:, t + 1])
        met = world.observe(rows[:, : t + 2]).last_state
        torch.testing.assert_close(state["h"], met["h"], atol=1e-4, rtol=0)
        for name in {"z", "next_reward"} & set(met.keys()):  # and continues like it, given its latents
            state[name] = met[name]
        assert_close(state, met)


def test_dreams_can_start_at_an_index_of_states(world: World) -> None:
    starts = world.observe(world.rows()).start_states
    flat = starts.reshape(-1)
    many = dreamed(world, flat, sample=False)[-1]
    assert many.batch_size == flat.batch_size
    with torch.no_grad():
        state = flat[1:2]
        for t in range(4):
            state = world.model.dream(state, actions(len(flat), seed=t)[1:2], sample=False)
    assert_close(state, many[1:2])


def test_the_latents_of_a_dream_are_the_prior_s(world: World) -> None:
    """Without sampling a dream draws nothing."""
    a, b = (dreamed(world, world.state, seed=seed, sample=False) for seed in (0, 1))
    assert_equal(a[-1], b[-1])


# 5. learning, precision, batches


def test_gradients_reach_every_parameter(world: World) -> None:
    torch.manual_seed(0)
    world.model.zero_grad()
    losses, _, _ = world.model.loss(world.rows(firsts=FIRSTS), world.state)
    total(losses, world.model.loss_scales()).backward()
    for name, parameter in world.model.named_parameters():
        if not parameter.requires_grad:  # taught before
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_bfloat16_runs(world: World) -> None:
    torch.manual_seed(0)
    world.model.zero_grad()
    rows = world.rows(firsts=FIRSTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, output, _ = world.model.loss(rows, world.state)
    total(losses, world.model.loss_scales()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    taught = [p for p in world.model.parameters() if p.requires_grad]  # and not before, such as a tokenizer
    assert all(p.grad is not None and p.grad.isfinite().all() for p in taught)
    like = leaves(world.model.initial(B))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        dream = world.model.dream(output.last_state.detach(), actions(B, seed=0))
    for state in (output.last_state, dream):  # States keep their precision
        assert {name: leaf.dtype for name, leaf in leaves(state).items()} == {n: x.dtype for n, x in like.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = world.observe(rows[:, :1]).last_state["h"]
    wide = world.observe(rows[:, :1]).last_state["h"]
    assert 0 < (narrow - wide).abs().max() < 0.1 * wide.abs().max()


def test_rows_of_a_batch_do_not_leak_into_each_other(world: World) -> None:
    rows = world.rows(firsts=FIRSTS)
    other = replace(rows, world.rows(seed=1), slice(None), slice(1, 2))
    state = world.state.clone()
    state[1] = world.model.initial(B)[1]
    a, b = world.observe(rows), world.observe(other, state)
    torch.testing.assert_close(b.feature[0], a.feature[0], atol=1e-5, rtol=0)
    assert (b.feature[1] - a.feature[1]).abs().max() > 1e-3
    assert_close(b.start_states[0], a.start_states[0], atol=1e-5)
    assert_close(world.observe(rows[:1], world.state[:1]).last_state, a.last_state[:1])
    assert_close(dreamed(world, a.last_state, sample=False)[-1][:1], dreamed(world, b.last_state, sample=False)[-1][:1])


# the rest of the interface


def test_the_state_before_any_frame_is_empty(world: World) -> None:
    state = world.model.initial(3)
    assert state.batch_size == (3,)
    assert not state["h"].any() and not state["z"].any()
    assert_equal(state, world.model.initial(3))
    assert {name: x.shape[1:] for name, x in leaves(state).items()} == {
        name: x.shape[1:] for name, x in leaves(world.state).items()
    }


def test_the_feature_of_a_state_is_its_frame_s(world: World) -> None:
    output = world.observe(world.rows(firsts=FIRSTS))
    at = output.feature[:, output.start_index]
    torch.testing.assert_close(world.model.feature(output.start_states), at)
    torch.testing.assert_close(world.model.feature(output.last_state), at[:, -1])


def test_what_is_read_off_a_feature_has_its_shape(world: World) -> None:
    rows = world.rows()
    feature = world.observe(rows).feature
    with torch.no_grad():
        for part, lead in ((feature, (B, T)), (feature[:, 0], (B,))):
            assert world.model.decode(part).shape == (*lead, *SHAPES[world.kind])
            assert world.model.decode(part).dtype == torch.float32
            assert world.model.reward(part).shape == lead
            assert world.model.continue_prob(part).shape == lead
        chance = world.model.continue_prob(feature)
        assert ((chance > 0) & (chance < 1)).all()
        torch.testing.assert_close(
            world.model.decode(feature)[:, 3], world.model.decode(feature[:, 3]), atol=1e-4, rtol=1e-4
        )
    assert (world.model.actions, world.model.tokens) == (ACTIONS, feature.shape[2])


@pytest.mark.parametrize("cut", [1, 6])
def test_kl_depends_on_memory(world: World, cut: int) -> None:
    """By frame, never below zero; of a window in two parts, memory carried, as of the whole."""
    rows = world.rows(firsts=FIRSTS)
    with torch.no_grad():
        whole = world.model.kl(rows, world.state)
        first = world.model.kl(rows[:, :cut], world.state)
        rest = world.model.kl(rows[:, cut:], world.observe(rows[:, :cut]).last_state)
        elsewhere = world.model.kl(rows, world.model.initial(B))
    assert whole.shape == (B, T) and (whole >= -1e-5).all()
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-3, rtol=1e-4)
    # the past is in it, up to where an episode begins
    assert not torch.allclose(elsewhere[0, :2], whole[0, :2])
    torch.testing.assert_close(elsewhere[0, 2:], whole[0, 2:])
    torch.testing.assert_close(elsewhere[1], whole[1])


def test_losses_are_scalars_and_each_has_its_scale(world: World) -> None:
    losses, output, metrics = world.model.loss(world.rows(), world.state)
    assert losses.keys() == world.model.loss_scales().keys()
    assert all(loss.shape == () for loss in losses.values())
    assert all(metric.shape == () and not metric.requires_grad for metric in metrics.values())
    assert output.feature.requires_grad


def test_the_losses_of_lssvwm() -> None:
    names = {
        "reconstruction",
        "perceptual",
        "dynamics",
        "next_latent",
        "representation",
        "reward",
        "continue",
        "state_kl",
    }
    for kind in SHAPES:
        for name, extra in (("lssvwm", set()), ("lssvwm next-reward", {"next_reward"})):
            model = small_model(name, kind)
            assert set(model.loss(random_batch(kind, B, 3), model.initial(B))[0]) == names | extra


def test_total_is_the_scaled_sum_and_refuses_other_names() -> None:
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert total(losses, {"b": 10.0, "a": 0.5}) == 31.0
    for scales in ({"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "c": 1.0}):
        with pytest.raises(KeyError, match="differ"):
            total(losses, scales)
