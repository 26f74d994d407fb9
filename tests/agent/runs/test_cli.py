"""Options over presets over defaults, and errors of one line."""

import dataclasses
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import envs
import worldmodel
from agent.runs import presets
from agent.runs.cli import one_line_errors, parse
from agent.runs.config import Config, load_config, save_config
from agent.runs.fields import ConfigError, fields, format_blocks, parse_blocks, replace
from agent.runs.folder import RESUME_MUTABLE, open_run


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run folders are relative to the working folder; no GPU, whatever the machine has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def words(line: str) -> list[str]:
    return line.split()


def test_precedence_is_default_then_preset_then_option():
    default = Config()
    config = parse(words("--preset debug --replay.batch_size 3"))
    assert config.agent.lam == default.agent.lam
    assert config.steps == presets.OVERLAYS["debug", "image"]["steps"] != default.steps
    assert config.replay.batch_size == 3 != presets.PRESETS["debug"]["replay.batch_size"]


def test_auto_is_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch):
    assert parse([]).envs == presets.PRESETS["cpu"]["envs"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert parse([]).envs == presets.PRESETS["gpu"]["envs"]


def test_vector_environments_have_their_own_numbers():
    ratios = [parse(words(f"--env {env} --preset cpu")).train.replay_ratio for env in ("gym:CartPole-v1", "MemoryMaze")]
    overlay, preset = presets.OVERLAYS["cpu", "vector"], presets.PRESETS["cpu"]
    assert ratios == [overlay["train.replay_ratio"], preset["train.replay_ratio"]]


def test_spellings():
    spaced = parse(words("--run-dir here --train.eval-every 7 --worldmodel.blocks 1x1,2x4 --worldmodel lssvwm"))
    joined = parse(words("--run_dir=here --train.eval_every=7 --worldmodel.blocks=1x1,2x4"))
    assert spaced == joined
    assert (spaced.run_dir, spaced.train.eval_every, spaced.worldmodel.blocks) == (
        "here",
        7,
        ((1, 1), (2, 4)),
    )
    assert parse(words("--seed 1 --seed 2")).seed == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--trian.replay-rato 3", "unknown option --trian.replay-rato: did you mean --train.replay-ratio?"),
        ("--trian.replay-ratio", "unknown option --trian.replay-ratio: did you mean --train.replay-ratio?"),
        ("--replay_ratio 3", "unknown option --replay-ratio: did you mean --train.replay-ratio?"),
        ("--evn MemoryMaze", "unknown option --evn: did you mean --env?"),
        ("--state-interval 8", "unknown option --state-interval: did you mean --worldmodel.state-interval?"),
        ("--wordlmodel x", "unknown option --wordlmodel: did you mean --worldmodel?"),
        ("--qqqqqqqqqqqq 3", "unknown option --qqqqqqqqqqqq"),
        ("--steps abc", "--steps wants an integer, got 'abc'"),
        ("--steps 1.5", "--steps wants an integer, got '1.5'"),
        ("--train.replay_ratio fast", "--train.replay-ratio wants a number, got 'fast'"),
        ("--steps", "--steps wants an integer, got nothing"),
        ("--steps --seed 1", "--steps wants an integer, got nothing"),
        ("--seed 1 --steps abc --envs 2", "--steps wants an integer, got 'abc'"),
        ("--preset gpuu", "--preset wants one of auto, debug, cpu, recall, gpu, got 'gpuu': did you mean gpu?"),
        ("--tensorboard yes", "--tensorboard wants True or False, got 'yes'"),
        ("--wandb on", "--wandb wants one of disabled, offline, online, got 'on'"),
        ("--worldmodel.blocks 2y2", "--worldmodel.blocks wants block sizes like 2x2,4x4, got '2y2'"),
        ("--worldmodel lssvmw", "unknown world model lssvmw: did you mean lssvwm?"),
        ("MemoryMaze", "unexpected argument 'MemoryMaze': options are written --name value"),
        ("-env MemoryMaze", "unexpected argument '-env': options are written --name value"),
        ("--steps 0", "steps must be more than zero, got 0"),
        ("--seed -1", "seed must be zero or more, got -1"),
        ("--train.replay_ratio nan", "train.replay_ratio must be finite, got nan"),
        ("--agent.lam 1.5", "agent.lam is a share: at most 1, got 1.5"),
        ("--worldmodel.blocks 0x2", "worldmodel.blocks must be more than zero, got 0"),
        ("--worldmodel.state-interval 0", "worldmodel.state_interval must be more than zero, got 0"),
        ("--train.agc -1", "train.agc must be zero or more, got -1.0"),
        ("--agent.discount-horizon 0.5", "agent.discount_horizon must be one or more, got 0.5"),
        ("--train.device gpu", "train.device wants auto, cpu, cuda or cuda:<number>, got 'gpu'"),
        ("--train.device cuda:٣", "train.device wants auto, cpu, cuda or cuda:<number>, got 'cuda:٣'"),
        (
            "--replay.batch_length 64 --replay.curriculum-start 128 --worldmodel.state-interval 16",
            "replay.curriculum_start (128) must be one of 0, 16, 32, 64: they double up to replay.batch_length (64)",
        ),
        (
            "--replay.batch_length 64 --replay.curriculum-start 40 --worldmodel.state-interval 8",
            "replay.curriculum_start (40) must be one of 0, 8, 16, 32, 64: they double up to replay.batch_length (64)",
        ),
        (
            "--replay.batch_length 96 --replay.curriculum-start 30 --worldmodel.state-interval 16",
            "replay.curriculum_start (30) must be one of 0, 48, 96: they double up to replay.batch_length (96)",
        ),
        (
            "--replay.batch_length 20 --worldmodel.state-interval 16",
            "replay.batch_length (20) must be a multiple of worldmodel.state_interval (16)",
        ),
        (
            "--worldmodel.d_model 130 --worldmodel.n_heads 4",
            "worldmodel.d_model (130) must be a multiple of worldmodel.n_heads (4)",
        ),
        (
            "--worldmodel.d_model 20 --worldmodel.headdim 32",
            "worldmodel.expand * worldmodel.d_model (2 * 20 = 40) must be a multiple of worldmodel.headdim",
        ),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_2(line: str, message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit, one_line_errors():
        parse(words(line))
    out, err = capsys.readouterr()
    assert (exit.value.code, out) == (2, "")
    assert err.startswith(message) and err.count("\n") == 1


def test_an_unknown_environment_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit, one_line_errors():
        parse(words("--env MemoryMase"))
    err = capsys.readouterr().err
    assert exit.value.code == 2 and "MemoryMaze" in err and err.count("\n") == 1


def test_completion_for_a_shell_names_the_options(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        parse(["--tyro-print-completion", "bash"])
    script = capsys.readouterr().out
    assert not ended.value.code and "complete -F" in script and "--worldmodel.blocks" in script


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130 and capsys.readouterr().err.startswith("stopped: the same command")


def test_help_names_every_option_and_what_can_be_chosen(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        parse(["--help"])
    text = capsys.readouterr().out
    assert exit.value.code == 0
    for name in fields(Config()):
        assert "--" + name.replace("_", "-") in text
    for name in [*worldmodel.names(), *envs.names(), "2x2"]:
        assert name in text


def test_every_preset_speaks_of_fields_that_some_world_model_has_and_is_sound():
    known: set[str] = set()
    for _, config_class in worldmodel.MODELS.values():
        known |= fields(Config(worldmodel=config_class())).keys()
    for values in [*presets.PRESETS.values(), *presets.OVERLAYS.values(), *presets.OTHERS.values()]:
        assert values.keys() <= known
    obs_types: tuple[presets.ObsType, ...] = ("image", "vector")
    for name in presets.PRESETS:
        for obs_type in obs_types:
            for _, config_class in worldmodel.MODELS.values():
                presets.apply(name, obs_type, Config(worldmodel=config_class()))


def test_replace_leaves_the_original():
    config = Config()
    assert replace(config, {"train.replay_ratio": 1.0}).train.replay_ratio == 1.0
    assert config == Config()


def test_values_that_only_fit_together_are_replaced_together():
    pairs = {"worldmodel.d_model": 100, "worldmodel.headdim": 50, "replay.batch_length": 42}
    config = replace(Config(), pairs | {"worldmodel.state_interval": 7})
    assert (config.worldmodel.d_model, config.worldmodel.headdim, config.replay.batch_length) == (100, 50, 42)
    with pytest.raises(ConfigError, match="batch_length .42. must be a multiple"):
        replace(Config(), pairs)


NOT_READ = [
    (
        "--worldmodel transformer --worldmodel.d-state 3",
        "--worldmodel.d-state",
        "transformer: lssvwm, lssvwm-places, mamba",
    ),
    (
        "--worldmodel rssm --worldmodel.blocks 1x1",
        "--worldmodel.blocks",
        "rssm: lssvwm, lssvwm-delta, lssvwm-places read",
    ),
    ("--worldmodel.size 1M", "--worldmodel.size", "lssvwm: rssm reads it"),
    ("--worldmodel.local conv --worldmodel.n-heads 2", "--worldmodel.n-heads", "lssvwm: --worldmodel.local attention"),
    ("--worldmodel.next-reward-scale 2", "--worldmodel.next-reward-scale", "lssvwm: --worldmodel.next-reward True"),
    ("--agent ppo --worldmodel mamba", "--worldmodel", "ppo: dreamer reads it"),
    ("--agent ppo --train.replay_ratio 3", "--train.replay-ratio", "ppo: dreamer reads it"),
    ("--agent ppo --agent.replay-value-scale 1", "--agent.replay-value-scale", "ppo: dreamer reads it"),
    ("--agent ppo --agent.lstm-hidden-size 8", "--agent.lstm-hidden-size", "ppo: recurrent-ppo reads it"),
    ("--agent.n-steps 3", "--agent.n-steps", "dreamer: ppo, recurrent-ppo read it"),
    ("--env gym:CartPole-v1 --train.video-every 9", "--train.video-every", "gym:CartPole-v1: environments with images"),
    (
        "--env gym:CartPole-v1 --worldmodel.blocks 1x1",
        "--worldmodel.blocks",
        "gym:CartPole-v1: environments with images",
    ),
]


@pytest.mark.parametrize(("line", "option", "who"), NOT_READ, ids=[line for line, _, _ in NOT_READ])
def test_an_option_that_the_run_does_not_read_is_refused(line: str, option: str, who: str):
    with pytest.raises(ConfigError) as refusal:
        parse(words(line))
    assert str(refusal.value).startswith(f"{option} is not read by {who}") and "\n" not in str(refusal.value)


def test_presets_may_set_what_is_not_read():
    assert parse(words("--env gym:CartPole-v1 --preset gpu --worldmodel transformer")).worldmodel.headdim == 64


sizes = st.integers(1, 10**6 - 1)


@given(st.lists(st.tuples(sizes, sizes), min_size=1).map(tuple))
def test_blocks_round_trip(blocks):
    assert parse_blocks(format_blocks(blocks)) == blocks


@given(
    env=st.text(),
    steps=st.integers(1),
    seed=st.integers(0),
    ratio=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    run_dir=st.text(),
    blocks=st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4).map(tuple),
    wandb=st.sampled_from(["disabled", "offline", "online"]),
)
def test_a_config_round_trips_through_yaml(
    tmp_path_factory: pytest.TempPathFactory, env, steps, seed, ratio, run_dir, blocks, wandb
):
    config = replace(
        Config(env=env, steps=steps, seed=seed, run_dir=run_dir, wandb=wandb),
        {"train.replay_ratio": ratio, "worldmodel.blocks": blocks},
    )
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    save_config(config, path)
    assert load_config(path) == config
    assert [file.name for file in path.parent.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stesp: 3", "unknown field stesp: did you mean steps?"),
        ("train: {replay_rato: 3}", "unknown field train.replay_rato: did you mean train.replay_ratio?"),
        ("steps: many", "steps wants an integer, got 'many'"),
        ("steps: true", "steps wants an integer, got True"),
        ("steps: 1.0", "steps wants an integer, got 1.0"),
        ("train: {replay_ratio: [1]}", "train.replay_ratio wants a number, got [1]"),
        ("env: 3", "env wants a text, got 3"),
        ("preset: fast", "preset wants one of auto, debug, cpu, recall, gpu, got 'fast'"),
        ("worldmodel: {blocks: 22}", "worldmodel.blocks wants block sizes like 2x2,4x4, got 22"),
        ("worldmodel: {name: gru2}", "unknown world model gru2"),
        ("train: 3", "train wants named fields, got 3"),
        ("- 1", "the configuration wants named fields, got [1]"),
        ("", "the configuration wants named fields, got None"),
        ("steps: -3", "steps must be more than zero, got -3"),
        ("steps: !!python/object/apply:os.getcwd []", "cannot be read: could not determine a constructor"),
        ("{", "cannot be read: "),
        ("&a {worldmodel: *a}", "unknown field worldmodel.worldmodel"),
        ("[" * 5000, "cannot be read: "),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_numbers_as_yaml_misreads_them(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("train: {learning_rate: 3e-4, replay_ratio: 64}")
    train = load_config(path).train
    assert (train.learning_rate, train.replay_ratio, type(train.replay_ratio)) == (3e-4, 64.0, float)


def test_a_run_folder_is_made_and_resumed():
    command = words("--env gym:CartPole-v1 --preset debug --seed 3 --replay.batch_size 4")
    config = parse(command)
    folder = open_run(config)
    assert folder == Path("runs/gym-CartPole-v1-lssvwm-s3")
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "episodes", "checkpoints", "plots", "videos"
    }  # fmt: skip
    assert parse(command) == config
    assert open_run(parse(command)) == folder


def test_a_resumed_run_keeps_what_it_was_made_with_and_may_go_on_longer(monkeypatch: pytest.MonkeyPatch):
    open_run(parse(words("--preset debug --replay.batch_size 4")))
    # another preset of the same name does not change a run that exists
    monkeypatch.setitem(presets.PRESETS, "debug", presets.PRESETS["debug"] | {"replay.batch_length": 32})
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))  # looked for before it is stored
    again = parse(words("--preset debug --steps 999 --train.save-every 5 --wandb offline"))
    folder = open_run(again)
    assert (again.replay.batch_size, again.replay.batch_length, again.steps) == (4, 16, 999)
    assert load_config(folder / "config.yaml").steps == 999


@pytest.mark.parametrize(
    ("line", "difference"),
    [
        ("--preset debug --run-dir here --seed 1", ("--seed 0", "--seed 1")),
        ("--run-dir here", ("--preset debug", "--preset auto")),
        ("--preset debug --run-dir here --worldmodel.blocks 1x1", ("blocks 2x2", "blocks 1x1")),
        (
            "--preset debug --run-dir here --env gym:CartPole-v1",
            ("--env MemoryMaze", "--env gym:CartPole-v1"),
        ),
    ],
)
def test_another_run_in_the_same_folder_is_refused(line: str, difference: tuple[str, str]):
    open_run(parse(words("--preset debug --run-dir here")))
    before = Path("here/config.yaml").read_bytes()
    with pytest.raises(ConfigError) as error:
        open_run(parse(words(line)))
    message = str(error.value)
    assert message.startswith("run folder here was made with --") and "\n" not in message
    assert all(part in message for part in difference) and message.endswith("use another --run-dir")
    assert Path("here/config.yaml").read_bytes() == before


def test_a_folder_that_holds_something_else_is_refused():
    Path("here").mkdir()
    Path("here/thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no run"):
        open_run(parse(words("--run-dir here")))
    assert [path.name for path in Path("here").iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_one_line():
    Path("file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        open_run(parse(words("--run-dir file/below")))


def test_what_a_resumed_run_may_change_exists():
    assert fields(Config()).keys() >= RESUME_MUTABLE


def test_the_stored_config_is_plain_yaml():
    folder = open_run(parse(words("--preset debug")))
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    assert tree["worldmodel"]["blocks"] == "2x2"
    assert list(tree) == [field.name for field in dataclasses.fields(Config)]
