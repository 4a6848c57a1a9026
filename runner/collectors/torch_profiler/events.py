"""torch.profiler's events sorted into what a trace holds: API calls, GPU operations and the bounds of ranges.

On a CPU there is no GPU operation; the operators that do work themselves stand in for them. An operator does work
itself if

* no other operator runs inside it (a leaf), or
* PyTorch has a kernel of its own for it on the CPU (``mm``, ``addmm``, ``native_layer_norm``, …), or
* it is written for any back end, and all that runs inside it allocates or views (``mkldnn_convolution``).

The leaves alone would not do: ``mm`` runs ``resolve_conj`` and ``addmm`` copies its bias before either multiplies, so
the products themselves would be missing. An operator that is no leaf stands with the longest stretch of its own time,
in which nothing else runs inside it: so intervals of one thread never overlap, and sums are not inflated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, cast

import torch
from attrs import define, field, frozen

__all__ = [
    "SHADOW_PREFIX",
    "Call",
    "DeviceOperation",
    "Operator",
    "SortedEvents",
    "derived_activity_type",
    "sort_events",
    "working_stretches",
]

SHADOW_PREFIX: Final = "dsocr-range "
"""Name of the profiler's own scope that runs along with a range; followed by the range's index."""

DeviceKind: TypeAlias = Literal["kernel", "gpu_memcpy", "gpu_memset"]
OperatorKind: TypeAlias = Literal["prepares", "works", "may work", "calls others"]


@frozen
class Operator:
    """One call of an operator on the CPU. Times in integer nanoseconds since the Unix epoch."""

    name: str
    overload: str
    start_ns: int
    end_ns: int
    thread_id: int
    correlation_id: int


@frozen
class Call:
    """One call of the CUDA runtime or driver."""

    name: str
    start_ns: int
    end_ns: int
    thread_id: int
    correlation_id: int
    is_driver: bool


@frozen
class DeviceOperation:
    """One kernel, copy or fill on a GPU."""

    kind: DeviceKind
    name: str
    start_ns: int
    end_ns: int
    device_id: int
    stream_id: int
    correlation_id: int
    details: dict[str, Any]
    """What Kineto adds: grid, block, ``registers per thread``, bytes… Empty if it adds nothing."""


@define
class SortedEvents:
    """One capture's events by kind."""

    operators: list[Operator] = field(factory=list)
    calls: list[Call] = field(factory=list)
    device_operations: list[DeviceOperation] = field(factory=list)
    shadows: dict[int, tuple[int, int, int]] = field(factory=dict)
    """Range index → (start_ns, end_ns, thread_id)."""


def sort_events(events: Iterable[Any]) -> SortedEvents:
    """Sort Kineto's events.

    Args:
        events: ``torch.profiler.profile().profiler.kineto_results.events()``.
    """
    result = SortedEvents()
    for event in events:
        kind = _activity_type(event)
        if kind == "cpu_op":
            result.operators.append(
                Operator(
                    event.name(),
                    event.overload_name(),
                    event.start_ns(),
                    event.end_ns(),
                    event.device_resource_id(),
                    event.correlation_id(),
                )
            )
        elif kind in ("cuda_runtime", "cuda_driver"):
            result.calls.append(
                Call(
                    event.name(),
                    event.start_ns(),
                    event.end_ns(),
                    event.device_resource_id(),
                    event.correlation_id(),
                    kind == "cuda_driver",
                )
            )
        elif kind in ("kernel", "gpu_memcpy", "gpu_memset"):
            result.device_operations.append(
                DeviceOperation(
                    cast(DeviceKind, kind),
                    event.name(),
                    event.start_ns(),
                    event.end_ns(),
                    event.device_index(),
                    event.device_resource_id(),
                    event.correlation_id(),
                    _details(event),
                )
            )
        elif kind == "user_annotation" and event.name().startswith(SHADOW_PREFIX):
            index = int(event.name().removeprefix(SHADOW_PREFIX))
            result.shadows[index] = (event.start_ns(), event.end_ns(), event.device_resource_id())
    return result


def _activity_type(event: Any) -> str:
    """Kineto's name for the kind of an event; derived where torch does not tell it (seen to be missing in 2.11)."""
    if hasattr(event, "activity_type"):
        return str(event.activity_type())
    return derived_activity_type(event)


