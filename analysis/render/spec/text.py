"""Names of others as people read them: made visible, and short enough."""

from __future__ import annotations

import re
from typing import Final

from analysis.domain.names import shortened

__all__ = ["shortened", "unbroken", "visible"]

_INVISIBLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Control characters (ANSI escapes begin with one), marks that turn or hide text, and halves of surrogate pairs."""


def visible(name: str) -> str:
    r"""Show every character of a name: what controls, hides or turns text around is written as ``\x1b``, ``\u202e``."""
    return _INVISIBLE.sub(_escaped, name)


_BEFORE_UNIT: Final = re.compile(r"(?<=\d) (?=(?:[nµm]?s|%|×|[kMGTP]?(?:B|FLOP)(?:/s)?)(?!\w))")


def unbroken(sentence: str) -> str:
    """A sentence whose numbers stay on one line with their units: no-break spaces between them."""
    return _BEFORE_UNIT.sub("\u00a0", sentence)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
