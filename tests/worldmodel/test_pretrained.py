"""Scans and norms that start from a Mamba-2 language model compute what transformers' do; refusals of other files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Mamba2Config, Mamba2ForCausalLM, Mamba2Model

from tests.worldmodel.small import ACTIONS, SHAPES, SMALL, shake
from worldmodel.backbone import Layer
from worldmodel.lssvwm import LSSVWM
from worldmodel.lssvwm_config import LSSVWMConfig
from worldmodel.mamba2 import Mamba2
from worldmodel.pretrained import check, load

LAYERS, PARTS = 3, 9
"""Of the language model, and tensors of a layer."""


def language_model(**options: Any) -> Mamba2ForCausalLM:
    """A Mamba-2 language model of the small world model's sizes, no weight of which is at a round number."""
    sizes = dict(hidden_size=32, num_heads=4, head_dim=16, state_size=8, expand=2, n_groups=1)
    config = Mamba2Config(**(sizes | dict(num_hidden_layers=LAYERS, vocab_size=64, chunk_size=16) | options))
    torch.manual_seed(1)
    model = Mamba2ForCausalLM(config).eval()
    shake(model, 0.2)
    return model


def world_model(name: str = "lssvwm", **options: Any) -> LSSVWM:
    """Two layers, on images."""
    torch.manual_seed(0)
    return LSSVWM(LSSVWMConfig(**(SMALL[name] | {"name": name} | options)), SHAPES["image"], ACTIONS)


def scans(model: LSSVWM) -> list[Mamba2]:
    """The Mamba-2 layers in order."""
    return [module for module in model.backbone.modules() if isinstance(module, Mamba2)]


def outputs(layer: Layer, u: Tensor) -> Tensor:
    """(b, L, D) -> (b, L, D) of the norm, but for what the action adds, and the scan from the empty memory."""
    scan, never = layer.mixers[0].layer, torch.zeros(u.shape[:2], dtype=torch.bool)
    return scan(layer.norms[0].norm(u), scan.initial(len(u)), never, u.shape[1])[0]


@torch.no_grad()
def assert_same_layers(model: LSSVWM, source: Mamba2ForCausalLM, atol: float = 1e-5) -> None:
    u = torch.randn(2, 37, 32, generator=torch.Generator().manual_seed(0))
    assert len(scans(model)) == 2
    for layer, theirs in zip(model.backbone.layers, source.backbone.layers, strict=False):
        want = theirs.mixer(theirs.norm(u))
        assert want.abs().max() > 0.1
        torch.testing.assert_close(outputs(layer, u), want, atol=atol, rtol=atol)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Mamba2ForCausalLM, Path]:
    """A language model and the folder that transformers saved it to."""
    source = language_model()
    source.save_pretrained(tmp_path / "lm")
    return source, tmp_path / "lm"


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_layers_compute_what_transformers_do(saved: tuple[Mamba2ForCausalLM, Path], file: str) -> None:
    source, folder = saved
    model = world_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    taken = load(model, folder / file)
    assert_same_layers(model, source)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(taken.tensors)
    assert taken.tensors["backbone.layers.1.mixers.0.layer.D"] == "backbone.layers.1.mixer.D"
    assert taken.tensors["backbone.layers.1.norms.0.norm.weight"] == "backbone.layers.1.norm.weight"
    numbers = sum(p.numel() for scan in scans(model) for p in scan.parameters()) + 2 * 32
    assert (taken.layers, taken.available, len(taken.tensors), taken.parameters) == (2, LAYERS, 2 * PARTS, numbers)
    assert str(taken) == f"layers 0..1 of 3 from {folder / file}: 18 tensors, {numbers:,} parameters"


def test_shards(tmp_path: Path) -> None:
    source = language_model()
    source.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2 and not (tmp_path / "model.safetensors").exists()
    model = world_model()
    load(model, tmp_path)
    assert_same_layers(model, source)


