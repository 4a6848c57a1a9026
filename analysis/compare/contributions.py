"""Where a stage's difference comes from: parts that add up to it, at every level, with what they miss as a row.

A unit of a stage takes the time in which the GPU works on it and the time in which the GPU is idle meanwhile. Both are in the
trace, but the latency that counts is measured without the profiler, and profiling lengthens the idle time (not the kernels,
which the GPU times itself). So per side:

* **GPU time** is the trace's, by module, class and kernel, less what operations overlap (a row): the union of all operations.
* **Idle time** is the trace's, less the profiler's cost. That cost is measured, by one clock on both sides of it: the program
  times its captured passes as it times its unprofiled ones, and the cost is the difference of the medians. It is taken off
  the idle time that the host's pace makes – launching, waiting, other calls, Python – in proportion, because what a profiler
  adds it adds to the host; only what exceeds all of that comes off the idle time inside CUDA graphs, whose nodes it traces
  too. How long the idle time is without the profiler is thus measured; how it splits between launches, waits and Python is
  modelled, and said to be.
* **The rest** is the latency less both. The prediction takes nothing from the latency that it is held against but the
  profiler's cost, so the rest is what the trace does not see: work of a pass outside its stage's range, operations of other
  stages in it, GPU work after the range has ended, and how far the median instance is from a sum of medians. A trace that covers
  half of what the program calls a decode leaves the other half here.

The rest is no proof that the split is right: a cost that the profiler has in one side's Python and not in the other's moves
time between idle rows without changing their sum. That is why the GPU rows are exact to the nanosecond, and idle rows are called
modelled.

A side whose program did not time its captured passes has its cost from the trace's ranges, and where a side has no unprofiled
passes, the captured times of both are compared. Then busy, idle and cost add up to the latency whatever they are, nothing is
checked by it, and ``explained`` is unknown. So it is on a CPU, where the profiler slows the operators as it does everything else:
there the parts are the capture's shares of the unprofiled time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from analysis.compare.records import Contribution, ContributionKind, KernelMatch, Level
from analysis.compare.sides import HOST_IDLE, IdleKind, IdleTime, Side, StageSide
from analysis.domain.figures import duration
from analysis.sums.records import CategoryRow

__all__ = ["Explanation", "explain", "latency_ns", "profiling_cost_ns"]

_COPIES: Final = ("memcpy", "memset", "graph")
"""How the categories of operations that are no kernels begin."""


def latency_ns(stage: StageSide, *, unprofiled: bool) -> float:
    """What is to be explained: median of the unprofiled repetitions, or of the captured instances."""
    return stage.unprofiled_ns if unprofiled and stage.unprofiled_ns is not None else stage.profiled_ns


def profiling_cost_ns(stage: StageSide, *, unprofiled: bool) -> float:
    """By how much profiling lengthened a unit: captured − unprofiled, by the program's clock where it timed both."""
    if not unprofiled or stage.unprofiled_ns is None or stage.slowed is not None:
        return 0.0
    captured = stage.profiled_ns if stage.program_ns is None else stage.program_ns
    return captured - stage.unprofiled_ns


@frozen
class Explanation:
    """A stage's contributions, and what they leave."""

    contributions: tuple[Contribution, ...]
    rest_ns: float
    """Of the difference; in it at every level."""
    checked: bool
    """Whether the rest could have been anything: False where a side's latency or profiling cost is taken from its own trace."""


@frozen
class _Sides:
    """What both sides' stage takes, taken apart."""

    stage: str
    base: StageSide
    new: StageSide
    idle: tuple[IdleTime, IdleTime]
    """Predicted for an unprofiled unit."""
    unprofiled: bool
    on_cpu: bool
    """Leaf operators of a CPU stand where the GPU's operations would."""

    @property
    def idle_name(self) -> str:
        """How rows of idle time begin."""
        return "no operator" if self.on_cpu else "GPU idle"

    def row(
        self, level: Level, name: str, kind: ContributionKind, times: tuple[float, float],
        calls: tuple[float | None, float | None] = (None, None), note: str = "", **more: object,
    ) -> Contribution:  # fmt: skip
        """One contribution from its times on both sides, ns per unit."""
        return Contribution(
            stage=self.stage, level=level, name=name, kind=kind, base_ns=times[0], new_ns=times[1],
            difference_ns=times[1] - times[0], base_calls=calls[0], new_calls=calls[1], note=note, **more,  # type: ignore[arg-type]
        )  # fmt: skip

    def idle_ns(self, *kinds: IdleKind) -> tuple[float, float]:
        """Idle time of some kinds on both sides."""
        base, new = self.idle
        return sum(base.by_kind[kind] for kind in kinds), sum(new.by_kind[kind] for kind in kinds)

    def counts(self, of: Callable[[StageSide], float]) -> tuple[float, float]:
        """A count on both sides, per unit."""
        return self.base.count_per_unit(of(self.base)), self.new.count_per_unit(of(self.new))


