"""``timeline.pftrace`` of several ranks: one process a rank on one clock, its collectives first, with who waits for whom.

Each rank's worker writes its packets into a file of its own; the packets of a Perfetto trace may stand in any order, so the
whole is these files, one after the other, behind the tracks of the ranks and their collectives.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from analysis.attribution.attribution import Attribution
from analysis.domain.files import write_with
from analysis.ranks.pairing import Pairs
from analysis.ranks.records import RankRow, RanksReport
from analysis.render.perfetto import Names, Placement, Slices, Tracks, events, opening, placed, rank_pieces
from analysis.render.perfetto_packets import SEQUENCE, framed
from analysis.render.spec.text import visible
from analysis.sums.records import MetricSeries

__all__ = ["SHORTEST_ARROW_NS", "placements", "write_rank_packets", "write_ranks_timeline"]

SHORTEST_ARROW_NS: Final = 10_000
"""Waiting of less has no arrow from the late rank's collective to that of the one that waits."""


def placements(report: RanksReport, first_ns: Sequence[int]) -> tuple[Placement, ...]:
    """Where each rank's events stand: clocks aligned as the report measured them, else as the files have them.

    Args:
        report: of the ranks.
        first_ns: of each rank, the first moment of its trace, on the clock of its file.
    """
    offsets = [row.clock_offset_ns or 0 for row in report.ranks]
    zero = min(first - offset for first, offset in zip(first_ns, offsets, strict=True))
    return tuple(Placement(place, -offset - zero) for place, offset in enumerate(offsets))


def write_rank_packets(
    attribution: Attribution, metrics: Sequence[MetricSeries], placement: Placement, file: Path
) -> Path:
    """Write one rank's part of the whole.

    Raises:
        RequestError: the file cannot be written.
    """
    pieces = rank_pieces(attribution, metrics, placement)

    def write(path: Path) -> None:
        with path.open("wb") as opened:
            opened.writelines(pieces)

    return write_with(file, write)


def write_ranks_timeline(
    report: RanksReport, pairs: Pairs, placed_at: Sequence[Placement], parts: Sequence[Path], out: Path
) -> Path:
    """Write the whole, and remove its parts.

    Args:
        report: of the ranks.
        pairs: of their collectives.
        placed_at: `placements` of them.
        parts: of each rank, by `write_rank_packets`.
        out: folder.

    Raises:
        RequestError: the folder cannot be written to.
    """
    head = _head(report, pairs, placed_at)

    def write(path: Path) -> None:
        with path.open("wb") as whole:
            whole.writelines(head)
            for part in parts:
                with part.open("rb") as opened:
                    shutil.copyfileobj(opened, whole)

    written = write_with(out / "timeline.pftrace", write)
    for part in parts:
        part.unlink()
    return written


def _head(report: RanksReport, pairs: Pairs, placed_at: Sequence[Placement]) -> list[bytes]:
    names, tracks, slices = Names(), Tracks(), Slices()
    pids = [row.pid for row in report.ranks]
    aligned = report.pairing.one_clock or all(row.clock_offset_ns is not None for row in report.ranks)
    roots = []
    for row, placement in zip(report.ranks, placed_at, strict=True):
        pid = row.pid if row.pid is not None and pids.count(row.pid) == 1 else row.rank + 1
        process = pb.ProcessDescriptor(pid=pid, process_name=visible(_label(row, aligned=aligned)))
        described = pb.TrackDescriptor(uuid=placement.root, process=process)
        described.child_ordering = pb.TrackDescriptor.EXPLICIT
        roots.append(framed(pb.TracePacket(trusted_packet_sequence_id=SEQUENCE, track_descriptor=described)))
        _add_collectives(pairs, placement, names, tracks, slices)
    return [opening(names, SEQUENCE), *roots, *tracks.packets, *events(slices)]


def _label(row: RankRow, *, aligned: bool) -> str:
    clock = "" if aligned else ", on the clock of its own file"
    return f"rank {row.rank}: {row.device_name or 'unknown GPU'}{clock}"


def _add_collectives(pairs: Pairs, placement: Placement, names: Names, tracks: Tracks, slices: Slices) -> None:
    """A rank's collectives; inside each what it waits, for whom, and the transfer; arrows come from the late rank's."""
    rank = placement.place
    collectives = pairs.ranks[rank]
    if not len(collectives):
        return
    there = np.flatnonzero(pairs.row[rank] >= 0)
    mine = pairs.row[rank, there]
    waits = np.zeros(len(collectives), dtype=np.int64)
    late = np.full(len(collectives), -1, dtype=np.int64)
    flow_in, flow_out = np.zeros((2, len(collectives)), dtype=np.int64)
    opens = np.zeros(len(collectives), dtype=bool)
    beyond = pairs.beyond_transfer_ns
    waits[mine], late[mine], opens[mine] = beyond[rank, there], pairs.late[there], pairs.opening[there]
    waits[late == rank] = 0  # what it takes longer than the shortest is no waiting: nobody came after it
    arrow = np.where(pairs.opening[there], 0, there + 1)
    flow_in[mine] = np.where((late[mine] != rank) & (waits[mine] >= SHORTEST_ARROW_NS), arrow, 0)
    flow_out[mine] = np.where((late[mine] == rank) & (beyond[:, there].max(axis=0) >= SHORTEST_ARROW_NS), arrow, 0)
    start, end = collectives.start_ns + placement.shift_ns, collectives.end_ns + placement.shift_ns
    order, track = placed(tracks, "Collectives", placement.root, 0, start, end)
    start, end, waits, late, opens = start[order], end[order], waits[order], late[order], opens[order]
    slices.add(
        start,
        end,
        track,
        names.codes(collectives.names)[collectives.name[order]],
        flow_out=flow_out[order],
        flow_in=flow_in[order],
    )
    told = names.codes([f"waits for rank {number}" for number in pairs.numbers])
    waiting = np.flatnonzero(waits > 0)
    reason = np.where(opens, names.code("waits at the start of the capture"), told[late])
    slices.add(start[waiting], start[waiting] + waits[waiting], track[waiting], reason[waiting])
    sent = np.flatnonzero((late >= 0) & (end > start + waits))
    transfer = np.where(late == rank, names.code("transfer; came last"), names.code("transfer"))
    slices.add(start[sent] + waits[sent], end[sent], track[sent], transfer[sent])
