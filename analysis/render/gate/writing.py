"""A gate's files: ``gate.md``, ``gate.json``, ``gate.junit.xml``, ``gate.benchmark.json``."""

from __future__ import annotations

from pathlib import Path

from analysis.compare.records import StageDifference
from analysis.domain.convert import json_text, to_plain
from analysis.domain.files import write_bytes, write_text
from analysis.gate.records import GateResult
from analysis.render.gate import benchmark, junit, markdown
from analysis.render.json import GATE_SCHEMA_VERSION

__all__ = ["write_gate"]


def write_gate(result: GateResult, stages: tuple[StageDifference, ...], out: Path) -> tuple[Path, ...]:
    """Write all four.

    Args:
        result: of the gate.
        stages: of the comparison that it was held against.
        out: folder; made where it is not there.

    Raises:
        RequestError: the folder cannot be written to.
    """
    plain = {"schema_version": GATE_SCHEMA_VERSION, **to_plain(result)}
    return (
        write_text(out / "gate.md", markdown.render(result)),
        write_text(out / "gate.json", json_text(plain, indent=1) + "\n"),
        write_bytes(out / "gate.junit.xml", junit.render(result)),
        write_text(out / "gate.benchmark.json", benchmark.render(result, stages)),
    )
