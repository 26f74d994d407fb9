"""One thread for each test process: small tensors gain nothing from more, and lose much on a busy machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands that tests start

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# a test says what is right, not how quick this machine is
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--environment",
        action="append",
        metavar="NAME",
        help="an environment that tests/envs/test_conformance.py checks in place of its own; may be given again",
    )
    parser.addoption(
        "--worldmodel",
        action="append",
        metavar="NAME",
        help="a world model, by name or module:Class, that tests/worldmodel/test_conformance.py checks in place of its "
        "own; may be given again",
    )
