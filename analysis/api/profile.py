"""A trace as DataFrames: what a notebook works with.

Columns, units and definitions come from the declarations that the reports are rendered from (`analysis.render.spec`);
docs/api.md lists them. Unknown is ``pd.NA`` or NaN, never 0.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, overload

from analysis.attribution.attribution import Attribution
from analysis.domain.files import write_text
from analysis.render.arrow import frame, frame_of
from analysis.render.spec.events import LAUNCHES, RANGES
from analysis.render.spec.findings import FINDINGS
from analysis.render.spec.gpu_time import GPU_TIME
from analysis.render.spec.host import HOST_CALLS
from analysis.render.spec.kernels import KERNEL_MODULES, KERNELS
from analysis.render.spec.predictions import PREDICTIONS
from analysis.render.spec.specification import Specification
from analysis.render.spec.stages import GAPS, INSTANCES, LATENCIES, OVERHEAD, STAGES_TABLE, STEPS, UNIT_TIMES
from analysis.render.spec.step_kinds import STEP_KINDS_TABLE
from analysis.render.spec.utilisation import METRICS, UTILISATION, VERDICTS, metric_means
from analysis.render.spec.verdicts import ACTIONS, BUDGET, budget_lines
from analysis.report import Report
from analysis.sums.events import launch_columns, range_columns
from analysis.sums.kernel_modules import kernel_module_rows
from analysis.sums.stages import gpu_rows
from analysis.sums.tables import gpu_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLES", "Place", "Profile"]

Place: TypeAlias = Literal["stage", "module"]
Method = TypeVar("Method", bound=Callable[..., Any])

TABLES: Final[dict[str, Specification[Any]]] = {}
"""Method of `Profile` → the declaration of the DataFrame that it returns."""


def _returns(spec: Specification[Any]) -> Callable[[Method], Method]:
    """Register a method's DataFrame, and list its columns, with type and meaning, in its docstring."""

    def decorate(method: Method) -> Method:
        TABLES[method.__name__] = spec
        listed = "\n".join(f"    {column.key} ({column.type}): {column.definition}" for column in spec.data)
        own = inspect.cleandoc(method.__doc__ or "")
        method.__doc__ = f"{own}\n\nOne row: {spec.rows}\n\nColumns (a name ends with its unit):\n{listed}\n"
        return method

    return decorate


