"""diff.html in a real browser: Debian's chromium and chromium-driver, headless, no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.compare.records import Diff
from analysis.render.compare.page import write_page
from browser_kit import press, unfold
from compare_builder import answered, diff, forbidden, hostile

pytestmark = pytest.mark.integration


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Callable[[Diff], Any]:
    def open_it(given: Diff) -> Any:
        path = write_page(given, tmp_path)
        browser.get_log("browser")
        browser.get_log("performance")
        browser.get(path.as_uri())
        assert browser.execute_script("return document.documentElement.dataset.ready") == "true"
        return browser

    return open_it


def requested(browser: Any) -> list[str]:
    """Addresses that the page asked for, itself left out."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    here = browser.current_url.split("#")[0]
    return [url for url in urls if url.split("#")[0] != here and not url.startswith(("data:", "chrome:"))]


def cells(browser: Any, table: str, column: int) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.getElementById(arguments[0]).tBodies[0].rows].filter(r => !r.hidden)"
        ".map(r => r.cells[arguments[1]].innerText)",
        table,
        column,
    )
    return found


@pytest.mark.parametrize(
    "given",
    [diff(), diff(answered("regression"), forbidden()), Diff("hostile", (hostile(),))],
    ids=["one", "sides", "hostile"],
)
def test_the_page_opens_without_errors_requests_or_foreign_scripts(given: Diff, opened: Callable[[Diff], Any]) -> None:
    page = opened(given)
    title = page.title
    for button in page.find_elements("css selector", "#stage-filter button, #theme"):
        press(page, button)
    unfold(page)
    assert page.title == title
    assert title.endswith(" – comparison")
    assert page.execute_script("return document.querySelectorAll('script').length") == 2
    assert page.execute_script("return document.images.length") == 0
    assert page.get_log("browser") == []
    assert requested(page) == []


def test_a_bar_leads_to_its_row(opened: Callable[[Diff], Any]) -> None:
    page = opened(diff())
    bar = page.find_element("css selector", "#c0-s1-why .wide-only a[href^='#c0-s1-module-'] rect")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", bar)
    bar.click()
    page.execute_async_script("setTimeout(arguments[0], 50)")
    row = page.find_element("css selector", "tr.chosen")
    assert page.current_url.endswith(f"#{row.get_attribute('id')}")
    assert row.is_displayed(), "its fold is open"
    assert "language_model.layers.*.self_attn" in row.text
    top, bottom, height = page.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.top, r.bottom, innerHeight]", row
    )
    assert 0 <= top <= bottom <= height


def test_a_copied_address_opens_at_its_row(opened: Callable[[Diff], Any]) -> None:
    page = opened(diff())
    page.get(f"{page.current_url.split('#')[0]}?again#c0-s1-class-1")
    row = page.find_element("css selector", "tr.chosen")
    assert row.get_attribute("id") == "c0-s1-class-1"
    assert row.is_displayed()


def test_kernels_are_sorted_and_searched(opened: Callable[[Diff], Any]) -> None:
    page = opened(diff())
    table = "c0-s1-kernels"
    assert [float(text.replace("−", "-")) for text in cells(page, table, 2)][:2] == [-0.3381, 0.0837]
    heads = page.find_elements("css selector", f"#{table} thead th")
    press(page, heads[2])
    numbers = [float(text.replace("−", "-")) for text in cells(page, table, 2)]
    assert numbers == sorted(numbers, reverse=True)
    field = page.find_element("css selector", f"input[data-filters='{table}']")
    field.send_keys("these.7 became")
    assert cells(page, table, 1) == ["these 7 became this one"]
    assert page.find_element("css selector", f"[data-counts='{table}']").text == "1 of 6 rows"
    assert not page.find_element("css selector", f"#{table} tfoot").is_displayed(), "the total is of all rows"
    field.clear()
    field.send_keys("nvjet_.*_128x8")
    assert cells(page, table, 1) == ["same work, another kernel"]


def test_a_stage_can_be_looked_at_alone(opened: Callable[[Diff], Any]) -> None:
    page = opened(diff())
    press(page, page.find_element("xpath", "//*[@id='stage-filter']/button[text()='decode']"))
    shown = "return [...document.querySelectorAll('[data-stage]')].filter(e => e.checkVisibility()).map(e => e.dataset.stage)"
    assert set(page.execute_script(shown)) == {"decode"}
    assert page.current_url.endswith("#stage=decode")


def test_definitions_are_shown_on_focus(opened: Callable[[Diff], Any]) -> None:
    page = opened(diff())
    page.execute_script("document.querySelector('#c0-s1-kernels thead th').focus()")
    page.execute_async_script("setTimeout(arguments[0], 60)")
    assert "What the kernels do" in page.find_element("id", "tip").text


def test_the_first_screen_answers(opened: Callable[[Diff], Any]) -> None:
    page = opened(diff())
    page.execute_script("scrollTo(0, 0)")
    bottom = "return [...document.querySelectorAll(arguments[0])].at(-1).getBoundingClientRect().bottom"
    for answer in ("#headline", ".stage .figure", ".stage .answer", ".stage .reasons", ".stage .what"):
        assert page.execute_script(bottom, answer) <= 800, answer
