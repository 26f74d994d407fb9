"""A headless Chromium, driven by Selenium: for tests of the page and its screenshots. Nothing is downloaded."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless",
    "--no-sandbox",  # which containers run as root forbid
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOW_TO_GET = "no browser: as root, make browser (or apt-get install -y chromium chromium-driver)"


def problem() -> str | None:
    """What is missing, and how to get it; None where a browser can be started."""
    return None if shutil.which("chromium") and shutil.which("chromedriver") else HOW_TO_GET


@contextmanager
def browser() -> Iterator[Chrome]:
    """A browser with a temporary profile. Raises FileNotFoundError where there is none."""
    if words := problem():
        raise FileNotFoundError(words)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = Chrome(options, Service(str(shutil.which("chromedriver"))))
        try:
            yield driver
        finally:
            driver.quit()


def screen(driver: Chrome, width: int, height: int) -> None:
    """Sets the screen's size in pixels; narrow ones count as a phone's."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
