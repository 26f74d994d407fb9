"""Which fields a run does not read, and who reads them: such an option on the command line is refused."""

from dataclasses import fields
from typing import Any

import envs
import worldmodel
from agent.baselines.ppo import PPOConfig, is_unread
from agent.runs.config import AGENTS, Config
from agent.runs.fields import option

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
        return _sentence(name, config.agent.name, ["dreamer"])
    if section in ("worldmodel", "agent"):
        owner = getattr(config, section)
        if leaf not in _read(owner):
            return _sentence(name, owner.name, readers(name))
    if name in IMAGES_ONLY and envs.obs_type(config.env) == "vector":
        return _sentence(name, config.env, ["environments with images"])
    return None


def readers(name: str) -> list[str]:
    """World models or agents, by name, that read the field of this dotted name by default."""
    section, _, leaf = name.partition(".")
    makers = {"worldmodel": {model: make for model, (_, make) in worldmodel.MODELS.items()}, "agent": AGENTS}
    return [owner for owner, make in makers.get(section, {}).items() if leaf in _read(make())]


def _read(config: Any) -> set[str]:
    """The fields of a section that are read; its `unread` names the others."""
    return {field.name for field in fields(config)} - getattr(config, "unread", set)()


def _sentence(name: str, owner: str, others: list[str]) -> str:
    if not others or owner in others:
        return f"{option(name)} is not read by {owner} with these options"
    verb = "reads" if len(others) == 1 and " " not in others[0] else "read"
    return f"{option(name)} is not read by {owner}: {', '.join(others)} {verb} it"
