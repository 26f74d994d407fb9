"""Which fields a run does not read, and who reads them: such an option on the command line is refused."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

import envs
import worldmodel
from agent.baselines.ppo import PPOConfig, is_unread
from agent.runs.config import AGENTS, Config
from agent.runs.fields import fields, option

IMAGES_ONLY = {
    "worldmodel.blocks",
    "worldmodel.tokenizer_layers",
    "worldmodel.perceptual_scale",
    "agent.frame_stack",
    "train.video_every",
}
"""Fields that are read where the environment shows images."""


def refusal(name: str, config: Config) -> str | None:
    """Why the option of this dotted field name has no effect on a run of `config`; None where it has one."""
    section, _, leaf = name.partition(".")
    if isinstance(config.agent, PPOConfig) and is_unread(name):
        return _sentence(name, config.agent.name, "dreamer reads it")
    if section in ("worldmodel", "agent"):
        owner = getattr(config, section)
        if leaf not in _read(owner):
            return _sentence(name, owner.name, _readers(name, owner))
    if name in IMAGES_ONLY and envs.obs_type(config.env) == "vector":
        return _sentence(name, config.env, "environments with images read it")
    return None


def readers(name: str) -> list[str]:
    """World models or agents, by name, that read the field of this dotted name by default."""
    section, _, leaf = name.partition(".")
    makers = {"worldmodel": {model: make for model, (_, make) in worldmodel.MODELS.items()}, "agent": AGENTS}
    return [owner for owner, make in makers.get(section, {}).items() if leaf in _read(make())]


def _read(config: Any) -> set[str]:
    """The fields of a section that are read; its `unread` names the others."""
    return set(fields(config)) - getattr(config, "unread", set)()


def _readers(name: str, owner: Any) -> str:
    """Who reads a field that `owner` does not: other models or agents, or itself with another choice."""
    others = readers(name)
    if others and owner.name not in others:
        return f"{', '.join(others)} {'reads' if len(others) == 1 else 'read'} it"
    section, _, leaf = name.partition(".")
    for field, found in fields(owner).items():
        choices = (True, False) if found.kind is bool else get_args(found.kind) if field != leaf else ()
        for choice in choices:
            with suppress(ValueError):
                if leaf in _read(replace(owner, **{field: choice})):
                    return f"{option(f'{section}.{field}')} {choice} reads it"
    return "its other options leave it out"


def _sentence(name: str, owner: str, who: str) -> str:
    return f"{option(name)} is not read by {owner}: {who}"