def derived_activity_type(event: Any) -> str:
    """Tell an event's kind from what every torch since 2.11 says of it; ``other`` for what no table holds.

    On CUDA this needs events with their metadata (``expose_kineto_event_metadata``): a launch has a grid, an API call
    a callback id.
    """
    name, metadata = event.name(), event.metadata_json()
    on_host = event.device_type().name == "CPU"
    if event.is_user_annotation():  # Kineto draws a scope a second time, around its kernels
        return "user_annotation" if on_host else "gpu_user_annotation"
    if on_host:
        if '"cbid"' in metadata:
            return "cuda_runtime" if name.startswith("cuda") else "cuda_driver"
        return "cpu_op" if event.start_thread_id() else "other"  # the profiler's own activities have no thread
    if '"grid"' in metadata:
        return "kernel"
    return {"Memcpy": "gpu_memcpy", "Memset": "gpu_memset"}.get(name[:6], "other")


def _details(event: Any) -> dict[str, Any]:
    """Read Kineto's metadata: the inside of a JSON object, or a whole one, or nothing."""
    text = event.metadata_json().strip()
    if not text:
        return {}
    try:
        details = json.loads(text if text.startswith("{") else f"{{{text}}}")
    except ValueError:
        return {}
    return details if isinstance(details, dict) else {}


@define
class _Running:
    operator: Operator
    own_since: int
    longest: tuple[int, int] | None = None
    children: int = 0
    only_preparation: bool = True

    def own_until(self, moment: int) -> None:
        if self.longest is None or moment - self.own_since > self.longest[1] - self.longest[0]:
            self.longest = (self.own_since, moment)


def working_stretches(operators: Iterable[Operator]) -> list[tuple[Operator, int, int]]:
    """Find the operators that do work themselves, and when.

    Linear in the number of operators, apart from sorting them.

    Returns:
        (operator, start_ns, end_ns) in the order of the operators' ends per thread; the interval is the whole operator
        for a leaf, and its longest own stretch otherwise.
    """
    result: list[tuple[Operator, int, int]] = []
    running: list[_Running] = []

    def close() -> None:
        ended = running.pop()
        ended.own_until(ended.operator.end_ns)
        kind = _kind(ended.operator.name, ended.operator.overload)
        if not ended.children or kind == "works" or (kind == "may work" and ended.only_preparation):
            assert ended.longest is not None
            result.append((ended.operator, *ended.longest))
        if running:
            parent = running[-1]
            parent.own_since = ended.operator.end_ns
            parent.only_preparation &= kind == "prepares"

    thread_id = None
    for operator in sorted(operators, key=_parents_first):
        while running and (operator.thread_id != thread_id or operator.start_ns >= running[-1].operator.end_ns):
            close()
        thread_id = operator.thread_id
        if running:
            running[-1].own_until(operator.start_ns)
            running[-1].children += 1
        running.append(_Running(operator, operator.start_ns))
    while running:
        close()
    return result


def _parents_first(operator: Operator) -> tuple[int, int, int, int]:
    """A parent starts before its children or, on one tick, ends after them or was numbered before them."""
    return operator.thread_id, operator.start_ns, -operator.end_ns, operator.correlation_id


_ALLOCATES = re.compile(r"aten::(empty|new_empty|resize_)")


@lru_cache(maxsize=4096)
def _kind(name: str, overload: str) -> OperatorKind:
    """Ask PyTorch's dispatcher what an operator is."""
    full_name = f"{name}.{overload}" if overload else name
    try:
        returns = torch._C._get_schema(name, overload).returns
        has_cpu_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(full_name, "CPU")
        for_any_backend = torch._C._dispatch_has_kernel_for_dispatch_key(full_name, "CompositeExplicitAutograd")
    except RuntimeError:
        return "calls others"  # a scope that is no operator
    if _ALLOCATES.match(name) or any(result.alias_info and not result.alias_info.is_write for result in returns):
        return "prepares"  # a result that aliases an input, not written: a view
    if has_cpu_kernel:
        return "works"
    return "may work" if for_any_backend else "calls others"
