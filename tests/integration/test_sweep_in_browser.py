"""The page of a sweep in a real browser: Debian's chromium and chromium-driver, headless, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.render.sweep.page import write_page
from analysis.sweep.answers import answers_of
from browser_kit import unfold
from sweep_builder import made_sweep

pytestmark = pytest.mark.integration


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Any:
    path = write_page(answers_of(made_sweep(energy=True)), tmp_path)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_the_page_opens_without_errors_requests_or_scripts(opened: Any) -> None:
    unfold(opened)
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("data:", "chrome:")) and url != opened.current_url] == []
    assert opened.execute_script("return document.scripts.length") == 0
    assert opened.find_element("id", "headline").text.startswith("Most throughput: ")
    assert opened.execute_script("return document.querySelectorAll('svg.pic').length") == 6


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_screen(opened: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    unfold(opened)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_texts_of_the_heat_maps_stand_out_in_both_schemes(opened: Any) -> None:
    """4.5 : 1 (WCAG 2.2, AA) on every shade, read from a canvas, since the shades are mixed by the browser."""
    script = """
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = (colour) => {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255);
    };
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = (colour) => {
      const [red, green, blue] = rgb(colour).map(linear);
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    return [...document.querySelectorAll('.heat td > span')].filter((cell) => cell.textContent).map((cell) => {
      const style = getComputedStyle(cell);
      const [high, low] = [light(style.color), light(style.backgroundColor)].sort((a, b) => b - a);
      return [(high + 0.05) / (low + 0.05), cell.textContent];
    });
    """
    for scheme in ("light", "dark"):
        opened.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        weakest = min(opened.execute_script(script))
        assert weakest[0] >= 4.5, (scheme, weakest)


def test_print_keeps_every_picture_on_the_paper(opened: Any) -> None:
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    boxes = "[...document.querySelectorAll('svg.pic')].map((picture) => picture.getBoundingClientRect().width)"
    wide = opened.execute_script(f"return Math.max(...{boxes})")
    assert wide <= opened.execute_script("return document.documentElement.clientWidth")
