"""Depths and names of the range tree, against ways up that are walked one by one."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from analysis.attribution.range_tree import RangeTree
from analysis.trace.reader import Trace
from trace_builder import TraceBuilder


def _tree(path: Path, seed: int) -> RangeTree:
    """Ranges of three threads that nest at random, with few names, so that many lie in one of their own name."""
    random.seed(seed)
    built = TraceBuilder()

    def fill(low: int, high: int, depth: int) -> None:
        at = low
        while at < high - 4 and depth < 12:
            begin = at + random.randint(0, (high - at) // 3)
            end = random.randint(begin, high)
            built.range(random.choice("abc"), begin, end, domain=random.choice(("x", "y")))
            fill(begin + 1, end - 1, depth + 1)
            at = end + 1

    for thread in range(3):
        built.thread(1, thread + 1)
        fill(0, 2000, 0)
    with Trace(built.write(path / "trace.sqlite")) as trace:
        return RangeTree.build(trace.ranges)


@pytest.mark.parametrize("seed", range(8))
def test_depths_and_names_are_those_of_the_way_up(tmp_path: Path, seed: int) -> None:
    tree = _tree(tmp_path, seed)
    parent, name = tree.parent.tolist(), tree.ranges.name.tolist()
    ways = []
    for row in range(len(parent)):
        way, above = [], parent[row]
        while above >= 0:
            way.append(above)
            above = parent[above]
        ways.append(way)
    assert len(parent) > 20
    assert max(len(way) for way in ways) > 3
    assert tree.depth.tolist() == [len(way) for way in ways]
    first = [all(name[above] != name[row] for above in way) for row, way in enumerate(ways)]
    assert tree.first_of_its_name().tolist() == first
    contains = np.zeros(len(parent), dtype=bool)
    for row, way in enumerate(ways):
        contains[[above for above in way if name[above] == name[row]]] = True
    assert tree.contains_its_name().tolist() == contains.tolist()
