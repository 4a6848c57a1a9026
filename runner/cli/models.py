"""``dsocr-profile models``."""

from __future__ import annotations

import json

from runner.cli.options import AsJson
from runner.cli.output import tell, tell_document

__all__ = ["models"]


def models(as_json: AsJson = False) -> None:
    """List the model presets."""
    from runner.child.models.registry import DEFAULT_PRESET, PRESETS

    if as_json:
        tell_document(json.dumps({name: preset.description for name, preset in PRESETS.items()}, indent=2))
        return
    for name, preset in PRESETS.items():
        default = " (default)" if name == DEFAULT_PRESET else ""
        tell(f"{name:<20} {preset.description}{default}")
