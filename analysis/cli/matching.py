"""Rows by a text in their names; where none holds it, what comes nearest is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from analysis.domain.errors import NothingMatchesError
from analysis.domain.figures import counted
from analysis.domain.names import shortened

__all__ = ["matching", "nothing_of"]

R = TypeVar("R")

_NEAREST: Final = 3
_LIKENESS: Final = 0.55
_LONGEST: Final = 60
_WORD: Final = re.compile(r"[^\W_]+")


def matching(rows: Sequence[R], text: str | None, names: Callable[[R], Iterable[str]], what: str) -> list[R]:
    """Rows one of whose names holds a text, upper and lower case alike.

    Args:
        rows: to choose from.
        text: None: all of them.
        names: of a row, the first of which is its own.
        what: a row is, in words: ``kernel``.

    Raises:
        NothingMatchesError: there are rows, and no name holds the text; words like it, or the first names, are named.
    """
    if text is None:
        return list(rows)
    wanted = text.casefold()
    chosen = [row for row in rows if any(wanted in name.casefold() for name in names(row))]
    if rows and not chosen:
        raise NothingMatchesError(
            f"no name of {counted(len(rows), what)} holds {text!r}: {_nearest(wanted, rows, names)}"
        )
    return chosen


def _nearest(wanted: str, rows: Sequence[R], names: Callable[[R], Iterable[str]]) -> str:
    from difflib import get_close_matches  # for a mistake alone

    words: dict[str, None] = {}
    for row in rows:
        for name in names(row):
            words.update(dict.fromkeys([name.casefold(), *(_WORD.findall(name.casefold()))]))
    near = get_close_matches(wanted, words, n=_NEAREST, cutoff=_LIKENESS)
    if near:
        return f"nearest {', '.join(shortened(word, _LONGEST) for word in near)}"
    first = list(dict.fromkeys(next(iter(names(row))) for row in rows))[:_NEAREST]
    return f"there are {', '.join(shortened(name, _LONGEST) for name in first)}{' and others' if len(rows) > len(first) else ''}"


def nothing_of(stage: str | None, present: Sequence[str], what: str) -> NothingMatchesError:
    """The error where a table has no rows.

    Args:
        stage: whose rows were asked for; None: of all.
        present: stages that the trace has rows of.
        what: a row would be, in words.
    """
    if stage is None:
        return NothingMatchesError(f"the trace has no {what}")
    there = f"its stages are {', '.join(present)}" if present else "it has no stages"
    return NothingMatchesError(f"no {what} in the trace belongs to {stage}: {there}")