def explain(
    base: Side, new: Side, stage: str, matches: Sequence[KernelMatch], modules: Sequence[tuple[str, float, float, float, float]],
    *, unprofiled: bool,
) -> Explanation:  # fmt: skip
    """Take a stage's difference apart.

    Args:
        base: with this stage.
        new: with it too.
        stage: its name.
        matches: its kernels, aligned.
        modules: its modules, aligned: name, base ns and new ns per unit, base and new operations per unit.
        unprofiled: whether the latency is that of unprofiled passes.
    """
    mine, theirs = base.stages[stage], new.stages[stage]
    idle = (
        mine.idle.without(profiling_cost_ns(mine, unprofiled=unprofiled)),
        theirs.idle.without(profiling_cost_ns(theirs, unprofiled=unprofiled)),
    )
    sides = _Sides(stage, mine, theirs, idle, unprofiled, base.report.capture.on_cpu)
    predicted = mine.busy_ns + idle[0].total_ns, theirs.busy_ns + idle[1].total_ns
    latency = latency_ns(mine, unprofiled=unprofiled), latency_ns(theirs, unprofiled=unprofiled)
    rest = latency[0] - predicted[0], latency[1] - predicted[1]
    gpu = _gpu_sum(mine), _gpu_sum(theirs)
    overlap = mine.busy_ns - gpu[0], theirs.busy_ns - gpu[1]
    copies = _copies(base, new, sides)
    gpu_rows = {
        "stage": [
            sides.row("stage", "operators" if sides.on_cpu else "GPU time", "GPU time", gpu, sides.counts(_operations))
        ],
        "module": [
            sides.row("module", name, "GPU time", (before, after), (calls, new_calls))
            for name, before, after, calls, new_calls in modules
        ],
        "class": _classes(base, new, sides),
        "kernel": [*_kernels(sides, matches), *(_at(row, "kernel") for row in copies)],
        "host": [_host_gpu(sides, gpu, copies), *copies],
    }
    rows: list[Contribution] = []
    for level, own in gpu_rows.items():
        shared = _host_rows(sides) if level == "host" else _idle_rows(sides, level)  # type: ignore[arg-type]
        every = [
            *own,
            sides.row(level, "overlap of operations", "overlap", overlap, note=_OVERLAP),  # type: ignore[arg-type]
            *shared,
            sides.row(level, "rest", "rest", rest, note=_rest_note(sides, predicted, latency)),  # type: ignore[arg-type]
        ]
        rows += sorted(
            (
                row
                for row in every
                if row.kind == "rest" or row.base_ns or row.new_ns or row.base_calls or row.new_calls
            ),
            key=lambda row: (row.kind == "rest", -abs(row.difference_ns), row.name),
        )
    checked = unprofiled and all(side.program_ns is not None and side.slowed is None for side in (mine, theirs))
    return Explanation(tuple(rows), rest[1] - rest[0], checked)


_OVERLAP: Final = "Time in which several operations ran at once: it is in each of their rows, and passed only once."


def _gpu_sum(stage: StageSide) -> float:
    gpu = stage.summary.gpu
    return stage.per_unit(gpu.kernel_sum_ns + gpu.memcpy_ns + gpu.memset_ns + gpu.graph_ns)


def _operations(stage: StageSide) -> float:
    gpu = stage.summary.gpu
    return gpu.kernels + gpu.memcpys + gpu.memsets + gpu.graphs


def _at(row: Contribution, level: Level) -> Contribution:
    from attrs import evolve

    return evolve(row, level=level, kind="GPU time")


def _categories(side: Side, stage: StageSide) -> dict[str, CategoryRow]:
    return {row.category: row for row in side.report.categories if row.stage == stage.source}


def _classes(base: Side, new: Side, sides: _Sides) -> list[Contribution]:
    return [_of_class("class", "GPU time", base, new, sides, name) for name in _class_names(base, new, sides)]


def _copies(base: Side, new: Side, sides: _Sides) -> list[Contribution]:
    return [
        _of_class("host", "copies", base, new, sides, name)
        for name in _class_names(base, new, sides)
        if name.startswith(_COPIES)
    ]


def _class_names(base: Side, new: Side, sides: _Sides) -> list[str]:
    return list(dict.fromkeys((*_categories(base, sides.base), *_categories(new, sides.new))))


def _of_class(level: Level, kind: ContributionKind, base: Side, new: Side, sides: _Sides, name: str) -> Contribution:
    mine, theirs = _categories(base, sides.base).get(name), _categories(new, sides.new).get(name)
    return sides.row(
        level,
        name,
        kind,
        (sides.base.per_unit(mine.total_ns if mine else 0), sides.new.per_unit(theirs.total_ns if theirs else 0)),
        (sides.base.count_per_unit(mine.calls if mine else 0), sides.new.count_per_unit(theirs.calls if theirs else 0)),
    )


def _kernels(sides: _Sides, matches: Sequence[KernelMatch]) -> list[Contribution]:
    return [
        sides.row(
            "kernel",
            f"{match.family} in {match.module}",
            "GPU time",
            (match.base_ns, match.new_ns),
            (match.base_calls, match.new_calls),
            note=match_note(match),
            match=match.kind,
        )
        for match in matches
    ]


