"""From what ncu prints to the file that is kept: the raw page as CSV, without what names the machine, packed by xz."""

from __future__ import annotations

import csv
import lzma
import re
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from attrs import frozen

from analysis.domain.annotations import DECODE_STEP, PREFILL, STAGE_DOMAIN
from analysis.domain.errors import ExportError
from analysis.domain.files import WriteOptions, write_with
from analysis.domain.names import in_a_spreadsheet
from analysis.domain.redaction import redacted
from runner.process.environment import own_secrets

__all__ = ["CounterFileFacts", "keep_counters"]

_OF_THE_MACHINE: Final = re.compile(r"(?i)host name|uuid|serial|_pci_|^device__attribute_pci")
"""Columns that tell one machine from another and that no answer is made from."""
_RANGES: Final = "thread Domain:Push/Pop_Range"
_NUMBER: Final = re.compile(r"[+-]?[\d.,]+(?:[eE][+-]?\d+)?(?: \([^()]*\))?")
_KIND: Final = WriteOptions(mode=0o600, error=ExportError)
_LONGEST_FIELD: Final = 1 << 26


@frozen
class CounterFileFacts:
    """What a counter file holds."""

    kernels: int
    prefill: int
    """Kernels inside a prefill."""
    decode: int
    """Kernels inside a decode step."""


def keep_counters(printed: Path, stored: Path) -> CounterFileFacts:
    """Write what ncu printed as a counter file.

    Args:
        printed: its output, words of its own before and between the rows included.
        stored: ``….csv.xz``; readable by its owner only, like the trace.

    Raises:
        ExportError: it printed no table, the table is cut off, or the file cannot be written.
    """
    counts = [0, 0, 0]

    def write(temporary: Path) -> None:
        with (
            printed.open(encoding="utf-8", errors="replace", newline="") as source,
            TextIOWrapper(lzma.open(temporary, "wb", preset=6), encoding="utf-8", newline="") as target,
        ):
            _copy(source, csv.writer(target, quoting=csv.QUOTE_ALL, lineterminator="\n"), counts, printed)

    write_with(stored, write, _KIND)
    if not counts[0]:
        stored.unlink()
        raise ExportError(f"{printed}: ncu printed no kernel")
    return CounterFileFacts(*counts)


def _copy(source: Iterator[str], target: object, counts: list[int], printed: Path) -> None:
    csv.field_size_limit(_LONGEST_FIELD)
    own_words = (line for line in source if not line.startswith("=="))
    for line in own_words:
        if line.startswith('"ID",'):
            header = next(csv.reader([line]))
            break
    else:
        raise ExportError(f"{printed}: ncu printed no table of kernels")
    columns = [place for place, name in enumerate(header) if not _OF_THE_MACHINE.search(name)]
    ranges = next((place for place, name in enumerate(header) if name.startswith(_RANGES)), None)
    known = own_secrets()
    target.writerow([_cell(header[place], known) for place in columns])  # type: ignore[attr-defined]
    for number, row in enumerate(csv.reader(own_words)):
        if not row:
            continue
        if len(row) != len(header):
            raise ExportError(f"{printed}: row {number + 2} has {len(row)} of {len(header)} columns")
        target.writerow([_cell(row[place], known) for place in columns])  # type: ignore[attr-defined]
        if number == 0:  # the row of units
            continue
        counts[0] += 1
        state = "" if ranges is None else row[ranges]
        counts[1] += f'"{STAGE_DOMAIN}:{PREFILL}:' in state
        counts[2] += f'"{STAGE_DOMAIN}:{DECODE_STEP}:' in state


def _cell(text: str, known: Sequence[str]) -> str:
    """A cell without secrets, and that no spreadsheet takes for a formula: names are the program's own words.

    ncu writes numbers as texts too.
    """
    return text if _NUMBER.fullmatch(text) else in_a_spreadsheet(redacted(text, known))
