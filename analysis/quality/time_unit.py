"""Are the times of a trace in nanoseconds? Bounds of what hosts, links and devices do tell, where all times went wrong together.

A trace whose every time is a thousand times too long contradicts itself nowhere: its rows agree with each other, and no share
changes. What launching a kernel takes, how fast a copy is and what the same passes took without the profiler do not change with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted, duration
from analysis.domain.manifest import RunManifest
from analysis.quality.findings import Contradiction, Finding
from analysis.sums.host_calls import HostCalls
from analysis.trace import schema
from analysis.trace.distinct import present
from analysis.trace.reader import Trace
from analysis.trace.records import KERNEL, MEMCPY

__all__ = ["check"]

FEWEST_LAUNCHES: Final = 100
FEWEST_KERNELS: Final = 500
FEWEST_CALLS: Final = 500
LONGEST_SHORTEST_LAUNCH_NS: Final = 250_000
"""The shortest of many launches that did not wait for their kernel takes less; in the good captures at hand 2.7 to 6.8 µs."""
SHORTEST_LAUNCH_NS: Final = 300
"""Half of the launches take longer: the call writes into the device's queue, over its link; good captures: 5.3 µs and more."""
LONGEST_SHORTEST_KERNEL_NS: Final = 100_000
"""The shortest of many kernels takes less: any model adds, copies or converts a few values; good captures: 0.6 to 1 µs."""
SHORTEST_KERNEL_NS: Final = 200
"""Half of the kernels take longer: a kernel that does nothing takes some hundred ns; good captures: 1.7 µs and more."""
FEWEST_NAMES: Final = 5
"""Kernels of so many names are no loop over one large product."""
LARGE_COPY: Final = 2**20
"""Bytes from which a copy's rate is that of its link or memory."""
SLOWEST_LINK: Final = 0.1
"""Bytes per ns, 100 MB/s: the fastest large copy is faster than half a lane of the first PCI Express; good captures: 7 and more."""
FASTEST_LINK: Final = 2_000
"""Bytes per ns, 2 TB/s: between host and device nothing is as fast; NVLink-C2C gives 0.45 TB/s a direction."""
OVERHEAD: Final = 50
"""By so many times no profiler slows all passes down, and by none does it make them faster; good captures: 0.9 to 1.6 times."""
COARSE_NS: Final = 100
"""Of no clock that nsys reads all times are multiples of more than this, nor of what is no product of twos and fives: good captures
have single ns, Windows steps of 100."""

_LOOKED_AT: Final = 65_536
_HOST_LINKS: Final = (1, 2)
"""CUPTI's copyKind of what goes over the link between host and device."""
_UNFIT_FROM: Final = 2
"""So many signs that are independent of each other are no accident."""


@frozen
class _Sign:
    """One thing that is not as it must be if times are in ns."""

    long: bool
    """Times are too long, rather than too short."""
    words: str


def check(trace: Trace, attribution: Attribution, manifest: RunManifest | None, host: HostCalls) -> list[Finding]:
    """Hold times to what is possible; one sign is a warning, two make the capture unfit."""
    # What begins an operator of a CPU, and the operator itself, may take some ten ns.
    of_gpu = [] if trace.info.on_cpu else [*_launches(trace, attribution, host), *_kernels(trace, attribution)]
    signs = [
        *of_gpu,
        *_copies(trace, attribution),
        *_against_unprofiled(attribution, manifest),
    ]
    findings: list[Finding] = []
    steps = _steps(attribution)
    for long in (True, False):
        of_side = [sign.words for sign in signs if sign.long is long]
        if long and of_side and steps is not None:
            of_side.append(steps)
        if of_side:
            findings.append(
                Contradiction(
                    "implausible-time-unit",
                    "unfit" if len(of_side) >= _UNFIT_FROM else "warning",
                    f"times are too {'long' if long else 'short'} to be in nanoseconds",
                    "; ".join(of_side),
                    "durations, rates and utilisation cannot be trusted: the file's times are in another unit, or were changed; "
                    "export the report again, with the Nsight Systems that recorded it",
                )
            )
    if steps is not None and not findings:
        findings.append(
            Finding(
                "coarse-times",
                "warning",
                "times are of a coarse clock, or not in nanoseconds",
                steps,
                "sums of many short kernels and calls are off by up to such a step each; export the report again, with the Nsight "
                "Systems that recorded it",
            )
        )
    return findings


def _launches(trace: Trace, attribution: Attribution, host: HostCalls) -> Iterator[_Sign]:
    """Launches do not wait for what they launch, and take some µs. Those that do wait (CUDA_LAUNCH_BLOCKING) are left out."""
    operations, calls, launch = attribution.operations, attribution.calls, attribution.launch_call
    rows = np.flatnonzero(host.launches)
    if rows.size < FEWEST_LAUNCHES:
        return
    took = calls.duration[rows]
    if (middle := _middle(took)) < SHORTEST_LAUNCH_NS:
        yield _Sign(
            False,
            f"half of {counted(rows.size, 'launch', 'launches')} take {middle:,} ns at most, "
            f"and a launch takes some µs{_example(trace, calls.start[rows[int(np.argmin(took))]], schema.CALLS)}",
        )
    if int(took.min()) <= LONGEST_SHORTEST_LAUNCH_NS:
        return
    own = np.flatnonzero(launch >= 0)
    returned = np.zeros(len(calls), dtype=bool)
    returned[launch[own[calls.end[launch[own]] < operations.end[own]]]] = True
    free = took[returned[rows]]
    if free.size >= FEWEST_LAUNCHES and (least := int(free.min())) > LONGEST_SHORTEST_LAUNCH_NS:
        shortest = rows[returned[rows]][int(np.argmin(free))]
        yield _Sign(
            True,
            f"the shortest of {counted(free.size, 'launch', 'launches')} that did not wait for their kernel takes "
            f"{duration(least)}, and a launch takes some µs{_example(trace, calls.start[shortest], schema.CALLS)}",
        )


