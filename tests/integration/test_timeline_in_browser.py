"""Timeline, icicle, links, filter and table tools of the HTML report in a real browser, against the trace's own data."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import numpy as np
import pytest

from analysis.attribution.attribution import Attribution
from analysis.render.csv import write_csv
from analysis.render.formats import write_report
from analysis.render.html import page as html
from analysis.render.html.page_data import cut
from analysis.render.spec import kernels
from analysis.render.spec.gpu_time import all_operations_ns
from analysis.report import Report, assemble
from analysis.sums.host_calls import function_name
from analysis.trace.reader import Trace
from browser_kit import press
from report_builder import HOSTILE, hostile_report
from trace_builder import TraceBuilder

pytestmark = pytest.mark.integration

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def real(real_attribution: Callable[[str], tuple[Trace, Attribution]]) -> tuple[Attribution, Report]:
    trace, attribution = real_attribution("deepseek-ocr_h100_small")
    return attribution, assemble(trace, attribution, None)


@pytest.fixture(scope="module")
def modules(real_attribution: Callable[[str], tuple[Trace, Attribution]]) -> tuple[Attribution, Report]:
    """A trace with module ranges and a CUDA graph that was recorded."""
    trace, attribution = real_attribution("deepseek-ocr_h100_recorded-graph")
    return attribution, assemble(trace, attribution, None)


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Open:
    """Opens the page of a trace, at a fragment, and has its timeline drawn."""

    def open_it(of: tuple[Attribution, Report], fragment: str = "", *, drawn: bool = True) -> Any:
        (path,) = write_report(of[1], of[0], tmp_path, ("html",))
        browser.get_log("browser")
        browser.get("about:blank")
        browser.get(path.as_uri() + fragment)
        assert browser.execute_script("return document.documentElement.dataset.ready") == "true"
        if drawn:
            browser.execute_async_script(
                "timeline.begin().then(() => requestAnimationFrame(() => arguments[0](true)), e => arguments[0](String(e)))"
            )
        assert browser.get_log("browser") == []
        return browser

    return open_it


def said(page: Any) -> dict[str, str]:
    """What the address says."""
    text = page.execute_script("return location.hash.slice(1)")
    return {key: values[0] for key, values in parse_qs(text).items()}


def settled(page: Any) -> None:
    page.execute_async_script("setTimeout(arguments[0], 260)")


def drawn_order(attribution: Attribution) -> Any:
    """Rows of the trace's operations in the order of the page's tracks."""
    operations = attribution.operations
    return np.lexsort((operations.start, operations.stream, operations.device, operations.process))


def click_on(page: Any, table: str, row: int) -> None:
    """Bring an event into view and click on its middle."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    x, y = page.execute_script(
        "const [name, row] = arguments; const canvas = document.getElementById('timeline-canvas');"
        "const track = timeline.tracks().find(t => t.table === name && row >= t.from && row < t.to);"
        "const end = track.start[row] + track.duration[row];"
        "timeline.look(track.start[row] - 8 * track.duration[row], end + 8 * track.duration[row]); timeline.frame();"
        "canvas.scrollIntoView({block: 'center'});"
        "const box = canvas.getBoundingClientRect();"
        "return [box.left + timeline.xOf((track.start[row] + end) / 2), box.top + track.top + track.height / 2];",
        table, row,
    )  # fmt: skip
    action = ActionBuilder(page)
    action.pointer_action.move_to_location(round(x), round(y))  # type: ignore[no-untyped-call]
    action.pointer_action.click()
    action.perform()


def details(page: Any) -> dict[str, str]:
    """The selected event's facts."""
    found: dict[str, str] = page.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('#timeline-detail dl div')]"
        ".map(e => [e.children[0].textContent, e.children[1].textContent]))"
    )
    return found


def button(page: Any, text: str) -> Any:
    return page.find_element("xpath", f"//div[@id='timeline-detail']//button[text()='{text}']")


