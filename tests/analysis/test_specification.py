"""One declaration per table: a column that is added to it is in every format, and what it says holds everywhere."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attrs import evolve, fields
from rich.console import Console

from analysis.attribution.attribution import Attribution
from analysis.domain.entities import KernelSummary, OperatorSummary
from analysis.domain.manifest import Overhead
from analysis.efficiency.records import Aggregate, UnitTimes, Utilisation
from analysis.render import formats
from analysis.render.arrow import arrow_schema, arrow_table, frame, frame_of
from analysis.render.catalogue import TABLES, glossary, reference
from analysis.render.csv import write_csv
from analysis.render.html import page as html
from analysis.render.spec import (
    compare,
    energy,
    events,
    findings,
    gpu_time,
    host,
    kernels,
    predictions,
    ranges,
    ranks,
    review,
    stages,
    step_kinds,
    sweep,
    trend,
    utilisation,
    verdicts,
)
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.shown import pivoted, shown, transposed
from analysis.render.spec.specification import COUNT, NAME, Column, Specification
from analysis.render.spec.tables import ReportTables
from analysis.render.table import json_rows, write_table
from analysis.render.terminal import print_report
from analysis.render.terminal_tables import FittedTable
from analysis.report import Report, assemble
from analysis.sums.kernel_modules import KernelModuleRow
from analysis.sums.range_kernels import ProjectionRow, RangeKernelRow
from analysis.sums.records import CategoryRow, GpuRow, HostCallRow, InstanceSummary, StepPoint, StreamSummary
from analysis.trace.reader import Trace
from analysis.verdict.records import Verdict
from report_builder import HOSTILE, hostile_report, plain_report
from trace_builder import TraceBuilder

ALL = TABLES
RECORDS: dict[str, type[Any]] = {
    "unit_times": UnitTimes,
    "kernels": KernelSummary, "kernel_modules": KernelModuleRow,
    "categories": CategoryRow, "gpu_time_by_stage": GpuRow, "streams": StreamSummary,
    "instances": InstanceSummary, "steps": StepPoint, "latencies": Aggregate, "overhead": Overhead,
    "host_calls_by_stage": HostCallRow, "operators": OperatorSummary, "utilisation": Utilisation, "verdicts": Verdict,
    "range_kernels": RangeKernelRow, "range_projections": ProjectionRow,
}  # fmt: skip
"""Table → the record of its rows, every field of which is a column."""
NO_COLUMN = {
    "gpu_time_by_stage": {"steps"},  # of a serving engine, whose stages have a table of their own
    "instances": {
        "gpu_end_ns",
        "gaps",
        "composition",
        "next_ns",
    },  # in profiled_ns; gaps are a table of their own, by stage
    "steps": {"gpu_end_ns", "composition"},  # in finished_ns, requests and tokens
    "verdicts": {"budget", "actions"},  # tables of their own
    "host_calls_by_stage": {"level"},  # says which table the row belongs to
}


def rows_of(report: Report) -> dict[str, list[Any]]:
    """Table → the rows that a report has for it."""
    found: dict[str, list[Any]] = {
        "kernels": [*report.kernels, *report.kernel_shapes],
        "kernel_modules": [*report.kernel_modules],
        "categories": [*report.categories],
        "streams": [*report.streams],
        "unit_times": [*report.unit_times],
        "stages": [*report.stages],
        "gaps": [stage for stage in report.stages if stage.gaps is not None],
        "instances": [*report.instances],
        "steps": [*report.steps],
        "latencies": [*report.aggregates],
        "overhead": [*report.overhead],
        "operators": [*report.report.operators_topk],
        "utilisation": [*report.utilisation],
        "metrics": [*utilisation.metric_means(report.metrics)],
        "verdicts": [*report.verdicts],
        "budget": [*verdicts.budget_lines(report.verdicts)],
        "actions": [*report.ranking.gains],
        "predictions": [*report.predictions],
        "module_kinds": [*gpu_time.module_kinds(report.module_rows["decode"])],
        **{f"host_calls_by_{by}": [row for row in report.host_calls if row.level == by] for by in ("stage", "module")},
    }
    gpu = {"stage": report.stage_rows, "module": report.module_rows["all"], "range": report.range_rows}
    return found | {f"gpu_time_by_{by}": [*rows] for by, rows in gpu.items()}


@pytest.fixture(scope="module")
def real(real_attribution: Callable[[str], tuple[Trace, Attribution]]) -> Report:
    trace, attribution = real_attribution("deepseek-ocr_h100_gpu-metrics")
    return assemble(trace, attribution, None)


# --- a column is added in one place -----------------------------------------------------------------------------


def test_a_column_that_is_declared_is_in_every_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    new = Column[KernelSummary](
        "calls_squared", "Calls squared", "int64", COUNT, "A number made for this test.",
        value=lambda row: row.calls**2, adds=True, priority=0,
    )  # fmt: skip
    more = evolve(kernels.KERNELS, columns=(*kernels.KERNELS.columns, new))
    monkeypatch.setattr(kernels, "KERNELS", more)
    report = plain_report()
    row = report.kernels[0]
    value = f"{row.calls**2:,}"
    total = f"{sum(one.calls**2 for one in report.kernels if one.stage == row.stage):,}"
    formats.render_all(report, tmp_path, tuple(formats.FORMATS))

    text = (tmp_path / "report.md").read_text()
    table = text.split(f"### Kernels, {row.stage}")[1].split("###")[0]
    assert "| Calls squared |" in table
    assert f"| {value} |" in table
    assert f"| **{total}** |" in table

    data = html.page(report).split('id="data">')[1]
    on_page = json.loads(data.split("</script>")[0])["kernels"]
    (place,) = [index for index, column in enumerate(on_page["columns"]) if column["key"] == "calls_squared"]
    assert on_page["columns"][place]["definition"] == "A number made for this test."
    assert sorted(cells[place] for cells in on_page["rows"]) == sorted(one.calls**2 for one in report.kernels)

    console = Console(file=io.StringIO(), width=120)
    print_report(report, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Calls squared" in printed
    assert value in printed

    with (tmp_path / "kernels.csv").open(newline="") as file:
        assert int(next(csv.DictReader(file))["calls_squared"]) == row.calls**2
    assert pq.read_table(tmp_path / "kernels.parquet").column("calls_squared")[0].as_py() == row.calls**2
    assert json_rows(kernels.KERNELS, report.kernels)[0]["calls_squared"] == row.calls**2
    assert frame(kernels.KERNELS, report.kernels)["calls_squared"].tolist()[0] == row.calls**2
    for kind in ("md", "csv", "json"):
        stream = io.StringIO()
        write_table(kernels.KERNELS, report.kernels, kind, stream)
        assert "calls_squared" in stream.getvalue()


def test_every_table_of_the_page_shows_a_declared_column(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Column[GpuRow]("made", "Made up", "int64", COUNT, "Made for this test.", value=lambda _: 4711)
    spec = gpu_time.GPU_TIME["stage"]
    monkeypatch.setitem(gpu_time.GPU_TIME, "stage", evolve(spec, columns=(*spec.columns, new)))
    page = html.page(plain_report())
    assert 'data-def="Made for this test."' in page
    assert "4,711" in page


# --- what the declarations promise ------------------------------------------------------------------------------


def test_every_declaration_is_in_the_catalogue() -> None:
    def declared() -> Iterator[Specification[Any]]:
        for module in (
            compare,
            events,
            findings,
            energy,
            gpu_time,
            host,
            kernels,
            predictions,
            ranges,
            ranks,
            review,
            stages,
            step_kinds,
            sweep,
            trend,
            utilisation,
            verdicts,
        ):
            for value in vars(module).values():
                values = value.values() if isinstance(value, dict) else [value]
                yield from (one for one in values if isinstance(one, Specification))

    assert {id(spec) for spec in declared()} == {id(spec) for spec in TABLES.values()}
    assert all(key == spec.key for key, spec in TABLES.items())


def test_the_reference_is_that_of_the_declarations() -> None:
    """After a change of columns: make docs."""
    docs = Path(__file__).parents[2] / "docs"
    assert (docs / "columns.md").read_text(encoding="utf-8") == reference()
    assert (docs / "glossary.md").read_text(encoding="utf-8") == glossary()


@pytest.mark.parametrize("key", RECORDS)
def test_every_field_of_a_record_is_a_column(key: str) -> None:
    names = {one.name for one in fields(RECORDS[key])} - NO_COLUMN.get(key, set())
    assert names <= set(ALL[key].keys)


def test_each_definition_is_written_once() -> None:
    """What several tables define alike stands in the glossary; tables of one family (``_by_``) are one declaration."""
    families: dict[str, set[str]] = {}
    for spec in ALL.values():
        for column in spec.columns:
            families.setdefault(column.definition, set()).add(spec.key.partition("_by_")[0])
    twice = {text: tables for text, tables in families.items() if len(tables) > 1 and text not in GLOSSARY.values()}
    assert twice == {}
    assert len(set(GLOSSARY.values())) == len(GLOSSARY)


@pytest.mark.parametrize("key", ALL)
def test_columns_are_defined_and_units_are_in_keys(key: str) -> None:
    spec = ALL[key]
    for column in spec.columns:
        assert column.definition.endswith("."), column.key
        if column.unit in ("ms", "µs") and column.type == "int64":
            assert column.key.endswith("_ns"), column.key
        if column.style is NAME:
            assert column.type == "string"


def test_columns_that_are_named_by_others_exist_and_keys_are_distinct() -> None:
    column = Column[GpuRow]("name", "Name", "string", NAME)
    with pytest.raises(ValueError, match="given twice"):
        Specification("t", "T", "A row.", (column, column))
    with pytest.raises(ValueError, match="names no column"):
        Specification("t", "T", "A row.", (evolve(column, below="other"),))
    with pytest.raises(KeyError, match="no column 'nonsense'"):
        kernels.KERNELS["nonsense"]


@pytest.mark.parametrize("make", [plain_report, hostile_report], ids=["plain", "hostile"])
def test_only_nullable_columns_are_ever_unknown(make: Callable[[], Report]) -> None:
    for key, rows in rows_of(make()).items():
        arrow_table(ALL[key], rows).validate(full=True)


def test_only_nullable_columns_are_ever_unknown_in_a_real_trace(real: Report) -> None:
    for key, rows in rows_of(real).items():
        table = arrow_table(ALL[key], rows)
        table.validate(full=True)
        assert table.num_rows == len(rows)


def test_a_value_that_must_be_known_is_not_made_up() -> None:
    row = evolve(plain_report().kernels[0], category=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"kernels\.category is unknown in row 0"):
        arrow_table(kernels.KERNELS, [row])
    with pytest.raises(ValueError, match=r"kernels\.category"):
        frame(kernels.KERNELS, [row])


# --- Arrow and pandas -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [plain_report, hostile_report], ids=["plain", "hostile"])
def test_an_arrow_table_holds_the_rows(make: Callable[[], Report]) -> None:
    for key, rows in rows_of(make()).items():
        spec = ALL[key]
        found = arrow_table(spec, rows)
        assert found.schema.names == list(spec.keys)
        for plain, row in zip(found.to_pylist(), rows, strict=True):
            for column in spec.data:
                value = column.value(row)
                if isinstance(value, str):
                    value = value.encode("utf-8", "backslashreplace").decode()
                assert plain[column.key] == (list(value) if isinstance(value, tuple) else value)


def test_the_schema_does_not_depend_on_the_rows() -> None:
    empty = arrow_table(kernels.KERNELS, ())
    assert empty.num_rows == 0
    assert empty.schema == arrow_table(kernels.KERNELS, plain_report().kernels).schema == arrow_schema(kernels.KERNELS)
    assert empty.schema.field("total_ns").type == pa.int64()
    assert empty.schema.field("grid").type == pa.list_(pa.int64())
    assert empty.schema.field("p95_ns").nullable
    assert not empty.schema.field("total_ns").nullable
    assert empty.schema.field("waves").metadata[b"definition"].startswith(b"Blocks of the launch")


def test_an_arrow_table_is_made_without_pandas() -> None:
    code = (
        "import sys; from report_builder import plain_report; from analysis.render.arrow import arrow_table;"
        "from analysis.render.spec.kernels import KERNELS; import pyarrow.parquet as pq; from pathlib import Path;"
        "from analysis.render import parquet; import tempfile;"
        "parquet.render(plain_report(), Path(tempfile.mkdtemp())); print('pandas' in sys.modules)"
    )
    folder = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(folder)!r}, {str(folder / 'tests')!r}]; {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"


def test_a_frame_has_the_dtypes_of_its_declaration_whatever_the_rows() -> None:
    report = plain_report()
    full, empty = frame(kernels.KERNELS, report.kernels), frame(kernels.KERNELS, ())
    assert list(full.columns) == list(kernels.KERNELS.keys)
    assert full.dtypes.to_dict() == empty.dtypes.to_dict()
    wanted = {"name": "string", "calls": "int64", "mean_ns": "float64", "registers_per_thread": "Int64",
              "tensor_core": "boolean", "per_token": "float64", "grid": "object"}  # fmt: skip
    assert {key: str(full.dtypes[key]) for key in wanted} == wanted
    assert full["grid"].tolist() == [one.grid for one in report.kernels]
    assert full["per_token"].isna().tolist() == [one.per_token is None for one in report.kernels]
    assert full["total_ns"].sum() == sum(one.total_ns for one in report.kernels)
    assert full.attrs["definitions"]["share"] == "Share of the stage's kernel sum."


def test_a_frame_of_columns_is_the_frame_of_the_rows() -> None:
    rows = plain_report().stage_rows
    spec = gpu_time.GPU_TIME["stage"]
    columns = {column.key: [column.value(row) for row in rows] for column in spec.data}
    assert frame_of(spec, columns).equals(frame(spec, rows))


def test_hostile_names_make_a_frame() -> None:
    names = frame(kernels.KERNELS, hostile_report().kernels)["name"]
    assert set(names) == {name.encode("utf-8", "backslashreplace").decode() for name in HOSTILE}


# --- CSV --------------------------------------------------------------------------------------------------------


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)")


def csv_of_kernels(tmp_path: Path, names: tuple[str, ...]) -> list[dict[str, str]]:
    path, _ = formats.renderer("csv").render(plain_report(names), tmp_path)
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["stage"] == "prefill"]


def csv_of_a_table(tmp_path: Path, names: tuple[str, ...]) -> list[dict[str, str]]:
    stream = io.StringIO(newline="")
    rows = [GpuRow(name, 1, -2, 3, 4, 0, 0, 0, 0, 0, 0) for name in names]
    write_table(gpu_time.GPU_TIME["kernel"], rows, "csv", stream)
    return list(csv.DictReader(io.StringIO(stream.getvalue(), newline="")))


@pytest.mark.parametrize("write", [csv_of_kernels, csv_of_a_table])
def test_no_cell_of_any_csv_is_a_formula(
    write: Callable[[Path, tuple[str, ...]], list[dict[str, str]]], tmp_path: Path
) -> None:
    rows = write(tmp_path, (*FORMULAS, "a=b", "gemm"))
    shown = [name.replace("\t", "\\x09").replace("\r", "\\x0d").replace("\n", "\\x0a") for name in FORMULAS]
    written = [name if name.startswith("\\x") else f"'{name}" for name in shown]
    assert [row["name"] for row in rows] == [*written, "a=b", "gemm"]


def test_a_negative_number_is_a_number(tmp_path: Path) -> None:
    assert csv_of_a_table(tmp_path, ("x",))[0]["kernel_sum_ns"] == "-2"


def test_csv_writes_unknown_yes_and_shapes_in_one_way() -> None:
    row = evolve(plain_report().kernels[0], grid=(1, 2, 3), block=None, tensor_core=True, p95_ns=None)
    stream = io.StringIO(newline="")
    write_csv(kernels.KERNELS, [row], stream)
    (found,) = csv.DictReader(io.StringIO(stream.getvalue(), newline=""))
    assert (found["grid"], found["block"], found["tensor_core"], found["p95_ns"]) == ("1x2x3", "", "true", "")


# --- for people -------------------------------------------------------------------------------------------------


def test_rows_that_do_not_add_up_are_not_added() -> None:
    report = plain_report()
    table = ReportTables(report, "markdown").stage_times()
    assert table.total is not None
    total = dict(zip((heading.label for heading in table.columns), table.total, strict=True))
    assert total["GPU busy"].text == total["Projected"].text == "–"
    assert "overlap" in total["GPU busy"].hint
    assert total["Kernels"].text == f"{sum(row.kernels for row in report.stage_rows):,}"
    ranges = shown(gpu_time.GPU_TIME["range"], report.range_rows, "markdown", total=True).total
    assert ranges is not None
    assert {cell.text for cell in ranges[1:]} <= {"", "–"}


def test_shares_add_up_only_within_their_whole() -> None:
    report = plain_report()
    place = [column.key for column in kernels.KERNELS.for_reader("terminal")].index("share")
    both = shown(kernels.KERNELS, report.kernels, "terminal", total=True).total
    one = shown(kernels.KERNELS, [row for row in report.kernels if row.stage == "decode"], "terminal", total=True).total
    assert both is not None
    assert one is not None
    assert (both[place].text, one[place].text) == ("", "100.0 %")


def test_columns_that_say_nothing_are_left_out_for_people_only() -> None:
    spec, rows = gpu_time.GPU_TIME["stage"], plain_report().stage_rows
    labels = [heading.label for heading in shown(spec, rows, "html").columns]
    assert "Copies" in labels
    assert "Graphs" not in labels
    assert "graphs" in spec.keys
    assert "graphs" in json_rows(spec, rows)[0]


def test_unknown_values_say_why() -> None:
    report = plain_report(("gemm",))
    table = ReportTables(report, "html").utilisation()
    unknown = [cell for row in table.rows for cell in row if cell.text == "n/a" and cell.hint]
    assert {cell.hint for cell in unknown} == {"nobody counted gemm"}


def test_stages_stand_side_by_side() -> None:
    report = plain_report()
    table = transposed(stages.STAGES_TABLE, report.stages, "html", corner="Quantity")
    assert [heading.label for heading in table.columns] == ["Quantity", "prefill", "decode"]
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert cells["Tokens"] == ["n/a", "4"]
    assert len(table.row_definitions) == len(table.rows)
    by = pivoted(
        utilisation.METRICS, utilisation.metric_means(report.metrics), "html", by="stage", over=("prefill", "decode")
    )
    assert [heading.label for heading in by.columns] == ["Metric", "Unit", "prefill", "decode"]
    assert [cell.text for cell in by.rows[1]][2:] == ["1.00", "n/a"]


def printed(table: FittedTable, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 240])
def test_a_terminal_table_drops_columns_by_priority_and_never_wraps_a_number(width: int, real: Report) -> None:
    for stage in ("prefill", "decode"):
        table = ReportTables(real, "terminal").kernels(stage, 20)
        lines = printed(FittedTable(table), width)
        assert all(len(line) <= width for line in lines)
        head = lines[1]
        there = [place for place, heading in enumerate(table.columns) if f"{heading.text} " in f"{head} "]
        assert 0 in there
        for row, line in zip(table.rows, lines[2:], strict=False):
            numbers = [row[place].text for place in there if table.columns[place].align == "right"]
            for number in numbers:
                assert f" {number} " in f" {line} "
        dropped = [heading.priority for place, heading in enumerate(table.columns) if place not in there]
        kept = [table.columns[place].priority for place in there if table.columns[place].priority]
        assert not dropped or not kept or max(kept) <= min(dropped)
        assert ("no room for: " in "\n".join(lines)) == bool(dropped)


@pytest.mark.parametrize("width", [80, 200])
def test_rows_of_a_terminal_table_add_up_to_its_total_as_printed(width: int, real: Report) -> None:
    for table in (
        ReportTables(real, "terminal").kernels("decode", 5),
        ReportTables(real, "terminal").module_kinds("decode", 3),
    ):
        assert table.rows[-1][0].text.startswith("(")
        lines = printed(FittedTable(table), width)[2:]
        exact = [re.findall(r"\d[\d,]*\.\d{6}", line) for line in lines[: len(table.rows) + 1]]
        *rows, total = [[int(text.replace(",", "").replace(".", "")) for text in line] for line in exact]
        assert [sum(column) for column in zip(*rows, strict=True)] == total
        assert total


def test_eighty_columns_show_what_matters(real: Report) -> None:
    text = "\n".join(printed(FittedTable(ReportTables(real, "terminal").kernels("decode", 5)), 80))
    for wanted in ("Kernel", "Calls", "Total, ms", "Share"):
        assert wanted in text
    for table in (ReportTables(real, "terminal").stage_times(), ReportTables(real, "terminal").compared()):
        assert all(len(line) <= 80 for line in printed(FittedTable(table), 80))


def test_a_table_of_a_trace_without_anything_is_a_head(tmp_path: Path) -> None:
    path = TraceBuilder().launch(0, 5, ("x", 10, 20)).write(tmp_path / "t.sqlite")
    assert path.exists()
    for spec in ALL.values():
        assert shown(spec, (), "html", total=True).rows == ()
        assert printed(FittedTable(shown(spec, (), "terminal")), 80)
        assert frame(spec, ()).shape == (0, len(spec.keys))


def test_csv_has_no_control_characters() -> None:
    """A file is looked at with ``cat`` too; Parquet holds each name as it is."""
    report = plain_report(("\x1b[31mred", "a\u202eb"))
    stream = io.StringIO(newline="")
    write_table(kernels.KERNELS, report.kernels, "csv", stream)
    assert "\x1b" not in stream.getvalue()
    assert "\\x1b[31mred" in stream.getvalue()
    assert "\u202e" not in stream.getvalue()


def test_what_the_profiler_slows_is_labelled_profiled_beside_the_unprofiled_times() -> None:
    for key in (
        "profiled_host_ns", "profiled_ns", "mean_launch_gap_ns", "host_launch_ns", "queue_delay_median_ns",
        "queue_delay_p95_ns", "synchronise_ns", "idle_ns",
    ):  # fmt: skip
        assert "profiled" in stages.STAGES_TABLE[key].label, key