def _kernels(trace: Trace, attribution: Attribution) -> Iterator[_Sign]:
    operations = attribution.operations
    rows = np.flatnonzero(operations.kind == KERNEL)
    if rows.size < FEWEST_KERNELS:
        return
    took = operations.duration[rows]
    at = int(np.argmin(took))
    if int(took[at]) > LONGEST_SHORTEST_KERNEL_NS and len(present(operations.name[rows])) >= FEWEST_NAMES:
        yield _Sign(
            True,
            f"the shortest of {counted(rows.size, 'kernel')} takes {duration(int(took[at]))}, "
            f"and a small one takes some µs{_example(trace, operations.start[rows[at]], schema.KERNELS)}",
        )
    if (middle := _middle(took)) < SHORTEST_KERNEL_NS:
        yield _Sign(
            False,
            f"half of {counted(rows.size, 'kernel')} take {middle:,} ns at most, "
            f"and one that does nothing takes more{_example(trace, operations.start[rows[at]], schema.KERNELS)}",
        )


def _copies(trace: Trace, attribution: Attribution) -> Iterator[_Sign]:
    """Large copies against the slowest and the fastest link."""
    operations = attribution.operations
    rows = np.flatnonzero((operations.kind == MEMCPY) & (operations.size >= LARGE_COPY))
    if not rows.size:
        return
    rate = operations.size[rows] / np.maximum(operations.duration[rows], 1)
    best = int(np.argmax(rate))
    if rate[best] < SLOWEST_LINK:
        yield _Sign(True, f"no large copy is faster than any link is: {_of_copy(trace, attribution, rows[best])}")
    over_link = np.isin(operations.copy_kinds[operations.name[rows]], _HOST_LINKS)
    if over_link.any():
        best = int(np.argmax(np.where(over_link, rate, -1)))
        if rate[best] > FASTEST_LINK:
            yield _Sign(
                False,
                f"a copy is faster than the link between host and device can be: {_of_copy(trace, attribution, rows[best])}",
            )


def _of_copy(trace: Trace, attribution: Attribution, row: np.intp) -> str:
    operations = attribution.operations
    took = int(operations.duration[row])
    return (
        f"the fastest moves {int(operations.size[row]):,} bytes in {took:,} ns, "
        f"{operations.size[row] / max(took, 1) * 1e3:,.0f} MB/s{_example(trace, operations.start[row], schema.MEMCPYS)}"
    )


def _against_unprofiled(attribution: Attribution, manifest: RunManifest | None) -> Iterator[_Sign]:
    """Prefills against those of the same inputs without the profiler, in the run's own record."""
    if manifest is None or not manifest.control:
        return
    rows = attribution.stage_rows("prefill")
    if not rows.size:
        return
    ranges = attribution.ranges
    profiled = float(np.median(ranges.end[rows] - ranges.start[rows]))
    unprofiled = median(each.prefill_ns for each in manifest.control)
    if unprofiled <= 0 or profiled <= 0:
        return
    factor = profiled / unprofiled
    if 1 / OVERHEAD <= factor <= OVERHEAD:
        return
    passes = counted(len(manifest.control), "unprofiled pass", "unprofiled passes")
    often = f"{factor:,.0f} times as long as" if factor > 1 else f"1/{1 / factor:,.0f} of"
    yield _Sign(
        factor > 1,
        f"a prefill takes {duration(round(profiled))} (median of {rows.size:,}), {often} the "
        f"{duration(round(unprofiled))} that the run's own record has for {passes}",
    )


def _steps(attribution: Attribution) -> str | None:
    """Say of which step all times of calls are multiples, if it is more than a clock's."""
    calls = attribution.calls
    if len(calls) < FEWEST_CALLS or int(np.gcd.reduce(calls.start[:FEWEST_CALLS])) <= 1:
        return None  # as in nearly all traces: the rest need not be looked at
    step = int(np.gcd(np.gcd.reduce(calls.start), np.gcd.reduce(calls.end)))
    if step <= COARSE_NS and 10**6 % step == 0:
        return None
    return f"starts and ends of all {counted(len(calls), 'call')} are multiples of {step:,} ns, and a clock gives single ones"


def _middle(durations: NDArray[Any]) -> int:
    """Their median, of a part of them where they are many."""
    return int(np.median(durations[:: max(1, durations.size // _LOOKED_AT)]))


def _example(trace: Trace, start: np.int64, spec: schema.TableSpec) -> str:
    """Table and row of an event that began at some moment."""
    place = next(iter(trace.database.examples(spec, "start", f'"start" = {int(start)}')), None)
    return "" if place is None else f" ({spec.names[0]}, row {place[0]})"
