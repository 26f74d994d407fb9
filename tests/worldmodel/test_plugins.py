"""World models of other packages: found by entry point or path, configured, trained on, checked by the suite; and
what named configurations and RSSM are by name."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import worldmodel
from agent.runs import presets
from agent.runs.cli import one_line_errors, parse
from agent.runs.config import load_config, model_config, save_config
from agent.runs.fields import ConfigError, fields
from agent.runs.folder import open_run
from tests.worldmodel.small import ACTIONS, SHAPES, SMALL
from worldmodel.lssvwm_config import NAMED_CONFIGS, LSSVWMConfig
from worldmodel.match_parameters import count, match_parameters
from worldmodel.plugins import PluginError
from worldmodel.rssm import RSSM, RSSMConfig

EXAMPLE = "examples.minimal_gru:MinimalGRU"

CODE = """
    from dataclasses import dataclass

    from examples.minimal_gru import MinimalGRU, MinimalGRUConfig

    @dataclass
    class OutsideConfig(MinimalGRUConfig):
        offset: int = -3
        \"\"\"A number that may be below zero.\"\"\"

        def __post_init__(self):
            pass

    class Outside(MinimalGRU):
        config_class = OutsideConfig

    class Amnesic(Outside):
        \"\"\"Memory goes on through the beginning of an episode.\"\"\"

        def observe(self, batch, state, sample=True):
            batch = batch.clone()
            batch.is_first[:] = False
            return super().observe(batch, state, sample)

    class Bare(MinimalGRU):
        config_class = None

    @dataclass
    class ShortConfig:
        name: str = ""

    class Short(MinimalGRU):
        config_class = ShortConfig

    class ImagesAlone(Outside):
        def __init__(self, config, shape, actions):
            if len(shape) != 3:
                raise ValueError("images alone")
            super().__init__(config, shape, actions)

    number = 3
