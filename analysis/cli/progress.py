"""What a command is doing, said where somebody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Say", "progress"]

Say: TypeAlias = Callable[[str], None]
"""Says what goes on."""


@contextmanager
def progress() -> Iterator[Say]:
    """Say on standard error what is going on, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda what: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda what: status.update(f"{what}…")
