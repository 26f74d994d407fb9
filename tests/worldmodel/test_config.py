"""Configurations check themselves, by messages with the options and numbers in them; and say what they do not read."""

import dataclasses
from typing import Any

import pytest

from tests.worldmodel.small import ACTIONS, SHAPES, SMALL
from worldmodel import make
from worldmodel.lssvwm_config import LAYER_TYPES, LSSVWMConfig
from worldmodel.rssm import RSSMConfig

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"d_model": 65}, "worldmodel.d_model (65) must be a multiple of worldmodel.n_heads (4)"),
    ({"name": "transformer", "d_model": 15, "n_heads": 5}, "(15 / 5) must be even for global attention"),
    (
        {"d_model": 72},
        "worldmodel.expand * worldmodel.d_model (2 * 72 = 144) must be a multiple of worldmodel.headdim (32)",
    ),
    ({"name": "s5", "headdim": 24}, "(2 * 128 = 256) must be a multiple of worldmodel.headdim (24)"),
    ({"name": "s5", "d_state": 7}, "worldmodel.d_state (7) must be even for s5: its states come in conjugate pairs"),
    ({"name": "r2i-like", "d_state": 7}, "worldmodel.d_state (7) must be even for s5"),
    ({"mlp_ratio": 0.001}, "worldmodel.mlp_ratio * worldmodel.d_model (0.001 * 128) must come to 1 unit or more"),
    ({"blocks": ()}, "worldmodel.blocks names no block size"),
    ({"blocks": ((2, 0),)}, "worldmodel.blocks must be more than zero, got 0"),
    ({"remat_frames": 24}, "worldmodel.remat_frames (24) must be 0 or a multiple of worldmodel.state_interval (16)"),
    ({"layers": 0}, "worldmodel.layers must be more than zero, got 0"),
    ({"unimix": 1.5}, "worldmodel.unimix is a share: at most 1, got 1.5"),
    ({"slow_heads": 1.5}, "worldmodel.slow_heads is a share: at most 1, got 1.5"),
    ({"state_passing": -0.5}, "worldmodel.state_passing must be zero or more, got -0.5"),
    ({"slow_heads": 0.5, "pretrained": "a.safetensors"}, "worldmodel.pretrained is of plain Mamba-2"),
    ({"open_loop_prob": -0.1}, "worldmodel.open_loop_prob must be zero or more, got -0.1"),
    ({"reward_scale": float("nan")}, "worldmodel.reward_scale must be finite, got nan"),
    ({"cosine_similarity": True}, "worldmodel.cosine_similarity needs worldmodel.next_reward True"),
    (
        {"cosine_similarity": True, "next_reward": True, "next_latent_scale": 0.0},
        "worldmodel.next_latent_scale above 0",
    ),
    (
        {"name": "transformer", "memory_feature": 8},
        "read by lssvwm, lssvwm-delta, lssvwm-places, mamba, mamba-local, gru",
    ),
]


@pytest.mark.parametrize("options, message", REFUSED, ids=[str(options) for options, _ in REFUSED])
def test_refused_with_its_numbers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        LSSVWMConfig(**options)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"memory_feature": 8}, "worldmodel.memory_feature is not read by rssm"),
        ({"cosine_similarity": True, "next_reward": True}, "worldmodel.next_latent_scale above 0"),
        ({"hidden": -1}, "worldmodel.hidden must be zero or more, got -1"),
    ],
)
def test_rssm_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        RSSMConfig(**options)
    assert message in str(refusal.value)


@pytest.mark.parametrize("name", ["transformer", "gru", "local"])
def test_a_scan_s_options_do_not_matter_without_one(name: str) -> None:
    make(LSSVWMConfig(name=name, d_model=72), SHAPES["image"], ACTIONS)


def test_heads_do_not_matter_without_attention() -> None:
    make(LSSVWMConfig(name="gru", local="conv", d_model=66), SHAPES["image"], ACTIONS)


