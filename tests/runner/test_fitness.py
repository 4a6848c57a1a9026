"""Pairs that lose events and exit with success are told before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.domain.errors import CaptureError
from launch_kit import environment, fake_nsys
from runner.collectors.choosing import choose_collector
from runner.collectors.nsys.fitness import driver_mismatch, nvtx_mismatch
from runner.collectors.nsys.presets import load_preset
from runner.collectors.nsys.tool import NsysTool
from runner.process.driver import DriverFacts

TOOL = NsysTool("/nsys", "2022.4.2.1", {}, {}, "/importer")


@pytest.mark.parametrize(
    ("nsys", "nvtx", "fits"),
    [
        ("2022.4.2.1", "0.2.11", True),
        ("2022.4.2.1", "0.2.12", False),
        ("2023.4.1", "0.3", False),
        ("2025.3.1.0", "0.2.17", True),
        ("2022.4.2.1", None, True),
    ],
)
def test_newer_nvtx_needs_a_newer_nsys(nsys: str, nvtx: str | None, fits: bool) -> None:
    assert (nvtx_mismatch(evolve(TOOL, version=nsys), nvtx) is None) is fits


@pytest.mark.parametrize(
    ("knows", "speaks", "fits"),
    [((12, 3), (13, 0), False), ((13, 0), (13, 0), True), ((12, 3), (12, 8), True), (None, (13, 0), True), ((12, 3), None, True)],
)  # fmt: skip
def test_an_older_cupti_loses_kernels(
    knows: tuple[int, int] | None, speaks: tuple[int, int] | None, fits: bool
) -> None:
    facts = DriverFacts(cuda=speaks, driver="580.1")
    assert (driver_mismatch(evolve(TOOL, cupti_cuda=knows), facts) is None) is fits


def test_a_run_is_refused_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = fake_nsys(tmp_path / "nsys")
    program = Path(tool.path)
    program.write_text(program.read_text().replace("2099.1.0", "2023.4.1"))
    monkeypatch.setattr("runner.collectors.nsys.collector.installed_version", lambda package: "0.2.17")
    named: dict[str, Any] = {"device": "cuda:0", "preset": load_preset("default"), "environ": environment()}
    with pytest.raises(CaptureError, match=r"nvtx 0\.2\.17 loses every domain range .* pip install nvtx==0\.2\.11"):
        choose_collector("nsys", nsys=tool.path, **named)
    with pytest.raises(CaptureError, match="loses every"):
        choose_collector("auto", nsys=tool.path, **named)
    monkeypatch.setattr("runner.collectors.nsys.collector.installed_version", lambda package: "0.2.11")
    assert choose_collector("auto", nsys=tool.path, **named).name == "nsys"
