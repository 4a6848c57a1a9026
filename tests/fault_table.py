"""The table of faults: what a row says, which test causes it, and the page that is made of all rows (docs/reliability.md).

A row is declared beside its test in ``tests/reliability`` and is what the test asserts: the page cannot say what no test checks.
"""

from __future__ import annotations

import importlib.util
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import pytest
from attrs import evolve, frozen

__all__ = ["FOLDER", "PAGE", "Resume", "Row", "faults", "page", "rows_of_the_table", "said"]

FOLDER: Final = Path(__file__).with_name("reliability")
PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"

Test = TypeVar("Test", bound=Callable[..., None])


@frozen
class Resume:
    """What ``dsocr-profile resume`` does afterwards."""

    code: int
    """Its exit code."""
    says: str
    """What it prints, "…" for what varies; empty: the report."""


@frozen
class Row:
    """One fault, and all that can be observed of it."""

    fault: str
    """What happens, in words for the reader."""
    where: str
    """The step in which it happens, in words."""
    code: int | None
    """Exit code of the command; negative: the signal that ended it; None: nobody sees it (a worker in the background)."""
    status: str | None
    """Status of the run as ``dsocr-profile status`` says it; None: there is no run."""
    words: str
    """What its one line says, "…" for what varies; empty: it says nothing (it was killed), or nothing went wrong."""
    kept: tuple[str, ...] = ()
    """Files of the run's folder that are there and whole afterwards, beside ``run.json`` and ``plan.json``."""
    resume: Resume | None = None
    """None: there is nothing that ``resume`` could take up."""
    go_on: str = ""
    """How to go on, in words, where that is not ``resume``."""
    recorded: bool = True
    """The end could be written into run.json; not so on a full or read-only disk: then only `status` says that it failed."""
    name: str = ""
    """Tells it from other rows of the same test."""
    followed: bool = False
    """A whole run follows, on the same device: so it is for the first row of each chapter."""

    def says(self, text: str) -> bool:
        """Whether a line says what this row says."""
        return said(self.words, text)


def said(words: str, text: str) -> bool:
    """Whether a text holds these words in this order, anything in place of "…"."""
    return re.search(".*".join(re.escape(part) for part in words.split("…")), text, re.DOTALL) is not None


_CHAPTERS: Final = (
    "Control run",
    "Capture",
    "Real Nsight Systems",
    "torch.profiler",
    "exec: any program",
    "Import",
    "Export",
    "Report",
    "History",
    "Disks",
    "Queue",
    "sweep",
    "ab",
    "dsocr-analyze",
)
"""In the order of a run's steps, then what runs for longer or alone."""
_ROWS: Final[dict[tuple[str, str], tuple[str, tuple[Row, ...]]]] = {}
"""File and test → its chapter and rows."""


def faults(chapter: str, *rows: Row) -> Callable[[Test], Test]:
    """Declare the rows that a test causes; the test is called once for each, with it as ``row``."""
    begins = chapter not in {declared for declared, _ in _ROWS.values()}
    rows = tuple(evolve(row, followed=begins and number == 0) for number, row in enumerate(rows))

    def declare(test: Test) -> Test:
        _ROWS[Path(test.__code__.co_filename).name, test.__name__] = (chapter, rows)
        names = [row.name or str(number) for number, row in enumerate(rows)]
        assert len(set(names)) == len(names), f"{test.__name__}: two rows with one name"
        for row in rows:
            taken_up = row.resume is not None and row.resume.code in (0, 4)
            assert not taken_up or any(Path(name).suffix in _TRACES for name in row.kept), f"{row.fault}: of what?"
        if len(rows) == 1:
            names = ["row"]
        marked: Test = pytest.mark.parametrize("row", rows, ids=names)(test)
        return marked

    return declare


_TRACES: Final = (".nsys-rep", ".qdstrm", ".sqlite")
"""What ``resume`` makes a report of. A row that says that it does names what it does it of."""
_NOTHING: Final = "nothing was captured, so there is nothing to resume; run it again"
_HEAD: Final = f"""\
# When something goes wrong

<!-- Written by `make docs` from tests/reliability; change the rows there. -->

Each row is a test that really causes the fault – a signal to a real process, a full or read-only file system, a folder that
vanishes – with the commands that you type, and asserts what the row says; its number leads to the test. `make reliability` runs
them all. “Capture”, “Import” and “Export” have a stand-in for nsys that fails where it is told to; Nsight Systems itself has rows
of its own. “What you see” is the exit code, what `dsocr-profile status` and `run.json` say, and the words of the one line; “…”
stands for what varies. `run.json` and `plan.json` are kept in every run, so they are not named. Where there is nothing to resume,
`resume` says so (“{_NOTHING}”, exit 10).

What holds in every row, and is asserted in every row:

- The command ends by itself, with the exit code of the row.
- It says one line: what happened, which file, what to do. No traceback.
- `run.json` can be read, its status is true (of a run whose disk was full or read-only that of `status`), and the first cause
  stays in it, whatever `resume` comes to later.
- No process of the run is left: not the program, not what it started, not one of nsys' own.
- No lock is left: the run and its device can be taken at once. (The first row of each table is followed by a whole
  run, which succeeds.)
- No half file: each `.json` parses, each `.sqlite` passes SQLite's own check, no temporary file is left. (Of a command that was
  killed by SIGKILL a file named `*.partial*` or `.*.tmp` may be left, which nothing reads.)
- What the row says is kept is there.
"""