def test_the_timeline_is_unpacked_when_it_comes_into_sight(opened: Open, real: tuple[Attribution, Report]) -> None:
    page = opened(real, drawn=False)
    page.execute_script("document.getElementById('timeline').scrollIntoView()")
    ready = (
        "const canvas = document.getElementById('timeline-canvas');"
        "const wait = () => canvas.dataset.ready ? arguments[0](true) : setTimeout(wait, 30); wait()"
    )
    assert page.execute_async_script(ready)
    assert page.get_log("browser") == []


def test_it_draws_every_operation_of_the_trace(opened: Open, real: tuple[Attribution, Report]) -> None:
    attribution, _ = real
    page = opened(real)
    tracks = page.execute_script("return timeline.tracks().map(t => [t.table, t.kind, t.to - t.from, t.top, t.height])")
    assert sum(rows for table, _, rows, *_ in tracks if table == "operations") == len(attribution.operations)
    assert sum(rows for table, _, rows, *_ in tracks if table == "calls") == len(attribution.calls)
    assert {kind for _, kind, *_ in tracks} >= {"image", "stage", "step", "call", "stream", "idle"}
    # Where the GPU worked there is colour, pixel by pixel, and where it did not there is none.
    wrong = page.execute_script(
        "const canvas = document.getElementById('timeline-canvas'); const ratio = Math.min(2, devicePixelRatio);"
        "const track = timeline.tracks().find(t => t.kind === 'stream'); const pen = canvas.getContext('2d');"
        "const [from, to] = timeline.view(); const k = (to - from) / (canvas.clientWidth - 124); let wrong = 0;"
        "for (let x = 120; x < canvas.clientWidth - 8; x += 3) {"
        "  const [low, high] = [from + (x - 118) * k, from + (x + 1 - 118) * k];"
        "  const busy = [...track.start].some((start, row) => start < high && start + track.duration[row] > low);"
        "  const alpha = pen.getImageData(Math.round(x * ratio), Math.round((track.top + 20) * ratio), 1, 1).data[3];"
        "  if (busy && alpha === 0) wrong += 1;"
        "} return wrong"
    )
    assert wrong == 0


def test_a_click_on_a_kernel_says_what_it_is_and_where_it_came_from(
    opened: Open, real: tuple[Attribution, Report]
) -> None:
    attribution, report = real
    operations, order = attribution.operations, drawn_order(attribution)
    page = opened(real)
    by_time = np.argsort(-operations.duration[order], kind="stable")
    known = {(row.name): row for row in report.kernels}
    chosen = [row for row in by_time.tolist() if attribution.launch_call[order[row]] >= 0][:3]
    for row in chosen:
        operation = int(order[row])
        click_on(page, "operations", row)
        assert said(page)["op"] == str(row)
        found = details(page)
        name = operations.names[operations.name[operation]]
        kernel = known.get(name)
        if kernel is not None:
            assert page.find_element("css selector", "#timeline-detail h3").text == cut(
                kernel.human_name or kernel.short_name, 160
            )
            assert found["category"] == kernel.category
            grid = operations.shapes.grid(int(operations.shape[operation]))
            assert grid is not None
            assert found["grid, block"].startswith("×".join(map(str, grid)) + ",")
        exact = page.execute_script("return figures.duration(arguments[0])", int(operations.duration[operation]))
        assert found["duration"] == exact
        stage = (*attribution.stages, "(unattributed)")[attribution.operation_stage[operation]]
        assert found["stage"] == stage
        call = int(attribution.launch_call[operation])
        assert found["launched by"].startswith(
            function_name(attribution.calls.names[attribution.calls.name[call]]) + ","
        )
        spoken = page.find_element("id", "timeline-selected").get_attribute("textContent")
        assert exact in spoken
        assert stage in spoken
    press(page, button(page, "Its launch call"))
    selected = page.execute_script("const s = timeline.selected(); return [s.track.table, s.row]")
    assert selected == ["calls", call]
    press(page, button(page, "What it launched"))
    assert page.execute_script("return timeline.selected().track.table") == "operations"


