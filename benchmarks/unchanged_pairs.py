"""How many of the pairs of unchanged rounds that ``dsocr-profile ab X.json X.json`` measured would have raised an alarm.

    dsocr-profile ab X.json X.json --rounds 20 --no-capture
    python -m benchmarks.unchanged_pairs reports/ab-…/ab.json

Round i of A against round i of B is a pair of runs of the same thing. Each is judged twice: without a measured band, and with that
of the other rounds, so that no pair is judged by itself. Whatever is no “equal” or “cannot judge” is a false alarm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from analysis.compare.noise import answer, interval
from analysis.compare.records import Answer
from analysis.domain.bands import Band, unchanged_band

__all__ = ["answers"]


def main() -> int:
    """Print a table; 1: a stage has more than one alarm in 20 pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="ab.json of the same setting twice")
    arguments = parser.parse_args()
    document = json.loads(arguments.result.read_text())
    if not document["unchanged"]:
        parser.error(f"{arguments.result}: A and B are not the same setting")
    too_many = False
    for stage in dict.fromkeys(name for done in document["rounds"] for name in done["medians"]):
        for measured in (False, True):
            counted = Counter(answers(document, stage, measured=measured))
            alarms = counted["regression"] + counted["improvement"]
            too_many |= alarms * 20 > counted.total()
            band = "band of the other rounds" if measured else "band assumed"
            print(f"{stage}, {band}: {counted.total()} pairs, {alarms} alarms", dict(counted))
    return int(too_many)


def answers(document: dict[str, Any], stage: str, *, measured: bool) -> list[Answer]:
    """The answer to each pair.

    Args:
        document: ``ab.json``.
        stage: whose times.
        measured: give each pair the band of all other rounds; false: none.
    """
    sides: dict[str, dict[int, list[float]]] = {"A": {}, "B": {}}
    for done in document["rounds"]:
        if stage in done["samples"]:
            sides[done["side"]][done["number"]] = done["samples"][stage]
    given = []
    for number in sorted(sides["A"].keys() & sides["B"].keys()):
        base, new = sides["A"][number], sides["B"][number]
        band: Band | None = None
        if measured:
            others = [
                statistics.median(samples) for side in sides.values() for at, samples in side.items() if at != number
            ]
            band = unchanged_band(others, "the other rounds")
        given.append(answer(statistics.median(new) - statistics.median(base), interval(base, new, band), ())[0])
    return given


if __name__ == "__main__":
    sys.exit(main())
