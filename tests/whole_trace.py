"""A small trace with nothing wrong, and a reader of all of it: what a test then takes away must be missed, or not."""

from __future__ import annotations

from pathlib import Path

from analysis.attribution.attribution import Attribution
from analysis.sums.tables import TABLE_KINDS, gpu_table
from analysis.trace.reader import Trace
from trace_builder import TraceBuilder

__all__ = ["read_everything", "whole"]


def whole() -> TraceBuilder:
    """A small trace with nothing wrong."""
    built = TraceBuilder().session(1000).gpu()
    built.range("image[0]", 0, 300, domain="dsocr").range("prefill", 0, 100, domain="dsocr", payload=9)
    built.range("decode", 100, 300, domain="dsocr").range("decode_step", 110, 200, domain="dsocr", payload=10)
    built.range("lm_head", 120, 130, domain="dsocr.module").copy(5, 6, (11, 12), kind="DtoH", size=4).memset(
        7, 8, (13, 14)
    )
    return built.launch(10, 20, ("gemm", 30, 60)).launch(121, 125, ("head", 150, 170)).call(250, 260)


def read_everything(path: Path) -> None:
    with Trace(path) as trace:
        attribution = Attribution.of(trace)
        trace.require_operations()
        for by in TABLE_KINDS:
            gpu_table(attribution, by)
        assert trace.marks is not None
        assert trace.info is not None
