"""The report's tables for a reader: which rows of the report stand under which declaration."""

from __future__ import annotations

from typing import Literal

from attrs import evolve

from analysis.domain.columns import Records
from analysis.domain.entities import KernelSummary
from analysis.domain.overhead import noise_sentence
from analysis.render.spec import energy, gpu_time, host, kernels, predictions, stages, step_kinds, utilisation, verdicts
from analysis.render.spec.shown import Sums, Table, pivoted, shown, transposed
from analysis.render.spec.specification import Reader
from analysis.report import Report
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_modules import KernelModuleRow
from analysis.sums.stages import WHOLE_CAPTURE

__all__ = ["ReportTables"]


class ReportTables:
    """Makes the tables of one report for one format."""

    def __init__(self, report: Report, reader: Reader) -> None:
        """Take a report and the format that its tables are for."""
        self._report = report
        self._reader = reader
        self._kernels: dict[str, tuple[Records[KernelSummary], Sums[KernelSummary]]] = {}
        self._modules: dict[str, tuple[Records[KernelModuleRow], Sums[KernelModuleRow]]] = {}

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that have ranges, in their order."""
        return tuple(stage.stage for stage in self._report.stages)

    @property
    def kernel_stages(self) -> tuple[str, ...]:
        """Names of the stages that have kernels, those of no stage last."""
        present = set(Records.of(self._report.kernels).values("stage"))
        return tuple(name for name in (*self.stages, UNATTRIBUTED) if name in present)

    def stage_times(self) -> Table:
        """GPU time by stage, to the nanosecond; rows add up to the trace's total."""
        rows = self._report.stage_rows
        return shown(gpu_time.of_stages(rows), rows, self._reader, total=True)

    def modules(self, stage: str, most: int | None = None) -> Table:
        """GPU time by module path, exclusive; those after ``most`` are counted."""
        rows = self._report.module_rows.get(stage, ())
        return shown(
            gpu_time.GPU_TIME["module"], rows, self._reader,
            key=f"modules_{stage}", title=f"Modules, {stage}", total=True, most=most,
        )  # fmt: skip

    def module_kinds(self, stage: str, limit: int | None = None, most: int | None = None) -> Table:
        """The same with layer numbers folded; those after ``limit`` as one row, or those after ``most`` counted."""
        rows = gpu_time.module_kinds(self._report.module_rows.get(stage, ()))
        return shown(
            gpu_time.MODULE_KINDS, rows, self._reader,
            key=f"module_kinds_{stage}", title=f"Modules, {stage}", total=True,
            limit=limit, rest="({} more)", most=most,
        )  # fmt: skip

    def kernels(self, stage: str, limit: int | None = None) -> Table:
        """The stage's kernels, longest first; those after ``limit`` as one row. Rows add up to the stage's kernel sum."""
        if stage not in self._kernels:
            of_stage = Records.of(self._report.kernels).where("stage", stage).descending("total_ns")
            self._kernels[stage] = of_stage, Sums(kernels.KERNELS, of_stage)
        mine, sums = self._kernels[stage]
        return shown(
            kernels.KERNELS, mine, self._reader, key=f"kernels_{stage}", title=f"Kernels, {stage}", total=True,
            limit=limit, rest="({} more kernels)", leave_out=("stage", "grid", "block") if self._reader == "terminal" else (),
            sums=sums,
        )  # fmt: skip

    def kernel_modules(self, stage: str, limit: int | None = None, most: int | None = None) -> Table:
        """Which module launches which kernel, longest first; adds up to the kernels.

        Those after ``limit`` are one row, or those after ``most`` counted.
        """
        if stage not in self._modules:
            of_stage = Records.of(self._report.kernel_modules).where("stage", stage)
            self._modules[stage] = of_stage, Sums(kernels.KERNEL_MODULES, of_stage)
        mine, sums = self._modules[stage]
        return shown(
            kernels.KERNEL_MODULES, mine, self._reader,
            key=f"kernel_modules_{stage}", title=f"Kernels by module, {stage}", total=True, limit=limit, rest="({} more)",
            most=most, leave_out=("stage",) if self._reader == "terminal" else (), sums=sums,
        )  # fmt: skip

    def budget(self, stage: str) -> Table:
        """Where the time of one image or token of a stage goes; the terms add up to it."""
        mine = [line for line in verdicts.budget_lines(self._report.verdicts) if line.stage == stage]
        per = f", per {mine[0].per}, {mine[0].time_base}" if mine else ""
        return shown(
            verdicts.BUDGET, mine, self._reader,
            key=f"budget_{stage}", title=f"Budget of {stage}{per}", total=True, leave_out=("per", "time_base"),
        )  # fmt: skip

    def actions(self) -> Table:
        """What to do, ranked over the run, with what it brings end to end."""
        ranking = self._report.ranking
        return shown(verdicts.ACTIONS, ranking.gains, self._reader, note=verdicts.actions_note(ranking))

    def predictions(self) -> Table:
        """What an earlier run of the same work predicted, and what came."""
        return shown(predictions.PREDICTIONS, self._report.predictions, self._reader)

    def compared(self) -> Table:
        """Prefill and decode side by side, one quantity a row."""
        each = transposed(stages.UNIT_TIMES, self._report.unit_times, self._reader, corner="Quantity")
        whole = transposed(stages.STAGES_TABLE, self._report.stages, self._reader, corner="Quantity")
        return evolve(
            whole,
            title=self._of_all(whole.title),
            rows=(*each.rows, *whole.rows),
            row_definitions=(*each.row_definitions, *whole.row_definitions),
        )

    def _of_all(self, title: str) -> str:
        """Title of the table with the stages side by side."""
        if self.stages == (WHOLE_CAPTURE,):
            return "The whole capture"
        return "Kinds of steps side by side" if self._report.step_kinds else title

    def step_kinds(self) -> Table:
        """An engine's steps, one quantity a row, the kinds beside one another."""
        return transposed(step_kinds.STEP_KINDS_TABLE, self._report.step_kinds, self._reader, corner="Quantity")

    def gaps(self) -> Table:
        """GPU idle time of each stage by what the host did meanwhile."""
        return shown(stages.GAPS, [stage for stage in self._report.stages if stage.gaps is not None], self._reader)

    def categories(self) -> Table:
        """Kernel categories, the largest first, the stages beside one another."""
        rows = self._report.categories
        spent: dict[str, int] = {}
        for row in rows:
            spent[row.category] = spent.get(row.category, 0) + row.total_ns
        over = [stage for stage in (*self.stages, UNATTRIBUTED) if any(row.stage == stage for row in rows)]
        ordered = sorted(rows, key=lambda row: -spent[row.category])
        return pivoted(kernels.CATEGORIES, ordered, self._reader, by="stage", over=over, missing=0)

    def utilisation(self) -> Table:
        """What each stage needed against what the device can give."""
        rows = self._report.utilisation
        return shown(utilisation.UTILISATION, rows, self._reader, note=utilisation.utilisation_note(rows))

    def energy(self) -> Table | None:
        """Joules per page and per output token; without rows where the note says why; None: it was not asked for."""
        manifest = self._report.manifest
        if manifest is None or manifest.energy is None:
            return None
        return shown(
            energy.ENERGY, energy.energy_lines(manifest.energy), self._reader, note=energy.energy_note(manifest.energy)
        )

    def metric_means(self) -> Table:
        """Sampled GPU metrics, the means over the stages beside one another."""
        rows = utilisation.metric_means(self._report.metrics)
        over = [stage for stage in self.stages if any(row.stage == stage for row in rows)]
        return pivoted(utilisation.METRICS, rows, self._reader, by="stage", over=over)

    def host_calls(self, by: Literal["stage", "module"], most: int | None = None) -> Table:
        """Where the host waits for the GPU: the same calls by stage, or by innermost module; those after ``most`` counted."""
        rows = [row for row in self._report.host_calls if row.level == by]
        return shown(host.HOST_CALLS[by], rows, self._reader, most=most)

    def operators(self) -> Table:
        """The operators of the contract: inclusive, by host time."""
        return shown(host.OPERATORS, self._report.report.operators_topk, self._reader)

    def streams(self) -> Table:
        """GPU time by stream."""
        return shown(gpu_time.STREAMS, self._report.streams, self._reader)

    def latencies(self) -> Table:
        """Latency metrics with their spread."""
        return shown(stages.LATENCIES, self._report.aggregates, self._reader)

    def overhead(self) -> Table:
        """Profiled against unprofiled."""
        noise = noise_sentence(self._report.overhead)
        return shown(
            stages.OVERHEAD, self._report.overhead, self._reader, note=f"{stages.OVERHEAD.note} {noise}".rstrip()
        )
