"""Sentences on a terminal: a number stays on one line with its unit."""

from __future__ import annotations

import textwrap
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from analysis.render.spec.text import unbroken

__all__ = ["Sentence"]

_JOINED: Final = "\u00a0"


class Sentence:
    """A text that breaks between words, never between a number and its unit; rich alone breaks at any blank."""

    def __init__(self, text: str, style: str = "", *, word: str = "", word_style: str = "") -> None:
        """Take a text and its style, and a word in it that has a style of its own."""
        self._text = text
        self._style = style
        self._word = word
        self._word_style = word_style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the text out for a console."""
        joined = unbroken(self._text)
        lines = textwrap.wrap(joined, max(1, options.max_width), break_on_hyphens=False) or [""]
        made = Text("\n".join(lines).replace(_JOINED, " "), style=self._style)
        if self._word:
            made.highlight_words([self._word], self._word_style)
        yield made
