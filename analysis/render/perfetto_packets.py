"""Many Perfetto packets at once: the library writes one of each kind, numpy repeats it with other numbers.

Building a protobuf message per event costs microseconds, and a trace has half a million. Every field that changes is
written once with a marker value of full width and then overwritten; varints of more bytes than their value needs are
legal in protobuf.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

__all__ = ["SEQUENCE", "Packets", "begin_template", "counter_template", "end_template", "framed", "interleaved"]

SEQUENCE: Final = 1
"""trusted_packet_sequence_id: all packets come from one writer; in a file of several ranks each rank is one more."""

_NEEDS_STATE: Final = 2
"""TracePacket.SEQ_NEEDS_INCREMENTAL_STATE: names are interned."""

_TIME: Final = (1 << 62) + 0x2A2A2A2A2A2A2A
_TRACK: Final = (1 << 55) + 0x15151515151515
_NAME: Final = (1 << 27) + 0x1234567
_FLOW: Final = 0x7B5C3D1E9FA8B7C6
_VALUE: Final = 1.2345678901234567e-77

Bytes = NDArray[np.uint8]


@frozen(eq=False)
class Packets:
    """One kind of packet: its bytes, and where in them each changing field stands."""

    template: Bytes
    varints: dict[str, tuple[int, int]]
    """Field → (offset, width in bytes)."""
    fixed: dict[str, int]
    """Field → offset of its 8 bytes."""

    def rows(self, **fields: NDArray[Any]) -> Bytes:
        """Repeat the packet.

        Args:
            fields: every changing field, [n].

        Returns:
            [n, width] bytes.
        """
        count = len(fields["timestamp"])
        made = np.tile(self.template, (count, 1))
        for name, values in fields.items():
            if name in self.varints:
                offset, width = self.varints[name]
                made[:, offset : offset + width] = _varints(values, width)
            else:
                offset = self.fixed[name]
                made[:, offset : offset + 8] = np.ascontiguousarray(values).view(np.uint8).reshape(count, 8)
        return made


def _varints(values: NDArray[Any], width: int) -> Bytes:
    """Values as varints of ``width`` bytes each, [n, width]; all but the last byte say that more follows."""
    shift = np.arange(0, 7 * width, 7, dtype=np.uint64)
    made = ((values.astype(np.uint64)[:, None] >> shift) & np.uint64(0x7F)).astype(np.uint8)
    made[:, :-1] |= 0x80
    return made


def framed(packet: Any) -> bytes:
    """A packet as it stands in a trace file."""
    made: bytes = pb.Trace(packet=[packet]).SerializeToString()
    return made


def _packets(packet: Any, markers: dict[str, int], fixed: dict[str, bytes]) -> Packets:
    text = framed(packet)
    varints = {}
    for name, value in markers.items():
        written = _plain_varint(value)
        if text.count(written) != 1:
            raise AssertionError(f"the marker of {name} is not unique in the packet")
        varints[name] = (text.index(written), len(written))
    places = {}
    for name, written in fixed.items():
        if text.count(written) != 1:
            raise AssertionError(f"the marker of {name} is not unique in the packet")
        places[name] = text.index(written)
    return Packets(np.frombuffer(text, dtype=np.uint8), varints, places)


def _plain_varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _event(sequence: int, **fields: Any) -> Any:
    return pb.TracePacket(
        timestamp=_TIME,
        trusted_packet_sequence_id=sequence,
        sequence_flags=_NEEDS_STATE,
        track_event=pb.TrackEvent(track_uuid=_TRACK, **fields),
    )


_EVENT_MARKERS: Final = {"timestamp": _TIME, "track": _TRACK}


def begin_template(*, flow: str | None = None, instant: bool = False, sequence: int = SEQUENCE) -> Packets:
    """Begin of a slice, or an instant: fields timestamp, track, name – and flow.

    Args:
        flow: ``out`` if an arrow starts here, ``in`` if it ends here.
        instant: a slice without duration.
        sequence: of the writer.
    """
    fields: dict[str, Any] = {"name_iid": _NAME}
    if flow is not None:
        fields["flow_ids" if flow == "out" else "terminating_flow_ids"] = [_FLOW]
    kind = pb.TrackEvent.TYPE_INSTANT if instant else pb.TrackEvent.TYPE_SLICE_BEGIN
    fixed = {"flow": struct.pack("<Q", _FLOW)} if flow is not None else {}
    return _packets(_event(sequence, type=kind, **fields), {**_EVENT_MARKERS, "name": _NAME}, fixed)


def end_template(sequence: int = SEQUENCE) -> Packets:
    """End of the slice that began last on the track: fields timestamp, track."""
    return _packets(_event(sequence, type=pb.TrackEvent.TYPE_SLICE_END), _EVENT_MARKERS, {})


def counter_template(sequence: int = SEQUENCE) -> Packets:
    """A counter's value from now on: fields timestamp, track, value (float64)."""
    event = _event(sequence, type=pb.TrackEvent.TYPE_COUNTER, double_counter_value=_VALUE)
    return _packets(event, _EVENT_MARKERS, {"value": struct.pack("<d", _VALUE)})


_CHUNK: Final = 50_000


def interleaved(parts: list[tuple[NDArray[np.int64], Bytes]]) -> list[bytes]:
    """Put packets of several kinds in one order.

    Args:
        parts: (rank of each packet in the whole, [n]; its bytes, [n, width]); the ranks of all parts together are
            0 … total − 1.

    Returns:
        Pieces of the file, in order.
    """
    total = sum(rank.size for rank, _ in parts)
    width = np.zeros(total, dtype=np.int64)
    kind = np.zeros(total, dtype=np.int8)
    row = np.zeros(total, dtype=np.int64)
    for index, (rank, rows) in enumerate(parts):
        width[rank], kind[rank], row[rank] = rows.shape[1], index, np.arange(rank.size)
    pieces = []
    for low in range(0, total, _CHUNK):
        here = slice(low, low + _CHUNK)
        offset = np.concatenate(([0], np.cumsum(width[here])))
        piece = np.empty(int(offset[-1]), dtype=np.uint8)
        for index, (_, rows) in enumerate(parts):
            mine = np.flatnonzero(kind[here] == index)
            if mine.size:
                place = offset[mine][:, None] + np.arange(rows.shape[1])
                piece[place] = rows[row[here][mine]]
        pieces.append(piece.tobytes())
    return pieces
