"""All tables that are declared, by key, and the pages about them: docs/columns.md and docs/glossary.md (``make docs``)."""

from __future__ import annotations

from typing import Any, Final

from analysis.render.markdown_tables import code, escaped, head_lines, row_line
from analysis.render.spec.compare import (
    DIFF_CONTRIBUTIONS,
    DIFF_KERNELS,
    DIFF_SETTINGS,
    DIFF_SIDES,
    DIFF_STAGES,
)
from analysis.render.spec.energy import ENERGY
from analysis.render.spec.events import LAUNCHES, RANGES
from analysis.render.spec.findings import FINDINGS
from analysis.render.spec.glossary import GLOSSARY, TERMS
from analysis.render.spec.gpu_time import GPU_TIME, MODULE_KINDS, STEP_KIND_TIME, STREAMS
from analysis.render.spec.host import HOST_CALLS, OPERATORS
from analysis.render.spec.kernels import CATEGORIES, KERNEL_MODULES, KERNELS
from analysis.render.spec.predictions import PREDICTIONS
from analysis.render.spec.ranges import PROJECTIONS, RANGE_KERNELS
from analysis.render.spec.ranks import LATENESS, RANK_STAGES, RANK_STEPS, RANKS
from analysis.render.spec.review import COUNTER_FILES, COVERAGE, LOSSES, REVIEW_KERNELS, REVIEW_MODULES, TRAFFIC
from analysis.render.spec.specification import Column, Specification
from analysis.render.spec.stages import GAPS, INSTANCES, LATENCIES, OVERHEAD, STAGES_TABLE, STEPS, UNIT_TIMES
from analysis.render.spec.step_kinds import STEP_KINDS_TABLE
from analysis.render.spec.sweep import CROSSOVERS, SWEEP_POINTS
from analysis.render.spec.trend import TREND_CHANGES, TREND_RUNS
from analysis.render.spec.utilisation import METRICS, UTILISATION, VERDICTS
from analysis.render.spec.verdicts import ACTIONS, BUDGET

__all__ = ["TABLES", "glossary", "reference"]

_DECLARED: Final[tuple[Specification[Any], ...]] = (
    STAGES_TABLE,
    UNIT_TIMES,
    INSTANCES,
    STEPS,
    STEP_KINDS_TABLE,
    GAPS,
    KERNELS,
    KERNEL_MODULES,
    CATEGORIES,
    *GPU_TIME.values(),
    STEP_KIND_TIME,
    MODULE_KINDS,
    STREAMS,
    *HOST_CALLS.values(),
    OPERATORS,
    RANGE_KERNELS,
    PROJECTIONS,
    UTILISATION,
    METRICS,
    VERDICTS,
    BUDGET,
    ACTIONS,
    PREDICTIONS,
    LATENCIES,
    OVERHEAD,
    FINDINGS,
    LAUNCHES,
    RANGES,
    RANKS,
    RANK_STAGES,
    LATENESS,
    RANK_STEPS,
    REVIEW_KERNELS,
    REVIEW_MODULES,
    LOSSES,
    TRAFFIC,
    COVERAGE,
    COUNTER_FILES,
    DIFF_STAGES,
    DIFF_SIDES,
    DIFF_SETTINGS,
    DIFF_CONTRIBUTIONS,
    DIFF_KERNELS,
    ENERGY,
    SWEEP_POINTS,
    CROSSOVERS,
    TREND_RUNS,
    TREND_CHANGES,
)
TABLES: Final = {spec.key: spec for spec in _DECLARED}
"""Key → declaration."""


def reference() -> str:
    """Every table with its columns, as Markdown."""
    lines = [
        "# Columns",
        "",
        "<!-- Written by `make docs` from analysis/render/spec; a test compares them. -->",
        "",
        "The tables of the analysis, as CSV, JSON, Parquet and DataFrames hold them. Names and types are stable; a quantity",
        "with a unit ends with it. Shares and utilisation are ratios, 1 being the whole. Unknown is null: an empty cell in",
        "CSV, `pd.NA` or NaN in a DataFrame. Which rows add up is said in the column *adds up*.",
    ]
    for spec in TABLES.values():
        lines += ["", f"## {spec.key}", "", escaped(spec.rows), ""]
        lines += head_lines([("Column", "left"), ("Type", "left"), ("Meaning", "left"), ("Adds up", "left")])
        lines += [row_line(_cells(column)) for column in spec.data]
    return "\n".join(lines) + "\n"


def glossary() -> str:
    """Every term with its meaning, in alphabetical order, as Markdown."""
    lines = [
        "# Glossary",
        "",
        "<!-- Written by `make docs` from analysis/render/spec/glossary.py; a test compares them. -->",
        "",
        "What the reports' words mean. Each is defined once; tables, tooltips and this page show the same sentence.",
        "[Columns](columns.md) defines what stands in one table only.",
        "",
    ]
    lines += head_lines([("Term", "left"), ("Meaning", "left")])
    lines += [
        row_line((f"**{escaped(title)}**", escaped(GLOSSARY[key])))
        for title, key in sorted(TERMS.items(), key=lambda term: term[0].casefold())
    ]
    return "\n".join(lines) + "\n"


def _cells(column: Column[Any]) -> tuple[str, str, str, str]:
    adds = f"within one {code(column.within)}" if column.within else "yes" if column.adds else ""
    unknown = " or null" if column.nullable else ""
    return code(column.key), f"{column.type}{unknown}", escaped(column.definition), adds


if __name__ == "__main__":
    import sys

    sys.stdout.write(glossary() if sys.argv[1:] == ["glossary"] else reference())
