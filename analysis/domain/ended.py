"""How a program ended, in words: a signal by its name, and what usually sends it."""

from __future__ import annotations

import resource
import signal
from typing import Final

__all__ = ["ended_in_words", "interrupted_by", "signal_of"]

_SHELL_OFFSET: Final = 128
"""Shells and nsys say a signal as this much more than its number."""
_WHY: Final = {
    signal.SIGKILL: "often the kernel's out-of-memory killer, which `dmesg` tells, or a limit of processor time (ulimit -t)",
    signal.SIGSEGV: "a fault in native code, of a library or a driver",
    signal.SIGBUS: "often a mapped file that was cut short, or a full disk or shared memory under it",
    signal.SIGABRT: "it ended itself after a fault, which its log may tell",
    signal.SIGILL: "built for another processor",
    signal.SIGXCPU: "its limit of processor time was used up",
    signal.SIGXFSZ: "its limit of file sizes was reached",
}


def signal_of(code: int) -> signal.Signals | None:
    """Give the signal that an exit code stands for: negative as Python says it, or above 128 as shells do.

    Codes above 128 of signals that programs catch to end in order (SIGTERM, SIGINT …) are meant as well.
    """
    number = -code if code < 0 else code - _SHELL_OFFSET
    try:
        return signal.Signals(number)
    except ValueError:
        return None


def interrupted_by(number: int | None) -> str:
    """Say what ended a command of ours in order; Ctrl-C and SIGTERM, as which `cancel` comes, need no name.

    Args:
        number: of the signal; None: none that is known of.
    """
    if number == signal.SIGHUP:
        return "ended by SIGHUP (the terminal was closed)"
    return "ended by SIGQUIT" if number == signal.SIGQUIT else "interrupted"


def ended_in_words(code: int, otherwise: str = "failed with") -> str:
    """Say how a program ended that did not end well.

    Args:
        code: its exit code; negative: ended by that signal.
        otherwise: verb before the exit code of one that no signal ended.
    """
    number = signal_of(code)
    if number is None:
        return f"{otherwise} exit code {code}"
    why = _why(number)
    return f"was ended by {number.name} ({number.value}{'' if why is None else f': {why}'})"


def _why(number: signal.Signals) -> str | None:
    if number == signal.SIGKILL:
        # A program inherits our limits. The kernel kills it where the hard limit is no higher than the one that it is told of.
        seconds = resource.getrlimit(resource.RLIMIT_CPU)[1]
        if seconds != resource.RLIM_INFINITY:
            return (
                f"its limit of processor time, {seconds:,} s (ulimit -t), or the kernel's out-of-memory killer, which "
                "`dmesg` tells"
            )
    return _WHY.get(number)
