"""What is predicted in a maze, and under which conditions: the kinds of revisit, which disagree (arXiv 2606.09803).

The first part of an episode is context; the rest is imagined.

| task           | kind of revisit    | policy         | context | what comes                                      |
|----------------|--------------------|----------------|---------|-------------------------------------------------|
| `retrieval`    | replay             | `out_and_back` | 50 %    | the same cells in reverse order, turned round   |
| `loop_revisit` | loop revisit       | `loops`        | 50 %    | further closed loops through the start          |
| `reasoning`    | open-domain return | `waypoints`    | 72 %    | further random cells (from frame 576 of 800 on) |
| `second_half`  | any                | any            | 50 %    | as `--walks` or `--test-data` go on             |

Frames whose view was seen in the context are scored apart (`seen`); in a loop or among random cells others are new.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """Which episodes, and which share of their frames is context."""

    policy: str
    share: float
    kind: str
    title: str


SECOND_HALF = Task("", 0.5, "second half", "the second half, imagined")
TASKS = {
    "retrieval": Task("out_and_back", 0.5, "replay", "the way back, imagined"),
    "loop_revisit": Task("loops", 0.5, "loop revisit", "further loops, imagined"),
    "reasoning": Task("waypoints", 0.72, "open-domain return", "the way on, imagined"),
}


@dataclass(frozen=True)
class Protocol:
    """The tasks of a table, and the conditions under which frames are imagined."""

    words: str
    tasks: dict[str, Task]
    views: tuple[str, ...]
    """Policies whose episodes are predicted a few frames ahead, too."""


ACTIONS = Protocol(
    "the environment's actions are the conditions, and a way back turns round: not that of arXiv 2505.20171",
    TASKS,
    ("waypoints", "out_and_back"),
)
PROTOCOLS = {"actions": ACTIONS}


def tasks_of(result: dict[str, Any]) -> dict[str, Task]:
    """The tasks that a run's retention.json has figures of."""
    every = PROTOCOLS[result["protocol"]].tasks | {"second_half": SECOND_HALF}
    return {name: task for name, task in every.items() if name in result}
