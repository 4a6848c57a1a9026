"""What the traces of one run are called together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

__all__ = ["name_of_run"]

_NUMBERED: Final = re.compile(r"[-_. ]*(rank|gpu|proc)?[-_. ]*\d*$", re.IGNORECASE)


def name_of_run(names: Sequence[str]) -> str:
    """What names have in common at their beginning, without what only numbers them; empty: nothing.

    >>> name_of_run(["llama_rank0", "llama_rank1"])
    'llama'
    """
    if len(set(names)) == 1:
        return names[0]
    together = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return _NUMBERED.sub("", "".join(letters[0] for letters in together))
