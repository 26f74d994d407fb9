"""Parameter-matched world models: their totals counted on models that are really made, and refusals."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worldmodel.small import ACTIONS, SHAPES, SMALL
from worldmodel import make
from worldmodel.lssvwm_config import LAYER_TYPES, LSSVWMConfig
from worldmodel.match_parameters import TOLERANCE, count, match_parameters


def made(config: LSSVWMConfig, shape: tuple[int, ...]) -> int:
    """Parameters of the model itself."""
    return sum(parameter.numel() for parameter in make(config, shape, ACTIONS).parameters())


@pytest.mark.parametrize("name", list(LAYER_TYPES))
@pytest.mark.parametrize("kind", list(SHAPES))
def test_a_model_is_counted_without_being_made(name: str, kind: str) -> None:
    config = LSSVWMConfig(**(SMALL[name] | {"name": name}))
    assert count(config, SHAPES[kind], ACTIONS) == made(config, SHAPES[kind])


@pytest.mark.parametrize("name", list(LAYER_TYPES))
@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("local", ["attention", "conv"])
def test_every_stack_comes_to_lssvwm_s_parameters(name: str, side: int, width: int, local: str) -> None:
    shape = (side, side, 3)
    latents = "categorical"
    if name == "lssvwm-places":  # its projections of a frame of 64 x 32 classes alone have half as many as lssvwm
        latents, width = "continuous", max(width, 96)
    default = LSSVWMConfig(d_model=width, delta_d_k=width // 2, delta_d_v=width // 4, latents=latents)
    want = made(default, shape)
    config = match_parameters(replace(default, name=name, local=local), shape, ACTIONS, want)
    unit = 2 * width + 1  # of an MLP: no width of it comes nearer
    assert abs(made(config, shape) - want) <= config.layers * unit / 2 < TOLERANCE * want
    assert replace(config, layers=default.layers, mlp_ratio=default.mlp_ratio) == replace(
        default, name=name, local=local
    )


def test_one_s_own_number_changes_nothing() -> None:
    config = LSSVWMConfig(mlp_ratio=2.9)  # 371.2 units
    assert match_parameters(config, (32, 32, 3), ACTIONS, count(config, (32, 32, 3), ACTIONS)) == config


@settings(max_examples=15)
@given(st.sampled_from(list(LAYER_TYPES)), st.integers(100_000, 400_000))
def test_layers_are_those_whose_total_is_nearest(name: str, parameters: int) -> None:
    config = LSSVWMConfig(**(SMALL[name] | {"name": name}))
    layers = match_parameters(config, SHAPES["vector"], ACTIONS, parameters).layers
    gaps = {
        near: abs(count(replace(config, layers=near), SHAPES["vector"], ACTIONS) - parameters)
        for near in (layers - 1, layers, layers + 1)
        if near
    }
    assert gaps[layers] == min(gaps.values())


@pytest.mark.parametrize("name", list(LAYER_TYPES))
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot come within 5% of 100,000 parameters") as refusal:
        match_parameters(LSSVWMConfig(name=name), (64, 64, 3), ACTIONS, 100_000)
    assert "\n" not in str(refusal.value)
