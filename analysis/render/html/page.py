"""``report.html``: one file that opens from disk, reaches for nothing on a network, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from markupsafe import Markup

from analysis.domain.figures import count, counted, duration
from analysis.domain.files import write_text
from analysis.render.html.charts import library
from analysis.render.html.environment import page_environment, page_style
from analysis.render.html.icicle import plain_modules, reported_costs
from analysis.render.html.page_data import MAX_METRICS, page_data
from analysis.render.html.stage_cards import stage_cards
from analysis.render.html.trace_parts import TraceParts
from analysis.render.pictures import category_picture, histogram_picture, step_picture
from analysis.render.pictures.busy import busy_picture
from analysis.render.pictures.metrics import metrics_picture
from analysis.render.pictures.roofline import stage_roofline_picture
from analysis.render.review_link import REPORT_PAGE, link_from_review, review_link
from analysis.render.spec import facts, headline, predictions, utilisation
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.shown import Table
from analysis.render.spec.tables import ReportTables
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.sums.grouping import UNATTRIBUTED

__all__ = ["render"]

_HERE: Final = Path(__file__).parent
_SCRIPTS: Final = (
    "figures",
    "page",
    "links",
    "charts",
    "tables",
    "kernel_table",
    "icicle",
    "timeline",
    "hints",
    "start",
)
"""Files in ``assets/`` that make the page's script, in this order: a file may use what those before it have named."""
_MAX_ROWS: Final = 240
"""Of a table on the page; more are in the files beside it."""
_TOP_MODULES: Final = 10
_TOP_KERNELS: Final = 8
_TOP_WAITS: Final = 4
"""Rows that stand there without scripts and in print."""
_HALF: Final = 600
"""Width of two charts side by side, pixels."""


def render(report: Report, out: Path, parts: TraceParts | None = None) -> tuple[Path, ...]:
    """Write ``report.html``; a review that lies beside it gets a link to it.

    Args:
        report: to show.
        out: folder.
        parts: what the page shows of the trace itself; None: it has no timeline.

    Raises:
        RequestError: the folder cannot be written to.
    """
    written = write_text(out / REPORT_PAGE, page(report, out, parts))
    link_from_review(out)
    return (written,)


