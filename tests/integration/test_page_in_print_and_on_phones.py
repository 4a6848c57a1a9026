"""Report, review and comparison as they are mailed, printed, opened on a phone and in the dark: in a real browser, no network.

Needs Debian's chromium and chromium-driver.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import compare_builder
from analysis.compare.records import Diff
from analysis.render.compare.page import write_page
from analysis.render.html import page as html
from browser_kit import chromium
from import_graph import ROOT
from report_builder import hostile_report, plain_report

pytestmark = pytest.mark.integration

STEP = Path(__file__).parents[1] / "data" / "ncu_h100_decode-step.csv.xz"
PAGES = (
    "plain",
    "hostile",
    "stages",
    "steps",
    "no_stages",
    "metrics",
    "engine",
    "ranks",
    "diff",
    "diff_sides",
    "diff_hostile",
)
_MOST_PAGES = 6
"""Of A4, for a report that somebody prints."""


def analyse(*arguments: Any) -> None:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "analysis.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile"), "--hide-scrollbars", "--window-size=1280,900") as made:
        yield made


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, real_trace: Callable[[str], Path]) -> dict[str, Path]:
    """Pages as they are written: of made reports, and of real traces with and without stages, steps and metrics."""
    folder = tmp_path_factory.mktemp("pages")
    made: dict[str, Path] = {}
    for name, report in (("plain", plain_report()), ("hostile", hostile_report())):
        (folder / name).mkdir()
        (made[name],) = html.render(report, folder / name)
    for name, trace in (
        ("stages", "deepseek-ocr_h100_small"), ("steps", "deepseek-ocr_h100_64tok"),
        ("no_stages", "llama_h100_cuda-graph"), ("metrics", "deepseek-ocr_h100_gpu-metrics"),
        ("engine", "vllm_h100_llama"),
    ):  # fmt: skip
        analyse("report", real_trace(trace), "--out", folder / name, "--format", "html")
        made[name] = folder / name / "report.html"
    ranks = [real_trace(f"tensor-parallel_2xh200_rank{rank}") for rank in (0, 1)]
    analyse("report", *ranks, "--out", folder / "ranks")
    made["ranks"] = folder / "ranks" / "report.html"
    examples = ROOT / "reports" / "examples"
    sides = [examples / name for name in ("deepseek-ocr_h100", "deepseek-ocr_h100_cuda-graph")]
    analyse("diff", *sides, "--out", folder / "diff")
    made["diff"] = folder / "diff" / "diff.html"
    for name, diff in (
        ("diff_sides", compare_builder.diff(compare_builder.answered("regression"), compare_builder.forbidden())),
        ("diff_hostile", Diff("hostile", (compare_builder.hostile(),))),
    ):
        made[name] = write_page(diff, folder / name)
    return made


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    def open_it(name: str, *, width: int = 1280, dark: bool = False, scripts: bool = True, media: str = "") -> Any:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        browser.get(pages[name].as_uri())
        # From here on the test's own scripts run; those of a page that was loaded without have not.
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        return browser

    yield open_it
    for command, given in (
        ("setEmulatedMedia", {"media": "", "features": []}),
        ("setScriptExecutionDisabled", {"value": False}),
        ("clearDeviceMetricsOverride", {}),
    ):
        browser.execute_cdp_cmd(f"Emulation.{command}", given)


UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true; });"

# Contrast of every text that is shown with what is painted behind it, by WCAG 2.2: what stands out less than it must.
FAINT = """
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const rgba = (text) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = '#000'; canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
};
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
const luminance = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { const s = v / 255;
  return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = (element) => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) {
    const paint = rgba(getComputedStyle(one).backgroundColor);
    if (paint[3] > 0) layers.push(paint);
    if (paint[3] === 1) break;
  }
  return layers.reverse().reduce((under, top) => over(top, under), rgba(getComputedStyle(document.body).backgroundColor));
};
const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
const faint = [];
let seen = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || element.closest('script, style, title, desc, svg') || !shown(element)) continue;
  if (element.closest(':disabled, .unseen, .skip')) continue;
  seen += 1;
  const style = getComputedStyle(element);
  const behind = ground(element);
  const [high, low] = [luminance(over(rgba(style.color), behind)), luminance(behind)].sort((a, b) => b - a);
  const contrast = (high + 0.05) / (low + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5) - 0.005) {
    const where = `${element.tagName}.${element.className} in #${element.closest('[id]')?.id}`;
    faint.push(`${contrast.toFixed(2)} ${where}: ${walker.currentNode.textContent.trim().slice(0, 40)}`);
  }
}
for (const text of document.querySelectorAll('svg.pic text')) {
  if (!shown(text)) continue;
  seen += 1;
  const kind = text.getAttribute('class') || '';
  if (/\\b(on|deep)\\b/.test(kind)) continue; // stands on a part of its own, which the test of the palette measures
  const behind = ground(text.ownerSVGElement.parentElement);
  const [high, low] = [luminance(rgba(getComputedStyle(text).fill)), luminance(behind)].sort((a, b) => b - a);
  if ((high + 0.05) / (low + 0.05) < 4.495) faint.push(`svg ${kind}: ${text.textContent}`);
}
return [seen, [...new Set(faint)]];
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_text_can_be_read(name: str, dark: bool, opened: Callable[..., Any]) -> None:
    page = opened(name, dark=dark)
    page.execute_script(UNFOLD)
    seen, faint = page.execute_script(FAINT)
    assert seen > 100
    assert faint == []


