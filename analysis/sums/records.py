"""Sums over a trace's operations and calls, as records. Times are integer nanoseconds; unknown is None."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from analysis.attribution.vocabulary import Composition

__all__ = [
    "BusyTimeline",
    "CaptureInfo",
    "CategoryRow",
    "GapSummary",
    "GpuRow",
    "HostCallRow",
    "InstanceSummary",
    "LeftOut",
    "MetricSeries",
    "StageSummary",
    "StepPoint",
    "StreamSummary",
]


@frozen
class CaptureInfo:
    """Where the numbers come from."""

    trace_path: str
    trace_bytes: int
    product: str | None
    collector: str
    """``Nsight Systems``, ``torch on CPU``, ``torch on CUDA`` or ``unknown``."""
    on_cpu: bool
    """Leaf operators on a CPU stand where kernels would."""
    schema_version: str | None
    wall_clock: str | None
    duration_ns: int | None
    device_names: tuple[str, ...]
    processes: int
    threads: int
    kernels: int
    memcpys: int
    memsets: int
    graphs: int
    """CUDA graphs traced as a whole: their kernels are invisible."""
    api_calls: int
    """Rows of the table of CUDA API calls."""
    ranges: int
    module_domain: str | None
    """Domain in which most module ranges were found (empty: the default one); None: there are none."""
    random_weights: bool | None
    """None: the trace does not say."""
    cross_thread: bool
    """Whether launches were also attributed by time on the host."""
    stated_model: str | None = None
    """Preset that the user named for FLOPs and bytes; the trace itself may say nothing of its model."""
    vocabulary: str = "dsocr"
    """By whose names of ranges stages, steps and modules were read (`analysis.attribution.vocabulary`)."""
    vocabulary_title: str = "dsocr-profile"
    vocabulary_ranges: int = 0
    """Ranges that are a stage or a step by these names."""
    vocabulary_stated: bool = False
    """The user named it (``--vocabulary``)."""


@frozen
class GpuRow:
    """One row of a table of GPU time (the columns of ``dsocr-analyze table``)."""

    name: str
    kernels: int
    kernel_sum_ns: int
    busy_ns: int
    projected_ns: int
    memcpys: int
    memcpy_ns: int
    memsets: int
    memset_ns: int
    graphs: int
    graph_ns: int
    steps: int | None = None
    """Steps of an engine, of a stage that is a kind of them."""


@frozen
class LeftOut:
    """Rows of a table of kernels that a file leaves out, because it would be too large with them."""

    table: Literal["kernels", "kernel_shapes", "kernel_modules"]
    rows: int
    calls: int
    total_ns: int
    """Of these rows together."""


@frozen
class GapSummary:
    """Time inside a stage's host range in which its GPU was idle, by what the host did meanwhile."""

    total_ns: int
    count: int
    largest_ns: int
    synchronising_ns: int
    """The host was inside a synchronise or a blocking copy."""
    launching_ns: int
    """The host was inside a launching call (kernel, copy, memset, graph)."""
    other_api_ns: int
    """Inside any other CUDA call: allocation, module loading, queries."""
    outside_api_ns: int
    """In no CUDA call at all: Python, the framework, the program."""
    draining_ns: int = 0
    """Behind a synchronise that returned to an idle GPU, until its next operation began, whatever the host did meanwhile: what
    the synchronise let run dry. No other of these times holds it; the six add up to the total."""
    drains: int = 0
    """Gaps in which a synchronise returned."""
    in_graph_ns: int = 0
    """Between two operations of one CUDA graph replay, whatever the host did: the GPU's own time from node to node."""


@frozen
class StageSummary:
    """One stage, all its instances. Sums over instances unless named otherwise."""

    stage: str
    instances: int
    tokens: int | None
    """Prompt tokens for prefill, emitted steps for decode, tokens of all steps of an engine's kind; None: nothing says."""
    profiled_host_ns: int
    """Range end − start."""
    profiled_ns: int
    """Range start to the moment at which range and GPU work have both ended: longer where the GPU works on. An engine's
    step has ended when the next one begins."""
    projected_ns: int
    """First to last GPU operation."""
    busy_ns: int
    """Union of each instance's GPU operations: ranks or images that run at once add up, as their host times do."""
    kernel_sum_ns: int
    gpu: GpuRow
    launches: int
    """Calls that launch a kernel or a graph, ``cuLaunchKernelEx`` too; a driver call inside a runtime call is none."""
    graph_launches: int
    synchronises: int
    synchronise_ns: int
    small_d2h_copies: int
    """Device-to-host copies of at most `analysis.sums.host_calls.SMALL_COPY_BYTES`."""
    host_launch_ns: int
    """Time inside launching calls."""
    queue_delay_median_ns: float | None
    """Kernel start − launch start; None: there are no kernels, or it is below 0, as where the clocks of GPU and host do not fit
    (a finding says so)."""
    queue_delay_p95_ns: float | None
    mean_kernel_ns: float | None
    median_kernel_ns: float | None
    mean_launch_gap_ns: float | None
    """Host time from one launch to the next, mean."""
    concurrency: float | None
    """Sum of all operations / their union: 1 = one at a time."""
    gaps: GapSummary | None
    small_grid_share: float | None = None
    """Share of kernel time in kernels with fewer blocks than the device has SMs; None: grids or SM count unknown."""
    of_steps: bool = False
    """Its instances are steps of an engine, of one kind."""


