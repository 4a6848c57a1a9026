"""``dsocr-profile models``."""

from __future__ import annotations

import json

import typer

from runner.cli.options import AsJson

__all__ = ["models"]


def models(as_json: AsJson = False) -> None:
    """List the model presets."""
    from runner.child.models.registry import DEFAULT_PRESET, PRESETS

    if as_json:
        typer.echo(json.dumps({name: preset.description for name, preset in PRESETS.items()}, indent=2))
        return
    for name, preset in PRESETS.items():
        default = " (default)" if name == DEFAULT_PRESET else ""
        typer.echo(f"{name:<20} {preset.description}{default}")
