"""Twenty pairs of unchanged runs on two H100 of a shared host: at most one alarm."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from analysis.compare.noise import answer, interval
from analysis.domain.bands import Band, unchanged_band

ROUNDS = Path(__file__).parent.parent / "data" / "unchanged"
ALARMS = ("regression", "improvement")


def _ran(mode: str) -> tuple[dict[int, dict[str, Any]], dict[str, float]]:
    """Round → side → samples by stage; and how long the GPU works, ns per unit."""
    ran = json.loads((ROUNDS / f"{mode}.json").read_text())
    pairs: dict[int, dict[str, Any]] = defaultdict(dict)
    for made in ran["rounds"]:
        pairs[made["number"]][made["side"]] = made["samples"]
    return pairs, ran["busy_ns"]


def _alarms(mode: str, bands: dict[str, Band | None], rounds: range) -> set[int]:
    pairs, busy = _ran(mode)
    alarmed = set()
    for number in rounds:
        for stage, band in bands.items():
            first, second = (pairs[number][side][stage] for side in "AB")
            sure = interval(first, second, band, busy=(busy[stage], busy[stage]))
            if answer(statistics.median(second) - statistics.median(first), sure, ())[0] in ALARMS:
                alarmed.add(number)
    return alarmed


def test_assumed_bands_raise_at_most_one_alarm_in_twenty_pairs() -> None:
    nothing: dict[str, Band | None] = {"prefill": None, "decode": None}
    alarmed = [(mode, number) for mode in ("eager", "graph") for number in _alarms(mode, nothing, range(1, 11))]
    assert len(alarmed) <= 1


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_band_measured_in_five_rounds_holds_for_the_next_five(mode: str) -> None:
    pairs, _ = _ran(mode)
    bands: dict[str, Band | None] = {}
    for stage in ("prefill", "decode"):
        medians = [statistics.median(pairs[number][side][stage]) for number in range(1, 6) for side in "AB"]
        bands[stage] = unchanged_band(medians, "five rounds of the same setting")
        assert bands[stage] is not None
    assert _alarms(mode, bands, range(6, 11)) == set()
