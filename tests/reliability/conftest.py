"""One scene per row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fault_scene import Scene
from trace_builder import TraceBuilder

MS = 1_000_000


def built(path: Path, steps: int) -> Path:
    """One image, a prefill and decode steps, as the scripted child would leave on a GPU; a moment to analyse."""
    builder = TraceBuilder().range("image[0]", 0, 190 * MS, domain="dsocr")
    builder.range("prefill", MS, 40 * MS, domain="dsocr").launch(2 * MS, 3 * MS, kernel=("gemm", 4 * MS, 30 * MS))
    builder.range("decode", 45 * MS, 180 * MS, domain="dsocr")
    for step in range(steps):
        at = (50 + 40 * step) * MS
        builder.range("decode_step", at, at + 35 * MS, domain="dsocr", payload=step)
        builder.launch(at + MS, at + 2 * MS, kernel=("gemv", at + 3 * MS, at + 20 * MS))
    return builder.write(path)


@pytest.fixture(scope="session")
def small_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole image: what a fake nsys exports."""
    return built(tmp_path_factory.mktemp("trace") / "small.sqlite", steps=2)


@pytest.fixture(scope="session")
def cut_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that was ended in its first decode step."""
    return built(tmp_path_factory.mktemp("trace") / "cut.sqlite", steps=0)


@pytest.fixture
def scene(tmp_path: Path, small_trace: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, small_trace)
    yield made
    made.end()
