"""Ranges around stages, steps and modules. The only importer of nvtx.

Stage ranges cost a context manager each; module ranges are forward hooks; operator ranges come from torch. Where no
sink is given, `Annotator.range` hands out a shared empty context and no hook is attached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol

import nvtx
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from analysis.domain.annotations import MANIFEST_MARK_PREFIX, META_DOMAIN, MODULE_DOMAIN, STAGE_DOMAIN
from runner.plan.plan import AnnotationLevel

__all__ = ["OPERATOR_DOMAIN", "Annotator", "NvtxSink", "RangeSink"]

OPERATOR_DOMAIN: Final = "torch"
"""Domain of operator ranges on a CPU. On a GPU torch's own ``emit_nvtx`` writes into the default domain."""

_NOTHING: Final[AbstractContextManager[None]] = nullcontext()


class RangeSink(Protocol):
    """Where ranges and marks go. Ranges nest per thread and domain, as NVTX push/pop ranges do."""

    def push(self, domain: str, name: str, payload: int | None = None) -> None:
        """Open a range on the calling thread."""

    def pop(self, domain: str) -> None:
        """Close the innermost open range of ``domain`` on the calling thread."""

    def mark(self, domain: str, text: str) -> None:
        """Record a text at this moment."""


class NvtxSink:
    """NVTX push/pop ranges and marks, event attributes built once per domain and name.

    nvtx 0.2.11 has no methods on its ``Domain`` (its own ``annotate`` calls the functions below it); later versions
    have them and document them. Whichever is there is bound once per domain, so that a range costs a dictionary
    look-up and one call into the extension.
    """

    def __init__(self) -> None:
        self._domains: dict[str, Any] = {}
        self._attributes: dict[tuple[str, str], Any] = {}
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
            if (domain, name) not in self._attributes:
                self._attributes[domain, name] = self._domains[domain].get_event_attributes(message=name)

    def push(self, domain: str, name: str, payload: int | None = None) -> None:
        """Open a range. A payload is an int64 of this event alone."""
        if (domain, name) not in self._attributes:
            self.prepare(domain, (name,))
        attributes = self._attributes[domain, name]
        # Newer nvtx gives no attributes where no tool listens to the domain.
        if payload is not None and attributes is not None:
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


class _Range:
    """One range as a context manager; closed also where the body raises."""

    __slots__ = ("_domain", "_name", "_payload", "_sinks")

    def __init__(self, sinks: tuple[RangeSink, ...], domain: str, name: str, payload: int | None) -> None:
        self._sinks = sinks
        self._domain = domain
        self._name = name
        self._payload = payload

    def __enter__(self) -> None:
        for sink in self._sinks:
            sink.push(self._domain, self._name, self._payload)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in self._sinks:
            sink.pop(self._domain)


class _OperatorRanges(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its class hook untyped
    """A range around each operator that reaches a kernel, for devices that ``emit_nvtx`` does not serve."""

    def __init__(self, sinks: tuple[RangeSink, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sinks = sinks

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with _Range(self._sinks, OPERATOR_DOMAIN, func.name(), None):
            return func(*args, **(kwargs or {}))


class Annotator:
    """Writes the vocabulary of `analysis.domain.annotations` into sinks.

    Args:
        sinks: none for an unprofiled run: then no range is written and no hook attached.
        level: ``stages``; ``modules`` adds a range per module call; ``operators`` adds one per operator to those.
    """

    def __init__(self, sinks: Sequence[RangeSink] = (), level: AnnotationLevel = "modules") -> None:
        self._sinks = tuple(sinks)
        self.level = level

    @property
    def active(self) -> bool:
        """Whether anything is written."""
        return bool(self._sinks)

    def range(self, name: str, payload: int | None = None) -> AbstractContextManager[None]:
        """A range in the domain of the stages, closed when the context ends."""
        return _Range(self._sinks, STAGE_DOMAIN, name, payload) if self._sinks else _NOTHING

    def mark_manifest(self, manifest: str) -> None:
        """Write the run manifest (JSON text) as a mark, so that a lone trace explains itself."""
        for sink in self._sinks:
            sink.mark(META_DOMAIN, MANIFEST_MARK_PREFIX + manifest)

    @contextmanager
    def modules(self, modules: Mapping[str, torch.nn.Module]) -> Iterator[None]:
        """Attach module ranges for as long as the context lasts.

        Args:
            modules: path in the vocabulary (``layers.3.mlp``) → module.
        """
        if not self._sinks or self.level == "stages":
            yield
            return
        handles = []
        for sink in self._sinks:
            if isinstance(sink, NvtxSink):
                sink.prepare(MODULE_DOMAIN, tuple(modules))
        for path, module in modules.items():
            for sink in self._sinks:
                handles.append(module.register_forward_pre_hook(_pusher(sink, path)))
                handles.append(module.register_forward_hook(_popper(sink), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def operators(self, device: torch.device) -> Iterator[None]:
        """Write a range per operator for as long as the context lasts, at the level that asks for them."""
        if not self._sinks or self.level != "operators":
            yield
        elif device.type == "cuda" and any(isinstance(sink, NvtxSink) for sink in self._sinks):
            with torch.autograd.profiler.emit_nvtx():  # type: ignore[no-untyped-call]
                yield
        else:
            with _OperatorRanges(self._sinks):
                yield


def _pusher(sink: RangeSink, path: str) -> Callable[[torch.nn.Module, Any], None]:
    push = sink.push

    def hook(module: torch.nn.Module, args: Any) -> None:
        push(MODULE_DOMAIN, path)

    return hook


def _popper(sink: RangeSink) -> Callable[[torch.nn.Module, Any, Any], None]:
    pop = sink.pop

    def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
        pop(MODULE_DOMAIN)

    return hook
