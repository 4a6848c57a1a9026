"""``dsocr-analyze trend``: how the times of recorded runs developed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["trend"]


def trend(
    store: Annotated[
        str,
        typer.Option(
            "--store",
            envvar="DSOCR_STORE",
            show_envvar=True,
            metavar="FILE|URL",
            help="Where the history is.",
        ),
    ] = "reports/history.sqlite",
    model: Annotated[str | None, typer.Option("--model", help="Only runs of this model.", metavar="NAME")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Only runs on this device, or a part of its name.", metavar="NAME")
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", help="Only this stage, such as prefill or decode; repeatable.", metavar="NAME"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a page, such as trend.html.", metavar="FILE", dir_okay=False)
    ] = None,
) -> None:
    """Show how the times of recorded runs of the same work developed, and where they changed their level.

    Raises:
        StoreError: the history cannot be read.
        RequestError: the page cannot be written.
    """
    from analysis.domain.convert import to_json
    from analysis.domain.names import json_visible
    from analysis.render import answers
    from analysis.render.trend.page import write_page
    from analysis.render.trend.terminal import print_trend
    from history.location import locate
    from history.records import RunQuery
    from history.store import Store
    from history.trend import MOST_RUNS, trend_of

    query = RunQuery(model=model, device=device, limit=MOST_RUNS)
    drawn = trend_of(Store(locate(store), answers.print_remark), query, stage or ())
    if as_json:
        typer.echo(json_visible(to_json(drawn)))
    else:
        print_trend(drawn, answers.console())
    written = () if out is None else (write_page(drawn, out),)
    if not as_json:
        answers.print_written(written)
