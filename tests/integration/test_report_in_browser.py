"""The HTML report in a real browser: Debian's chromium and chromium-driver, headless, no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import exact_ms
from analysis.render.html import page as html
from analysis.render.spec import kernels
from analysis.render.spec.text import visible
from analysis.report import Report, assemble
from analysis.trace.reader import Trace
from browser_kit import press, unfold
from report_builder import HOSTILE, hostile_report, plain_report

pytestmark = pytest.mark.integration


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Callable[[Report], Any]:
    def open_it(report: Report) -> Any:
        (path,) = html.render(report, tmp_path)
        browser.get_log("browser")
        browser.get_log("performance")
        browser.get(path.as_uri())
        assert browser.execute_script("return document.documentElement.dataset.ready") == "true"
        return browser

    return open_it


@pytest.fixture(scope="module")
def real_report(real_attribution: Callable[[str], tuple[Trace, Attribution]]) -> Report:
    trace, attribution = real_attribution("deepseek-ocr_h100_64tok")
    return assemble(trace, attribution, None)


def requested(browser: Any) -> list[str]:
    """Addresses that the page asked for, itself left out."""
    import json

    events = [json.loads(one["message"])["message"] for one in browser.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return [
        url for url in urls if url != browser.current_url.split("#")[0] and not url.startswith(("data:", "chrome:"))
    ]


def kernel_cells(browser: Any, column: int) -> list[str]:
    cells: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#kernel-table tbody tr')].map(r => r.cells[arguments[0]].innerText)",
        column,
    )
    return cells


@pytest.mark.parametrize("make", [plain_report, hostile_report], ids=["plain", "hostile"])
def test_the_page_opens_without_errors_requests_or_foreign_scripts(
    make: Callable[[], Report], opened: Callable[[Report], Any]
) -> None:
    page = opened(make())
    assert page.get_log("browser") == []
    assert requested(page) == []
    assert page.title == "deepseek-ocr – inference profile"
    for button in page.find_elements("css selector", "#stage-filter button, #icicle-by button, #theme"):
        press(page, button)
    unfold(page)
    assert page.title == "deepseek-ocr – inference profile"
    assert page.get_log("browser") == []
    assert requested(page) == []


def test_hostile_names_are_shown_as_text(opened: Callable[[Report], Any]) -> None:
    page = opened(hostile_report())
    press(page, page.find_element("id", "kernel-more"))
    codes = page.execute_script("return [...document.querySelectorAll('#kernel-table code')].map(c => c.textContent)")
    for name in HOSTILE:
        if len(name) < 1000:
            assert visible(name) in codes
    assert page.execute_script("return document.images.length") == 0
    assert page.execute_script("return document.querySelectorAll('script').length") == 3


def test_the_policy_stops_a_script_that_got_in_all_the_same(opened: Callable[[Report], Any]) -> None:
    page = opened(plain_report())
    page.execute_script(
        "const one = document.createElement('img'); one.setAttribute('onerror', \"document.title='owned'\");"
        "one.src = 'data:broken'; document.body.append(one);"
    )
    page.execute_async_script("setTimeout(arguments[0], 200)")
    assert page.title == "deepseek-ocr – inference profile"
    assert any("Content Security Policy" in one["message"] for one in page.get_log("browser"))


def test_kernels_sort_by_any_column(opened: Callable[[Report], Any], real_report: Report) -> None:
    page = opened(real_report)
    press(page, page.find_element("id", "kernel-more"))
    totals = [float(text.replace(",", "")) for text in kernel_cells(page, 3)]
    assert totals == sorted(totals, reverse=True)
    assert len(totals) == len(real_report.kernels)
    heads = page.find_elements("css selector", "#kernel-table thead th")
    press(page, heads[2])
    calls = [int(text.replace(",", "")) for text in kernel_cells(page, 2)]
    assert calls == sorted((one.calls for one in real_report.kernels), reverse=True)
    assert heads[2].get_attribute("aria-sort") == "descending"
    press(page, heads[2])
    assert kernel_cells(page, 2) == [f"{one:,}" for one in sorted(one.calls for one in real_report.kernels)]
    press(page, heads[8])
    per_token = kernel_cells(page, 8)
    known = [text for text in per_token if text != "n/a"]
    assert per_token == known + ["n/a"] * (len(per_token) - len(known))


def test_the_page_writes_what_python_writes(opened: Callable[[Report], Any], real_report: Report) -> None:
    """The script's kernel table against the same rows written by the declaration, cell by cell."""
    page = opened(real_report)
    press(page, page.find_element("id", "kernel-more"))
    spec = kernels.KERNELS
    rows = sorted(real_report.kernels, key=lambda row: -row.total_ns)
    columns = [column for column in spec.for_reader("html") if not column.below]
    below = {column.below: column for column in spec.for_reader("html") if column.below}
    for place, column in enumerate(columns):
        found = kernel_cells(page, place)
        second = below.get(column.key)
        for row, text in zip(rows, found, strict=True):
            first, *rest = text.split("\n")
            assert first == column.style(column.value(row))
            if second is not None and second.value(row) is not None and second.style.name != "name":
                assert rest == [second.style(second.value(row))]


