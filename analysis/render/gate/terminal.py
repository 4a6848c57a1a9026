"""A gate in a terminal: the sentence, then each limit that was exceeded or cannot be judged, then how many passed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from analysis.domain.figures import counted
from analysis.gate.records import GateResult, Outcome
from analysis.render.spec.text import visible

__all__ = ["print_gate"]

_STYLES: Final[dict[Outcome, str]] = {"passed": "bold green", "failed": "bold red", "cannot judge": "bold yellow"}


def print_gate(result: GateResult, console: Console, written: Sequence[Path] = (), *, all_checks: bool = False) -> None:
    """Print a gate's result.

    Args:
        result: of the gate.
        console: where to.
        written: its files.
        all_checks: print the limits that were kept to as well.
    """
    word, rest = visible(result.headline).split(" (", 1)
    parts: list[RenderableType] = [Text.assemble((word, _STYLES[result.outcome]), f" ({rest}"), Text()]
    parts.append(Text(f"{visible(result.base.label)} → {visible(result.new.label)}", style="dim"))
    shown: tuple[Outcome, ...] = ("failed", "cannot judge", "passed") if all_checks else ("failed", "cannot judge")
    for outcome in shown:
        for check in result.of(outcome):
            parts.append(
                Text.assemble(
                    (f"{outcome}: ", _STYLES[outcome]),
                    (visible(check.subject), "bold"),
                    (f", {check.limit}", "dim"),
                )
            )
            parts.append(Padding(Text(visible(check.because)), (0, 0, 0, 4), expand=False))
    passed = len(result.of("passed"))
    if passed and not all_checks:
        parts.append(Text(f"{counted(passed, 'limit')} kept to", style="dim"))
    parts += [Text(visible(note), style="dim") for note in result.notes]
    if written:
        parts.append(Text())
    console.print(Group(*parts))
    if written:
        names = ", ".join(path.name for path in written)
        line = f"Written into {visible(str(written[0].parent))}: {names}"
        console.print(Text(line, style="dim"), soft_wrap=True)
