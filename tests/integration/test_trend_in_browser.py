"""The trend page in a real browser: it shows all without a script, at the width of a desk and of a phone, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.render.trend.page import write_page
from browser_kit import chromium
from history.location import locate
from history.store import Store
from history.trend import trend_of
from trend_builder import record_history

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trend")
    store = Store(locate(str(folder / "history.sqlite")))
    record_history(store, runs=40)
    return write_page(trend_of(store), folder / "trend.html")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_reads(file: Path, tmp_path: Path, width: int, scheme: str) -> None:
    with chromium(tmp_path / "profile", logged=True) as browser:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(file.as_uri())
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

        def ask(script: str) -> Any:
            return browser.execute_script(f"return {script}")

        assert ask("document.documentElement.scrollWidth") <= width
        assert ask("document.querySelectorAll('svg.pic').length") == 8
        # What is drawn has a size and a colour that follows the theme.
        box = ask("(r => [r.width, r.height])(document.querySelector('svg.pic').getBoundingClientRect())")
        assert box[0] >= min(700, width - 80)
        assert box[1] > 100
        light = ask("getComputedStyle(document.body).backgroundColor") == "rgb(245, 246, 248)"
        assert light == (scheme == "light")
        assert ask("document.querySelector('h2').innerText").startswith("Latest change of level, 2026-10-31")
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