class Profile:
    """What a trace says, as records and DataFrames. Made by `analysis.load`.

    Every DataFrame is made anew by each call; ``frame.attrs["definitions"]`` maps its columns to what they mean.
    """

    def __init__(self, report: Report, attribution: Attribution) -> None:
        self._report = report
        self._attribution = attribution

    def __repr__(self) -> str:
        capture = self._report.capture
        devices = ", ".join(capture.device_names) or "unknown device"
        return f"<Profile of {Path(capture.trace_path).name}: {capture.kernels:,} kernels on {devices}>"

    def report(self) -> Report:
        """The whole report as a frozen record: what report.json holds."""
        return self._report

    @overload
    def to_html(self, path: None = None) -> str: ...

    @overload
    def to_html(self, path: str | os.PathLike[str]) -> Path: ...

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str | Path:
        """Give the report as one HTML page that needs no network.

        Args:
            path: the file to write it to; None: none.

        Returns:
            The file's path, or the page itself where no file was asked for.

        Raises:
            RequestError: it cannot be written there.
        """
        from analysis.render.html.page import page
        from analysis.render.html.trace_parts import trace_parts

        made = page(self._report, parts=trace_parts(self._attribution, self._report))
        return made if path is None else write_text(Path(path), made)

    @_returns(FINDINGS)
    def findings(self) -> pd.DataFrame:
        """What speaks for and against trusting the capture."""
        return frame(FINDINGS, self._report.findings)

    @_returns(STAGES_TABLE)
    def stages(self) -> pd.DataFrame:
        """Prefill and decode, all instances of each together, times as profiled."""
        return frame(STAGES_TABLE, self._report.stages)

    @_returns(UNIT_TIMES)
    def unit_times(self) -> pd.DataFrame:
        """What one image or token takes, unprofiled and profiled: the headline figures."""
        return frame(UNIT_TIMES, self._report.unit_times)

    @_returns(INSTANCES)
    def instances(self) -> pd.DataFrame:
        """Each time that a stage ran, in time order."""
        return frame(INSTANCES, self._report.instances)

    @_returns(STEPS)
    def steps(self) -> pd.DataFrame:
        """Decode steps, or an engine's steps of all kinds, in time order."""
        return frame(STEPS, self._report.steps)

    @_returns(STEP_KINDS_TABLE)
    def step_kinds(self) -> pd.DataFrame:
        """A serving engine's steps by kind (prefill, mixed, decode, empty); no rows in a trace of another program."""
        return frame(STEP_KINDS_TABLE, self._report.step_kinds)

    @_returns(GPU_TIME["module"])
    def modules(self, stage: str | None = None) -> pd.DataFrame:
        """GPU time by module path, exclusive: rows add up to the trace, or to the stage.

        Args:
            stage: keep the operations of this stage only.
        """
        return frame(GPU_TIME["module"], gpu_rows(gpu_table(self._attribution, "module", stage=stage)))

    @_returns(KERNELS)
    def kernels(self, stage: str | None = None, *, by_shape: bool = False) -> pd.DataFrame:
        """Kernels by stage and name, most time first.

        Args:
            stage: keep the kernels of this stage only.
            by_shape: one row per launch shape too; those of one name add up to its row.
        """
        rows = self._report.kernel_shapes if by_shape else self._report.kernels
        return frame(KERNELS, [row for row in rows if stage is None or row.stage == stage])

    @_returns(KERNEL_MODULES)
    def kernel_modules(
        self, stage: str | None = None, *, fold_layers: bool = True, by_shape: bool = True
    ) -> pd.DataFrame:
        """Which module launches which kernel in which shape: by stage, most time first; a stage's rows add up to its kernels.

        Args:
            stage: keep the kernels of this stage only.
            fold_layers: ``layers.*.mlp`` for that module of every layer; else each path on its own.
            by_shape: a row per launch shape; else one per kernel name.
        """
        rows = self._report.kernel_modules
        if not (fold_layers and by_shape):
            report = self._report
            rows = kernel_module_rows(
                self._attribution, report.kernels, report.stage_units, fold_layers=fold_layers, by_shape=by_shape
            )
        return frame(KERNEL_MODULES, [row for row in rows if stage is None or row.stage == stage])

    @_returns(LAUNCHES)
    def launches(self) -> pd.DataFrame:
        """Every kernel launch, with its call, its place in the model and its time on the GPU.

        Text columns are of dtype category.
        """
        return frame_of(LAUNCHES, launch_columns(self._attribution, self._report.instances, self._report.steps))

    @_returns(RANGES)
    def ranges(self) -> pd.DataFrame:
        """Every NVTX range, with the GPU work launched inside it.

        Text columns are of dtype category.
        """
        return frame_of(RANGES, range_columns(self._attribution, self._report.instances, self._report.steps))

    @_returns(HOST_CALLS["stage"])
    def host_calls(self, by: Place = "stage") -> pd.DataFrame:
        """Where the host waits for the GPU: synchronises, and small copies to the host.

        Args:
            by: what ``where`` is: a stage, or the innermost module.
        """
        return frame(HOST_CALLS[by], [row for row in self._report.host_calls if row.level == by])

    @_returns(GAPS)
    def gaps(self) -> pd.DataFrame:
        """The GPU's idle time inside each stage, by what the host did meanwhile; the parts add up."""
        return frame(GAPS, [stage for stage in self._report.stages if stage.gaps is not None])

    @_returns(METRICS)
    def metrics(self) -> pd.DataFrame:
        """Sampled GPU metrics; no rows where none were sampled."""
        return frame(METRICS, metric_means(self._report.metrics))

    @_returns(LATENCIES)
    def latencies(self) -> pd.DataFrame:
        """TTFT, TPOT and the like, unprofiled where a control run measured them."""
        return frame(LATENCIES, self._report.aggregates)

    @_returns(OVERHEAD)
    def overhead(self) -> pd.DataFrame:
        """What profiling cost; no rows where no control run tells."""
        return frame(OVERHEAD, self._report.overhead)

    @_returns(UTILISATION)
    def utilisation(self) -> pd.DataFrame:
        """MFU and MBU of each stage, on each base of time."""
        return frame(UTILISATION, self._report.utilisation)

    @_returns(VERDICTS)
    def verdicts(self) -> pd.DataFrame:
        """What bounds each stage, why, and what to do."""
        return frame(VERDICTS, self._report.verdicts)

    @_returns(BUDGET)
    def budget(self) -> pd.DataFrame:
        """Where the time of one image or token goes, stage by stage; the terms of a stage add up exactly."""
        return frame(BUDGET, budget_lines(self._report.verdicts))

    @_returns(ACTIONS)
    def actions(self) -> pd.DataFrame:
        """What to do, ranked over the run by what it could bring end to end."""
        return frame(ACTIONS, self._report.ranking.gains)

    @_returns(PREDICTIONS)
    def predictions(self) -> pd.DataFrame:
        """What the last run of the same work before this one predicted, and what came; no rows where none is known."""
        return frame(PREDICTIONS, self._report.predictions)
