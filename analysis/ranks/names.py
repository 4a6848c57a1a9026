"""What the traces of one run are called together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePath
from typing import Final

__all__ = ["name_of_run", "rank_numbers", "runs_among"]

_NUMBERED: Final = re.compile(r"[-_. ]*(rank|gpu|proc)?[-_. ]*\d*$", re.IGNORECASE)
_RANK: Final = re.compile(r"[-_. ]*rank[-_. ]?(\d+)", re.IGNORECASE)
_LAST_NUMBER: Final = re.compile(r"[-_. ]*(?:gpu|proc)?[-_. ]*(\d+)$", re.IGNORECASE)
_ENDINGS: Final = re.compile(r"\.(sqlite|nsys-rep)(\.\w+)?$", re.IGNORECASE)


def name_of_run(names: Sequence[str]) -> str:
    """What names have in common at their beginning, without what only numbers them; empty: nothing.

    >>> name_of_run(["llama_rank0", "llama_rank1"])
    'llama'
    """
    if len(set(names)) == 1:
        return names[0]
    together = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return _NUMBERED.sub("", "".join(letters[0] for letters in together))


def rank_numbers(files: Sequence[str]) -> tuple[int, ...]:
    """What the ranks are called: by the numbers that the names of their files say, where all do, else in their order.

    Args:
        files: name of each rank's file, in the order of ranks; ranks of one file bring its name several times.

    >>> rank_numbers(["llama_rank4.sqlite", "llama_rank5.sqlite"])
    (4, 5)
    """
    said = [_RANK.findall(PurePath(name).name) for name in files]
    numbers = [int(of_name[0]) for of_name in said if len(of_name) == 1]
    return tuple(numbers) if len(set(numbers)) == len(files) else tuple(range(len(files)))


def runs_among(files: Sequence[str]) -> dict[str, list[str]]:
    """The runs that files are traces of, as far as their names tell: the name without the rank's number → its files.

    Files whose ranks' numbers all differ are one run, whatever else their names hold: the ranks of several hosts.

    >>> list(runs_among(["eager_rank0.sqlite", "eager_rank1.sqlite", "graph_rank0.sqlite", "graph_rank1.sqlite"]))
    ['eager', 'graph']
    """
    runs: dict[str, list[str]] = {}
    numbers = []
    for file in files:
        name = _ENDINGS.sub("", file)
        pattern = _RANK if _RANK.search(name) else _LAST_NUMBER
        numbers += pattern.findall(name)[-1:]
        runs.setdefault(pattern.sub("", name), []).append(file)
    if len(files) == len(numbers) == len({int(number) for number in numbers}):
        return {name_of_run([_ENDINGS.sub("", file) for file in files]): list(files)}
    return runs