def test_zoom_and_pan_by_keys_wheel_and_drag(opened: Open, real: tuple[Attribution, Report]) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page = opened(real)
    view = "return timeline.view()"
    canvas = page.find_element("id", "timeline-canvas")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", canvas)
    home = page.execute_script(view)
    canvas.send_keys("+")
    closer = page.execute_script(view)
    assert closer[1] - closer[0] == pytest.approx(0.6 * (home[1] - home[0]))
    canvas.send_keys(Keys.ARROW_RIGHT)
    right = page.execute_script(view)
    assert right[0] - closer[0] == pytest.approx(0.2 * (closer[1] - closer[0]))
    canvas.send_keys(Keys.ARROW_LEFT)
    assert page.execute_script(view) == pytest.approx(closer)
    canvas.send_keys("-")
    assert page.execute_script(view) == pytest.approx(home)
    canvas.send_keys("0")
    assert page.execute_script(view) == pytest.approx(page.execute_script("return timeline.whole()"))
    canvas.send_keys(Keys.HOME)
    assert page.execute_script(view) == pytest.approx(home)
    # The wheel zooms at the pointer: the time below it stays.
    box = page.execute_script("const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width]", canvas)
    page.execute_script(
        "const [canvas, clientX, clientY] = arguments; canvas.dispatchEvent(new WheelEvent('wheel',"
        " {deltaY: -300, ctrlKey: true, clientX, clientY, bubbles: true, cancelable: true}))",
        canvas, box[0] + 500, box[1] + 50,
    )  # fmt: skip
    wheeled = page.execute_script(view)
    assert wheeled[1] - wheeled[0] < 0.7 * (home[1] - home[0])
    at = (500 - 118) / (box[2] - 124)
    pixel = (home[1] - home[0]) / (box[2] - 124)
    assert wheeled[0] + at * (wheeled[1] - wheeled[0]) == pytest.approx(home[0] + at * (home[1] - home[0]), abs=pixel)
    ActionChains(page).move_to_element_with_offset(canvas, 0, 0).click_and_hold().move_by_offset(
        -120, 0
    ).release().perform()
    dragged = page.execute_script(view)
    moved = 120 / (box[2] - 124) * (wheeled[1] - wheeled[0])
    assert dragged[0] - wheeled[0] == pytest.approx(moved, rel=0.05)
    settled(page)
    assert said(page)["view"] == f"{round(dragged[0])}-{round(dragged[1])}"


def test_events_are_reached_by_keys_and_told(opened: Open, real: tuple[Attribution, Report]) -> None:
    from selenium.webdriver.common.keys import Keys

    page = opened(real)
    canvas = page.find_element("id", "timeline-canvas")
    page.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    first = page.execute_script("return timeline.selected().row")
    canvas.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    assert page.execute_script("return timeline.selected().row") == first + 1
    live = page.find_element("id", "timeline-selected")
    assert live.get_attribute("aria-live") == "polite"
    assert live.get_attribute("textContent").startswith("GPU operation: ")
    canvas.send_keys(Keys.ARROW_DOWN)
    assert page.execute_script("return timeline.selected().track.kind") == "idle"
    canvas.send_keys(Keys.ESCAPE)
    assert page.execute_script("return timeline.selected()") is None
    label = canvas.get_attribute("aria-label")
    assert f"{len(real[0].operations):,} GPU operations" in label


