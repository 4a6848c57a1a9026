"""Fixtures that all tests share: the real traces, unpacked once per session, and their expected numbers."""

from __future__ import annotations

import json
import lzma
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.attribution.attribution import Attribution
from analysis.trace.reader import Trace
from damaged_trace import Damaged, changed
from packed_trace import unpack as unpack_columns
from runner.process import environment, variables
from trace_builder import TraceBuilder

DATA = Path(__file__).with_name("data")


@pytest.fixture(autouse=True)
def signals_of_the_tests() -> Iterator[None]:
    """Take back what a command that ends in this process has made of Ctrl-C and SIGTERM: later it would end the tests."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    unraisable = sys.unraisablehook
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    sys.unraisablehook = unraisable


@pytest.fixture(autouse=True)
def words_to_the_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let variables pass that tell `fake_nsys` and `fake_ncu` how to fail: a run passes on only what it knows by name."""
    passed = variables.ALLOWED | {"NSYS_FAKE", "NSYS_NCU_FAKE"}
    monkeypatch.setattr(environment, "ALLOWED", passed)


@pytest.fixture
def damaged(real_trace: Callable[[str], Path], tmp_path: Path) -> Damaged:
    """A copy of a real trace, after some SQL."""

    def damage(*sql: str, name: str = "deepseek-ocr_h100_small") -> Path:
        path = tmp_path / f"{name}.sqlite"
        path.write_bytes(real_trace(name).read_bytes())
        return changed(path, *sql)

    return damage


@pytest.fixture(scope="session")
def real_trace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a trace in tests/data, such as ``deepseek-ocr_h100_small`` → its unpacked copy, never to change."""
    folder = tmp_path_factory.mktemp("traces")

    def unpack(name: str) -> Path:
        path = folder / f"{name}.sqlite"
        if (packed_by_column := DATA / f"{name}.columns.xz").exists() and not path.exists():
            unpack_columns(packed_by_column, path)
        if not path.exists():
            with lzma.open(DATA / f"{name}.sqlite.xz") as packed, path.open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        return path

    return unpack


@pytest.fixture(scope="session")
def real_attribution(real_trace: Callable[[str], Path]) -> Callable[[str], tuple[Trace, Attribution]]:
    """Name of a trace in tests/data → the trace and its attribution, made once."""
    made: dict[str, tuple[Trace, Attribution]] = {}

    def attribute(name: str) -> tuple[Trace, Attribution]:
        if name not in made:
            trace = Trace(real_trace(name))
            made[name] = (trace, Attribution.of(trace))
        return made[name]

    return attribute


@pytest.fixture(scope="session")
def expected() -> Callable[[str], dict[str, Any]]:
    """Name of a trace → what an independent brute-force attribution found in it."""
    return lambda name: json.loads((DATA / "expected" / f"{name}.json").read_text())


@pytest.fixture
def attribute(tmp_path: Path) -> Callable[..., Attribution]:
    """Builder → the attribution of the trace that it writes."""

    def run(builder: TraceBuilder, **options: Any) -> Attribution:
        with Trace(builder.write(tmp_path / "trace.sqlite")) as trace:
            return Attribution.of(trace, **options)

    return run
