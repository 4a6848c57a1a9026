"""The colours of pages and pictures, each once, for light and for dark.

Chosen by search: any two colours of `PARTS` differ by at least 18 (CIE 1976), as does prefill from decode, and they do so for
readers with deuteranopia, protanopia and tritanopia (Machado, Oliveira, Fernandes 2009). Text reaches a contrast of 4.5 : 1
(WCAG 2.2, AA) on everything that it stands on. Tests measure both; a colour never stands without a label or a shape.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["COLOURS", "PARTS", "STAGE_COLOURS", "contrast", "literal", "page_variables", "part_of_term", "text_on"]

PARTS: Final[dict[str, tuple[str, str]]] = {
    "ideal": ("#12584b", "#178e78"),
    "busy": ("#25a675", "#78e4c7"),
    "transfer": ("#3a75b0", "#7eaee9"),
    "ranks": ("#85a2bf", "#304265"),
    "launching": ("#5d3da9", "#ad7ffa"),
    "synchronising": ("#b3362b", "#ff7e67"),
    "draining": ("#ffbcae", "#792c24"),
    "outside": ("#c8cbd7", "#403a40"),
    "other": ("#d09802", "#e2b83c"),
    "in_graph": ("#82d3fe", "#125cbb"),
    "idle": ("#6b7484", "#93a3b5"),
}
"""What a stage's time is spent on → light, dark."""

STAGE_COLOURS: Final[dict[str, tuple[str, str]]] = {
    "prefill": ("#2f6bd8", "#6ba3ff"),
    "decode": ("#d9730d", "#f59d4a"),
    "mixed": ("#8a4fb0", "#c79bf0"),
    "neither": ("#808a9a", "#7b8698"),
}

_TERMS: Final = {
    "start": "draining",
    "kernels": "busy",
    "synchronises": "synchronising",
    "python": "outside",
    "other_calls": "other",
}

COLOURS: Final[dict[str, tuple[str, str]]] = {
    "bg": ("#f5f6f8", "#0f1217"),
    "card": ("#ffffff", "#171b22"),
    "soft": ("#eff1f5", "#1f252e"),
    "ink": ("#1b2230", "#e5e9f0"),
    "muted": ("#566072", "#a3adbd"),
    "faint": ("#5f697b", "#98a2b3"),
    "line": ("#dfe3ea", "#2d3440"),
    "on": ("#ffffff", "#0f1217"),
    "deep": ("#1b2230", "#0f1217"),
    "prefill-ink": ("#2257b8", "#8db8ff"),
    "decode-ink": ("#9a4d00", "#f7ae68"),
    "mixed-ink": ("#74389b", "#d3b0f4"),
    "neither-ink": ("#566072", "#a3adbd"),
    "good": ("#0d6b4c", "#5ed0a6"),
    "warning": ("#7d4e00", "#f2c063"),
    "warning-bg": ("#fff4da", "#2d2614"),
    "unfit": ("#a3221a", "#ff9a91"),
    "unfit-bg": ("#fdecea", "#341a19"),
    "info-bg": ("#e9f0fc", "#182335"),
    "focus": ("#2257b8", "#8db8ff"),
    **STAGE_COLOURS,
    **PARTS,
}
"""Every name that a style may use → light, dark."""

_VARIABLE: Final = re.compile(r"var\(--([a-z_-]+)\)")


def part_of_term(key: str) -> str:
    """The colour of a term of the budget, by its key."""
    return _TERMS.get(key, key)


def page_variables() -> str:
    """Custom properties that follow the page's colour scheme."""
    lines = "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in COLOURS.items())
    return f":root{{color-scheme:light dark;{lines}}}"


def literal(style: str, *, dark: bool) -> str:
    """A style with its variables replaced: what a picture needs that is a file of its own."""
    return _VARIABLE.sub(lambda match: COLOURS[match[1]][1 if dark else 0], style)


def text_on(name: str) -> str:
    """The text colour for a filled part: ``on``, ``ink`` or ``deep``, whichever stands out more in both schemes."""
    worst = {
        face: min(contrast(COLOURS[name][scheme], COLOURS[face][scheme]) for scheme in (0, 1))
        for face in ("on", "ink", "deep")
    }
    return max(worst, key=lambda face: worst[face])


def contrast(first: str, second: str) -> float:
    """Contrast of two colours by WCAG 2.2: from 1 to 21."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