def test_a_kernel_row_leads_to_its_launches_and_back(opened: Open, real: tuple[Attribution, Report]) -> None:
    attribution, report = real
    page = opened(real)
    row = max(report.kernels, key=lambda one: one.total_ns)
    press(page, page.find_element("css selector", "#kernel-table tbody .to-timeline"))
    assert said(page)["kernel"] == cut(row.name)
    assert said(page)["stage"] == row.stage
    assert page.execute_script("return timeline.lit().all") == row.calls
    first = int(said(page)["op"])
    operation = int(drawn_order(attribution)[first])
    assert attribution.operations.names[attribution.operations.name[operation]] == row.name
    press(page, page.find_element("id", "timeline-next"))
    second = int(said(page)["op"])
    assert second > first
    assert page.execute_script("return timeline.lit().mask[arguments[0]]", second) == 1
    press(page, page.find_element("id", "timeline-previous"))
    assert int(said(page)["op"]) == first
    press(page, button(page, "Row in the kernel table"))
    chosen = page.find_element("css selector", "#kernel-table tr.chosen")
    assert chosen.find_element("css selector", ".kernel-name code").get_attribute("textContent") == cut(row.name)
    assert page.execute_script("return document.activeElement === arguments[0]", chosen)


def test_a_module_row_leads_to_its_kernels_and_back(opened: Open, modules: tuple[Attribution, Report]) -> None:
    _, report = modules
    page = opened(modules)
    table = page.find_element("css selector", "table[id='module_kinds_decode']")
    page.execute_script("arguments[0].closest('details').open = true", table)
    line = next(row for row in table.find_elements("css selector", "tbody tr") if "mlp" in row.text)
    pattern = line.get_attribute("data-module")
    press(page, line.find_element("css selector", ".to-timeline"))
    assert said(page)["module"] == pattern
    import re

    fits = re.compile(re.escape(pattern).replace(r"\*", r"\d+"))
    rows = [
        row
        for row in report.module_rows["decode"]
        if fits.fullmatch(row.name) or (fits.match(row.name + ".") and row.name.startswith(pattern))
    ]
    assert page.execute_script("return timeline.lit().all") == sum(
        row.kernels + row.memcpys + row.memsets for row in rows
    )
    found = details(page)
    assert fits.fullmatch(found["module"])
    press(page, button(page, "Row of its module"))
    assert page.execute_script("return document.activeElement.dataset.module") in (pattern, found["module"])


