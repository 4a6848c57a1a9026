"""``kernels.parquet`` and ``kernel_modules.parquet``: kernels by stage, and by stage and module; integer nanoseconds.

``kernels.parquet`` has a row per launch shape: those of one stage and name add up to the kernel's row in the report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.domain.files import write_with
from analysis.render.arrow import arrow_table, fill_parquet
from analysis.render.spec import kernels
from analysis.report import Report

__all__ = ["render"]


def render(report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``kernels.parquet`` and ``kernel_modules.parquet``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return (
        _write(out / "kernels.parquet", arrow_table(kernels.KERNELS, report.kernel_shapes)),
        _write(out / "kernel_modules.parquet", arrow_table(kernels.KERNEL_MODULES, report.kernel_modules)),
    )


def _write(path: Path, table: Any) -> Path:
    return write_with(path, lambda temporary: fill_parquet(table, temporary))
