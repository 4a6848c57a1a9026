"""The open files by which this process holds locks: what is started inherits them, and keeps the locks when we die."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["held_descriptors", "passed_on"]

_HELD: Final[list[int]] = []


@contextmanager
def passed_on(descriptor: int) -> Iterator[None]:
    """Pass a lock's open file on to the supervisors of what is started while the context lasts.

    A lock by ``flock``, like a listening socket, is held as long as one process has it open. So a device stays taken
    until what runs on it has ended, also where the launcher was killed.
    """
    _HELD.append(descriptor)
    try:
        yield
    finally:
        _HELD.remove(descriptor)


def held_descriptors() -> tuple[int, ...]:
    """Give those that are passed on now."""
    return tuple(_HELD)