def test_what_a_cuda_graph_replays_has_its_module(opened: Open, modules: tuple[Attribution, Report]) -> None:
    attribution, _ = modules
    page = opened(modules)
    order = drawn_order(attribution)
    replayed = np.flatnonzero(
        attribution.operations.in_graph[order] & (attribution.operation_level("module")[order] >= 0)
    )
    assert replayed.size
    row = int(replayed[len(replayed) // 2])
    page.execute_script("links.set({op: arguments[0]}); location.reload()", str(row))
    page.execute_async_script(
        "const t = () => window.document.readyState === 'complete' ? arguments[0]() : setTimeout(t, 20); t()"
    )
    page.execute_async_script("timeline.begin().then(() => arguments[0]())")
    of_range, paths = attribution.module_names
    found = details(page)
    assert found["module"] == paths[of_range[attribution.operation_level("module")[order[row]]]]
    assert found["CUDA graph"] == "replayed by one"


def test_a_copied_address_shows_the_same(opened: Open, real: tuple[Attribution, Report]) -> None:
    _, report = real
    row = max((one for one in report.kernels if one.stage == "decode"), key=lambda one: one.total_ns)
    page = opened(real, f"#stage=decode&kernel={quote(cut(row.name))}")
    assert page.find_element("css selector", "#stage-filter [aria-pressed=true]").text == "decode"
    stages = page.execute_script(
        "return [...new Set([...document.querySelectorAll('#kernel-table tbody .dot')].map(e => e.className))]"
    )
    assert stages == ["dot decode"]
    assert page.execute_script("return timeline.lit().all") == row.calls
    assert len(page.find_elements("css selector", "#kernel-table tr.chosen")) == 1
    page.execute_script("timeline.look(arguments[0], arguments[1])", *[1_000_000, 9_000_000])
    settled(page)
    page.execute_script("document.querySelector('#kernel-table th[data-key=calls]').click()")
    address = page.execute_script("return location.hash")
    assert said(page) | {"kernel": ""} == {
        "stage": "decode", "kernel": "", "view": said(page)["view"], "table": "kernels", "sort": "-calls",
    }  # fmt: skip
    shown = page.execute_script(
        "return [timeline.view().map(Math.round), document.querySelector('#kernel-table tbody').innerText]"
    )
    again = opened(real, address)
    assert again.execute_script(
        "return [timeline.view().map(Math.round), document.querySelector('#kernel-table tbody').innerText]"
    ) == shown  # fmt: skip
    assert again.execute_script("return location.hash") == address


def test_the_back_button_takes_steps_back(opened: Open, real: tuple[Attribution, Report]) -> None:
    page = opened(real)
    pressed = "return document.querySelector('#stage-filter [aria-pressed=true]').textContent"
    for name in ("decode", "prefill"):
        press(page, page.find_element("xpath", f"//*[@id='stage-filter']/button[text()='{name}']"))
    assert page.execute_script(pressed) == "prefill"
    page.back()
    settled(page)
    assert page.execute_script(pressed) == "decode"
    assert page.execute_script("return timeline.lit().all") == int(real[0].in_stage("decode").sum())
    page.back()
    settled(page)
    assert page.execute_script(pressed) == "all"
    assert page.execute_script("return timeline.lit()") is None
    page.forward()
    settled(page)
    assert page.execute_script(pressed) == "decode"


def test_one_filter_holds_for_the_whole_page(opened: Open, modules: tuple[Attribution, Report]) -> None:
    _, report = modules
    page = opened(modules)
    page.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    shown = "return document.getElementById(arguments[0]).offsetParent !== null"
    press(page, page.find_element("xpath", "//*[@id='stage-filter']/button[text()='decode']"))
    assert page.execute_script(shown, "module_kinds_decode")
    assert not page.execute_script(shown, "module_kinds_prefill")
    assert page.execute_script(shown, "kernel_modules_decode")
    assert not page.execute_script(shown, "kernel_modules_prefill")
    whole = sum(all_operations_ns(row) for row in report.module_rows["decode"])
    root = page.find_element("css selector", "#icicle-tree [role=treeitem]").get_attribute("aria-label")
    assert page.execute_script("return figures.duration(arguments[0])", whole) in root
    rows = page.execute_script(
        "const rows = [...document.querySelectorAll('#host_calls_by_stage tbody tr')];"
        "return rows.filter(row => !row.hidden).map(row => row.cells[0].innerText)"
    )
    waits = [row for row in report.host_calls if row.level == "stage"]
    assert rows == ["decode"] * sum(row.where == "decode" for row in waits)
    assert 0 < len(rows) < len(waits)


def test_search_takes_regular_expressions_and_says_where_one_is_none(
    opened: Open, real: tuple[Attribution, Report]
) -> None:
    _, report = real
    page = opened(real)
    field = page.find_element("id", "kernel-search")
    field.send_keys("^(?!.*gemm).*elementwise")
    names = page.execute_script(
        "return [...document.querySelectorAll('#kernel-table tbody code')].map(e => e.textContent)"
    )
    assert names
    assert field.get_attribute("aria-invalid") == "false"
    before = page.find_element("id", "kernel-count").text
    field.send_keys("(")
    assert field.get_attribute("aria-invalid") == "true"
    assert page.find_element("css selector", "#kernel-search + .wrong").text == "not a regular expression"
    assert page.find_element("id", "kernel-count").text == before
    assert said(page)["search"] == "^(?!.*gemm).*elementwise("
    assert len(report.kernels) > len(names)


def test_tables_sort_by_keys_alone(opened: Open, real: tuple[Attribution, Report]) -> None:
    from selenium.webdriver.common.keys import Keys

    page = opened(real)
    head = page.find_element("css selector", "#kernel-table th[data-key=calls]")
    page.execute_script("arguments[0].focus()", head)
    head.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "descending"
    assert said(page)["sort"] == "-calls"
    head.send_keys(Keys.SPACE)
    assert head.get_attribute("aria-sort") == "ascending"
    assert said(page)["sort"] == "calls"


def downloaded(page: Any, folder: Path, press_it: Any) -> str:
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    press(page, press_it)
    for _ in range(100):
        done = [path for path in folder.iterdir() if path.suffix == ".csv"]
        if done and done[0].stat().st_size:
            return done[0].read_bytes().decode()
        time.sleep(0.05)
    raise AssertionError("nothing was downloaded")


def test_the_kernel_table_is_saved_as_our_csv_writes_it(browser: Any, tmp_path: Path) -> None:
    report = hostile_report()
    (path,) = html.render(report, tmp_path)
    browser.get(path.as_uri())
    (tmp_path / "got").mkdir()
    text = downloaded(
        browser,
        tmp_path / "got",
        browser.find_element("css selector", "[aria-label='Download the table kernels as CSV']"),
    )
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    expected_text = io.StringIO()
    write_csv(kernels.KERNELS, sorted(report.kernels, key=lambda row: -row.total_ns), expected_text)
    expected = list(csv.DictReader(io.StringIO(expected_text.getvalue(), newline="")))
    assert len(rows) == len(expected) == len(report.kernels)
    for mine, theirs in zip(rows, expected, strict=True):
        for key in ("stage", "calls", "total_ns", "min_ns", "max_ns", "grid", "block", "shapes", "category"):
            assert mine[key] == theirs[key], key
    short = [name for name in HOSTILE if len(name) < 1000 and name.startswith(("=", "+", "-", "@"))]
    assert short
    for name in short:
        assert f"'{name}" in {row["name"] for row in rows}
    assert not any(row["name"].startswith(("=", "+", "-", "@")) for row in rows)


def test_a_table_is_saved_and_copied_as_it_is_shown(
    opened: Open, modules: tuple[Attribution, Report], tmp_path: Path
) -> None:
    _, report = modules
    page = opened(modules)
    page.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    (tmp_path / "got").mkdir()
    label = "Download the table modules_decode as CSV"
    text = downloaded(page, tmp_path / "got", page.find_element("css selector", f"[aria-label='{label}']"))
    head, *rows = list(csv.reader(io.StringIO(text, newline="")))
    assert head[0] == "Module"
    assert [(row[0], int(row[1])) for row in rows] == [(row.name, row.kernels) for row in report.module_rows["decode"]]
    page.execute_script("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    press(page, page.find_element("css selector", "[aria-label='Copy the table modules_decode as Markdown']"))
    lines = page.execute_script("return window.copied").splitlines()
    assert lines[0].startswith("| Module | ")
    assert set(lines[1]) <= set("| -:")
    assert len(lines) == 2 + len(report.module_rows["decode"])
    assert "in timeline" not in "\n".join(lines)


def test_the_icicle_is_a_tree_that_adds_up_and_is_walked_by_keys(
    opened: Open, modules: tuple[Attribution, Report]
) -> None:
    from selenium.webdriver.common.keys import Keys

    attribution, report = modules
    page = opened(modules)
    whole = sum(all_operations_ns(row) for row in report.module_rows["all"])
    items = page.find_elements("css selector", "#icicle-tree [role=treeitem]")
    assert page.execute_script("return figures.duration(arguments[0])", whole) in items[0].get_attribute("aria-label")
    assert any("replayed by a CUDA graph" in item.get_attribute("aria-label") for item in items)
    glue = [item for item in items if item.get_attribute("aria-label").startswith("(unattributed)")]
    assert glue
    assert "glue" in glue[0].get_attribute("class")
    tops = [item for item in items if item.get_attribute("aria-level") == "2"]
    wide = page.execute_script("return arguments[0].map(e => parseFloat(e.style.width))", tops)
    assert sum(wide) == pytest.approx(100, abs=0.5)
    focused = "return document.activeElement.getAttribute('aria-label').split('.')[0]"
    page.execute_script("arguments[0].focus()", items[0])
    items[0].send_keys(Keys.ARROW_DOWN)
    assert page.execute_script("return document.activeElement.getAttribute('aria-level')") == "2"
    first = page.execute_script(focused)
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert page.execute_script(focused) != first
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert page.execute_script(focused) == first
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert first in page.find_element("id", "icicle-where").text
    assert page.execute_script("return parseFloat(document.activeElement.style.width)") == 100
    page.switch_to.active_element.send_keys(Keys.BACKSPACE)
    assert "all modules" in page.find_element("id", "icicle-where").text
    press(page, page.find_element("xpath", "//*[@id='icicle-by']/button[text()='Launches']"))
    from analysis.sums.host_calls import HostCalls

    launches = int(HostCalls(attribution).launches.sum())
    assert page.find_element("id", "icicle-where").text.endswith(f"{launches:,}")
    before = len(page.find_elements("css selector", "#icicle-tree [role=treeitem]"))
    press(page, page.find_element("xpath", "//*[@id='icicle-by']/button[text()='GPU time']"))
    press(page, page.find_element("id", "icicle-fold"))
    assert len(page.find_elements("css selector", "#icicle-tree [role=treeitem]")) > before


def test_a_folded_timeline_says_so(
    opened: Open, real: tuple[Attribution, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis.render.html import timeline

    monkeypatch.setattr(timeline, "MAX_ROWS", 500)
    monkeypatch.setattr(timeline, "FOLDED_ROWS", 300)
    page = opened(real)
    note = page.find_element("id", "timeline-note").text
    assert f"{len(real[0].operations):,} GPU operations are drawn as" in note
    click_on(
        page,
        "operations",
        page.execute_script(
            "return timeline.trace().operations.count.indexOf(Math.max(...timeline.trace().operations.count))"
        ),
    )
    assert "operations" in details(page)["block of"]
    assert page.get_log("browser") == []


def test_on_a_phone_it_fits_and_is_pinched(opened: Open, real: tuple[Attribution, Report]) -> None:
    page = opened(real)
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        settled(page)
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        before = page.execute_script("return timeline.view()")
        page.execute_script(
            "const canvas = document.getElementById('timeline-canvas'); canvas.setPointerCapture = () => {};"
            "canvas.scrollIntoView({block: 'center'}); const box = canvas.getBoundingClientRect();"
            "const moves = [['down', 1, 150], ['down', 2, 200], ['move', 2, 300], ['up', 1, 150], ['up', 2, 300]];"
            "for (const [kind, pointerId, x] of moves)"
            " canvas.dispatchEvent(new PointerEvent(`pointer${kind}`,"
            " {pointerId, clientX: box.left + x, clientY: box.top + 40, bubbles: true}));"
        )
        after = page.execute_script("return timeline.view()")
        assert after[1] - after[0] == pytest.approx((before[1] - before[0]) / 3, rel=0.01)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_window_is_brushed_in_the_overview(opened: Open, real: tuple[Attribution, Report]) -> None:
    from selenium.webdriver import ActionChains

    page = opened(real)
    whole = page.execute_script("return timeline.whole()")
    page.execute_script("timeline.look(...timeline.whole())")
    overview = page.find_element("id", "timeline-overview")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", overview)
    wide = page.execute_script("return arguments[0].clientWidth", overview)
    chain = ActionChains(page).move_to_element_with_offset(overview, -100, 0).click_and_hold()
    chain.move_by_offset(200, 0).release().perform()
    low, high = page.execute_script("return timeline.view()")
    pixel = (whole[1] - whole[0]) / wide
    middle = (whole[0] + whole[1]) / 2
    assert low == pytest.approx(middle - 100 * pixel, abs=2 * pixel)
    assert high == pytest.approx(middle + 100 * pixel, abs=2 * pixel)
    ActionChains(page).move_to_element(overview).click_and_hold().move_by_offset(50, 0).release().perform()
    moved = page.execute_script("return timeline.view()")
    assert moved[0] == pytest.approx(low + 50 * pixel, abs=2 * pixel)
    assert moved[1] - moved[0] == pytest.approx(high - low)


def test_a_browser_that_cannot_unpack_it_shows_the_picture(
    browser: Any, opened: Open, real: tuple[Attribution, Report]
) -> None:
    added = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    try:
        page = opened(real)
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    note = page.find_element("id", "timeline-note").text
    assert note == "The timeline cannot be drawn: this browser cannot unpack it (no DecompressionStream)."
    assert not page.find_element("id", "timeline-canvas").is_displayed()
    assert page.find_elements("css selector", "#where .picture")[0].is_displayed()


@pytest.mark.parametrize("name", ["vllm_h100_moe-eager", "tensor-parallel_2xh200_rank0", "deepseek-ocr_h200_torch"])
def test_other_kinds_of_trace_are_drawn_too(
    name: str, opened: Open, real_attribution: Callable[[str], tuple[Trace, Attribution]]
) -> None:
    trace, attribution = real_attribution(name)
    page = opened((attribution, assemble(trace, attribution, None)))
    drawn = page.execute_script("return timeline.trace().operations.start.length")
    assert drawn == len(attribution.operations)
    for stage in page.find_elements("css selector", "#stage-filter button"):
        press(page, stage)
    assert page.get_log("browser") == []


def test_the_axis_counts_from_the_first_stage(opened: Open, real: tuple[Attribution, Report]) -> None:
    attribution, _ = real
    page = opened(real)
    page.execute_script(
        "window.written = []; const pen = document.getElementById('timeline-canvas').getContext('2d');"
        "const write = pen.fillText.bind(pen);"
        "pen.fillText = (text, ...at) => { window.written.push([text, ...at]); write(text, ...at); };"
        "timeline.frame();"
    )
    ticks = [(text, x) for text, x, y in page.execute_script("return window.written") if y == 9]
    rows = np.flatnonzero(attribution.is_level("stage"))
    operations = attribution.operations
    first = min(
        int(each.min())
        for each in (operations.start, attribution.calls.start, attribution.other_calls.start, attribution.ranges.start)
    )
    zero = int(attribution.ranges.start[rows].min()) - first
    assert ticks[0][0] in ("0 ms", "0 s", "0.0 s")
    for text, x in ticks:
        value, unit = text.split()
        time_ns = zero + float(value.replace(",", "")) * {"s": 1e9, "ms": 1e6}[unit]
        assert page.execute_script("return timeline.xOf(arguments[0])", time_ns) == pytest.approx(x - 3, abs=1)


def test_hostile_names_stay_text_in_timeline_and_icicle(opened: Open, tmp_path: Path) -> None:
    built = TraceBuilder().range("decode", 0, 10_000_000, domain="dsocr")
    names = [name.encode("utf-8", "replace").decode() for name in HOSTILE]  # a trace holds no halves of pairs
    for place, name in enumerate(names):
        start = 100_000 * (place + 1)
        built = built.range(name, start, start + 90_000, domain="dsocr.module")
        built = built.launch(start + 10, start + 20, (name, start + 1000, start + 80_000))
    with Trace(built.write(tmp_path / "hostile.sqlite")) as trace:
        attribution = Attribution.of(trace)
        page = opened((attribution, assemble(trace, attribution, None)))
    title = page.title
    for row in range(len(names)):
        click_on(page, "operations", row)
        assert said(page)["op"] == str(row)
    for item in range(len(page.find_elements("css selector", "#icicle-tree [role=treeitem]"))):
        page.execute_script("document.querySelectorAll('#icicle-tree [role=treeitem]')[arguments[0]]?.click()", item)
    for place in range(10):
        buttons = page.find_elements("css selector", "#kernel-table .to-timeline")  # the table is made anew each time
        if place < len(buttons):
            press(page, buttons[place])
            assert page.execute_script("return timeline.lit().all") > 0
    assert page.title == title
    assert page.execute_script("return document.images.length") == 0
    assert page.get_log("browser") == []
