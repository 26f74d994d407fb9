"""What is predicted in a maze, and under which conditions: the kinds of revisit, which disagree (arXiv 2606.09803).

The first part of an episode is context; the rest is imagined.

| task           | kind of revisit    | policy         | context | what comes                                      |
|----------------|--------------------|----------------|---------|-------------------------------------------------|
| `retrieval`    | replay             | `out_and_back` | 50 %    | the same cells in reverse order, turned round   |
| `loop_revisit` | loop revisit       | `loops`        | 50 %    | further closed loops through the start          |
| `reasoning`    | open-domain return | `waypoints`    | 72 %    | further random cells (from frame 576 of 800 on) |
| `second_half`  | any                | any            | 50 %    | as `--walks` or `--test-data` go on             |

Frames whose view was seen in the context are scored apart (`seen`); in a loop or among random cells others are new.

Two protocols. `actions`, above: frames are imagined under the environment's six actions, and an agent that goes back
turns round. `poses`: under the pose of each frame, as in LSSVWM (arXiv 2505.20171), by `eval.memory.pose`; `retrieval`
is then the first half of `waypoints` episodes and the same frames in reverse order. Figures of one are not to be
compared with figures of the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eval.memory.pose import reversal, with_poses
from replay import Episode

Prepare = Callable[[Episode], Episode]
"""What is made of a recorded episode before it is predicted."""


def as_recorded(episode: Episode) -> Episode:
    """The episode."""
    return episode


@dataclass(frozen=True)
class Task:
    """Which episodes, and which share of their frames is context."""

    policy: str
    share: float
    kind: str
    title: str
    prepare: Prepare = as_recorded


@dataclass(frozen=True)
class Protocol:
    """The tasks of a table, and the conditions under which frames are imagined."""

    words: str
    tasks: dict[str, Task]
    views: tuple[str, ...]
    """Policies whose episodes are predicted a few frames ahead, too."""
    prepare: Prepare
    """Gives an episode that is not reversed its conditions."""


LOOP, ON = ("loop revisit", "further loops, imagined"), ("open-domain return", "the way on, imagined")
PROTOCOLS = {
    "actions": Protocol(
        "the environment's actions are the conditions, and a way back turns round: not that of arXiv 2505.20171",
        {
            "retrieval": Task("out_and_back", 0.5, "replay", "the way back, imagined"),
            "loop_revisit": Task("loops", 0.5, *LOOP),
            "reasoning": Task("waypoints", 0.72, *ON),
        },
        ("waypoints", "out_and_back"),
        as_recorded,
    ),
    "poses": Protocol(
        "poses are the conditions, and retrieval is the context in exact reverse order, as in arXiv 2505.20171",
        {
            "retrieval": Task("waypoints", 0.5, "exact reversal", "the context in reverse, imagined", reversal),
            "loop_revisit": Task("loops", 0.5, *LOOP, with_poses),
            "reasoning": Task("waypoints", 0.72, *ON, with_poses),
        },
        ("waypoints",),
        with_poses,
    ),
}
SECOND_HALF = Task("", 0.5, "second half", "the second half, imagined")


def tasks_of(result: dict[str, Any]) -> dict[str, Task]:
    """The tasks that a run's retention.json has figures of."""
    every = PROTOCOLS[result["protocol"]].tasks | {"second_half": SECOND_HALF}
    return {name: task for name, task in every.items() if name in result}
