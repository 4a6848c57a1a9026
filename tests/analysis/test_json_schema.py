"""The JSON Schemas in docs/schemas: made from the records, and true of what the command writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.render.json import render
from analysis.render.json_schema import schema_of

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "schemas"
TRACES = [
    "deepseek-ocr_h100_small",
    "deepseek-ocr_h100_gpu-metrics",
    "deepseek-ocr_h100_lossy",
    "deepseek-ocr_h200_cuda-graph",
    "deepseek-ocr_h200_torch",
    "llama_h100_cuda-graph",
    "tensor-parallel_2xh200_rank0",
]
Document = Literal["report", "summary"]


def closed(schema: Any) -> Any:
    """The same schema, but for fields that it does not name: those are refused."""
    if isinstance(schema, dict):
        made = {key: closed(value) for key, value in schema.items()}
        return made | {"additionalProperties": False} if "properties" in schema and "required" in schema else made
    return [closed(one) for one in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("document", ["report", "summary", "review", "ranks", "diff", "gate"])
def test_the_committed_schema_is_that_of_the_records(document: Document) -> None:
    """After a change of records: make docs (and see `analysis.render.json.SCHEMA_VERSION`)."""
    schema = schema_of(document)
    Draft202012Validator.check_schema(schema)
    assert json.loads((SCHEMAS / f"{document}.schema.json").read_text()) == schema


def test_the_command_prints_the_file() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analysis.cli", "schema", "summary"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (SCHEMAS / "summary.schema.json").read_text()


@pytest.mark.parametrize("name", TRACES)
def test_what_is_written_of_a_real_trace_is_as_the_schema_says(
    real_trace: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    with opened(real_trace(name), AnalysisOptions(accept_lossy=True)) as trace:
        written = render(trace.report(), tmp_path)
    for path in written:
        schema = json.loads((SCHEMAS / f"{path.stem}.schema.json").read_text())
        document = json.loads(path.read_text())
        faults = [
            f"{one.json_path}: {one.message[:200]}"
            for one in Draft202012Validator(closed(schema), format_checker=FormatChecker()).iter_errors(document)
        ]
        assert not faults, faults[:5]


@pytest.mark.parametrize(
    "path",
    sorted(path for name in ("report", "summary", "review") for path in ROOT.glob(f"reports/examples/*/{name}.json")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_the_examples_are_of_today(path: Path) -> None:
    """Else render them anew: a reader must not find figures that the README no longer defines so."""
    document = json.loads(path.read_text())
    kind = "ranks" if "pairing" in document else path.stem
    schema = json.loads((SCHEMAS / f"{kind}.schema.json").read_text())
    faults = [
        f"{fault.json_path}: {fault.message[:200]}"
        for fault in Draft202012Validator(closed(schema)).iter_errors(document)
    ]
    assert not faults, faults[:5]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("detail", "stages", 0, "launches"), 1.5),
        (("detail", "stages", 0, "launches"), None),
        (("detail", "kernels", 0, "grid"), [1, 2]),
        (("detail", "findings", 0, "severity"), "grave"),
        (("schema_version",), 1),
        (("detail", "capture", "no_such_field"), 1),
    ],
)
def test_the_schema_refuses_what_the_records_cannot_hold(
    real_trace: Callable[[str], Path], tmp_path: Path, path: tuple[str | int, ...], value: Any
) -> None:
    with opened(real_trace("deepseek-ocr_h100_small"), AnalysisOptions()) as trace:
        written, _ = render(trace.report(), tmp_path)
    document = place = json.loads(written.read_text())
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not Draft202012Validator(closed(schema_of("report"))).is_valid(document)


def test_a_time_that_is_measured_with_and_without_the_profiler_says_which() -> None:
    """In its name, or in a field beside it; the contract's own records (`analysis.domain.entities`) have their names."""
    contract = {"StageTiming", "OperatorSummary", "Stats"}
    unsaid = []
    for record, schema in schema_of("report")["$defs"].items():
        names = set(schema["properties"])
        for name in sorted(one for one in names if not one.endswith("_base")):
            either = any(word in name for word in ("elapsed", "busy_share", "mfu", "mbu")) or name in (
                "time_ns",
                "mean",
            )
            said = "profiled" in name or bool(names & {"time_base", f"{name}_base", "source"})
            if either and not said and record not in contract:
                unsaid.append(f"{record}.{name}")
    assert unsaid == ["MetricSeries.time_ns"], "which is the moment of a sample"
