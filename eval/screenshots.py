"""Screenshots of the pages for the documents, by a headless browser: `make screenshots`

Without runs it trains a tiny one first, in seconds.

    python -m eval.screenshots
    python -m eval.screenshots --runs runs/MemoryMaze-lssvwm-s0 --observed 200
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from eval.arguments import parser, positive
from eval.report.sections import report

try:
    from selenium.webdriver import ActionChains, Chrome, Keys
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    from eval.browser import browser, problem, screen
except ModuleNotFoundError as missing:
    raise SystemExit(f"eval.screenshots needs {missing.name}: pip install 'lssvwm[test]'") from None

SIZES = {"": (1280, 800), "-phone": (390, 844)}
"""What is added to a file's name, and the screen (width, height)."""
KEYS = [Keys.ARROW_LEFT] * 3 + [Keys.ARROW_UP] * 3
SEED = 1_000_004
"""Of the environment: the same images each time, but for what is sampled."""


def main(argv: Sequence[str]) -> None:
    """Write OUT/<page>.png and OUT/<page>-phone.png of every page, and print where they are."""
    options = parser("screenshots", __doc__)
    options.add_argument("--runs", nargs="+", type=Path, metavar="RUN", help="run folders of one environment")
    words = "frames that the model observes before it imagines (default: %(default)s)"
    options.add_argument("--observed", type=positive, default=16, help=words)
    options.add_argument("--out", type=Path, default=Path("docs/images"), help="(default: %(default)s)")
    given = options.parse_args(argv)
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        if missing := problem():
            raise ConfigError(missing)
        runs = given.runs or [_tiny(Path(folder) / "tiny")]
        with browser() as driver:
            for name, page in PAGES.items():
                for suffix, size in SIZES.items():
                    path = given.out / f"{name}{suffix}.png"
                    screen(driver, *size)
                    with page(driver, runs, given.observed, Path(folder)):
                        path.parent.mkdir(parents=True, exist_ok=True)
                        driver.save_screenshot(str(path))
                    print(path)


def _tiny(folder: Path) -> Path:
    command = [sys.executable, "train_agent.py", "--preset", "debug", "--env", "ObjectRecall:delay=20"]
    done = subprocess.run([*command, "--run-dir", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{' '.join(command[1:])} failed: {done.stderr.strip().splitlines()[-1]}")
    return folder


@contextmanager
def _play(driver: Chrome, runs: Sequence[Path], observed: int, folder: Path) -> Iterator[None]:
    """Some actions in the first run's world model, the real environment beside it."""
    command = [sys.executable, "-m", "eval.play", *map(str, runs)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        if not (address := server.stdout.readline().strip()):
            raise ConfigError("eval.play did not start")  # and said why
        driver.get(address)
        _imagined(driver, 0)
        driver.execute_script(f"document.getElementById('frames').value = {observed}")
        driver.execute_script(f"send({{ do: 'new', frames: {observed}, seed: {SEED} }})")
        WebDriverWait(driver, 60).until(lambda d: f"observed {observed} frames" in d.find_element(By.ID, "past").text)
        driver.find_element(By.ID, "beside").click()
        for i, key in enumerate(KEYS):
            ActionChains(driver).send_keys(key).perform()
            _imagined(driver, i + 1)
        yield
    finally:
        server.terminate()
        server.wait()


def _imagined(driver: Chrome, frames: int) -> None:
    """Waits until the page shows this imagined frame."""
    WebDriverWait(driver, 60, 0.02).until(
        lambda d: d.execute_script("return document.body.dataset.imagined") == str(frames)
    )


@contextmanager
def _report(driver: Chrome, runs: Sequence[Path], observed: int, folder: Path) -> Iterator[None]:
    """The upper end of a report about the runs."""
    out = folder / "report.html"
    if not out.exists():
        report(runs, out)
    driver.get(out.as_uri())
    yield


PAGES: dict[str, Callable[..., AbstractContextManager[None]]] = {"play": _play, "report": _report}
"""By the file's name: what opens a page and brings it to the state to show."""


if __name__ == "__main__":
    main(sys.argv[1:])
