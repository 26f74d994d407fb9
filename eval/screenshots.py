"""Pictures of the pages for the documents, by a headless browser: `make screenshots`

Without runs it trains a tiny one first, in seconds.

    python -m eval.screenshots
    python -m eval.screenshots --runs runs/MemoryMaze-lssvwm-s0 --seen 200
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from eval.report.__main__ import report

try:
    from selenium.webdriver import ActionChains, Chrome, Keys
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    from eval.browser import browser, problem, screen
except ModuleNotFoundError as missing:
    raise SystemExit(f"eval.screenshots needs {missing.name}: pip install 'lssvwm[test]'") from None

SIZES = {"": (1280, 800), "-phone": (390, 844)}
"""What is added to a picture's name, and the screen (width, height)."""

WALK = [Keys.ARROW_LEFT] * 3 + [Keys.ARROW_UP] * 3

SEED = 1_000_004
"""Of the environment on the pictures: the same ones each time, but for what is sampled."""


def main(argv: Sequence[str]) -> None:
    """Write OUT/<page>.png and OUT/<page>-phone.png of every page, and print where they are."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.screenshots", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", type=Path, metavar="RUN", help="run folders of one environment")
    parser.add_argument("--seen", type=int, default=16, help="frames that the model sees before the walk (default: 16)")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="(default: docs/images)")
    given = parser.parse_args(argv)
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        if words := problem():
            raise ConfigError(words)
        runs = given.runs or [_tiny(Path(folder) / "tiny")]
        with browser() as driver:
            for name, page in PAGES.items():
                for suffix, size in SIZES.items():
                    path = given.out / f"{name}{suffix}.png"
                    screen(driver, *size)
                    with page(driver, runs, given.seen, Path(folder)):
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
def _play(driver: Chrome, runs: Sequence[Path], seen: int, folder: Path) -> Iterator[None]:
    """A walk through the first run's dream, the real environment beside it."""
    command = [sys.executable, "-m", "eval.play", *map(str, runs)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        driver.get(server.stdout.readline().strip())
        _imagined(driver, 0)
        driver.execute_script(f"document.getElementById('frames').value = {seen}")
        driver.execute_script(f"send({{ do: 'new', frames: {seen}, seed: {SEED} }})")
        WebDriverWait(driver, 60).until(lambda d: f"saw {seen} frames" in d.find_element(By.ID, "past").text)
        driver.find_element(By.ID, "beside").click()
        for i, key in enumerate(WALK):
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
def _report(driver: Chrome, runs: Sequence[Path], seen: int, folder: Path) -> Iterator[None]:
    """The upper end of a report about the runs."""
    out = folder / "report.html"
    if not out.exists():
        report(runs, out)
    driver.get(out.as_uri())
    yield


PAGES: dict[str, Callable[..., AbstractContextManager[None]]] = {"play": _play, "report": _report}
"""By the picture's name: what opens a page and brings it to where it is to be photographed."""


if __name__ == "__main__":
    main(sys.argv[1:])
