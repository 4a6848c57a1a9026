"""Ranges around stages, steps and modules, written into the collector's sinks.

Stage ranges cost a context manager each; module ranges are forward hooks; operator ranges come from torch. Where no
sink is given, `Annotator.range` hands out a shared empty context and no hook is attached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from analysis.domain.annotations import MANIFEST_MARK_PREFIX, META_DOMAIN, MODULE_DOMAIN, STAGE_DOMAIN
from runner.collectors.interface.recording import RangeSink
from runner.plan.settings import AnnotationLevel

__all__ = ["OPERATOR_DOMAIN", "Annotator"]

OPERATOR_DOMAIN: Final = "torch"
"""Domain of operator ranges on a CPU. On a GPU torch's own ``emit_nvtx`` writes into the default domain."""

_NOTHING: Final[AbstractContextManager[None]] = nullcontext()


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

    @property
    def writes_modules(self) -> bool:
        """Whether module calls are marked with ranges."""
        return self.active and self.level != "stages"

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
        if not self.writes_modules:
            yield
            return
        handles = []
        for sink in self._sinks:
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
        elif device.type == "cuda" and any(sink.torch_writes_operators for sink in self._sinks):
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
