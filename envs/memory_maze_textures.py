"""What makes our Memory Maze a third of the package's size, byte for byte the same.

The package gives each of 10 wall variations its own copy of every wall texture, and compiles all of these,
3 MB each, into the MuJoCo model and again into the OpenGL context, at every reset. An episode shows under
ten. The environments of `small_tasks` compile only the textures in use. The tree that the model is compiled
from keeps them all, since the next episode chooses among them, and `memory_maze.tasks` stays as it is. Import
this module only after `envs._memory_maze_import.import_tasks`.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec, module_from_spec
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

from dm_control import composer, mjcf


@cache
def small_tasks() -> Any:
    """A second, private `memory_maze.tasks`, whose functions build the smaller environments.

    The package names the environment's class nowhere but in that module. An environment changed after it was
    built would have compiled all textures once by then.
    """
    spec = find_spec("memory_maze.tasks")
    assert spec is not None and spec.loader is not None
    tasks: ModuleType = module_from_spec(spec)
    spec.loader.exec_module(tasks)
    vars(tasks).update(composer=SimpleNamespace(Environment=_SmallEnvironment))
    return tasks


class _SmallEnvironment(composer.Environment):
    """An environment that compiles the textures in use only."""

    _physics: Any

    def _recompile_physics(self) -> None:
        """As the stock method, with the model's XML made smaller in between."""
        if getattr(self, "_physics", None) is not None:
            self._physics.free()
        model = self._task.root_entity.mjcf_model
        xml = _shrink(model.to_xml_string())
        self._physics = mjcf.Physics.from_xml_string(xml, assets=model.get_assets())
        self._physics.legacy_step = self._legacy_step


def _shrink(xml: str) -> str:
    """The model without what makes no difference to an image.

    That is the textures that nothing names, all but one of those that differ in name only, and, as there is
    no light but the camera's own, which casts no shadows, the shadow map (64 MB).
    """
    root = ElementTree.fromstring(xml)
    named = {element.get("texture") for element in root.iter()}
    # The class is but another name as long as no class has defaults for textures, which is so in these mazes.
    label = ("name", "class") if root.find("default//texture") is None else ("name",)
    kept: dict[frozenset[tuple[str, str]], str] = {}
    same: dict[str, str] = {}
    for asset in root.iter("asset"):
        for texture in asset.findall("texture"):
            name = texture.get("name")
            # Nothing names the sky: MuJoCo finds it by its type.
            if name is None or texture.get("type") == "skybox":
                continue
            content = frozenset(item for item in texture.items() if item[0] not in label)
            if name not in named or content in kept:
                asset.remove(texture)
            if name in named:
                same[name] = kept.setdefault(content, name)
    for element in root.iter():
        if (texture_name := element.get("texture")) in same:
            element.set("texture", same[texture_name])
    if root.find(".//light") is None:
        ElementTree.SubElement(ElementTree.SubElement(root, "visual"), "quality", shadowsize="0")
    return ElementTree.tostring(root, encoding="unicode")
