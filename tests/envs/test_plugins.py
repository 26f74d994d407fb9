"""Environments of other packages: entry points, paths, and packages that are missing."""

import importlib
import sys
import textwrap

import numpy as np
import pytest

import envs
from envs.errors import OptionError

CODE = """
    import gymnasium
    import numpy as np

    class Count(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, np.inf, (1,), np.float64)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, start=0):
            self.start = start

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.count = self.start
            return np.array([float(self.count)]), {}

        def step(self, action):
            self.count += int(action)
            return np.array([float(self.count)]), 1.0, self.count > 9, False, {}

    class Words(Count):
        observation_space = gymnasium.spaces.Text(9)

    class Paid(Count):
        def __init__(self, wage, hours, start=0):
            super().__init__(start)

    def anything(**options):
        return Count(**options)
"""

POINTS = """
    [lssvwm.environments]
    Count = counting.environment:Count
    MemoryMaze = counting.environment:Count
    Broken = counting.nothing:Count
"""


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """A package as pip would leave it, where Python finds it."""
    package, info = tmp_path / "counting", tmp_path / "counting-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (package / "environment.py").write_text(textwrap.dedent(CODE))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(POINTS))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("counting")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["Count", "counting.environment:Count", "counting.environment:anything"])
def test_made_by_entry_point_or_path(name):
    env = envs.make(f"{name}:start=4")
    observation, _ = env.reset(seed=0)
    assert observation == np.array([4], np.float32) and observation.dtype == np.float32
    assert env.step(1)[0] == 5
    assert envs.obs_type(name) == envs.obs_type(f"{name}:start=4") == "vector"
    assert envs.make(name).reset()[0] == 0


@pytest.mark.parametrize("name", ["Count:start=3", "counting.environment:Count:start=3"])
def test_worker_processes_find_it(name):
    vector = envs.make_vector(name, 2)
    np.testing.assert_array_equal(vector.reset()[0], [[3], [3]])
    vector.close()


def test_names_list_it_and_ours_go_first():
    assert "Count" in envs.names() and envs.names().count("MemoryMaze") == 1
    assert "Count" in envs.forms() and "Atari/<Game>" in envs.forms()
    assert envs.obs_type("MemoryMaze") == "image"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Cuont", "unknown environment 'Cuont': did you mean 'Count'?"),
        ("Count:begin=4", "Count has no option 'begin': did you mean 'start'?"),
        ("counting.environment:Count:begin=4", "counting.environment:Count has no option 'begin': "),
        ("Broken", "Broken, an entry point to counting.nothing:Count, cannot be imported: No module named"),
        ("counting.environment:Cuont", "module 'counting.environment' has no attribute 'Cuont'"),
        ("no.such_module:Count", "No module named 'no'; the nearest known name is "),
    ],
)
def test_refusals_are_one_line(name, says):
    with pytest.raises(envs.UnknownEnvironment) as raised:
        envs.check_name(name)
    assert says in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("carried", "says"),
    [
        ("", "needs the options 'wage', 'hours': write counting.environment:Paid:wage=value,hours=value"),
        (":start=3,wage=1", "needs the option 'hours': write counting.environment:Paid:start=3,wage=1,hours=value"),
    ],
)
@pytest.mark.parametrize("use", [envs.obs_type, envs.make, lambda name: envs.make_vector(name, 1)])
def test_options_that_it_has_to_have_are_named(use, carried, says):
    name = f"counting.environment:Paid{carried}"
    with pytest.raises(OptionError) as raised:
        use(name)
    assert str(raised.value) == f"{name} {says}"


def test_options_that_it_has_to_have_may_be_given_in_either_way():
    assert envs.make("counting.environment:Paid:start=3,wage=1", hours=2).reset()[0] == 3


def test_spaces_that_are_not_supported_are_refused():
    with pytest.raises(ValueError, match="counting.environment:Words has observations Text"):
        envs.make("counting.environment:Words")


@pytest.mark.parametrize(
    ("package", "name", "says"),
    [
        ("ale_py", "Atari/Pong", "Atari needs ale-py: pip install 'lssvwm[atari]'"),
        ("minigrid", "MiniGrid/MemoryS7", "MiniGrid needs minigrid: pip install 'lssvwm[minigrid]'"),
        ("popgym", "POPGym/RepeatFirstEasy", "POPGym needs popgym: pip install 'lssvwm[popgym]'"),
    ],
)
@pytest.mark.parametrize("use", [envs.check_name, envs.obs_type, envs.make, lambda name: envs.make_vector(name, 1)])
def test_missing_packages_are_named(monkeypatch, use, package, name, says):
    monkeypatch.setitem(sys.modules, package, None)  # as if not installed
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(package)
    with pytest.raises(envs.UnknownEnvironment) as raised:
        use(name)
    assert str(raised.value) == says
    # Without it another family's names are found still.
    with pytest.raises(envs.UnknownEnvironment, match="did you mean 'ObjectRecall'"):
        use("ObjectRecal")
