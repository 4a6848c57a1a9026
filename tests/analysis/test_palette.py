"""The palette: colours that can be told apart by everybody, and texts that can be read on what they stand on."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.render.html.environment import page_style
from analysis.render.pictures import palette
from analysis.render.pictures.svg import STYLE, alone, axis_steps, axis_time, svg

_Matrix = NDArray[np.float64]

# Machado, Oliveira, Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1.
SIGHT: Final[dict[str, _Matrix]] = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
_XYZ: Final = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE: Final = np.array([0.95047, 1.0, 1.08883])


def seen(colour: str, sight: _Matrix) -> _Matrix:
    """CIELAB of a colour as somebody sees it."""
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    x, y, z = _XYZ @ np.clip(sight @ linear, 0, 1) / _WHITE
    fx, fy, fz = (np.cbrt(v) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_parts_can_be_told_apart(sight: str, scheme: int) -> None:
    colours = {name: seen(pair[scheme], SIGHT[sight]) for name, pair in palette.PARTS.items()}
    near = {
        (first, second): float(np.linalg.norm(colours[first] - colours[second]))
        for first, second in itertools.combinations(colours, 2)
    }
    assert min(near.values()) >= 18, min(near, key=lambda pair: near[pair])
    prefill, decode = (seen(palette.STAGE_COLOURS[stage][scheme], SIGHT[sight]) for stage in ("prefill", "decode"))
    assert np.linalg.norm(prefill - decode) >= 18


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_can_be_read(scheme: int) -> None:
    shade = {name: pair[scheme] for name, pair in palette.COLOURS.items()}
    inks = (
        "ink",
        "muted",
        "faint",
        "prefill-ink",
        "decode-ink",
        "mixed-ink",
        "neither-ink",
        "good",
        "warning",
        "unfit",
    )
    for ink, ground in itertools.product(inks, ("bg", "card", "soft", "info-bg", "warning-bg", "unfit-bg")):
        assert palette.contrast(shade[ink], shade[ground]) >= 4.5, (ink, ground)
    for part in palette.PARTS:
        assert palette.contrast(shade[palette.text_on(part)], shade[part]) >= 4.5, part
    for mark in ("focus", "prefill", "decode"):  # what is no text needs 3 : 1
        assert palette.contrast(shade[mark], shade["card"]) >= 3, mark


def test_contrast_is_that_of_the_standard() -> None:
    assert palette.contrast("#ffffff", "#000000") == pytest.approx(21)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_every_term_of_a_budget_has_a_colour() -> None:
    from typing import get_args

    from analysis.efficiency.counters.waterfall import _TERMS
    from analysis.render.review.pictures import LOSS_COLOURS
    from analysis.render.spec.budget import BUDGET_PARTS
    from analysis.verdict.records import TermKey

    assert {palette.part_of_term(key) for key in get_args(TermKey)} <= set(palette.PARTS)
    assert {part.key for part in BUDGET_PARTS} <= set(palette.PARTS)
    assert set(LOSS_COLOURS) == {*_TERMS, "residual"}


def test_a_style_uses_only_colours_that_there_are() -> None:
    import re

    style = str(page_style())
    used = set(re.findall(r"var\(--([a-z_-]+)\)", style)) - {"shadow", "radius"}
    assert used <= set(palette.COLOURS)
    for name in palette.COLOURS:
        assert f"--{name}:light-dark(" in style
    file = alone(svg(10, 10, "empty", []))
    assert "var(" not in file, "a file has no page to take its colours from"
    assert palette.COLOURS["ink"][0] in file
    assert palette.COLOURS["ink"][1] in file
    assert "var(--" in STYLE


@pytest.mark.parametrize(
    ("ns", "text"), [(0, "0"), (2_000_000, "2 ms"), (1_500_000_000, "1.5 s"), (250_000_000, "250 ms"), (40, "40 ns")]
)
def test_times_on_an_axis_have_no_idle_zeros(ns: int, text: str) -> None:
    assert axis_time(ns) == text


@pytest.mark.parametrize(
    ("most", "steps"), [(7, [0, 2, 4, 6]), (100, [0, 25, 50, 75, 100]), (0, [0]), (0.9, [0, 0.25, 0.5, 0.75])]
)
def test_axis_steps_are_round(most: float, steps: list[float]) -> None:
    assert axis_steps(most) == pytest.approx(steps)