def test_launch_shapes_unfold_below_their_kernel(opened: Callable[[Report], Any], real_report: Report) -> None:
    page = opened(real_report)
    most = max(real_report.kernels[:25], key=lambda one: one.shapes)
    button = page.find_element("xpath", f"//button[contains(@class, 'shapes')][text()='{most.shapes}']")
    before = len(kernel_cells(page, 0))
    press(page, button)
    names = kernel_cells(page, 0)
    unfolded = [place for place, name in enumerate(names) if "launch shape" in name or "more shapes" in name]
    assert unfolded
    assert len(names) == before + len(unfolded)
    calls = [int(kernel_cells(page, 2)[place].replace(",", "")) for place in unfolded]
    assert sum(calls) == int(kernel_cells(page, 2)[unfolded[0] - 1].replace(",", ""))
    button = page.find_element("xpath", "//button[contains(@class, 'shapes')][@aria-expanded='true']")
    press(page, button)
    assert len(kernel_cells(page, 0)) == before


def test_other_tables_sort_too(opened: Callable[[Report], Any], real_report: Report) -> None:
    page = opened(real_report)
    unfold(page)
    heads = page.find_elements("css selector", "#module_kinds_decode thead th")
    press(page, heads[0])
    names = page.execute_script(
        "return [...document.querySelectorAll('#module_kinds_decode tbody tr')].map(r => r.cells[0].innerText)"
    )
    assert names == page.execute_script("return [...arguments[0]].sort((a, b) => a.localeCompare(b, 'en'))", names)


def test_search_finds_by_name_and_adds_up(opened: Callable[[Report], Any], real_report: Report) -> None:
    page = opened(real_report)
    page.find_element("id", "kernel-search").send_keys("NVJET gemm")
    found = [one for one in real_report.kernels if "nvjet" in one.name.lower()]
    assert found
    assert page.find_element("id", "kernel-count").text == f"{min(8, len(found))} of {len(found)} shown"
    foot = page.find_element("css selector", "#kernel-table tfoot tr").text
    assert f"{sum(one.calls for one in found):,}" in foot
    assert exact_ms(sum(one.total_ns for one in found)) in foot
    page.find_element("id", "kernel-search").clear()
    page.find_element("id", "kernel-search").send_keys("no such kernel")
    assert kernel_cells(page, 0) == []


def test_the_chart_of_steps_draws_the_values_of_the_report(
    opened: Callable[[Report], Any], real_report: Report
) -> None:
    page = opened(real_report)
    page.execute_script("document.querySelector('[data-chart=steps]').scrollIntoView()")
    page.execute_async_script("setTimeout(arguments[0], 300)")
    drawn = page.execute_script(
        "return echarts.getInstanceByDom(document.querySelector('[data-chart=steps] .zoomable')).getOption()"
        ".series.map(one => one.data)"
    )
    assert [one[1] for one in drawn[0]] == [one.profiled_host_ns for one in real_report.steps]
    assert [one[1] for one in drawn[1]] == [one.busy_ns for one in real_report.steps]


def test_nothing_is_wider_than_the_page(opened: Callable[[Report], Any], real_report: Report) -> None:
    page = opened(real_report)
    unfold(page)
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    cut = page.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.querySelector('table').id + ' ' + e.scrollWidth + ' ' + e.clientWidth)"
    )
    assert cut == []


def test_every_number_explains_itself(opened: Callable[[Report], Any], real_report: Report) -> None:
    page = opened(real_report)
    tile = page.find_element("css selector", ".tile")
    page.execute_script("arguments[0].focus()", tile)
    page.execute_async_script("setTimeout(arguments[0], 100)")
    tip = page.find_element("id", "tip")
    assert tip.is_displayed()
    assert tip.text == tile.get_attribute("data-def")


def test_the_theme_can_be_chosen_and_follows_the_system(opened: Callable[[Report], Any]) -> None:
    page = opened(plain_report())
    background = "return getComputedStyle(document.body).backgroundColor"
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    dark = page.execute_script(background)
    page.find_element("id", "theme").click()
    light = page.execute_script(background)
    assert page.find_element("id", "theme").text == "Theme: light"
    assert dark != light
    page.find_element("id", "theme").click()
    assert page.execute_script(background) == dark
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_it_prints(opened: Callable[[Report], Any], real_report: Report) -> None:
    import base64

    page = opened(real_report)
    pdf = base64.b64decode(page.print_page())
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000


def test_kernels_by_module_are_searched(opened: Callable[[Report], Any], real_report: Report) -> None:
    page = opened(real_report)
    rows = [row for row in real_report.kernel_modules if row.stage == "decode"]
    wanted = [row for row in rows if row.module == "lm_head"]
    unfold(page)
    field = page.find_element("css selector", 'input[data-filters="kernel_modules_decode"]')
    field.send_keys("lm_head")
    shown = (
        "return [...document.querySelectorAll('#kernel_modules_decode tbody tr')].filter(e => e.offsetParent).length"
    )
    assert page.execute_script(shown) == len(wanted) > 0
    told = page.find_element("css selector", '[data-counts="kernel_modules_decode"]')
    assert told.text == f"{len(wanted)} of {len(rows)} rows"
    assert not page.find_element("css selector", "#kernel_modules_decode tfoot").is_displayed(), "that adds up all rows"
