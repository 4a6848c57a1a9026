"""Where the host time of a stage goes: what the GPU was busy for, and what the host did while it was idle."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from analysis.render.spec.glossary import GLOSSARY
from analysis.sums.records import StageSummary

__all__ = ["BUDGET_PARTS", "BudgetPart", "time_budget"]


@frozen
class BudgetPart:
    """One part of a stage's host time."""

    key: str
    """Its name in `time_budget`, of its colour, and on the page."""
    label: str
    definition: str


BUDGET_PARTS: Final = (
    BudgetPart("busy", "GPU busy", GLOSSARY["busy"]),
    BudgetPart("launching", "idle: launching", GLOSSARY["gap_launching"]),
    BudgetPart("outside", "idle: outside CUDA calls", GLOSSARY["gap_outside_api"]),
    BudgetPart("draining", "idle: drained by a synchronise", GLOSSARY["gap_draining"]),
    BudgetPart("synchronising", "idle: synchronising", GLOSSARY["gap_synchronising"]),
    BudgetPart("in_graph", "idle: between graph nodes", GLOSSARY["gap_in_graph"]),
    BudgetPart("other", "idle: other CUDA calls", GLOSSARY["gap_other_api"]),
)
"""In the order in which they are drawn."""


def time_budget(stage: StageSummary) -> dict[str, int] | None:
    """The parts of a stage's host time, ns, by key; they add up to it. None: its gaps are not known."""
    gaps = stage.gaps
    if gaps is None:
        return None
    return {
        # Busy inside the host range: what of it runs on after the range has closed is not part of it.
        "busy": max(0, stage.profiled_host_ns - gaps.total_ns),
        "launching": gaps.launching_ns,
        "outside": gaps.outside_api_ns,
        "draining": gaps.draining_ns,
        "synchronising": gaps.synchronising_ns,
        "in_graph": gaps.in_graph_ns,
        "other": gaps.other_api_ns,
    }