def test_only_shards_that_are_needed_are_read(tmp_path: Path) -> None:
    source = language_model()
    source.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {shard for name, shard in index.items() if ".layers.0." in name or ".layers.1." in name}
    others = set(index.values()) - needed
    assert others
    for shard in others:
        (tmp_path / shard).unlink()
    load(world_model(), tmp_path)
    (tmp_path / min(needed)).unlink()
    with pytest.raises(ValueError, match=f"{min(needed)}: cannot be read"):
        load(world_model(), tmp_path)


@pytest.mark.parametrize("before", ["backbone.", "model.backbone."])
def test_the_names_of_state_spaces(tmp_path: Path, before: str) -> None:
    """`embedding`, not `embeddings`, and half precision; Codestral's own file has `model.` before all."""
    source = language_model().half()
    tensors = {
        before + name.replace("embeddings", "embedding"): tensor
        for name, tensor in source.backbone.state_dict().items()
    }
    assert f"{before}embedding.weight" in tensors
    save_file(tensors, tmp_path / "weights.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 32, "n_layer": 3, "ssm_cfg": {"layer": "Mamba2"}}))
    model = world_model()
    load(model, tmp_path / "weights.safetensors")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert_same_layers(model, source.float())


def test_a_model_saved_without_its_head(tmp_path: Path) -> None:
    source = language_model()
    body = Mamba2Model(source.config)
    body.load_state_dict(source.backbone.state_dict())
    body.save_pretrained(tmp_path)
    model = world_model()
    assert not any(name.startswith("backbone") for name in load(model, tmp_path).tensors.values())
    assert_same_layers(model, source)


@pytest.mark.parametrize("name", ["mamba", "mamba-local"])
def test_scans_over_all_tokens_start_from_it_too(saved: tuple[Mamba2ForCausalLM, Path], name: str) -> None:
    model = world_model(name)
    load(model, saved[1])
    assert_same_layers(model, saved[0])


def test_a_check_reads_no_weights(saved: tuple[Mamba2ForCausalLM, Path]) -> None:
    with torch.device("meta"):
        model = world_model()
    assert check(model, saved[1]).parameters > 0
    data = (saved[1] / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    (saved[1] / "model.safetensors").write_bytes(data[:header] + bytes(len(data) - header))
    assert check(model, saved[1]).layers == 2


WRONG_SIZES: list[tuple[dict[str, Any], str, str]] = [
    # the language model's, the tensor named, the options that would fit
    (dict(hidden_size=48, num_heads=6), "dt_bias", "d_model 48 --worldmodel.expand 2 --worldmodel.headdim 16"),
    (dict(num_heads=8, head_dim=8), "dt_bias", "--worldmodel.headdim 8 --worldmodel.d_state 8 would fit"),
    (dict(state_size=20), "in_proj.weight", "--worldmodel.d_state 20 would fit, --worldmodel.layers 3 at most"),
    (dict(expand=3, num_heads=6), "dt_bias", "d_model 32 --worldmodel.expand 3 --worldmodel.headdim 16"),
    (dict(conv_kernel=3), "conv1d.weight", "no options would fit"),
]


@pytest.mark.parametrize("options, tensor, words", WRONG_SIZES, ids=lambda x: str(x)[:30])
def test_sizes_that_do_not_fit(tmp_path: Path, options: dict[str, Any], tensor: str, words: str) -> None:
    source = language_model(**options)
    source.save_pretrained(tmp_path)
    model = world_model()
    with pytest.raises(ValueError) as refusal:
        load(model, tmp_path)
    message = str(refusal.value)
    mixer, scan = source.backbone.layers[0].mixer, scans(model)[0]
    shapes = [tuple(module.get_parameter(tensor).shape) for module in (mixer, scan)]
    assert f"backbone.layers.0.mixer.{tensor} is {shapes[0]}, the world model's is {shapes[1]}" in message
    assert words in message and "\n" not in message


def test_the_options_named_do_fit(tmp_path: Path) -> None:
    language_model(hidden_size=48, num_heads=4, head_dim=36, expand=3, state_size=20).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="d_model 48 --worldmodel.expand 3 --worldmodel.headdim 36 --worldmodel.d_state 20"
    ):
        load(world_model(), tmp_path)
    load(world_model(d_model=48, expand=3, headdim=36, d_state=20, layers=3), tmp_path)


def test_nothing_is_taken_of_what_does_not_fit(saved: tuple[Mamba2ForCausalLM, Path]) -> None:
    file = saved[1] / "model.safetensors"
    tensors = load_file(file)
    tensors["backbone.layers.1.mixer.D"] = torch.ones(5)
    save_file(tensors, file)
    model = world_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"layers.1.mixer.D is \(5,\), the world model's is \(4,\): no options"):
        load(model, saved[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_several_groups_are_refused_by_name(tmp_path: Path) -> None:
    language_model(n_groups=2).save_pretrained(tmp_path)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(ValueError, match="n_groups 2"):
            load(world_model(d_state=16), path)
    (tmp_path / "config.json").write_text(json.dumps({"ssm_cfg": {"ngroups": 4}}))
    with pytest.raises(ValueError, match="n_groups 4"):
        load(world_model(d_state=16), tmp_path)


def test_too_few_layers(tmp_path: Path) -> None:
    language_model(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has 1 layers, the world model has 2 with SSM"):
        load(world_model(), tmp_path)


@pytest.mark.parametrize("name", ["local", "transformer", "gru", "s5"])
def test_models_without_ssm_are_refused_by_name(saved: tuple[Mamba2ForCausalLM, Path], name: str) -> None:
    with pytest.raises(ValueError, match=f"world model {name} has no SSM layers"):
        load(world_model(name), saved[1])


def test_layers_of_another_layout(tmp_path: Path) -> None:
    language_model(use_bias=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="layer 0 is not .* has mixer.in_proj.bias"):
        load(world_model(), tmp_path)
    tensors = language_model().state_dict()
    del tensors["backbone.layers.1.mixer.A_log"], tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="layer 1 is not .* lacks mixer.A_log"):
        load(world_model(), tmp_path / "cut.safetensors")
    tensors = language_model().state_dict()
    del tensors["backbone.layers.0.norm.weight"], tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="layer 0 is not .* lacks norm.weight"):
        load(world_model(), tmp_path / "bare.safetensors")
    save_file({"encoder.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no Mamba-2 layers"):
        load(world_model(), tmp_path / "other.safetensors")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_pickles_are_refused_and_not_read(tmp_path: Path, name: str) -> None:
    torch.save(Bomb(tmp_path / "exploded"), tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=f"{name}.*convert it to safetensors"):
            load(world_model(), path)
    assert not (tmp_path / "exploded").exists()


BROKEN: list[tuple[str, bytes, str]] = [
    ("model.safetensors", b"not a checkpoint at all", "model.safetensors: cannot be read"),
    ("model.safetensors", b"", "model.safetensors: cannot be read"),
    ("model.safetensors.index.json", b"{", "index.json: cannot be read"),
    ("model.safetensors.index.json", b"[]", "index.json: wants named fields"),
    ("model.safetensors.index.json", b"{}", "index.json: its weight_map"),
    ("model.safetensors.index.json", b'{"weight_map": {"a": "../a.safetensors"}}', "index.json: its weight_map"),
    ("readme.txt", b"", "neither model.safetensors nor"),
]


@pytest.mark.parametrize("name, data, words", BROKEN)
def test_broken_files(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError) as refusal:
        load(world_model(), tmp_path)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_no_file() -> None:
    with pytest.raises(ValueError, match="nowhere: no such file or folder"):
        load(world_model(), "nowhere")
