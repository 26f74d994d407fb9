"""The command line: options over presets over defaults, `--help` from the fields' comments, one-line errors.

Precedence: dataclass default < preset < option; in a folder that holds a run, the run's own configuration takes the
place of the first two.
"""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

import envs
import worldmodel
from agent.runs import fields, presets, unread
from agent.runs.config import AGENTS, Config, unchecked
from agent.runs.fields import Blocks, ConfigError, Diverged, Field, did_you_mean, option, refusals
from agent.runs.flatten import CheckpointError
from agent.runs.folder import run_folder, run_label, stored_config

SHORT = {"worldmodel": "worldmodel.name", "agent": "agent.name"}
"""Options that stand for a field of another name."""

COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
"""tyro's own options, with a shell's name after them: they print or write a script for it, and exit."""

REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def _blocks_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """How tyro prints block sizes."""
    if info.type != Blocks:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="HxW[,HxW...]",
        instance_from_str=lambda texts: fields.parse_blocks(texts[0]),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda blocks: [fields.format_blocks(blocks)],
    )


def parse(argv: Sequence[str]) -> Config:
    """The configuration of a command line, checked. `--help` prints and exits.

    Raises ConfigError (or envs.UnknownEnvironment) of one line, with the nearest right name, for unknown options,
    for values of a wrong type or out of range, and for options that the run would not read.
    """
    if argv and argv[0] in COMPLETION:
        _tyro(list(argv), Config())
    wants_help = any(word in ("-h", "--help") for word in argv)
    texts = _scan([word for word in argv if word not in ("-h", "--help")])
    stored = _stored(texts)
    model = texts.get("worldmodel.name") or (stored or Config()).worldmodel.name
    agent = texts.get("agent.name") or (stored or Config()).agent.name
    defaults = unchecked(model, agent)
    if wants_help:
        _tyro(["--help"], defaults)
    options = _typed(texts, defaults)
    # The preset of a stored run is compared even where this command leaves it out, lest the plain command take up a
    # run of `--preset debug`.
    options.setdefault("preset", Config.preset)
    if stored and (stored.worldmodel.name, stored.agent.name) == (model, agent):
        config = fields.replace(stored, options)
    else:
        with refusals():
            obs_type = envs.obs_type(options.get("env", Config.env))
        config = fields.replace(defaults, presets.values(options["preset"], obs_type, defaults) | options)
    for name in texts:
        if refusal := unread.refusal(name, config):
            raise ConfigError(refusal)
    return config


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns errors that the user can mend into a line on standard error and an exit.

    Exit 2 for a wrong command; 1 for a checkpoint that cannot be read or written, a full disk and training that
    diverged; 130 for Ctrl-C. Other errors keep their traceback.
    """
    try:
        yield
    except (ConfigError, envs.UnknownEnvironment) as error:
        _exit(2, error.args[0])
    except CheckpointError as error:
        _exit(1, error.args[0])
    except Diverged as error:
        _exit(1, f"stopped: {error}")
    except KeyboardInterrupt:
        _exit(130, "stopped: the same command resumes from what is saved")


def _exit(code: int, line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise SystemExit(code) from None


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


def _stored(texts: Mapping[str, str | None]) -> Config | None:
    """The configuration of the run in the folder that these options name; None where there is none."""
    default = Config()
    model = texts.get("worldmodel.name") or default.worldmodel.name
    label = run_label(model, texts.get("agent.name") or default.agent.name)
    env, seed = texts.get("env") or default.env, texts.get("seed") or default.seed
    return stored_config(run_folder(env, label, seed, texts.get("run_dir") or ""))


def _typed(texts: Mapping[str, str | None], defaults: Config) -> dict[str, Any]:
    """Values by field name; a ConfigError for a name that is no field, and for a text that is no value of it."""
    known = fields.fields(defaults)
    values = {}
    for name, text in texts.items():
        if name not in known:
            if unread.readers(name):
                raise ConfigError(unread.refusal(name, defaults))
            near = did_you_mean(name, [*known, *SHORT], "--").replace("_", "-")
            raise ConfigError(f"unknown option {option(name)}{near}")
        values[name] = _value(name, known[name], text)
    return values


def _value(name: str, field: Field, text: str | None) -> Any:
    wanted = f"{option(name)} wants {fields.wanted(field.kind)}, got"
    if text is None:
        raise ConfigError(f"{wanted} nothing")
    try:
        return fields.parse(field.kind, text)
    except ValueError:
        near = did_you_mean(text, get_args(field.kind)) if get_origin(field.kind) is Literal else ""
        raise ConfigError(f"{wanted} {text!r}{near}") from None


def _tyro(arguments: list[str], default: Config) -> None:
    """Prints tyro's help over `default`, or its completion script, and exits."""
    with warnings.catch_warnings():
        # a world model of another package brings a class that no union here names; tyro takes it as it is
        warnings.filterwarnings("ignore", ".*does not match any type in Union", UserWarning)
        tyro.cli(
            Config,
            prog="train_agent.py",
            description=(
                "Train an agent in the imagination of a long-memory world model, or a model-free baseline. "
                f"World models (--worldmodel NAME): {', '.join(worldmodel.names())}, <module>:<Class>. "
                f"Agents (--agent NAME): {', '.join(AGENTS)}. "
                f"Environments (--env NAME): {', '.join(envs.forms())}. "
                "Defaults shown are those before a preset. The same command again resumes its run."
            ),
            args=arguments,
            default=default,
            registry=REGISTRY,
            config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
        )
