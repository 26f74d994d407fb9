"""The choice of an OpenGL backend."""

import pytest

from envs import rendering


@pytest.fixture(autouse=True)
def _unset(monkeypatch):
    # Set first, so that monkeypatch puts back what was there, whatever the test leaves.
    monkeypatch.setenv("MUJOCO_GL", "")


def test_the_users_choice_is_kept(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert rendering.choose_gl() == "glfw"


@pytest.mark.parametrize(("egl", "osmesa", "expected"), [(True, True, "egl"), (False, True, "osmesa")])
def test_egl_else_osmesa(monkeypatch, egl, osmesa, expected):
    monkeypatch.setattr(rendering, "_egl_works", lambda: egl)
    monkeypatch.setattr(rendering, "_osmesa_works", lambda: osmesa)
    assert rendering.choose_gl() == expected == rendering.os.environ["MUJOCO_GL"]


def test_neither_gives_the_command_that_helps(monkeypatch):
    monkeypatch.setattr(rendering.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(RuntimeError, match="apt-get install libegl1 libgl1-mesa-dri"):
        rendering.choose_gl()
