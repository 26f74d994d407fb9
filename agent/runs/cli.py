"""The command line: options over presets over defaults, `--help` from the fields' comments, one-line errors.

Precedence: dataclass default < preset < explicit option; in a folder that already holds a run, what the run
was made with stands in place of the first two.
"""

import io
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, Literal, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

import envs
import worldmodel
from agent.baselines.ppo import BASELINES, unread
from agent.runs import presets
from agent.runs.config import Config, agent_config, model_config, validate
from agent.runs.fields import (
    Blocks,
    ConfigError,
    did_you_mean,
    fields,
    format_blocks,
    parse_blocks,
    refusals,
    wanted,
)
from agent.runs.flatten import CheckpointError
from agent.runs.folder import named_after, run_folder, stored_config

SHORT = {"worldmodel": "worldmodel.name", "agent": "agent.name"}
"""Options that stand for a field of another name."""

COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
"""tyro's own options, with a shell's name after them: they print or write a script for it, and exit."""

REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def _blocks_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Teach tyro to read and print block sizes."""
    if info.type != Blocks:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="HxW[,HxW...]",
        instance_from_str=lambda texts: parse_blocks(texts[0]),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda blocks: [format_blocks(blocks)],
    )


def parse(argv: Sequence[str]) -> Config:
    """The configuration that a command line asks for, checked. `--help` prints and exits.

    Anything wrong is a ConfigError (or envs.UnknownEnvironment) of one line that names it and the nearest
    right one.
    """
    if argv and argv[0] in COMPLETION:
        _tyro(list(argv), Config())
    wants_help = any(word in ("-h", "--help") for word in argv)
    found = _scan([word for word in argv if word not in ("-h", "--help")])
    stored = _stored(found)
    name = found.get("worldmodel.name") or (stored or Config()).worldmodel.name
    agent = found.get("agent.name") or (stored or Config()).agent.name
    plain = Config(worldmodel=model_config(name), agent=agent_config(agent))
    if wants_help:
        _tyro(["--help"], plain)
    options = _checked(found, plain)
    asked = _read(options, plain)
    if stored and (stored.worldmodel.name, stored.agent.name) == (name, agent):
        base = stored
    else:
        with refusals():
            kind = envs.obs_type(asked.env)
        base = presets.apply(asked.preset, kind, plain)
    # The preset of a stored run is compared even where this command leaves it out: `--preset debug` once must
    # not make the plain command, later, take up a toy run.
    config = _read(options | {"preset": asked.preset}, base)
    validate(config)
    return config


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn refusals that are the user's to mend into a line on standard error and an exit.

    Exit 2 for a wrong command, 1 for a checkpoint that cannot be read or written, 130 for Ctrl-C. Other errors keep
    their traceback.
    """
    try:
        yield
    except (ConfigError, envs.UnknownEnvironment) as error:
        print(error.args[0], file=sys.stderr)
        raise SystemExit(2) from None
    except CheckpointError as error:
        print(error.args[0], file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("stopped: the same command takes up what is saved and does the rest", file=sys.stderr)
        raise SystemExit(130) from None


def _scan(argv: Sequence[str]) -> dict[str, str | None]:
    """`--a.b-c X` and `--a.b-c=X` -> {"a.b_c": "X"}, None where no value follows; of two the last counts."""
    options: dict[str, str | None] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise ConfigError(f"unexpected argument {word!r}: options are written --name value")
        name, equals, text = word[2:].partition("=")
        value: str | None = text
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else None
        field = name.replace("-", "_")
        options[SHORT.get(field, field)] = value
    return options


def _stored(options: Mapping[str, str | None]) -> Config | None:
    """The configuration of the run that lies where these options point; None where there is none."""
    default = Config()
    env = options.get("env") or default.env
    model = options.get("worldmodel.name") or default.worldmodel.name
    seed, run_dir = options.get("seed") or default.seed, options.get("run_dir") or ""
    agent = options.get("agent.name") or default.agent.name
    return stored_config(run_folder(env, named_after(model, agent), seed, run_dir))


def _checked(options: Mapping[str, str | None], base: Config) -> dict[str, str]:
    """The options, each a field of `base` and with a value."""
    known = fields(base)
    checked: dict[str, str] = {}
    for name, value in options.items():
        if base.agent.name in BASELINES and unread(name):
            raise ConfigError(f"--{_dashed(name)} is not for --agent {base.agent.name}: it has no world model")
        if name not in known:
            near = did_you_mean(name, [*known, *SHORT]).replace(": did you mean ", ": did you mean --")
            raise ConfigError(f"unknown option --{_dashed(name)}{_dashed(near)}")
        if value is None:
            raise ConfigError(f"--{_dashed(name)} wants {wanted(known[name].kind)}, got nothing")
        checked[name] = value
    return checked


def _read(options: Mapping[str, str], base: Config) -> Config:
    """`base` with these options; a value that its field does not take is a ConfigError."""
    arguments = {name: f"--{_dashed(name)}={value}" for name, value in options.items()}
    # tyro's own words about a wrong value take many lines: they are not shown.
    with redirect_stderr(io.StringIO()):
        try:
            return _tyro(list(arguments.values()), base)
        except SystemExit:
            pass
        known = fields(base)
        for name, argument in arguments.items():
            try:
                _tyro([argument], base)
            except SystemExit:
                kind, value = known[name].kind, options[name]
                near = did_you_mean(value, get_args(kind)) if get_origin(kind) is Literal else ""
                raise ConfigError(f"--{_dashed(name)} wants {wanted(kind)}, got {value!r}{near}") from None
    raise ConfigError(f"these options do not go together: {' '.join(arguments.values())}")


def _tyro(arguments: list[str], base: Config) -> Config:
    """tyro's reading of the command line over `base`; SystemExit where it refuses, and after help."""
    with warnings.catch_warnings():
        # a world model from outside brings a class that no union of ours names; tyro takes it as it is
        warnings.filterwarnings("ignore", ".*does not match any type in Union", UserWarning)
        return tyro.cli(
            Config,
            prog="train_agent.py",
            description=(
                "Train an agent in the dreams of a long-memory world model, or a model-free baseline beside it. "
                f"World models (--worldmodel NAME): {', '.join(worldmodel.names())}, <module>:<Class>. "
                f"Agents (--agent NAME): dreamer, {', '.join(BASELINES)}. "
                f"Environments (--env NAME): {', '.join(envs.forms())}. "
                "Defaults shown are those before a preset. The same command again resumes its run."
            ),
            args=arguments,
            default=base,
            registry=REGISTRY,
            config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
        )


def _dashed(name: str) -> str:
    return name.replace("_", "-")
