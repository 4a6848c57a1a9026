from collections.abc import Callable

import numpy as np
import pytest

from analysis.attribution.attribution import Attribution
from analysis.sums.timeline import busy_timeline
from analysis.trace.reader import Trace
from trace_builder import TraceBuilder

Attribute = Callable[..., Attribution]


def test_without_operations_there_is_no_timeline(attribute: Attribute) -> None:
    assert busy_timeline(attribute(TraceBuilder().range("prefill", 0, 10, domain="dsocr").call(1, 2))) is None


def test_slices_hold_the_union_of_operations_in_them(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr")
    built.launch(1, 2, ("a", 5, 25)).launch(3, 4, ("b", 20, 30)).launch(6, 7, ("c", 95, 100))
    found = busy_timeline(attribute(built), slices=10)
    assert found is not None
    assert (found.start_ns, found.slice_ns) == (0, 10)
    assert found.busy_ns == (5, 10, 10, 0, 0, 0, 0, 0, 0, 5)


def test_the_window_holds_what_a_stage_launched_last(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 10, domain="dsocr").launch(1, 2, ("late", 90, 100))
    found = busy_timeline(attribute(built), slices=10)
    assert found is not None
    assert found.slice_ns == 10
    assert sum(found.busy_ns) == 10


@pytest.mark.parametrize("slices", [1, 7, 600])
def test_slices_add_up_to_busy_time(slices: int, real_attribution: Callable[[str], tuple[Trace, Attribution]]) -> None:
    _, attribution = real_attribution("deepseek-ocr_h100_small")
    found = busy_timeline(attribution, slices)
    assert found is not None
    operations = attribution.operations
    high = found.start_ns + slices * found.slice_ns
    clipped = np.zeros(high - found.start_ns, dtype=bool)
    for low, end in zip(operations.start.tolist(), operations.end.tolist(), strict=True):
        clipped[max(0, low - found.start_ns) : max(0, end - found.start_ns)] = True
    assert sum(found.busy_ns) == int(clipped.sum())
    assert max(found.busy_ns) <= found.slice_ns
