"""Moves in a real browser."""

from typing import Any


def press(browser: Any, element: Any) -> None:
    """Click, away from the bar that stays at the top."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def unfold(browser: Any) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
