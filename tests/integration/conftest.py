"""A real browser for the tests of pages: Debian's chromium and chromium-driver, headless, no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from browser_kit import chromium


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile"), "--window-size=1400,1000", logged=True) as made:
        yield made
