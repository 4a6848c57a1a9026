"""CUDA graphs played on a CPU: what runs inside ``torch.cuda.graph`` is taped and run again, into the same tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from runner.child.generate import GraphDecoder, StaticDecoder

__all__ = ["TapedGraph", "play_graphs_on_the_cpu"]


class TapedGraph:
    """What ``torch.cuda.CUDAGraph`` is to the decoder."""

    made: list[TapedGraph]

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0
        TapedGraph.made.append(self)

    def reset(self) -> None:
        self.calls.clear()

    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():  # else a view, or written in place
                    old.copy_(new)


def _tensors(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


class _Tape(TorchDispatchMode):
    def __init__(self, graph: TapedGraph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._graph.calls.append((func, args, kwargs or {}, result))
        return result


@contextmanager
def _recording(graph: TapedGraph) -> Iterator[None]:
    # One at a time, and no memory of another: an earlier graph is freed before the next is recorded.
    assert all(not other.calls for other in TapedGraph.made)
    with _Tape(graph):
        yield


class _Stream:  # a class, as torch's: transformers names it in types
    def __init__(self, device: Any = None) -> None:
        self.device = device

    def wait_stream(self, other: _Stream) -> None:
        pass


def play_graphs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> list[TapedGraph]:
    """Replace what `GraphDecoder` needs of torch.cuda; gives the graphs as they are made."""
    TapedGraph.made = []

    def on_any_device(self: GraphDecoder, network: Any, max_length: int) -> None:
        StaticDecoder.__init__(self, network, max_length)
        self._graph = self._token = None

    monkeypatch.setattr(GraphDecoder, "__init__", on_any_device)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", TapedGraph)
    monkeypatch.setattr(torch.cuda, "graph", _recording)
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    return TapedGraph.made
