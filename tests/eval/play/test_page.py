"""The page in a real browser, served by the command: keys, images, visitors, messages, sizes."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

import envs
from eval.browser import browser, problem, screen
from tests.eval.play_runs import ENV, made

pytestmark = pytest.mark.skipif(problem() is not None, reason=str(problem()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [made(folder / "first", seed=0), made(folder / "second", seed=1)]


@pytest.fixture(scope="module")
def address(runs) -> Iterator[str]:
    """What the command prints."""
    server = subprocess.Popen(
        [sys.executable, "-m", "eval.play", *map(str, runs)],
        stdout=subprocess.PIPE,
        text=True,
        # what is started in the background ignores interrupts, and so do its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    yield server.stdout.readline().strip()
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 0


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


def until(driver: Chrome, true) -> None:
    """Waits until a function of the driver is true."""
    WebDriverWait(driver, 20, 0.02, ignored_exceptions=()).until(true)


def imagined(driver: Chrome, frames: int) -> None:
    """Waits until the page shows this imagined frame."""
    until(driver, lambda d: d.execute_script("return document.body.dataset.imagined") == str(frames))


def opened(driver: Chrome, address: str) -> None:
    driver.get(address)
    imagined(driver, 0)


def pixels(driver: Chrome, figure: str) -> np.ndarray:
    """(H, W, 3) uint8 of a canvas."""
    script = (
        f"const c = document.querySelector('#{figure} canvas'); "
        "return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    height, width, values = driver.execute_script(script)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def press(driver: Chrome, keys: list[str]) -> None:
    """One after another, each when the frame before is there."""
    before = int(driver.execute_script("return document.body.dataset.imagined"))
    for i, key in enumerate(keys):
        ActionChains(driver).send_keys(key).perform()
        imagined(driver, before + i + 1)


def text(driver: Chrome, name: str) -> str:
    return driver.find_element(By.ID, name).text


def test_keys_act_in_the_world_model_and_the_real_environment_alike(driver, address):
    opened(driver, address)
    first = pixels(driver, "dream")
    assert first.shape == (32, 32, 3) and first.std() > 0
    driver.find_element(By.ID, "beside").click()
    press(driver, [Keys.ARROW_UP, "w", "a", Keys.ARROW_DOWN, "1"])  # actions right, up, left, down are 0 to 3
    assert np.abs(pixels(driver, "dream").astype(int) - first).max() > 0
    environment = envs.make(ENV)
    environment.reset(seed=int(re.search(r"seed (\d+)", text(driver, "past"))[1]))
    for action in (1, 1, 2, 3, 0):
        frame = environment.step(action)[0]
    assert np.array_equal(pixels(driver, "real"), frame)
    assert text(driver, "history") == "6"
    assert re.fullmatch(r"\d+\.\d ms", text(driver, "model-ms")) and re.fullmatch(
        r"\d+\.\d ms", text(driver, "answer-ms")
    )
    bars = [bar.text for bar in driver.find_elements(By.CSS_SELECTOR, "#norms span")]
    assert bars == ["block_scan conv", "block_scan ssm", "local_attention kv"] * 2


def test_page_asks_nothing_of_other_places_and_has_no_errors(driver, address):
    opened(driver, address)
    press(driver, [Keys.ARROW_UP])
    names = driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in names if not name.startswith(("data:", "blob:", "http://127.0.0.1"))] == []
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_token_is_required(driver, address):
    driver.get(address.partition("?")[0])
    assert "token included" in driver.find_element(By.TAG_NAME, "body").text
    assert driver.find_elements(By.TAG_NAME, "canvas") == []


def test_two_visitors_have_sessions_of_their_own(driver, address):
    opened(driver, address)
    press(driver, [Keys.ARROW_UP] * 3)
    shown, mine = pixels(driver, "dream"), driver.current_window_handle
    driver.switch_to.new_window("tab")
    opened(driver, address)
    press(driver, [Keys.ARROW_LEFT])
    driver.close()
    driver.switch_to.window(mine)
    assert np.array_equal(pixels(driver, "dream"), shown)
    press(driver, [Keys.ARROW_UP])  # its fourth
    assert text(driver, "history") == "5"


def test_recorded_step_reset_memory_run_and_restart(driver, address):
    opened(driver, address)
    frames = driver.find_element(By.ID, "frames")
    frames.clear()
    frames.send_keys("25", Keys.TAB)
    driver.find_element(By.ID, "recorded").click()
    until(driver, lambda d: "25 frames of recorded episode" in text(d, "past"))
    press(driver, [Keys.ARROW_UP, "."])
    assert text(driver, "history") == "27"
    ActionChains(driver).send_keys("m").perform()
    until(driver, lambda d: text(d, "history") == "0")
    assert "memory was reset" in text(driver, "past")
    ActionChains(driver).send_keys("p").perform()  # time passes by itself
    until(driver, lambda d: int(text(d, "history")) > 2)
    ActionChains(driver).send_keys("p").perform()
    ActionChains(driver).send_keys("r").perform()
    imagined(driver, 0)
    assert text(driver, "history") == "25"


def test_held_key_goes_on_until_it_is_let_go(driver, address):
    opened(driver, address)
    ActionChains(driver).key_down(Keys.ARROW_UP).perform()
    until(driver, lambda d: int(text(d, "history")) > 4)
    ActionChains(driver).key_up(Keys.ARROW_UP).perform()
    driver.execute_script("return new Promise((done) => setTimeout(done, 300))")
    stopped = text(driver, "history")
    driver.execute_script("return new Promise((done) => setTimeout(done, 300))")
    assert text(driver, "history") == stopped


def test_another_model_and_a_vanished_run(driver, address, runs, tmp_path):
    opened(driver, address)
    press(driver, [Keys.ARROW_UP] * 2)
    aside = shutil.move(runs[1], tmp_path / "aside")
    model = Select(driver.find_element(By.ID, "model"))
    model.select_by_visible_text("second")
    until(driver, lambda d: "second holds no run" in text(d, "error"))
    press(driver, [Keys.ARROW_UP])  # the first one's session goes on
    shutil.move(aside, runs[1])
    model.select_by_visible_text("second")
    until(driver, lambda d: text(d, "error") == "")
    until(driver, lambda d: "Since then it imagined 3" in text(d, "past"))
    assert model.first_selected_option.text == "second"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_nothing_hangs_over_the_edge_or_over_something_else(driver, address, width, height):
    screen(driver, width, height)
    opened(driver, address)
    driver.find_element(By.ID, "beside").click()
    press(driver, [Keys.ARROW_UP])
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    boxes = driver.execute_script(
        "return [...document.querySelectorAll('canvas, button, select, input, h1, h2, dd, figcaption, #past, #legend')]"
        ".map((e) => e.getBoundingClientRect()).filter((r) => r.width).map((r) => [r.left, r.top, r.right, r.bottom])"
    )
    boxes = np.array(boxes)
    assert len(boxes) > 25 and boxes[:, 2].max() <= width
    lapped = (
        np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    ).min(-1)
    np.fill_diagonal(lapped, 0)
    assert lapped.max() < 1
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
