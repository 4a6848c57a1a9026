"""A collector's half inside the profiled program: where ranges go, and what surrounds the measured passes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["RangeSink", "Recording"]


class RangeSink(Protocol):
    """Where ranges and marks go. Ranges nest per thread and domain, as NVTX push/pop ranges do."""

    @property
    def torch_writes_operators(self) -> bool:
        """Whether torch's own ``emit_nvtx`` writes operators of a CUDA device to the same place."""

    def prepare(self, domain: str, names: Sequence[str] = ()) -> None:
        """Make ready for ranges of these names, so that the measured passes need not."""

    def push(self, domain: str, name: str, payload: int | None = None) -> None:
        """Open a range on the calling thread."""

    def pop(self, domain: str) -> None:
        """Close the innermost open range of ``domain`` on the calling thread."""

    def mark(self, domain: str, text: str) -> None:
        """Record a text at this moment."""


class Recording(Protocol):
    """The collector's half of one captured run."""

    @property
    def sink(self) -> RangeSink:
        """Where the run's ranges go."""

    def capturing(self, device: str) -> AbstractContextManager[object]:
        """Collect while the context lasts.

        Args:
            device: torch's name of the model's device, such as ``cuda:0``.

        Raises:
            CaptureError: on entering, collecting cannot begin; on leaving, what was collected cannot be written.
            ChildFailedError: the CUDA profiler cannot be started or stopped.
        """
