from typing import Any, cast

import nvtx
import pytest
import torch

from analysis.domain.annotations import MANIFEST_MARK_PREFIX
from runner.child.annotate import OPERATOR_DOMAIN, Annotator
from runner.collectors.nvidia.recording import NvtxSink
from runner.collectors.torch_profiler.recording import MemorySink


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.mlp(x)) + x


def paths(block: Block) -> dict[str, torch.nn.Module]:
    return {"layers.0": block, "layers.0.mlp": block.mlp}


def test_modules_get_a_range_per_call_while_the_context_lasts() -> None:
    sink, block = MemorySink(), Block()
    annotator = Annotator((sink,), "modules")
    with annotator.modules(paths(block)):
        block(torch.ones(2, 4))
        block(torch.ones(2, 4))
    block(torch.ones(2, 4))
    assert [(one.domain, one.name) for one in sink.records] == [
        ("dsocr.module", "layers.0"),
        ("dsocr.module", "layers.0.mlp"),
    ] * 2
    outer, inner = sink.records[:2]
    assert outer.end_ns is not None
    assert inner.end_ns is not None
    assert outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns


def test_a_module_that_raises_still_closes_its_ranges() -> None:
    sink, block = MemorySink(), Block()
    with Annotator((sink,)).modules(paths(block)), pytest.raises(RuntimeError):
        block(torch.ones(2, 5))
    assert len(sink.records) == 2
    assert all(one.end_ns is not None for one in sink.records)


def test_stages_alone_attach_no_hook() -> None:
    sink, block = MemorySink(), Block()
    with Annotator((sink,), "stages").modules(paths(block)):
        assert not block._forward_hooks
        block(torch.ones(2, 4))
    assert sink.records == ()


def test_without_a_sink_nothing_is_made() -> None:
    block, annotator = Block(), Annotator()
    with annotator.modules(paths(block)), annotator.operators(torch.device("cpu")):
        assert not block._forward_hooks
        assert annotator.range("prefill", 3) is annotator.range("decode")
    annotator.mark_manifest("{}")
    assert not annotator.active


def test_operators_get_ranges_inside_the_modules() -> None:
    sink, block = MemorySink(), Block()
    annotator = Annotator((sink,), "operators")
    with torch.inference_mode(), annotator.modules(paths(block)), annotator.operators(torch.device("cpu")):
        block(torch.ones(2, 4))
    names = [one.name for one in sink.records if one.domain == OPERATOR_DOMAIN]
    assert names[-2] in ("aten::linear", "aten::addmm")  # whether torch takes it apart first is its own affair
    assert names[-1] == "aten::add.Tensor"


def test_the_manifest_is_one_mark() -> None:
    sink = MemorySink()
    Annotator((sink,)).mark_manifest('{"run_id": "ü"}')
    assert [(one.domain, one.text) for one in sink.marks] == [("dsocr.meta", MANIFEST_MARK_PREFIX + '{"run_id": "ü"}')]


def test_nvtx_takes_ranges_payloads_and_long_marks() -> None:
    # Without a tool attached these calls go nowhere: what must hold is that this nvtx has them.
    annotator, block = Annotator((NvtxSink(),), "operators"), Block()
    with annotator.modules(paths(block)), annotator.operators(torch.device("cpu")):
        for payload in (909, 910, None):
            with annotator.range("decode_step", payload):
                block(torch.ones(2, 4))
    annotator.mark_manifest("x" * 300_000)


class ListeningDomain:
    """A domain that notes the payload of every range as nvtx hands it over at that moment."""

    def __init__(self) -> None:
        self.made = 0
        self.pushed: list[int | None] = []
        self._real = nvtx.get_domain("dsocr.test")

    def get_event_attributes(self, **named: Any) -> Any:
        self.made += 1
        attributes = self._real.get_event_attributes(**named)
        if attributes is None:
            pytest.skip("this nvtx makes no attributes where no tool listens")
        return attributes

    def push_range(self, attributes: Any) -> None:
        self.pushed.append(attributes.payload)

    def pop_range(self) -> None:
        pass

    def mark(self, attributes: Any) -> None:
        pass


def test_a_range_without_payload_carries_none_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = ListeningDomain()
    monkeypatch.setattr(nvtx, "get_domain", lambda name: domain)
    sink = NvtxSink()
    for payload in (None, 909, None, 0, None, 910):
        sink.push("dsocr", "decode_step", payload)
        sink.pop("dsocr")
    assert domain.pushed == [None, 909, None, 0, None, 910]


def test_attributes_are_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = ListeningDomain()
    monkeypatch.setattr(nvtx, "get_domain", lambda name: domain)
    sink = NvtxSink()
    sink.prepare("dsocr", ("decode_step",))
    for payload in (None, 1, 2, None, 3):
        sink.push("dsocr", "decode_step", payload)
    assert domain.made == 2  # one for ranges with a payload, one for those without


class DeafDomain:
    """What nvtx since 0.2.12 gives where no tool listens to a domain."""

    def __init__(self) -> None:
        self.open = 0

    def get_event_attributes(self, **named: Any) -> Any:
        return None

    def push_range(self, attributes: Any) -> None:
        self.open += 1

    def pop_range(self) -> None:
        self.open -= 1

    def mark(self, attributes: Any) -> None:
        assert attributes is None


def test_a_domain_that_nobody_listens_to(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = DeafDomain()
    monkeypatch.setattr(nvtx, "get_domain", lambda name: domain)
    sink = NvtxSink()
    for payload in (None, 7):
        sink.push("dsocr", "decode_step", payload)
    sink.mark("dsocr.meta", "text")
    assert domain.open == 2
    sink.pop("dsocr")
    assert domain.open == 1
