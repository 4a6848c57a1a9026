"""How near each part of a model runs to what it needs: the kernels of its modules against its bytes and FLOPs at peak.

A cost counts components (``lm_head``, ``routed_experts``, ``attention_projections``); a trace knows modules and kernels. They
meet by name: a component whose name is a part of a module's path is that module; the decoder's attention and MLP components
are the matrix kernels of the modules so named, outside the vision towers. What shares kernels is taken together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from analysis.efficiency.records import ComponentNeed
from analysis.sums.kernel_modules import KernelModuleRow
from analysis.verdict.facts import Facts

__all__ = ["MATRIX", "MOVERS", "ComponentUse", "component_uses", "must_move_bytes"]

MATRIX: Final = frozenset({"GEMM", "grouped GEMM", "GEMV", "convolution"})
MOVERS: Final = frozenset({"elementwise", "copy/cast", "concat", "gather/scatter"})
"""Categories of kernels that bring data from one place to another, and compute next to nothing."""

_PARTS: Final = re.compile(r"[^A-Za-z_]+")
_ATTENTION: Final = re.compile(r"attn|attention", re.IGNORECASE)
_MLP: Final = re.compile(r"mlp|moe|experts?|feed_forward|ffn", re.IGNORECASE)
_TOWER: Final = re.compile(r"vision|visual|\bsam\b|\bclip\b|encoder|tower|projector", re.IGNORECASE)
_EXPERT_PARTS: Final = ("routed_experts", "shared_experts", "dense_mlp", "router")
_SET_UP: Final = "set-up"


@frozen
class ComponentUse:
    """The kernels of one part of the model, and what it needs. Of one unit of the stage's work."""

    label: str
    """Components, in the words of the cost."""
    modules: tuple[str, ...]
    kernels: tuple[str, ...]
    """What they do, in words, most time first."""
    time_ns: float
    bytes_moved: float
    flop: float
    floor_ns: float
    """The larger of bytes ÷ peak bytes/s and FLOP ÷ peak FLOP/s."""
    by_bytes: bool
    """Whether the bytes are the higher floor."""


def component_uses(facts: Facts) -> tuple[ComponentUse, ...]:
    """Components whose kernels can be told, most time above their floor first; none without costs and peaks."""
    base = facts.busy_base
    if base is None or not base.peak_bytes_per_s or not base.peak_flop_per_s:
        return ()
    needs = {one.component: one for one in facts.needs}
    matrix = [row for row in facts.rows if row.category in MATRIX]
    grouped = any(row.category == "grouped GEMM" and _MLP.search(row.module) for row in matrix)
    parts: list[tuple[tuple[str, ...], list[KernelModuleRow]]] = []
    taken: set[str] = set()
    for name in needs:
        rows = [row for row in matrix if name in _PARTS.split(row.module)]
        if rows:
            parts.append(((name,), rows))
            taken.add(name)
    decoder = [row for row in matrix if not _TOWER.search(row.module)]
    attention = [row for row in decoder if _ATTENTION.search(row.module)]
    mlp = [row for row in decoder if _MLP.search(row.module) and not _ATTENTION.search(row.module)]
    if grouped:
        experts = [row for row in mlp if row.category == "grouped GEMM"]
        parts.append((("routed_experts",), experts))
        parts.append((_EXPERT_PARTS[1:], [row for row in mlp if row.category != "grouped GEMM"]))
    else:
        parts.append((_EXPERT_PARTS, mlp))
    parts.append((("attention_projections",), attention))
    found = []
    for names, rows in parts:
        mine = [needs[name] for name in names if name in needs and (name not in taken or names == (name,))]
        rows = [row for row in rows if _SET_UP not in (row.human_name or "") and row.total_per_unit_ns is not None]
        if mine and rows:
            found.append(_use(mine, rows, base.peak_bytes_per_s, base.peak_flop_per_s))
    return tuple(sorted(found, key=lambda one: one.floor_ns - one.time_ns))


def _use(
    needs: Sequence[ComponentNeed], rows: Sequence[KernelModuleRow], bytes_per_s: float, flop_per_s: float
) -> ComponentUse:
    moved, flop = sum(one.bytes_moved for one in needs), sum(one.flop for one in needs)
    by_bytes, by_flop = moved / bytes_per_s * 1e9, flop / flop_per_s * 1e9
    ordered = sorted(rows, key=lambda row: -row.total_ns)
    return ComponentUse(
        label=" and ".join(one.component for one in needs),
        modules=tuple(dict.fromkeys(row.module for row in ordered)),
        kernels=tuple(dict.fromkeys(row.human_name or row.short_name for row in ordered)),
        time_ns=sum(row.total_per_unit_ns or 0.0 for row in rows),
        bytes_moved=moved,
        flop=flop,
        floor_ns=max(by_bytes, by_flop),
        by_bytes=by_bytes >= by_flop,
    )


def must_move_bytes(facts: Facts, module: str) -> float | None:
    """Weights and cache that a module's own component must move in one unit; None: no component has its name."""
    parts = set(_PARTS.split(module))
    mine = [one.bytes_moved for one in facts.needs if one.component in parts]
    return sum(mine) if mine else None
