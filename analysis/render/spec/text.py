"""Texts for people: a number stays on one line with its unit; names of others are `analysis.domain.names`'."""

from __future__ import annotations

import re
from typing import Final

from analysis.domain.names import shortened, visible

__all__ = ["shortened", "unbroken", "visible"]

_BEFORE_UNIT: Final = re.compile(r"(?<=\d) (?=(?:[nµm]?s|%|×|[kMGTP]?(?:B|FLOP)(?:/s)?)(?!\w))")


def unbroken(sentence: str) -> str:
    """A sentence whose numbers stay on one line with their units: no-break spaces between them."""
    return _BEFORE_UNIT.sub("\u00a0", sentence)
