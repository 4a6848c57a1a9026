"""``report.html``: one file that opens from disk, reaches for nothing on a network, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from markupsafe import Markup

from analysis.domain.figures import count
from analysis.domain.files import write_text
from analysis.render.html.charts import library
from analysis.render.html.environment import page_environment
from analysis.render.html.page_data import page_data
from analysis.render.review_link import review_link
from analysis.render.spec import facts, utilisation
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.shown import Table
from analysis.render.spec.tables import ReportTables
from analysis.render.spec.text import visible
from analysis.report import Report

__all__ = ["render"]

_HERE: Final = Path(__file__).parent
_SCRIPTS: Final = ("figures", "page", "charts", "tables", "hints", "start")
"""Files in ``assets/`` that make the page's script, in this order: a file may use what those before it have named."""
_MAX_ROWS: Final = 400
"""Of a table on the page; more are in report.json."""


def render(report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``report.html``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return (write_text(out / "report.html", page(report, out)),)


def page(report: Report, folder: Path | None = None) -> str:
    """The page as text.

    Args:
        report: to show.
        folder: where it will lie: a review that lies there is linked; None: not known.
    """
    environment = page_environment(_HERE / "templates")
    environment.globals.update(definition=_definition)
    charts = library()
    script = "".join((_HERE / "assets" / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    tables = ReportTables(report, "html")
    worst = {"unfit": 0, "warning": 1, "info": 2}
    return environment.get_template("report.html.j2").render(
        report=report,
        review_link=Markup(review_link(folder)),
        title=facts.title(report),
        subject=facts.subject(report),
        cautions=facts.cautions(report),
        tiles=facts.headline(report),
        findings=sorted(report.findings, key=lambda finding: worst[finding.severity]),
        unfit=any(finding.severity == "unfit" for finding in report.findings),
        data=_embedded(page_data(report)),
        compare=tables.compared(),
        stage_times=tables.stage_times(),
        module_tables=[
            (stage, _capped(tables.module_kinds(stage)), _capped(tables.modules(stage)))
            for stage in tables.stages
            if report.module_rows.get(stage)
        ],
        budgets=[tables.budget(verdict.stage) for verdict in report.verdicts if verdict.budget is not None],
        actions=tables.actions(),
        kernel_modules=[
            _capped(tables.kernel_modules(stage)) for stage in tables.kernel_stages if report.kernel_modules
        ],
        host_calls=[_capped(tables.host_calls("stage")), _capped(tables.host_calls("module"))],
        utilisation=tables.utilisation(),
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
        provenance=facts.provenance(report),
        style=Markup((_HERE / "assets" / "report.css").read_text(encoding="utf-8")),
        charts=Markup(charts),
        script=Markup(script),
        script_sources=" ".join(map(_source, (charts, script))),
    )


def _capped(table: Table) -> Table:
    """A table's first rows; its total stays that of all."""
    left_out = len(table.rows) - _MAX_ROWS
    if left_out <= 0:
        return table
    note = f"{table.note} {count(left_out)} more rows are in report.json.".strip()
    return evolve(table, rows=table.rows[:_MAX_ROWS], note=note)


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
