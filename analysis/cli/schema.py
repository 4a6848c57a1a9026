"""``dsocr-analyze schema``: the JSON Schema of an output."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Literal

import typer

__all__ = ["schema"]


def schema(
    document: Annotated[
        Literal["report", "summary", "review", "ranks", "diff", "gate", "sweep"],
        typer.Argument(help="Of the JSON file of this name; ranks: of the report.json of several ranks."),
    ],
) -> None:
    """Print the JSON Schema of an output, draft 2020-12."""
    from analysis.render.json_schema import schema_of

    sys.stdout.write(json.dumps(schema_of(document), ensure_ascii=False, indent=1) + "\n")
