"""Sets of environments that are scored together, by name.

`atari-memory` has each of its games three times: in full view, flickering (each frame hidden with probability one
half; any two frames in sight make up for most of it), and blacked out for 8 frames of every 32, half a second of
play. A policy without memory should lose more from the first to the third than one with it. The games are those in
which something flies on while it is out of sight and that are both in Atari 100k and, but for Breakout, among the
games that Hausknecht and Stone (arXiv 1507.06527) let flicker.
"""

from __future__ import annotations

from envs.atari_scores import SCORES

MEMORY_GAMES = ("Breakout", "ChopperCommand", "Frostbite", "MsPacman", "Pong")
VIEWS = ("", ":flicker=0.5", ":blackout=8..32")

SUITES: dict[str, tuple[str, ...]] = {
    "atari-100k": tuple(f"Atari/{game}" for game in SCORES),
    "atari-memory": tuple(f"Atari/{game}{view}" for game in MEMORY_GAMES for view in VIEWS),
}