"""

POINTS = """
    [lssvwm.worldmodels]
    pointed = dreaming.models:Outside
    rssm = dreaming.models:Outside
    broken = dreaming.nothing:Outside
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package as pip would leave it, where Python finds it; no GPU, whatever the machine has."""
    package, info = tmp_path / "dreaming", tmp_path / "dreaming-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text(textwrap.dedent(CODE))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dreaming\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(POINTS))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    for name in [name for name in sys.modules if name.startswith("dreaming")]:
        del sys.modules[name]


def words(line: str) -> list[str]:
    return line.split()


# by name


@pytest.mark.parametrize("name", ["pointed", "dreaming.models:Outside"])
def test_made_by_entry_point_or_path(name: str) -> None:
    config = model_config(name)
    model = worldmodel.make(config, SHAPES["vector"], ACTIONS)
    assert (config.name, type(config).__name__, type(model).__name__) == (name, "OutsideConfig", "Outside")


def test_names_list_it_and_ours_go_first() -> None:
    assert {"pointed", "broken", *worldmodel.MODELS} == set(worldmodel.names())
    assert isinstance(worldmodel.make(RSSMConfig(hidden=16), SHAPES["vector"], ACTIONS), RSSM)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "dreaming.nothing:Outside cannot be imported: No module named 'dreaming.nothing'"),
        ("dreaming.models:Nobody", "cannot be imported: module 'dreaming.models' has no attribute 'Nobody'"),
        ("dreaming.models:number", "is no subclass of worldmodel.WorldModel"),
        ("dreaming.models:Bare", "its class wants config_class, a dataclass of its options"),
        ("dreaming.models:Short", "ShortConfig wants a field state_interval"),
    ],
)
def test_what_is_no_use_is_refused_in_one_line(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PluginError) as refusal:
        worldmodel.find(name)
    assert message in str(refusal.value) and name in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(SystemExit) as exit, one_line_errors():
        parse(["--worldmodel", name])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and message in error and error.count("\n") == 1


# configuration


@pytest.mark.parametrize("name", ["pointed", "dreaming.models:Outside"])
@pytest.mark.filterwarnings("error")
def test_options_and_files_take_its_fields(name: str) -> None:
    command = words(f"--worldmodel {name} --worldmodel.d_model 48 --preset cpu --env gym:CartPole-v1")
    config = parse(command)
    assert (config.worldmodel.name, config.worldmodel.d_model, config.worldmodel.offset) == (name, 48, -3)
    assert config.replay.batch_length == presets.OVERLAYS["cpu", "vector"]["replay.batch_length"]
    save_config(config, Path("config.yaml"))
    assert load_config(Path("config.yaml")) == config
    open_run(config)
    assert parse(command) == config
    with pytest.raises(ConfigError, match=r"--worldmodel.layers is not read by .*: lssvwm, "):
        parse([*command, "--worldmodel.layers", "3"])
    with pytest.raises(ConfigError, match="--worldmodel.d-model wants an integer, got 'x'"):
        parse(words(f"--worldmodel {name} --worldmodel.d_model x"))
    with pytest.raises(ConfigError, match="worldmodel.state_interval must be more than zero"):
        parse(words(f"--worldmodel {name} --worldmodel.state-interval 0"))


def test_help_shows_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words("--worldmodel pointed --help"))
    text = capsys.readouterr().out
    assert "--worldmodel.offset" in text and "below zero" in text and "pointed" in text


def test_a_preset_leaves_its_widths() -> None:
    plain = model_config("pointed")
    for preset in presets.PRESETS:
        config = parse(["--worldmodel", "pointed", "--preset", preset])
        assert config.worldmodel == plain
        assert config.replay.batch_length == presets.PRESETS[preset]["replay.batch_length"]


# the conformance suite by name


def conformance(*options: str) -> tuple[int, str]:
    """Exit code and words of the suite."""
    repository = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/worldmodel/test_conformance.py"]
    # the folder stands in for a package that is installed
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    found = subprocess.run([*command, *options], cwd=repository, env=environment, capture_output=True, text=True)
    return found.returncode, found.stdout


def test_the_example_passes_the_suite() -> None:
    code, words = conformance("--worldmodel", EXAMPLE)
    assert code == 0 and " passed" in words and "skipped" not in words, words


def test_the_suite_finds_what_is_wrong_and_leaves_out_what_a_model_refuses() -> None:
    code, words = conformance(
        *("--worldmodel", "dreaming.models:Amnesic", "--worldmodel", "dreaming.models:ImagesAlone"),
        *("-k", "nothing_before_an_episode or state_before_any_frame"),
    )
    # of each model and kind 4 and 1: the first fails 4 twice, the second skips vectors
    assert code == 1 and "8 failed, 7 passed, 5 skipped" in words, words


# ours


def test_rssm_by_size_on_the_command_line() -> None:
    config = parse(words("--worldmodel rssm --worldmodel.size 25M --preset cpu"))
    assert isinstance(config.worldmodel, RSSMConfig) and config.worldmodel.widths().deter == 3072
    save_config(config, Path("config.yaml"))
    assert load_config(Path("config.yaml")) == config
    with pytest.raises(ConfigError, match="--worldmodel.size wants one of 1M, 12M, .*, got '13M'"):
        parse(words("--worldmodel rssm --worldmodel.size 13M"))
    assert parse(words("--worldmodel rssm --preset debug")).worldmodel.widths().hidden == 16
    assert parse(words("--worldmodel rssm --preset gpu")).worldmodel.size == "12M"


def test_presets_of_other_models_speak_of_their_fields() -> None:
    for (preset, model), values in presets.OTHERS.items():
        config = parse(["--worldmodel", model, "--preset", preset])
        assert {name: fields(config)[name].value for name in values} == values


@pytest.mark.parametrize("name", list(NAMED_CONFIGS))
def test_a_named_configuration_is_its_stack_with_values_of_its_own(name: str) -> None:
    config = parse(["--worldmodel", name, "--preset", "gpu"])
    assert config.worldmodel == LSSVWMConfig(name=name, **NAMED_CONFIGS[name])  # the preset does not change it
    assert config.replay.batch_length == presets.PRESETS["gpu"]["replay.batch_length"]
    save_config(config, Path("config.yaml"))
    assert load_config(Path("config.yaml")) == config


@pytest.mark.parametrize("name", list(NAMED_CONFIGS))
def test_debug_makes_a_named_configuration_small(name: str) -> None:
    config = parse(["--worldmodel", name, "--preset", "debug"])
    assert config.worldmodel.d_model == presets.PRESETS["debug"]["worldmodel.d_model"]


def test_r2i_like_remembers_by_its_scan_alone() -> None:
    """Attention of one frame mixes its tokens and has no memory."""
    config = LSSVWMConfig(**SMALL["r2i-like"], name="r2i-like")
    memory = worldmodel.make(config, SHAPES["image"], ACTIONS).initial(2)["memory"]
    widths = {name: leaf.numel() for name, leaf in memory["0"].items(include_nested=True, leaves_only=True)}
    assert {name[0] for name, numbers in widths.items() if numbers} == {"0"}


# parameters


@pytest.mark.parametrize("parameters", [300_000, 2_000_000, 12_000_000])
def test_an_rssm_comes_to_as_many_parameters_by_its_width(parameters: int) -> None:
    config = match_parameters(RSSMConfig(), (64, 64, 3), ACTIONS, parameters)
    with torch.device("meta"):
        total = sum(p.numel() for p in RSSM(config, (64, 64, 3), ACTIONS).parameters())
    assert abs(total - parameters) < 0.05 * parameters and count(config, (64, 64, 3), ACTIONS) == total
    assert config == RSSMConfig(hidden=config.hidden)


def test_what_cannot_be_matched_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="rssm cannot come within 5% of 1,000 parameters: .* it has [0-9,]+$"):
        match_parameters(RSSMConfig(), SHAPES["image"], ACTIONS, 1_000)
    with pytest.raises(ValueError, match="pointed cannot be given as many parameters as another"):
        match_parameters(model_config("pointed"), SHAPES["image"], ACTIONS, 10**6)
