"""Which OpenGL backend MuJoCo renders with, chosen before it is imported.

dm_control reads `MUJOCO_GL` at import, and PyOpenGL cannot change its platform afterwards, so EGL is tried through
ctypes, which has no lasting effect if it fails.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import os

HELP = (
    "no headless OpenGL for Memory Maze: run `apt-get install libegl1 libgl1-mesa-dri` (EGL) "
    "or `apt-get install libosmesa6` (OSMesa)"
)

# Values from EGL/egl.h and EGL/eglext.h.
_EGL_PLATFORM_DEVICE_EXT = 0x313F
_EGL_OPENGL_API = 0x30A2
_EGL_SURFACE_TYPE, _EGL_PBUFFER_BIT = 0x3033, 0x0001
_EGL_RENDERABLE_TYPE, _EGL_OPENGL_BIT = 0x3040, 0x0008
_EGL_DEPTH_SIZE, _EGL_NONE = 0x3025, 0x3038
_MAX_DEVICES = 16


def choose_gl() -> str:
    """Set `MUJOCO_GL` if the user has not: EGL if a context can be made, else OSMesa. Returns the value.

    Raises:
        RuntimeError: neither works; the message gives the command to run.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return chosen
    if _egl_works():
        chosen = "egl"
    elif _osmesa_works():
        chosen = "osmesa"
    else:
        raise RuntimeError(HELP)
    os.environ["MUJOCO_GL"] = chosen
    return chosen


def _egl_works() -> bool:
    """Whether an OpenGL context can be made on some EGL device, as dm_control will make it."""
    library = ctypes.util.find_library("EGL")
    if library is None:
        return False
    try:
        egl = ctypes.CDLL(library)
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        query_address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
        display_address = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
        egl.eglCreateContext.restype = pointer
    except (OSError, AttributeError):
        return False
    if not query_address or not display_address:
        return False
    query_type = ctypes.CFUNCTYPE(integer, integer, ctypes.POINTER(pointer), ctypes.POINTER(integer))
    display_type = ctypes.CFUNCTYPE(pointer, integer, pointer, pointer)

    devices, count = (pointer * _MAX_DEVICES)(), integer(0)
    query_type(query_address)(_MAX_DEVICES, devices, ctypes.byref(count))
    get_display = display_type(display_address)
    return any(_makes_context(egl, get_display(_EGL_PLATFORM_DEVICE_EXT, devices[i], None)) for i in range(count.value))


def _makes_context(egl: ctypes.CDLL, display: int | None) -> bool:
    """Whether this EGL display can be initialised and gives an OpenGL context; both are released again."""
    if not display or not egl.eglInitialize(ctypes.c_void_p(display), None, None):
        return False
    wanted = {_EGL_SURFACE_TYPE: _EGL_PBUFFER_BIT, _EGL_RENDERABLE_TYPE: _EGL_OPENGL_BIT, _EGL_DEPTH_SIZE: 24}
    attributes = (ctypes.c_int * 7)(*itertools.chain(*wanted.items()), _EGL_NONE)
    config, count = ctypes.c_void_p(), ctypes.c_int(0)
    handle = ctypes.c_void_p(display)
    egl.eglChooseConfig(handle, attributes, ctypes.byref(config), 1, ctypes.byref(count))
    context = None
    if count.value and egl.eglBindAPI(_EGL_OPENGL_API):
        context = egl.eglCreateContext(handle, config, None, None)
    if context:
        egl.eglDestroyContext(handle, ctypes.c_void_p(context))
    egl.eglTerminate(handle)
    return bool(context)


def _osmesa_works() -> bool:
    """Whether the OSMesa library loads; it renders in memory, so there is no device to try."""
    library = ctypes.util.find_library("OSMesa")
    try:
        return library is not None and bool(ctypes.CDLL(library))
    except OSError:
        return False
