"""What is refused of a command line before it is taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from analysis.domain.errors import RequestError

__all__ = ["require_named_out"]


def require_named_out(argv: Sequence[str]) -> None:
    """Refuse an empty folder, as a script's variable that is not set gives: as a path it would mean the current one.

    Args:
        argv: of one of our commands, without the program.

    Raises:
        RequestError: ``--out ""`` or ``--out=``.
    """
    own = list(argv[: argv.index("--")]) if "--" in argv else list(argv)
    if "--out=" in own or ("--out", "") in pairwise(own):
        raise RequestError("--out: its name is empty; give a folder (. is the current one)")
