"""Rematerialisation changes no loss, State or gradient, and holds less for the backward pass."""

import pytest
import torch
from torch import Tensor

from tests.worldmodel.small import ACTIONS, SHAPES, SMALL, STATE_INTERVAL, assert_close, random_batch, shake
from worldmodel import Losses, ObserveOutput, SequenceBatch, remat, total
from worldmodel.lssvwm import LSSVWM
from worldmodel.lssvwm_config import LAYER_TYPES, LSSVWMConfig
from worldmodel.remat import remat_map, remat_mean, segments

B, T = 2, 22
"""Neither the state interval nor segments divide the window."""


def make(kind: str, frames: int, name: str = "lssvwm") -> LSSVWM:
    """The same model but for its segments."""
    torch.manual_seed(1)  # of 0 to 5, 3 alone has a gradient that nearly cancels out, and consists of rounding
    options = SMALL[name] | {"remat_frames": frames, "name": name}
    model = LSSVWM(LSSVWMConfig(**options), SHAPES[kind], ACTIONS)
    shake(model, 0.1)
    return model


def rows(kind: str, frames: int = T) -> SequenceBatch:
    """With resets inside a segment, at its beginning and at the window's."""
    places = [(0, 5), (0, 8), (1, 0), (1, 21)]
    return random_batch(kind, B, frames, firsts=[(b, t) for b, t in places if t < frames])


def losses_and_gradients(
    model: LSSVWM, given: SequenceBatch, bfloat16: bool = False
) -> tuple[Losses, ObserveOutput, dict[str, Tensor]]:
    """Losses, the output and every parameter's gradient, from a memory that has observed something."""
    kind = "image" if given.observation.ndim == 5 else "vector"
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        with torch.no_grad():
            state = model.observe(random_batch(kind, B, 6, seed=7), model.initial(B), sample=False).last_state
        torch.manual_seed(3)
        losses, output, _ = model.loss(given, state)
    total(losses, model.loss_scales()).backward()
    return losses, output, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["image", "vector"])
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("frames", [STATE_INTERVAL, 2 * STATE_INTERVAL, 10 * STATE_INTERVAL])
def test_the_same_losses_states_and_gradients(kind: str, bfloat16: bool, frames: int) -> None:
    want, want_output, want_gradients = losses_and_gradients(make(kind, 0), rows(kind), bfloat16)
    got, output, gradients = losses_and_gradients(make(kind, frames), rows(kind), bfloat16)
    atol = 0.05 if bfloat16 else 1e-4
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], atol=1e-4, rtol=0.01 if bfloat16 else 1e-5, msg=name)
    torch.testing.assert_close(output.feature, want_output.feature, atol=atol, rtol=0)
    assert torch.equal(output.start_index, want_output.start_index)
    assert_close(output.start_states, want_output.start_states, atol=atol)
    assert gradients.keys() == want_gradients.keys()
    for name, gradient in want_gradients.items():
        # bfloat16 keeps 8 bits, and sums of a segment are rounded where those of a window are not
        away = (gradients[name] - gradient).norm() / gradient.norm().clamp_min(1e-6)
        assert away < (0.05 if bfloat16 else 1e-4), (name, float(away))


@pytest.mark.parametrize("name", [name for name in LAYER_TYPES if name != "lssvwm"])
def test_other_mixers_carry_their_memory_too(name: str) -> None:
    want, _, want_gradients = losses_and_gradients(make("image", 0, name), rows("image"))
    got, _, gradients = losses_and_gradients(make("image", STATE_INTERVAL, name), rows("image"))
    for loss in want:
        torch.testing.assert_close(got[loss], want[loss], atol=1e-4, rtol=1e-5, msg=loss)
    for parameter, gradient in want_gradients.items():
        torch.testing.assert_close(gradients[parameter], gradient, atol=1e-3, rtol=1e-3, msg=parameter)


def held(model: LSSVWM, given: SequenceBatch) -> int:
    """Bytes saved for the backward pass outside of what will be computed again, each storage once."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.loss(given, model.initial(B))
    return sum(storage.nbytes() for storage in storages.values())


def test_fewer_bytes_are_saved_for_the_backward_pass() -> None:
    given = rows("image", 64)
    assert held(make("image", STATE_INTERVAL), given) < 0.5 * held(make("image", 0), given)


def test_activations_are_computed_again_a_segment_at_a_time() -> None:
    model, lengths = make("vector", 2 * STATE_INTERVAL), []
    model.backbone.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    losses, _, _ = model.loss(rows("vector"), model.initial(B))
    assert lengths == [8, 8, 6]
    losses["dynamics"].backward()
    assert lengths == [8, 8, 6, 6, 8, 8]


def test_nothing_is_prepared_for_a_second_time_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remat, "checkpoint", None)
    model = make("vector", STATE_INTERVAL)
    with torch.no_grad():
        model.loss(rows("vector"), model.initial(B))
    with pytest.raises(TypeError):
        model.loss(rows("vector"), model.initial(B))


def test_segments() -> None:
    x = torch.zeros(2, 10, 3)
    assert [part.shape[1] for part in segments(x, 4)] == [4, 4, 2]
    assert [part.shape[1] for part in segments(x, 0)] == [10]


@pytest.mark.parametrize("frames", [0, 1, 3, 9])
def test_parts_are_put_together(frames: int) -> None:
    x, y = torch.arange(14.0).reshape(2, 7), torch.ones(2, 7)
    torch.testing.assert_close(remat_map(torch.square, x, frames), x**2)
    means = remat_mean(lambda a, b: (a.mean(), (a + b).mean()), x, y, frames)
    torch.testing.assert_close(torch.stack(means), torch.tensor([6.5, 7.5]))
