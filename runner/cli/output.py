"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import typer

__all__ = ["say"]


def say(line: str) -> None:
    """Tell the user one line beside the result."""
    typer.echo(line, err=True)
