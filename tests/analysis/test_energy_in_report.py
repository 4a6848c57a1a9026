"""Energy that a run measured is in every output of its report, and nowhere where it was not asked for."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from attrs import evolve
from rich.console import Console

from analysis.domain.energy import Energy, energy_of, stage_energy, unknown_energy
from analysis.render import json as json_format
from analysis.render import markdown
from analysis.render.html import page as html
from analysis.render.terminal import print_report
from analysis.report import Report
from report_builder import plain_report

ENERGY = energy_of(
    (
        stage_energy("prefill", loop_s=2.0, loop_joules=800.0, pages=40, new_tokens=10, idle_w=100.0),
        stage_energy("decode", loop_s=2.0, loop_joules=510.0, pages=20, new_tokens=10, idle_w=100.0),
    ),
    idle_w=100.0,
    idle_s=1.2,
    new_tokens=10,
    source="energy counter",
    sampling_s=0.1,
    how="a counter",
)


def with_energy(energy: Energy | None) -> Report:
    report = plain_report()
    assert report.manifest is not None
    return evolve(report, manifest=evolve(report.manifest, energy=energy))


def outputs(report: Report, folder: Path) -> dict[str, str]:
    (page,) = html.render(report, folder)
    files = {path.name: path.read_text() for path in markdown.render(report, folder)}
    console = Console(width=160, file=io.StringIO(), record=True)
    print_report(report, console)
    return {"html": page.read_text(), "markdown": files["report.md"], "terminal": console.export_text()}


def test_a_page_and_a_token_have_their_joules_in_every_output(tmp_path: Path) -> None:
    for name, text in outputs(with_energy(ENERGY), tmp_path).items():
        assert "Energy" in text, name
        for value in ("45.5", "20.0", "25.5", "4.55", "2.55", "Idle, model loaded: 100.0 W"):
            assert value in text, (name, value)
    json_format.render(with_energy(ENERGY), tmp_path)
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["detail"]["manifest"]["energy"]["joules_per_page"] == 45.5


def test_why_it_was_not_measured_is_told_in_every_output(tmp_path: Path) -> None:
    for name, text in outputs(with_energy(unknown_energy("MIG divides the GPU")), tmp_path).items():
        assert "Energy n/a: MIG divides the GPU." in text, name


def test_a_run_that_was_not_asked_has_no_table(tmp_path: Path) -> None:
    for name, text in outputs(with_energy(None), tmp_path).items():
        assert "Idle, model loaded" not in text, name
        assert "Energy n/a" not in text, name


@pytest.mark.parametrize("asked", [True, False])
def test_only_a_report_with_energy_has_its_card(asked: bool, tmp_path: Path) -> None:
    (page,) = html.render(with_energy(ENERGY if asked else None), tmp_path)
    assert ('id="energy-card"' in page.read_text()) == asked
