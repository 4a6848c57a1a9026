"""A real browser – Debian's chromium and chromium-driver, headless, no network – and moves in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip


@contextmanager
def chromium(profile: Path, *flags: str, logged: bool = False) -> Iterator[Any]:
    """A browser with a profile of its own; skips the test where there is none.

    Args:
        profile: an empty folder.
        flags: beside those of every test.
        logged: whether its console and its requests can be read.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (dev extra)")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    if logged:
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield made
    made.quit()


def press(browser: Any, element: Any) -> None:
    """Click, away from the bar that stays at the top."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def unfold(browser: Any) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
