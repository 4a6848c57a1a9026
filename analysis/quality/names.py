"""Are kernels called what they are? One name is one function; a trace that gives all of them one name hides what ran."""

from __future__ import annotations

from typing import Final

import numpy as np

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted
from analysis.quality.findings import Finding
from analysis.trace import schema
from analysis.trace.distinct import distinct, present
from analysis.trace.reader import UNNAMED, Trace
from analysis.trace.records import KERNEL

__all__ = ["check"]

MOST_BUILDS: Final = 12
"""Numbers of registers that kernels of one name have at most. A function is compiled to one number; Triton compiles one name
several times, for other types and block sizes. Good captures: 1, of Triton's 6."""
MOST_BUILDS_OF_ALL: Final = 2
"""… where it is the only name of `FEWEST_KERNELS` or more: no model runs one function only."""
FEWEST_KERNELS: Final = 500
_AGAIN: Final = "export the report again; times are not concerned, tables by name and by kernel class are"


def check(trace: Trace, attribution: Attribution) -> list[Finding]:
    """All checks of names."""
    return [*_many_builds(trace, attribution), *_one_text(trace, attribution)]


def _many_builds(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Names whose kernels need more different numbers of registers than one function's builds can."""
    operations, shapes = attribution.operations, attribution.operations.shapes
    blocks = shapes.blocks.size
    if not blocks or not len(shapes):
        return []
    registers = np.array([shapes.registers(code) or 0 for code in range(blocks)], dtype=np.int64)
    if len(present(registers)) <= MOST_BUILDS_OF_ALL:
        return []  # the trace has not as many at all
    rows = np.flatnonzero((operations.shape >= 0) & (operations.kind == KERNEL))
    if not rows.size:
        return []
    alone = rows.size >= FEWEST_KERNELS and len(present(operations.name[rows])) == 1
    most = MOST_BUILDS_OF_ALL if alone else MOST_BUILDS
    name = operations.name[rows].astype(np.int64)
    pairs, _ = distinct(name * blocks + operations.shape[rows] % blocks, len(operations.names) * blocks)
    most_registers = int(registers.max()) + 1
    of_name = np.array(present(pairs // blocks * most_registers + registers[pairs % blocks])) // most_registers
    builds = np.bincount(of_name, minlength=len(operations.names))
    suspicious = np.flatnonzero(builds > most)
    if not suspicious.size:
        return []
    worst = int(suspicious[np.argmax(builds[suspicious])])
    kernels = int(np.count_nonzero(np.isin(name, suspicious)))
    first = int(operations.start[rows[np.flatnonzero(name == worst)[0]]])
    places = trace.database.examples(schema.KERNELS, "demangledName", f'"start" = {first}')
    place = f" ({schema.KERNELS.names[0]}, row {places[0][0]})" if places else ""
    return [
        Finding(
            "one-name-for-many-kernels",
            "unfit" if 2 * kernels > rows.size else "warning",
            "different kernels have one name",
            f"{kernels:,} of {counted(rows.size, 'kernel')} have {counted(suspicious.size, 'name')} that more than {most} "
            f"different functions share: {operations.short_names[worst]}{place} is there with {int(builds[worst]):,} numbers of "
            "registers, and a function has one",
            _AGAIN,
        )
    ]


def _one_text(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Different strings of the file that say the same: nsys writes each text once."""
    operations = attribution.operations
    kernels = operations.kind == KERNEL
    if not kernels.any():
        return []
    used = np.flatnonzero(np.bincount(operations.name[kernels], minlength=len(operations.names)))
    by_text: dict[tuple[str, str], list[int]] = {}
    for code in used.tolist():
        by_text.setdefault((operations.names[code], operations.short_names[code]), []).append(code)
    again = {text: codes for text, codes in by_text.items() if len(codes) > 1 and text[0] != UNNAMED}
    if not again:
        return []
    text, codes = max(again.items(), key=lambda item: len(item[1]))
    rows = int(np.count_nonzero(kernels & np.isin(operations.name, [code for each in again.values() for code in each])))
    of = int(np.count_nonzero(kernels))
    return [
        Finding(
            "names-repeated",
            "unfit" if 2 * rows > of else "warning",
            "different names of kernels are one text",
            f"{rows:,} of {counted(of, 'kernel')}: {schema.STRINGS.names[0]} holds {text[1]!r} under {len(codes):,} ids, and "
            "Nsight Systems writes each text once",
            _AGAIN,
        )
    ]
