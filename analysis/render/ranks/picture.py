"""Step by step, how long each rank waits: above the line for one rank, a row of bars for each."""

from __future__ import annotations

from typing import Final

from analysis.domain.figures import count, duration
from analysis.ranks.records import PlaceSkew, RanksReport
from analysis.render.pictures.svg import axis_steps, legend, line, rect, svg, text
from analysis.render.spec.text import visible

__all__ = ["waiting_picture"]

_LEFT: Final = 92
_RIGHT: Final = 16
_TOP: Final = 34.0
_ROW: Final = 84.0
_GAP: Final = 20.0
_MAX_BARS: Final = 400
_MAX_RANKS: Final = 16
_SEEN: Final = 0.1
"""Of the highest bar: no rank is marked late for less."""


def waiting_picture(report: RanksReport, width: int = 1180) -> str | None:
    """Bars by step, a row for each rank: so long did it wait in the step's collectives, and below whom for.

    Args:
        report: of the ranks.
        width: of the picture, pixels.

    Returns:
        None: nothing is paired.
    """
    places = [place for place in report.places if place.collectives]
    if not places:
        return None
    each = -(-len(places) // _MAX_BARS)
    groups = [places[low : low + each] for low in range(0, len(places), each)]
    ranks = [row.rank for row in report.ranks[:_MAX_RANKS]]
    most = max(*(_waiting(group, row) for group in groups for row in range(len(ranks))), 1)
    room = width - _LEFT - _RIGHT
    bar = room / len(groups)
    parts = legend(
        [("idle", "waiting in collectives for the rank that is late"), ("synchronising", "the late rank of the step")],
        _LEFT,
        6,
    )
    for row, rank in enumerate(ranks):
        foot = _TOP + row * (_ROW + _GAP) + _ROW
        parts.append(text(_LEFT - 10, foot - _ROW / 2 + 4, f"rank {rank}", kind="ink", anchor="end"))
        for value in axis_steps(most, 2)[1:]:
            y = foot - _ROW * value / most
            parts += [line("line", _LEFT, y, _LEFT + room, y), text(_LEFT + 2, y - 3, duration(round(value)))]
        parts.append(line("line", _LEFT, foot, _LEFT + room, foot))
        for number, group in enumerate(groups):
            x = _LEFT + number * bar
            waited = _waiting(group, row)
            if waited:
                tall = _ROW * waited / most
                hint = f"{visible(group[0].place)}: rank {rank} waits {duration(round(waited))}"
                parts.append(rect("idle", x + bar * 0.1, foot - tall, max(bar * 0.8, 0.6), tall, hint))
            if _late(group, [row.rank for row in report.ranks], _SEEN * most) == rank:
                hint = f"{visible(group[0].place)}: rank {rank} is late, by up to {duration(max(place.skew_ns for place in group))}"
                parts.append(rect("synchronising", x + bar * 0.1, foot + 2, max(bar * 0.8, 0.6), 5, hint))
    bottom = _TOP + len(ranks) * (_ROW + _GAP)
    parts.append(text(_LEFT, bottom + 12, visible(places[0].place)))
    parts.append(text(_LEFT + room, bottom + 12, visible(places[-1].place), anchor="end"))
    left_out = len(report.ranks) - len(ranks)
    if left_out > 0:
        parts.append(
            text(_LEFT + room / 2, bottom + 12, f"{count(left_out)} more ranks are in report.json", anchor="middle")
        )
    described = "; ".join(
        f"rank {row.rank} waits {duration(row.waiting_ns)}" for row in report.ranks if row.waiting_ns is not None
    )
    return svg(width, bottom + 22, "Waiting in collectives, step by step and rank by rank", parts, more=described)


def _waiting(group: list[PlaceSkew], row: int) -> int:
    """The longest of a few steps that share a bar, of a rank by its place in the order of ranks."""
    return max(place.waiting_ns[row] for place in group)


def _late(group: list[PlaceSkew], ranks: list[int], least_ns: float) -> int | None:
    """The rank that is waited for in most of a bar's time; None: nobody waits so long that it could be seen."""
    if max(_waiting(group, row) for row in range(len(ranks))) < least_ns:
        return None
    costs = [sum(sum(place.waiting_ns) for place in group if place.late == rank) for rank in ranks]
    return ranks[costs.index(max(costs))] if max(costs) else None
