"""Table of a serving engine's steps by kind."""

from __future__ import annotations

from typing import Any, Final

from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import COUNT, DURATION, TEXT, Column, Specification, Type, decimals
from analysis.sums.step_kinds import StepKindRow

__all__ = ["STEP_KINDS_TABLE"]

_K = Column[StepKindRow]
_UNTOLD: Final = "the names of the steps do not tell"


def _told(key: str, label: str, kind: Type, definition: str, **more: Any) -> _K:
    """A column of what the names tell, or do not."""
    style = more.pop("style", COUNT)
    return _K(key, label, kind, style, definition, nullable=True, why=lambda _: _UNTOLD, **more)


def _bound(key: str, label: str, definition: str) -> _K:
    return _K(
        key, label, "float64", DURATION, definition, nullable=True, optional=True,
        why=lambda row: "no decode step is of like size" if row.kind == "mixed" else "the step has one part only",
    )  # fmt: skip


STEP_KINDS_TABLE: Final = Specification[StepKindRow](
    key="step_kinds",
    title="Steps by kind",
    rows="A kind of an engine's steps.",
    columns=(
        _K("kind", "Kind", "string", TEXT, GLOSSARY["step_kind"], priority=0),
        _K("steps", "Steps", "int64", COUNT, "Number of steps of the kind.", adds=True),
        _K("stalled", "· stalled", "int64", COUNT, GLOSSARY["stalled"], adds=True, optional=True),
        _told("requests", "Requests", "int64", "Sum over the steps of the requests in them.", adds=True),
        _told("tokens", "Tokens", "int64", "Sum over the steps of the new positions that they compute.", adds=True),
        _told("prefill_tokens", "· of prompts", "int64", GLOSSARY["prefill_tokens"], adds=True),
        _told("decode_tokens", "· of running requests", "int64", GLOSSARY["decode_tokens"], adds=True),
        _told("requests_median", "Requests per step", "float64", "Median over the steps.", style=decimals(1)),
        _told("tokens_median", "Tokens per step", "float64", "Median over the steps.", style=decimals(1)),
        _K(
            "step_median_ns", "Step", "float64", DURATION,
            "Median time from the start of a step until its range and its GPU work have ended, or the next step begins.",
        ),
        _K("busy_median_ns", "· GPU busy", "float64", DURATION, "Median over the steps of each one's GPU-busy time."),
        _K("host_median_ns", "· host elapsed", "float64", DURATION, "Median over the steps of end − start of the range."),
        _told("per_token_ns", "Step time per token", "float64", "Time of steps that do not stall ÷ their tokens.", style=DURATION),
        _K(
            "queued_median_ns", "Queued before it", "float64", DURATION, GLOSSARY["queued"] + " Median.", nullable=True,
            why=lambda _: "there is no step",
        ),
        _K(
            "between_median_ns", "Host between steps", "float64", DURATION, GLOSSARY["between_steps"] + " Median.",
            nullable=True, why=lambda _: "no step lies before it",
        ),
        _bound(
            "decode_part_at_most_ns", "Running requests, at most",
            "A bound, of mixed steps: GPU-busy time of decode steps with about as many running requests, which a mixed step's "
            "running requests cannot exceed, for it reads the weights once for both parts. Median.",
        ),
        _bound(
            "prefill_part_at_least_ns", "Prompts, at least",
            "A bound, of mixed steps: what remains of their GPU-busy time. Median.",
        ),
        _K(
            "bounded_steps", "Steps with a bound", "int64", COUNT, "Mixed steps for which a decode step of like size was seen.",
            nullable=True, optional=True, why=lambda _: "the step has one part only",
        ),
        _K("launches", "Launches", "int64", COUNT, GLOSSARY["launches"], adds=True),
        _K("graph_launches", "· of CUDA graphs", "int64", COUNT, GLOSSARY["graph_launches"], adds=True),
        _K("kernels", "Kernels", "int64", COUNT, GLOSSARY["kernels"], adds=True),
        _K("kernel_sum_ns", "Kernel sum", "int64", DURATION, GLOSSARY["kernel_sum"], adds=True),
        _K("step_ns", "Steps, sum", "int64", DURATION, "Sum of the steps' times.", adds=True),
        _K("host_ns", "Host elapsed, sum", "int64", DURATION, GLOSSARY["host_elapsed"], adds=True),
        _K("busy_ns", "GPU busy, sum", "int64", DURATION, "Sum over steps of each one's GPU-busy time.", adds=True),
    ),
    note="Profiled. Bounds are said to be bounds: a mixed step’s parts run together, and no range parts them.",
)  # fmt: skip
