"""A configuration that cannot be is refused when the model is made, by a message with the numbers in it."""

import dataclasses
from typing import Any

import pytest

from agent.runs.config import Config, validate
from agent.runs.fields import ConfigError
from tests.worldmodel.small import ACTIONS, SHAPES, SMALL
from worldmodel import make
from worldmodel.lssvwm import LSSVWMConfig
from worldmodel.neighbours import NeighbourConfig

IMPOSSIBLE: list[tuple[dict[str, Any], list[str]]] = [
    ({"blocks": ((3, 3),)}, ["3x3", "4x4"]),
    ({"blocks": ((1, 1), (2, 3))}, ["2x3", "4x4"]),
    ({"latents": 17}, ["17", "16"]),
    ({"latents": 8}, ["8", "16"]),
    ({"headdim": 24}, ["24", "64", "2 x 32"]),
    ({"heads": 3}, ["3", "32"]),
    ({"mlp": 0.01}, ["0.01", "32"]),
    ({"name": "s5", "state": 7}, ["7"]),
    ({"name": "s5", "headdim": 24}, ["24", "64", "2 x 32"]),
]


@pytest.mark.parametrize("options, numbers", IMPOSSIBLE, ids=lambda x: str(x))
def test_refused_with_its_numbers(options: dict[str, Any], numbers: list[str]) -> None:
    config = dataclasses.replace(LSSVWMConfig(**SMALL["lssvwm"]), **options)
    with pytest.raises(ValueError) as refusal:
        make(config, SHAPES["image"], ACTIONS)
    assert all(number in str(refusal.value) for number in numbers), str(refusal.value)


@pytest.mark.parametrize("options", [{"mlp": 0.001}, {"name": "s5", "state": 7}], ids=str)
def test_a_run_refuses_it_before_the_model_is_made(options: dict[str, Any]) -> None:
    validate(Config(worldmodel=LSSVWMConfig(**(options | {"mlp": 0.01, "state": 8}))))
    with pytest.raises(ConfigError, match=str(list(options.values())[-1])) as refusal:
        validate(Config(worldmodel=LSSVWMConfig(**options)))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name, scans", [("lssvwm", True), ("s5", True), ("transformer", False), ("gru", False)])
def test_a_scans_heads_must_fit_where_there_is_a_scan(name: str, scans: bool) -> None:
    config = Config(worldmodel=LSSVWMConfig(name=name, d_model=72))
    if not scans:
        validate(config)
        make(config.worldmodel, SHAPES["image"], ACTIONS)
        return
    with pytest.raises(ConfigError, match="72 = 144.*headdim"):
        validate(config)


def test_a_neighbour_is_asked_what_its_stack_is() -> None:
    validate(Config(worldmodel=NeighbourConfig(name="storm-like", d_model=72)))
    with pytest.raises(ConfigError, match="even for s5"):
        validate(Config(worldmodel=NeighbourConfig(name="r2i-like", d_state=7)))


def test_images_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="50x50"):
        make(LSSVWMConfig(**SMALL["lssvwm"]), (50, 50, 3), ACTIONS)


def test_a_vector_is_one_token_whatever_the_blocks_are() -> None:
    config = LSSVWMConfig(**(SMALL["lssvwm"] | {"blocks": ((3, 3),), "latents": 7}))
    assert make(config, SHAPES["vector"], ACTIONS).tokens == 1