def test_the_measure_finds_a_text_that_is_faint(opened: Callable[..., Any]) -> None:
    page = opened("plain")
    page.execute_script(
        "const p = document.createElement('p'); p.textContent = 'hardly there'; p.style.color = '#999';"
        "document.querySelector('.card').append(p)"
    )
    (faint,) = page.execute_script(FAINT)[1]
    assert faint.startswith("2.85 P.")
    assert "hardly there" in faint


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no_scripts"])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_a_phone_or_lies_on_something_else(
    name: str, scripts: bool, opened: Callable[..., Any]
) -> None:
    page = opened(name, width=400, scripts=scripts)
    for script in ("", UNFOLD):
        page.execute_script(script)
        assert page.execute_script("return document.documentElement.scrollWidth") == 400
        too_wide = page.execute_script(
            "return [...document.body.querySelectorAll('*')].filter(e => e.checkVisibility() && !e.closest('svg')"
            " && !e.closest('.scroll, .picture, .bounded, nav, .skip, .segmented, .unseen, #tip, #timeline-tracks, code')"
            " && e.getBoundingClientRect().right > 400.5)"
            ".map(e => `${e.tagName}.${e.className}#${e.id} ${e.getBoundingClientRect().right}`)"
        )
        assert too_wide == []
        on_each_other = page.execute_script(
            "const blocks = [...document.querySelectorAll('main > *, .card > *, .stage > *, .tile, .first > *, .tools > *')]"
            ".filter(e => e.checkVisibility()).map(e => [e, e.getBoundingClientRect()]).filter(([, b]) => b.width && b.height);"
            "const clash = [];"
            "for (const [e, a] of blocks) for (const [f, b] of blocks)"
            " if (e !== f && e.parentElement === f.parentElement && a.left < b.right - 1"
            " && b.left < a.right - 1"
            " && a.top < b.bottom - 1 && b.top < a.bottom - 1)"
            " clash.push(`${e.className || e.tagName} ${f.className || f.tagName}`);"
            "return clash"
        )
        assert on_each_other == []


def printed(browser: Any) -> bytes:
    given = {"preferCSSPageSize": True, "printBackground": True}
    return base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", given)["data"])


def page_count(pdf: bytes) -> int:
    return max(int(number) for number in re.findall(rb"/Type\s*/Pages\b[^>]*?/Count\s+(\d+)", pdf))


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no_scripts"])
@pytest.mark.parametrize("name", PAGES)
def test_it_prints_on_few_pages(name: str, scripts: bool, opened: Callable[..., Any]) -> None:
    page = opened(name, scripts=scripts)
    assert 1 <= page_count(printed(page)) <= _MOST_PAGES


def test_what_is_folded_is_not_printed_unless_it_is_opened(opened: Callable[..., Any]) -> None:
    page = opened("steps", media="print")
    shown = "return [...document.querySelectorAll('details')].map(e => e.checkVisibility())"
    assert not any(page.execute_script(shown))
    page.execute_script("document.querySelector('.stage details').open = true")
    assert sum(page.execute_script(shown)) == 1
    assert page.execute_script("return document.querySelector('.stage details .arithmetic').checkVisibility()")