_TAIL: Final = """
The exit codes are listed in [Capture](capture.md#how-a-run-ends).
"""


def rows_of_the_table() -> list[tuple[str, str, str, Row]]:
    """Load the tests and give every row: chapter, file, test, row; by chapter, then in the order of declaration."""
    if str(FOLDER.parent) not in sys.path:
        sys.path.insert(0, str(FOLDER.parent))
    for file in sorted(FOLDER.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"rows_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    table = sys.modules["fault_table"]  # this file, or its second self where it is run as a program
    declared = table._ROWS
    by_chapter = sorted(declared.items(), key=lambda item: (_CHAPTERS.index(item[1][0]), item[0][0]))
    return [(chapter, file, test, row) for (file, test), (chapter, rows) in by_chapter for row in rows]


_STEPS: Final = {
    "start": r"\bstart$|^waiting for the device",
    "control run": r"\bcontrol run( \(.*\))?$",
    "capture": r"\bcapture$",
    "import": r"^import\b",
    "export": r"^export$",
    "report": r"\breport$",
}
"""Of a run, by what `Row.where` says."""
_EVENTS: Final = {
    "Ctrl-C": r"^Ctrl-C(?! twice)",
    "twice": r"^Ctrl-C twice",
    "SIGTERM": r"^SIGTERM",
    "SIGKILL": r"SIGKILL",
    "hangs, `--timeout`": r"--timeout|hangs",
    "full disk": r"disk (is full|fills up)",
    "read-only": r"read-only",
    "folder gone": r"vanishes",
}
"""What happens, by what `Row.fault` says."""


def _at_a_glance(rows: Sequence[Row]) -> list[str]:
    """Which rows are about which step and which fault, by their numbers."""
    lines = ["| | " + " | ".join(_EVENTS) + " |", "|---|" + "---|" * len(_EVENTS)]
    for step, where in _STEPS.items():
        cells = []
        for pattern in _EVENTS.values():
            numbers = [
                str(number)
                for number, row in enumerate(rows, 1)
                if re.search(where, row.where) and re.search(pattern, row.fault)
            ]
            cells.append(", ".join(numbers) or "–")
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    return lines


def page() -> str:
    """The page as text."""
    table = rows_of_the_table()
    lines = [_HEAD, "## At a glance", "", "Numbers of rows, by the step of a run and what happens in it:", ""]
    lines += [*_at_a_glance([row for *_, row in table]), ""]
    number = 0
    for chapter in dict.fromkeys(chapter for chapter, *_ in table):
        lines += [f"## {chapter}", ""]
        lines += [
            "| | what happens | where | what you see | what is kept | how to go on |",
            "|--:|---|---|---|---|---|",
        ]
        for _, file, test, row in (entry for entry in table if entry[0] == chapter):
            number += 1
            shown = f"{test}[{row.name}]" if sum(entry[1:3] == (file, test) for entry in table) > 1 else test
            link = f'[{number}](../tests/reliability/{file} "{shown}")'
            cells = (link, row.fault, row.where, _seen(row), _kept(row), _go_on(row))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n" + _TAIL


def _seen(row: Row) -> str:
    parts = []
    if row.code is not None:
        parts.append(f"killed by {signal.Signals(-row.code).name}" if row.code < 0 else f"exit {row.code}")
    if row.status is not None:
        parts.append(f"`{row.status}`")
    if row.words:
        parts.append(f"“{row.words}”")
    return ", ".join(parts)


def _kept(row: Row) -> str:
    return ", ".join(f"`{file}`" for file in row.kept) or "–"


def _go_on(row: Row) -> str:
    parts = [row.go_on] if row.go_on else []
    if row.resume is not None and row.resume.code == 0:
        parts.append("`resume`: " + (f"“{row.resume.says}”" if row.resume.says else "the report"))
    elif row.resume is not None and row.resume.says == _NOTHING:
        parts = ["nothing to resume", row.go_on or "run it again"]
    elif row.resume is not None:
        parts.append(f"`resume` ends with {row.resume.code}: “{row.resume.says}”")
    return "; ".join(parts) or "run it again"
