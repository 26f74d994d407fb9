"""Makes Memory Maze a third of its size in memory, byte for byte the same.

The package gives each of 10 wall variations a copy of every wall texture, 3 MB each, and compiles all of them into the
MuJoCo model and the OpenGL context at every reset. An episode shows fewer than ten. The environments of `small_tasks`
compile only the textures in use; the tree that the model is compiled from keeps all, for the next episode chooses among
them. `memory_maze.tasks` stays as it is. To be imported after `envs.memory_maze.package.import_tasks`.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec, module_from_spec
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

from dm_control import composer, mjcf


@cache
def small_tasks(targets_per_room: int = 1) -> Any:
    """A private `memory_maze.tasks`, whose functions build the smaller environments.

    `targets_per_room`: how many targets a room of the maze has space for; the package has 1.
    """
    spec = find_spec("memory_maze.tasks")
    assert spec is not None and spec.loader is not None
    tasks: ModuleType = module_from_spec(spec)
    spec.loader.exec_module(tasks)
    arena = tasks.MazeWithTargetsArena
    vars(tasks).update(
        composer=SimpleNamespace(Environment=_SmallEnvironment),
        MazeWithTargetsArena=lambda **options: arena(**options | {"targets_per_room": targets_per_room}),
    )
    return tasks


class _SmallEnvironment(composer.Environment):
    """Compiles only the textures in use."""

    _physics: Any

    def _recompile_physics(self) -> None:
        """The stock method, on smaller XML."""
        if getattr(self, "_physics", None) is not None:
            self._physics.free()
        model = self._task.root_entity.mjcf_model
        xml = _shrink(model.to_xml_string())
        self._physics = mjcf.Physics.from_xml_string(xml, assets=model.get_assets())
        self._physics.legacy_step = self._legacy_step


def _shrink(xml: str) -> str:
    """The model without what changes no image.

    Removes textures that nothing names, all but one of those that differ in name only, and the shadow map (64 MB),
    since the only light is the camera's, which casts no shadows.
    """
    root = ElementTree.fromstring(xml)
    named = {element.get("texture") for element in root.iter()}
    # Where no class has defaults for textures, as in these mazes, the class makes no difference.
    label = ("name", "class") if root.find("default//texture") is None else ("name",)
    kept: dict[frozenset[tuple[str, str]], str] = {}
    same: dict[str, str] = {}
    for asset in root.iter("asset"):
        for texture in asset.findall("texture"):
            name = texture.get("name")
            # MuJoCo finds the sky by its type, not by name.
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