def test_print_is_light_and_shows_pictures_instead_of_what_moves(opened: Callable[..., Any]) -> None:
    page = opened("steps", dark=True)
    page.execute_script("document.querySelector('[data-chart=steps]').scrollIntoView()")
    page.execute_async_script("setTimeout(arguments[0], 300)")
    zoomable = "return document.querySelector('.zoomable')?.checkVisibility() ?? false"
    picture = "return document.querySelector('[data-chart=steps] > .pic').checkVisibility()"
    assert (page.execute_script(zoomable), page.execute_script(picture)) == (True, False)
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert (page.execute_script(zoomable), page.execute_script(picture)) == (False, True)
    assert page.execute_script("return getComputedStyle(document.body).colorScheme || 'light'") == "light"
    assert page.execute_script("return getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 34, 48)"
    for selector in ("button", "input", "canvas", ".bar"):
        assert not page.execute_script(
            "return [...document.querySelectorAll(arguments[0])].some(e => e.checkVisibility())", selector
        ), selector


def test_headings_stay_with_what_they_head(opened: Callable[..., Any]) -> None:
    page = opened("steps", media="print")
    assert set(
        page.execute_script("return [...document.querySelectorAll('h2, h3')].map(e => getComputedStyle(e).breakAfter)")
    ) == {"avoid"}
    assert set(
        page.execute_script(
            "return [...document.querySelectorAll('.together, figure, .picture, .stage, main tr')]"
            ".map(e => getComputedStyle(e).breakInside)"
        )
    ) == {"avoid"}


@pytest.mark.parametrize("name", ["steps", "metrics", "plain"])
def test_no_printed_page_ends_with_a_heading(name: str, opened: Callable[..., Any], tmp_path: Path) -> None:
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("needs pdftotext (Debian's poppler-utils) to read what was printed")
    page = opened(name)
    headings = {
        " ".join(text.split())
        for text in page.execute_script("return [...document.querySelectorAll('h2, h3')].map(e => e.textContent)")
    }
    pdf = tmp_path / "page.pdf"
    pdf.write_bytes(printed(page))
    told = subprocess.run([reader, "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout
    leaves = [leaf.strip().splitlines() for leaf in told.split("\f") if leaf.strip()]
    assert 2 <= len(leaves) <= _MOST_PAGES
    for lines in leaves:
        assert " ".join(lines[-1].split()) not in headings


def test_without_scripts_the_page_says_the_same(opened: Callable[..., Any]) -> None:
    page = opened("steps", scripts=False)
    assert page.execute_script("return document.documentElement.dataset.ready") is None
    text = page.execute_script("return document.body.innerText")
    for said in (
        "Start with decode",
        "Do first",
        "Host-bound in Python",
        "Kernels, decode",
        "Modules, prefill",
        "grouped GEMM",
    ):
        assert said in text, said
    pictures = page.execute_script(
        "return [...document.querySelectorAll('svg.pic')].filter(e => e.checkVisibility()).map(e => e.getAttribute('aria-label'))"
    )
    assert len(pictures) >= 4
    assert any("GPU worked" in label for label in pictures)
    empty = page.execute_script(
        "return [...document.querySelectorAll('button, input, table, section, canvas')].filter(e => e.checkVisibility()"
        " && (e.matches('button, input, canvas') || !e.innerText.trim())).map(e => e.outerHTML.slice(0, 80))"
    )
    assert empty == [], "nothing stands there that only a script could fill or answer"


def test_with_scripts_the_same_is_not_shown_twice(opened: Callable[..., Any]) -> None:
    page = opened("steps")
    assert not page.execute_script(
        "return [...document.querySelectorAll('.unscripted')].some(e => e.checkVisibility())"
    )
    assert page.execute_script("return document.getElementById('kernel-table').checkVisibility()")


@pytest.mark.parametrize("name", ["stages", "steps", "no_stages"])
def test_folded_the_page_is_short_and_its_first_screen_answers(name: str, opened: Callable[..., Any]) -> None:
    page = opened(name)
    assert page.execute_script("return document.documentElement.scrollHeight") <= 4000
    bottom = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
    for answer in ("h1", "#headline", ".stage .figure", ".stage .budget-bar", ".stage .what .ceiling"):
        assert page.execute_script(bottom, answer) <= 800, answer
    if name != "no_stages":
        assert page.execute_script("return document.querySelectorAll('.stage .budget-bar').length") == 2
        last = "return [...document.querySelectorAll('.stage .budget-bar')].at(-1).getBoundingClientRect().bottom"
        assert page.execute_script(last) <= 800


def test_headings_are_in_order_and_landmarks_are_named(opened: Callable[..., Any]) -> None:
    for name in PAGES:
        page = opened(name)
        levels = page.execute_script(
            "return [...document.querySelectorAll('h1, h2, h3, h4')].map(e => Number(e.tagName[1]))"
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels)), levels
        assert page.execute_script("return document.documentElement.lang") == "en"
        for mark in ("header", "nav[aria-label]", "main", "footer"):
            assert page.execute_script("return document.querySelectorAll(arguments[0]).length", mark) == 1, mark
        unnamed = page.execute_script(
            "return [...document.querySelectorAll('section')].filter(e => !e.getAttribute('aria-label')"
            " && !document.getElementById(e.getAttribute('aria-labelledby'))).map(e => e.id || e.className)"
        )
        assert unnamed == []
        broken = page.execute_script(
            "return [...document.querySelectorAll('nav a[href^=\"#\"]')].map(e => e.getAttribute('href').slice(1))"
            ".filter(id => !document.getElementById(id))"
        )
        assert broken == []


def test_focus_can_be_seen(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    for dark in (False, True):
        page = opened("steps", dark=dark)
        body = page.find_element("tag name", "body")
        body.send_keys(Keys.TAB)
        assert page.execute_script("return document.activeElement.className") == "skip"
        assert page.execute_script("return document.activeElement.getBoundingClientRect().left") >= 0
        for _ in range(12):
            page.switch_to.active_element.send_keys(Keys.TAB)
            style = page.execute_script(
                "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, parseFloat(s.outlineWidth)]"
            )
            assert style[0] != "none"
            assert style[1] >= 2


def test_nothing_moves_for_those_who_want_no_motion(opened: Callable[..., Any]) -> None:
    page = opened("steps")
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    )
    moving = page.execute_script(
        "return [...document.querySelectorAll('*')].filter(e => { const s = getComputedStyle(e);"
        " return s.animationName !== 'none' || s.transitionDuration.split(', ').some(t => parseFloat(t) > 0)"
        " || s.scrollBehavior === 'smooth'; }).length"
    )
    assert moving == 0


def test_pages_are_small_enough_to_be_mailed(pages: dict[str, Path]) -> None:
    for name, path in pages.items():
        text = path.read_text()
        timeline = re.search(
            r'<script type="application/octet-stream" id="timeline-data">(.*?)</script>', text, re.DOTALL
        )
        whole = len(text.encode())
        assert whole <= 5_000_000, name
        assert whole - (len(timeline[1]) if timeline else 0) <= 1_500_000, name


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory, real_trace: Callable[[str], Path]) -> Path:
    folder = tmp_path_factory.mktemp("review")
    trace = real_trace("deepseek-ocr_h100_small")
    analyse("review", trace, "--counters", STEP, "--out", folder)
    analyse("report", trace, "--out", folder, "--format", "html")
    return folder / "review.html"


def test_the_review_has_the_look_of_the_report(
    review: Path, opened: Callable[..., Any], pages: dict[str, Path]
) -> None:
    pages["review"] = review
    pages["beside"] = review.with_name("report.html")
    looks = []
    for name in ("beside", "review"):
        page = opened(name)
        looks.append(
            page.execute_script(
                "return ['body', 'h1', '#headline', '.bar', '.stage', '.tile .value', '.card', 'th', 'summary', 'footer']"
                ".map(s => {"
                " const c = getComputedStyle(document.querySelector(s));"
                " return [s, c.color, c.backgroundColor, c.fontFamily, c.fontSize, c.borderRadius]; })"
            )
        )
        assert page.find_elements("css selector", f'nav a[href="{"review" if name == "beside" else "report"}.html"]')
    assert looks[0] == looks[1]
    for dark in (False, True):
        page = opened("review", dark=dark)
        page.execute_script(UNFOLD)
        assert page.execute_script(FAINT)[1] == []
    page = opened("review", width=400)
    page.execute_script(UNFOLD)
    assert page.execute_script("return document.documentElement.scrollWidth") == 400
    assert page_count(printed(opened("review"))) <= _MOST_PAGES
