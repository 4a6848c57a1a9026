"""The half of NVIDIA's profilers inside the profiled program: NVTX ranges, between cudaProfilerStart and …Stop.

Nsight Systems and Nsight Compute both listen to these. The only importer of nvtx in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import nvtx
import torch

from analysis.domain.errors import ChildFailedError

__all__ = ["CudaProfilerRecording", "NvtxSink"]


class NvtxSink:
    """NVTX push/pop ranges and marks, event attributes built once per domain and name.

    nvtx 0.2.11 has no methods on its ``Domain`` (its own ``annotate`` calls the functions below it); later versions
    have them and document them. Whichever is there is bound once per domain, so that a range costs a dictionary
    look-up and one call into the extension.
    """

    torch_writes_operators = True

    def __init__(self) -> None:
        self._domains: dict[str, Any] = {}
        self._plain: dict[tuple[str, str], Any] = {}
        """Attributes of ranges without payload: never given one, since nvtx has no way to take it off again."""
        self._with_payload: dict[tuple[str, str], Any] = {}
        """Attributes of ranges with payload: given a new one for each event."""
        self._push: dict[str, Callable[[Any], None]] = {}
        self._pop: dict[str, Callable[[], None]] = {}
        self._mark: dict[str, Callable[[Any], None]] = {}

    def prepare(self, domain: str, names: Sequence[str] = ()) -> None:
        """Create the domain and the event attributes of ``names`` ahead of the measured loop."""
        if domain not in self._domains:
            made = nvtx.get_domain(domain)
            self._domains[domain] = made
            if hasattr(made, "push_range"):
                self._push[domain], self._pop[domain], self._mark[domain] = made.push_range, made.pop_range, made.mark
            else:
                from nvtx import _lib

                self._push[domain] = partial(_call, _lib.push_range, made.handle)
                self._pop[domain] = partial(_lib.pop_range, made.handle)
                self._mark[domain] = partial(_call, _lib.mark, made.handle)
        for name in names:
            if (domain, name) not in self._plain:
                self._plain[domain, name] = self._domains[domain].get_event_attributes(message=name)

    def push(self, domain: str, name: str, payload: int | None = None) -> None:
        """Open a range. A payload is an int64 of this event alone."""
        key = (domain, name)
        if payload is None:
            if key not in self._plain:
                self.prepare(domain, (name,))
            self._push[domain](self._plain[key])
            return
        if key not in self._with_payload:
            self.prepare(domain)
            # nvtx caches attributes by all arguments: without a payload here these would be the very ones in _plain.
            self._with_payload[key] = self._domains[domain].get_event_attributes(message=name, payload=payload)
        attributes = self._with_payload[key]
        if attributes is not None:  # newer nvtx gives no attributes where no tool listens to the domain
            attributes.payload = payload
        self._push[domain](attributes)

    def pop(self, domain: str) -> None:
        """Close the innermost open range of ``domain`` on the calling thread."""
        self._pop[domain]()

    def mark(self, domain: str, text: str) -> None:
        """Record a text of any length (300,000 characters have been seen to arrive whole)."""
        self.prepare(domain)
        self._mark[domain](self._domains[domain].get_event_attributes(message=text))


def _call(function: Callable[[Any, Any], None], handle: Any, attributes: Any) -> None:
    function(attributes, handle)


class CudaProfilerRecording:
    """Ranges as NVTX, collection between cudaProfilerStart and cudaProfilerStop."""

    def __init__(self) -> None:
        self.sink = NvtxSink()

    def capturing(self, device: str) -> AbstractContextManager[None]:
        """Collect while the context lasts; on a CPU there is neither call, and the whole process is collected.

        Raises:
            ChildFailedError: a call failed, such as where another profiler is attached.
        """
        return _between_start_and_stop(torch.device(device))


@contextmanager
def _between_start_and_stop(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    _check(runtime.cudaProfilerStart(), "cudaProfilerStart")
    try:
        yield
        torch.cuda.synchronize(device)
    finally:
        _check(runtime.cudaProfilerStop(), "cudaProfilerStop")


def _check(result: object, call: str) -> None:
    code = int(getattr(result, "value", result))  # type: ignore[call-overload]  # a pybind enum, or its number
    if code != 0:
        raise ChildFailedError(f"{call} failed with CUDA error {code}; is another profiler attached?")
