"""Tables of the host: the calls in which it waits for the GPU, and the operators that it runs."""

from __future__ import annotations

from typing import Final, Literal

from analysis.domain.entities import OperatorSummary
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import COUNT, EXACT_MS, NAME, TEXT, Column, Specification, decimals
from analysis.sums.records import HostCallRow

__all__ = ["HOST_CALLS", "OPERATORS"]

_H = Column[HostCallRow]


def _host_calls(by: Literal["stage", "module"]) -> Specification[HostCallRow]:
    return Specification[HostCallRow](
        key=f"host_calls_by_{by}",
        title=f"By {by}",
        rows=f"One call of the CUDA API, of one kind, in one {by}.",
        columns=(
            _H("where", by.capitalize(), "string", NAME, GLOSSARY[by], priority=0),
            _H("call", "Call", "string", NAME, "Function of the CUDA API.", priority=0),
            _H(
                "kind", "Kind", "string", TEXT, "Whether it waits for the GPU or copies at most 1 KiB to the host.",
                priority=2,
            ),
            _H("calls", "Calls", "int64", COUNT, "Number of calls.", adds=True),
            _H("total_ns", "Host time, profiled", "int64", EXACT_MS, "Host time spent inside these calls, profiled.", adds=True),
        ),
        note="At each of these the host waits until the GPU has got so far.",
    )  # fmt: skip


HOST_CALLS: Final = {"stage": _host_calls("stage"), "module": _host_calls("module")}
"""The same calls by stage, or by innermost module."""


_O = Column[OperatorSummary]

OPERATORS: Final = Specification[OperatorSummary](
    key="operators",
    title="Top operators",
    rows="All ranges of one name of the trace's finest annotation level.",
    columns=(
        _O("op_name", "Operator", "string", NAME, "Name of the ranges.", priority=0),
        _O("calls", "Calls", "int64", COUNT, "Number of ranges."),
        _O("total_time_ms", "Host time", "float64", decimals(3, "ms"), "End − start of the ranges on the CPU, summed."),
        _O("cuda_time_ms", "GPU time", "float64", decimals(3, "ms"), GLOSSARY["all_sum"]),
    ),
    note="From the finest annotation level of the trace, inclusive: what a range contains counts in it too.",
)