def match_note(match: KernelMatch) -> str:
    """What became of the kernels, in words; empty where they are the same."""
    if match.kind in ("same", "new", "vanished"):
        return ""
    before, after = (
        ", ".join(_short(name) for name in match.base_names),
        ", ".join(_short(name) for name in match.new_names),
    )
    if match.kind == "same work, another kernel":
        return f"The same work by another kernel: {before} became {after}."
    many, few = len(match.base_names), len(match.new_names)
    first = f"{'This one' if many == 1 else f'These {many} kernels'} ({_launches(match.base_calls)} a unit)"
    second = f"{'this one' if few == 1 else f'these {few}'} ({_launches(match.new_calls)})"
    return f"{first} became {second}: {before} became {after}."


def _listed(names: Sequence[str]) -> str:
    """Short names, each once; templates of one kernel are told by how many they are."""
    counts: dict[str, int] = {}
    for name in names:
        counts[_short(name)] = counts.get(_short(name), 0) + 1
    return ", ".join(name if number == 1 else f"{number} × {name}" for name, number in counts.items())


def _launches(calls: float) -> str:
    return f"{calls:,.0f} launches" if round(calls) != 1 else "1 launch"


_ANONYMOUS: Final = ("<unnamed>::", "(anonymous namespace)::", "at::native::", "void ")


def _short(name: str, width: int = 60) -> str:
    """A kernel's name without return type, namespaces, template and arguments."""
    plain = name
    for part in _ANONYMOUS:
        plain = plain.replace(part, "")
    plain = plain.split("(", 1)[0].split("<", 1)[0] or name
    return plain if len(plain) <= width else plain[: width - 1] + "…"


def _host_gpu(sides: _Sides, gpu: tuple[float, float], copies: Sequence[Contribution]) -> Contribution:
    copied = sum(row.base_ns for row in copies), sum(row.new_ns for row in copies)
    kernels = sides.counts(lambda stage: stage.summary.gpu.kernels)
    return sides.row(
        "host",
        "operators" if sides.on_cpu else "kernels on the GPU",
        "GPU time",
        (gpu[0] - copied[0], gpu[1] - copied[1]),
        kernels,
    )


def _idle_rows(sides: _Sides, level: Level) -> list[Contribution]:
    waits = sides.counts(lambda stage: stage.summary.synchronises)
    launches = sides.counts(lambda stage: stage.summary.launches)
    return [
        sides.row(level, f"{sides.idle_name}: launching", "launches", sides.idle_ns("launching"), launches, _idle_note(sides)),
        sides.row(
            level, f"{sides.idle_name}: waits", "waits", sides.idle_ns("synchronising", "draining"), waits,
            _idle_note(sides),
        ),
        sides.row(
            level, f"{sides.idle_name}: other CUDA calls", "other calls", sides.idle_ns("other calls"),
            note=_idle_note(sides),
        ),
        sides.row(level, f"{sides.idle_name}: Python", "Python", sides.idle_ns("outside calls"), note=_idle_note(sides)),
        sides.row(
            level, f"{sides.idle_name}: inside CUDA graphs", "in graph", sides.idle_ns("in graph"),
            sides.counts(lambda stage: stage.summary.graph_launches), _idle_note(sides),
        ),
    ]  # fmt: skip


def _host_rows(sides: _Sides) -> list[Contribution]:
    """The idle rows, waits taken apart: the call itself, and what it let run dry."""
    rows = [row for row in _idle_rows(sides, "host") if row.kind != "waits"]
    return [
        *rows,
        sides.row(
            "host", f"{sides.idle_name}: synchronising", "waits", sides.idle_ns("synchronising"),
            sides.counts(lambda stage: stage.summary.synchronises), _idle_note(sides),
        ),
        sides.row(
            "host", f"{sides.idle_name}: queue run dry", "waits", sides.idle_ns("draining"),
            sides.counts(lambda stage: stage.summary.gaps.drains if stage.summary.gaps is not None else 0), _idle_note(sides),
        ),
    ]  # fmt: skip


def _idle_note(sides: _Sides) -> str:
    if not sides.unprofiled or sides.base.slowed is not None or sides.new.slowed is not None:
        return ""
    said = []
    for side, name in ((sides.base, "base"), (sides.new, "new")):
        cost = profiling_cost_ns(side, unprofiled=True)
        host = sum(side.idle.by_kind[kind] for kind in HOST_IDLE)
        said.append(f"{name} {duration(host)} idle by the host's pace less {duration(cost)} that profiling cost")
    return f"Modelled per unit: {'; '.join(said)}, split as in the capture."


def _rest_note(sides: _Sides, predicted: tuple[float, float], latency: tuple[float, float]) -> str:
    what = "unprofiled" if sides.unprofiled else "profiled"
    return (
        f"Base: {duration(predicted[0])} by the trace of {duration(latency[0])} {what}; "
        f"new: {duration(predicted[1])} of {duration(latency[1])}."
    )