def page(report: Report, folder: Path | None = None, parts: TraceParts | None = None) -> str:
    """The page as text.

    Args:
        report: to show.
        folder: where it will lie: a review that lies there is linked; None: not known.
        parts: what the page shows of the trace itself; None: it has no timeline.
    """
    environment = page_environment()
    environment.globals.update(definition=_definition)
    tables = ReportTables(report, "html")
    budgeted = {verdict.stage for verdict in report.verdicts if verdict.budget is not None}
    drawn = _pictures(report)
    # The library draws what can be zoomed; a page without such a chart does not carry it.
    charts = library() if drawn["steps"] or drawn["metrics"] else ""
    script = "".join((_HERE / "assets" / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    return environment.get_template("report.html.j2").render(
        report=report,
        review_link=Markup(review_link(folder)),
        title=facts.title(report),
        kind="inference profile",
        ran=headline.what_was_run(report),
        cautions=facts.cautions(report),
        headline=headline.sentence(report),
        ranked=headline.further(report),
        not_known=headline.not_known(report),
        cards=stage_cards(report),
        # How busy the GPU was stands on the first screen.
        tiles_given=[tile for tile in facts.headline(report) if tile.term != "busy_share"],
        unfit=[finding for finding in report.findings if finding.severity == "unfit"],
        findings=sorted(
            (finding for finding in report.findings if finding.severity != "unfit"),
            key=lambda finding: finding.severity != "warning",
        ),
        findings_summary=_findings(report),
        warned=any(finding.severity == "warning" for finding in report.findings),
        data=_embedded(
            {**page_data(report), "modules": plain_modules(reported_costs(report) if parts is None else parts.modules)}
        ),
        timeline=Markup(parts.timeline if parts is not None else ""),
        perfetto=parts is not None and parts.perfetto,
        perfetto_command=visible(f"dsocr-analyze {shlex.quote(report.capture.trace_path)} --format perfetto"),
        compare=tables.compared(),
        stage_times=tables.stage_times(),
        step_kinds=tables.step_kinds() if report.step_kinds else None,
        module_tables=[
            (
                stage,
                _told(tables.module_kinds(stage, most=_MAX_ROWS)),
                _told(tables.modules(stage, most=_MAX_ROWS)),
                evolve(tables.module_kinds(stage, _TOP_MODULES), key=f"top_modules_{stage}"),
            )
            for stage in tables.stages
            if report.module_rows.get(stage)
        ],
        budgets=[tables.budget(verdict.stage) if verdict.stage in budgeted else None for verdict in report.verdicts],
        actions=tables.actions(),
        predictions=tables.predictions(),
        predicted=predictions.sentences(report),
        top_kernels=[
            tables.kernels(stage, _TOP_KERNELS)
            for stage in tables.kernel_stages
            if stage != UNATTRIBUTED or len(tables.kernel_stages) == 1
        ],
        kernel_modules=[
            _told(tables.kernel_modules(stage, most=_MAX_ROWS), "kernel_modules.parquet")
            for stage in tables.kernel_stages
            if report.kernel_modules
        ],
        waits=_longest(tables.host_calls("stage")),
        host_calls=[_told(tables.host_calls(by, most=_MAX_ROWS)) for by in ("stage", "module")],
        utilisation=tables.utilisation(),
        energy=tables.energy(),
        derivations=[
            (row.stage, utilisation.TIME_BASES[row.time_base], visible(row.derivation), visible(row.suspect or ""))
            for row in report.utilisation
            if row.derivation
        ],
        latencies=tables.latencies(),
        overhead=tables.overhead(),
        operators=tables.operators(),
        streams=tables.streams(),
        metric_means=tables.metric_means(),
        metrics_note=_metrics_note(report),
        capture_line=_capture_line(report),
        provenance=facts.provenance(report),
        style=page_style() + Markup((_HERE / "assets" / "explore.css").read_text(encoding="utf-8")),
        charts=Markup(charts),
        script=Markup(script),
        script_sources=" ".join(map(_source, filter(None, (charts, script)))),
        **{name: Markup(picture) if picture else None for name, picture in drawn.items()},
    )


def _pictures(report: Report) -> dict[str, str | None]:
    """Charts by their name in the template; None: there is nothing to draw."""
    return {
        "busy": busy_picture(report),
        "histogram": histogram_picture(report, _HALF),
        "steps": step_picture(report, _HALF),
        "categories": category_picture(report, _HALF, 8),
        "roofline": stage_roofline_picture(report, _HALF),
        "metrics": metrics_picture(report),
    }


def _findings(report: Report) -> str:
    """How many findings there are, worst first."""
    counts = {
        "warning": ("warning", "warnings"),
        "info": ("thing that is good to know", "things that are good to know"),
    }
    told = [
        counted(number, *names)
        for severity, names in counts.items()
        if (number := sum(finding.severity == severity for finding in report.findings))
    ]
    return f"Capture quality: {' and '.join(told)}"


def _metrics_note(report: Report) -> str:
    more = sum(bool(metric.values) for metric in report.metrics) - MAX_METRICS
    return f"{count(more)} more metrics are in the table." if more > 0 else ""


def _capture_line(report: Report) -> str:
    """What was captured, in one line."""
    capture = report.capture
    return (
        f"{visible(capture.collector)} on {facts.devices(report)}: {counted(capture.kernels, 'kernel')}, "
        f"{counted(capture.api_calls, 'CUDA call')} and {counted(capture.ranges, 'range')} in {duration(capture.duration_ns)}."
    )


def _told(table: Table, file: str = "report.json") -> Table:
    """A table whose note says how many rows it leaves out, and where they are; its total is that of all."""
    if not table.left_out:
        return table
    return evolve(table, note=f"{table.note} {count(table.left_out)} more rows are in {file}.".strip())


def _longest(table: Table) -> Table:
    """Where the host waits longest."""
    ordered = sorted(table.rows, key=lambda row: -(row[-1].sort or 0))
    return evolve(table, key="longest_waits", rows=tuple(ordered[:_TOP_WAITS]), total=None)


def _source(script: str) -> str:
    """A script as the Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _definition(term: str) -> str:
    return GLOSSARY[term] if term else ""


def _embedded(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it can close the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
