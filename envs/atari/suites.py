"""Sets of environments that are scored together, by name.

`atari-memory` has each of its games three times: in full view, flickering (each frame hidden with probability one
half), and blacked out for 8 frames of every 32, half a second of play. A policy without memory loses more from the
first to the third than one with it. The games are in Atari 100k and, but for Breakout, among those that Hausknecht and
Stone (arXiv 1507.06527) flicker.
"""

from __future__ import annotations

from envs.atari.scores import SCORES

MEMORY_GAMES = ("Breakout", "ChopperCommand", "Frostbite", "MsPacman", "Pong")
VIEWS = ("", ":flicker=0.5", ":blackout=8..32")

SUITES: dict[str, tuple[str, ...]] = {
    "atari-100k": tuple(f"Atari/{game}" for game in SCORES),
    "atari-memory": tuple(f"Atari/{game}{view}" for game in MEMORY_GAMES for view in VIEWS),
}
