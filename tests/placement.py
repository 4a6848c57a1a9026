"""Where operations ended up, as plain dicts that a test can spell out."""

from __future__ import annotations

from analysis.attribution.attribution import Attribution, Level
from analysis.sums.tables import TableKind, gpu_table

__all__ = ["counts", "instances", "place"]


def place(attribution: Attribution, level: Level = "stage") -> dict[str, str | None]:
    """Operation name → name of the innermost range of a level, None where there is none."""
    rows = attribution.operation_level(level)
    names, ranges = attribution.operations.names, attribution.ranges
    return {
        names[code]: ranges.names[ranges.name[row]] if row >= 0 else None
        for code, row in zip(attribution.operations.name.tolist(), rows.tolist(), strict=True)
    }


def instances(attribution: Attribution, level: Level = "stage") -> dict[str, str | None]:
    """Operation name → path of its instance."""
    rows = attribution.operation_level(level).tolist()
    names = [attribution.operations.names[code] for code in attribution.operations.name]
    return {name: attribution.instance_names.get(row) for name, row in zip(names, rows, strict=True)}


def counts(attribution: Attribution, by: TableKind) -> dict[str, int]:
    """Row name → kernels; the table's own conservation check runs too."""
    table = gpu_table(attribution, by)
    return dict(zip(table.names, table.columns["kernels"].tolist(), strict=True))
