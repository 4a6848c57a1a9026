r"""Texts of others – names in a trace, fields of a file in a run's folder, paths, words of a log – as people read them.

They are the words of whoever made the trace, the folder or the log. On a terminal they must not act: no escape sequence,
no line of their own, no mark that turns the text around. `visible` writes such characters out, and is what every
printed text goes through; `one_line` bounds its length too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Final

__all__ = [
    "LONGEST_ERROR",
    "LONGEST_LINE",
    "from_a_spreadsheet",
    "in_a_spreadsheet",
    "json_visible",
    "one_line",
    "quoted",
    "shortened",
    "visible",
]

_INVISIBLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Control characters (ANSI escapes begin with one), marks that turn or hide text, and halves of surrogate pairs."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that spreadsheets take for a formula; the last four are the wide forms of the first four."""
LONGEST_LINE: Final = 4_000
"""Characters of a printed line: more than any path, less than what makes a terminal useless."""
LONGEST_ERROR: Final = 1_900
"""Characters of an error, which quotes values that may be anybody's: what is wrong and what to do are at its ends."""


def visible(name: str) -> str:
    r"""Show every character of a name: what controls, hides or turns text around is written as ``\x1b``, ``\u202e``."""
    if name.isascii() and name.isprintable():  # as almost always, and told in a third of the time
        return name
    return _INVISIBLE.sub(_escaped, name)


def one_line(text: str, limit: int = LONGEST_LINE) -> str:
    """A text as one harmless line of at most ``limit`` characters; the middle of a longer one is left out."""
    # An escape takes up to ten characters of one: what is cut away need not be written out first.
    return shortened(visible(text if len(text) <= 2 * limit else f"{text[:limit]}…{text[-limit:]}"), limit)


def shortened(name: str, limit: int) -> str:
    """A name of at most ``limit`` characters; the middle of a longer one is left out."""
    if len(name) <= limit:
        return name
    head = (limit - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def quoted(argv: Iterable[str]) -> str:
    r"""A command line for a shell, of visible characters alone: ``$'\x1b'`` where an argument has others."""
    return " ".join(shlex.quote(word) if visible(word) == word else _dollar_quoted(word) for word in argv)


def _dollar_quoted(word: str) -> str:
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_INVISIBLE.sub(_for_a_shell, plain)}'"


def _for_a_shell(match: re.Match[str]) -> str:
    # Octal digits of each byte: unlike \x they end after three, whatever follows. An undecodable byte is itself again.
    undecodable = "\udc80" <= match.group() <= "\udcff"
    encoded = match.group().encode("utf-8", "surrogateescape" if undecodable else "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in encoded)


def in_a_spreadsheet(text: str) -> str:
    """A text as a cell of a CSV: with an apostrophe in front of what a spreadsheet would take for a formula.

    Blanks and characters without width in front of that do not count: some spreadsheets drop them. For texts only: a number
    that is negative must stay one.
    """
    return f"'{text}" if _is_a_formula(text) else text


def from_a_spreadsheet(cell: str) -> str:
    """The text of a cell that `in_a_spreadsheet` made."""
    return cell[1:] if cell[:1] == "'" and _is_a_formula(cell[1:]) else cell


def _is_a_formula(text: str) -> bool:
    return text.startswith(_FORMULA) or (
        not text[:1].isalnum() and _INVISIBLE.sub("", text).lstrip().startswith(_FORMULA)
    )


def json_visible(text: str) -> str:
    r"""JSON with every invisible character but its line ends as ``\u202e``: the same values, and harmless on a terminal.

    Args:
        text: JSON, indented or not. Outside of its strings nothing but ASCII can stand.
    """
    if text.isascii():  # what else there is below DEL, JSON itself has written out
        return text.replace("\x7f", "\\u007f")
    return _INVISIBLE.sub(_for_json, text)


def _for_json(match: re.Match[str]) -> str:
    character = match.group()
    if character in "\n\r\t":  # between values: JSON lets none of them stand inside a string
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