@pytest.mark.parametrize(
    "options, numbers",
    [({"blocks": ((1, 1), (2, 3))}, ["2x3", "4x4"]), ({"num_categoricals": 17}, ["17", "16"])],
    ids=str,
)
def test_what_the_token_grid_excludes_is_refused_when_the_model_is_made(
    options: dict[str, Any], numbers: list[str]
) -> None:
    config = dataclasses.replace(LSSVWMConfig(**SMALL["lssvwm"]), **options)
    with pytest.raises(ValueError) as refusal:
        make(config, SHAPES["image"], ACTIONS)
    assert all(number in str(refusal.value) for number in numbers), str(refusal.value)


def test_images_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="50x50"):
        make(LSSVWMConfig(**SMALL["lssvwm"]), (50, 50, 3), ACTIONS)


def test_a_vector_is_one_token_whatever_the_blocks_are() -> None:
    config = LSSVWMConfig(**(SMALL["lssvwm"] | {"blocks": ((3, 3),), "num_categoricals": 7}))
    assert make(config, SHAPES["vector"], ACTIONS).tokens == 1


LONG = {"normalised_scan", "slow_heads"}
DELTA = {"delta_heads", "delta_d_k", "delta_d_v"}
PLACES = {"place_heads", "place_d_k", "place_values", "place_updates"}
ELSE = {"latent_width", "open_loop_prefix"}
"""Read by other choices of an option."""

UNREAD: dict[str, set[str]] = {
    "lssvwm": {"global_frames"},
    "lssvwm-delta": {"global_frames", "expand", "headdim", "d_state", "state_kl_scale"},
    "lssvwm-places": {"global_frames"},
    "mamba": {"blocks", "local", "local_frames", "global_frames", "n_heads"},
    "transformer": {
        "blocks",
        "local",
        "local_frames",
        "expand",
        "headdim",
        "d_state",
        "state_kl_scale",
        "memory_feature",
    },
    "gru": {"blocks", "global_frames", "expand", "headdim", "d_state", "state_kl_scale"},
    "r2i-like": {"blocks", "global_frames"},
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_a_stack_does_not_read(name: str) -> None:
    unread = LSSVWMConfig(name=name, next_reward=True).unread()
    others = (DELTA if name != "lssvwm-delta" else set()) | (PLACES if name != "lssvwm-places" else set())
    assert unread - {"pretrained"} - LONG == UNREAD[name] | others | ELSE
    mamba_2 = "flat_scan" in LAYER_TYPES[name] or "block_scan" in LAYER_TYPES[name]
    assert ("pretrained" in unread) == (not mamba_2)
    assert unread & LONG == (set() if mamba_2 or name == "lssvwm-delta" else LONG)
    assert LSSVWMConfig(name=name).unread() == unread | {"cosine_similarity", "next_reward_scale"}


def test_what_depends_on_latents_and_tokenizer() -> None:
    read = LSSVWMConfig().unread()
    continuous = LSSVWMConfig(latents="continuous").unread()
    assert continuous - read == {"num_categoricals", "num_classes", "unimix"} and read - continuous == {"latent_width"}
    first = LSSVWMConfig(tokenizer_updates=9).unread() - read
    assert first == {"detach_latents", "reconstruction_scale", "perceptual_scale", "representation_scale"}


def test_what_an_rssm_does_not_read() -> None:
    assert RSSMConfig(next_reward=True).unread() == {"memory_feature"}
    assert RSSMConfig(hidden=16).unread() == {"memory_feature", "size", "cosine_similarity", "next_reward_scale"}


@pytest.mark.parametrize("options", [{}, {"memory_feature": 6}, {"next_reward": True}], ids=str)
@pytest.mark.parametrize("name", LAYER_TYPES)
def test_fields_that_are_not_read_change_no_parameter(name: str, options: dict[str, Any]) -> None:
    config = LSSVWMConfig(**(SMALL[name] | {"name": name}))
    if options.keys() & config.unread():
        return
    config = dataclasses.replace(config, **options)
    other = {"blocks": ((4, 4),), "expand": 4, "d_state": 16, "headdim": 8, "n_heads": 4, "local_frames": 5}
    other |= {"local": "conv", "global_frames": 7, "next_reward_scale": 3.0, "state_kl_scale": 2.0}
    other = {field: value for field, value in other.items() if field in config.unread()}
    shapes = [
        {key: p.shape for key, p in make(c, SHAPES["image"], ACTIONS).named_parameters()}
        for c in (config, dataclasses.replace(config, **other))
    ]
    assert shapes[0] == shapes[1]