@frozen
class InstanceSummary:
    """One stage instance, such as ``image[0]/decode``."""

    path: str
    image: str | None
    stage: str
    start_ns: int
    end_ns: int
    profiled_host_ns: int
    projected_ns: int
    busy_ns: int
    kernel_sum_ns: int
    kernels: int
    payload: int | None
    """The range's payload: prompt tokens for prefill."""
    steps: int
    image_index: int | None = None
    """Of the image around the instance; None: it lies in none."""
    pass_index: int | None = None
    """Counts, from 0, the times that its process ran this stage of this image; None: it lies in no image."""
    rank: int | None = None
    """Place of its process, by process id, among those that have stages; None: the trace has one such process."""
    launches: int = 0
    """Calls inside it that launch a kernel or a graph."""
    gaps: GapSummary | None = None
    """Of its host range."""
    gpu_end_ns: int | None = None
    """End of the last GPU operation that it launched; None: it launched none."""
    composition: Composition | None = None
    """What it works on, of an engine's step; None: it is none."""
    next_ns: int | None = None
    """Start of the next step on its thread, of an engine's step; None: it is none, or the last."""
    cut: bool = False
    """The program was ended in the image around it: it is in sums, but in no median, utilisation or verdict."""

    @property
    def finished_ns(self) -> int:
        """When range and GPU work have both ended.

        An engine launches a step while the GPU works on the one before: its step has ended when the next one begins.
        """
        finished = self.end_ns if self.gpu_end_ns is None else max(self.end_ns, self.gpu_end_ns)
        return finished if self.next_ns is None else max(self.end_ns, min(finished, self.next_ns))

    @property
    def profiled_ns(self) -> int:
        """Range start to `finished_ns`."""
        return self.finished_ns - self.start_ns


@frozen
class StepPoint:
    """One decode step, or one step of an engine, on the host's clock."""

    instance: str
    index: int
    start_ns: int
    profiled_host_ns: int
    busy_ns: int
    kernels: int
    context: int | None
    """Context length, from the range's payload."""
    image_index: int | None = None
    """This and the next two are those of the instance around the step."""
    pass_index: int | None = None
    rank: int | None = None
    gpu_end_ns: int | None = None
    """End of the last GPU operation that it launched; None: it launched none."""
    kind: str | None = None
    """prefill, mixed, decode, empty or step, of an engine's step; this and the next ones are None for others."""
    composition: Composition | None = None
    step_ns: int | None = None
    """From its start until range and GPU work have ended, or the next step begins."""
    queued_ns: int | None = None
    """How long the GPU still had work of earlier steps when the step began: 0, the host did not run ahead of it."""
    between_ns: int | None = None
    """Host time since the range of the step before on its thread ended: scheduling, sampling, output; None: the first."""
    launches: int | None = None

    @property
    def requests(self) -> int | None:
        """In the step."""
        return self.composition.requests if self.composition is not None else None

    @property
    def tokens(self) -> int | None:
        """New positions that the step computes."""
        return self.composition.tokens if self.composition is not None else None

    @property
    def finished_ns(self) -> int:
        """When range and GPU work have both ended: the moment of its token."""
        end = self.start_ns + self.profiled_host_ns
        return end if self.gpu_end_ns is None else max(end, self.gpu_end_ns)


@frozen
class StreamSummary:
    """One stream of one device in one process: numbers of streams repeat from process to process."""

    device: int
    stream: int
    operations: int
    sum_ns: int
    busy_ns: int
    pid: int | None = None
    """None: the rows do not say whose they are."""
    process_name: str | None = None
    """None: not recorded."""


@frozen
class HostCallRow:
    """Waiting and copying calls of one module or stage."""

    where: str
    call: str
    calls: int
    total_ns: int
    kind: Literal["synchronise", "small device-to-host copy"]
    level: Literal["module", "stage"]
    """What ``where`` names. Each call is in one row of each level."""


@frozen
class CategoryRow:
    """Kernels of one category in one stage."""

    stage: str
    category: str
    calls: int
    total_ns: int
    share: float
    """Of the stage's time over all operations."""


@frozen
class MetricSeries:
    """A sampled GPU metric."""

    name: str
    unit: str
    stage_means: dict[str, float]
    """Mean over each stage's host time."""
    time_ns: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    """Thinned for drawing: means over equal slices of the capture."""


@frozen
class BusyTimeline:
    """GPU busy time in equal slices of the window that the stages fill."""

    start_ns: int
    slice_ns: int
    busy_ns: tuple[int, ...]
    """Union of all GPU operations in each slice."""
