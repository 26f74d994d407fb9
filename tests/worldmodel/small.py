"""World models small enough for quick tests, batches for them, and how trees of tensors are compared."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel import SequenceBatch, State, WorldModel, find, make
from worldmodel.lssvwm_config import LAYER_TYPES

ACTIONS = 3
SHAPES: dict[str, tuple[int, ...]] = {"image": (32, 32, 3), "vector": (5,)}
STATE_INTERVAL = 4

SMALL: dict[str, dict[str, Any]] = {
    name: dict(
        d_model=32,
        layers=2,
        tokenizer_width=32,
        tokenizer_layers=1,
        num_categoricals=16,
        num_classes=8,
        state_interval=STATE_INTERVAL,
        d_state=8,
        headdim=16,
        n_heads=2,
        delta_heads=2,
        delta_d_k=8,
        delta_d_v=4,
        place_heads=2,
        place_d_k=8,
        place_values=6,
        place_updates=0,
        latent_width=4,
        local_frames=3 if name != "local" else 16,  # its only memory: the suite's rows must fit
        global_frames=64,
        hidden=16,
        blocks=((1, 1), (2, 2)),
        free_nats=0.0,
    )
    for name in LAYER_TYPES
}
SMALL |= {
    "rssm": dict(hidden=16, state_interval=STATE_INTERVAL),
    "r2i-like": SMALL["s5"] | {"layers": 3, "local_frames": 1},
}
"""Options that make each world model small. One that is not named here is tested as it comes."""

OPTIONS: dict[str, dict[str, Any]] = {
    "conv": {"local": "conv"},
    "next-reward": {"next_reward": True},
    "cosine": {"next_reward": True, "cosine_similarity": True, "next_latent_scale": 0.5},
    "memory": {"memory_feature": 6},
    "continuous": {"latents": "continuous"},
    "tokenizer-first": {"tokenizer_updates": 2},
    "long": {"normalised_scan": True, "slow_heads": 0.5, "state_passing": 0.5},
}
"""Options of a world model by a word after its name."""

VARIANTS = [
    *(f"{name} conv" for name in ("lssvwm", "mamba-local", "local", "gru", "s5")),
    *(f"{name} {option}" for name in ("lssvwm", "transformer", "rssm") for option in ("next-reward", "cosine")),
    *(
        f"{name} {words}"
        for name in ("lssvwm", "lssvwm-places")
        for words in ("continuous", "continuous tokenizer-first")
    ),
    "lssvwm-places continuous cosine",
    *(f"{name} long" for name in ("lssvwm", "lssvwm-delta", "mamba")),
    *(f"{name} memory" for name in ("lssvwm", "gru", "s5", "mamba")),
]
"""World models with options, which the conformance suite checks too; `small_model` takes these names."""


def small_model(name: str = "lssvwm", kind: str = "image") -> WorldModel:
    """A small world model of this name, for `image` or `vector` observations, the same at every call.

    Its weights are shaken: heads start at zero, which would hide the rest.
    """
    torch.manual_seed(0)
    name, *words = name.split()
    options = SMALL.get(name, {})
    for word in words:
        options = options | OPTIONS[word]
    config = find(name)[1](**options)
    if hasattr(config, "free_nats"):  # they stop gradients, which the conformance suite looks for
        config.free_nats = 0.0
    model = make(config, SHAPES[kind], ACTIONS)
    shake(model, 0.1)
    return model


def shake(module: nn.Module, std: float) -> None:
    """Adds noise to every parameter."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * std)


def random_batch(
    kind: str, batch: int, frames: int, seed: int = 0, firsts: Sequence[tuple[int, int]] = ()
) -> SequenceBatch:
    """SequenceBatch (batch, frames) of noise; `firsts` are the (sequence, frame) places where episodes begin."""
    random = torch.Generator().manual_seed(seed)
    shape = (batch, frames, *SHAPES[kind])
    if kind == "image":
        observation = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
    else:
        observation = torch.randn(shape, generator=random)
    is_first = torch.zeros(batch, frames, dtype=torch.bool)
    for b, t in firsts:
        is_first[b, t] = True
    choice = torch.randint(0, ACTIONS, (batch, frames), generator=random)
    action = nn.functional.one_hot(choice, ACTIONS).float() * ~is_first.unsqueeze(-1)
    return SequenceBatch(
        observation=observation,
        action=action,
        reward=torch.randn(batch, frames, generator=random) * ~is_first,
        is_first=is_first,
        terminated=torch.rand(batch, frames, generator=random) < 0.2,
        batch_size=[batch, frames],
    )


def actions(batch: int, seed: int) -> Tensor:
    """One-hot actions (batch, A)."""
    random = torch.Generator().manual_seed(seed)
    return nn.functional.one_hot(torch.randint(0, ACTIONS, (batch,), generator=random), ACTIONS).float()


def assert_close(got: State, want: State, atol: float = 1e-4) -> None:
    """Two trees have the same leaves, of the same type and about the same values."""
    assert set(leaves(got)) == set(leaves(want))
    for name, leaf in leaves(want).items():
        torch.testing.assert_close(leaves(got)[name], leaf, atol=atol, rtol=0, msg=partial(_named, name))


def _named(name: Any, message: str) -> str:
    return f"{name}: {message}"


def assert_equal(got: State, want: State) -> None:
    """Two trees are the same to the last bit."""
    assert_close(got, want, atol=0)


def leaves(tree: State) -> dict[Any, Tensor]:
    """The tensors of a tree by name."""
    return dict(tree.items(include_nested=True, leaves_only=True))
