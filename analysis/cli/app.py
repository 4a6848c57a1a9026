"""The commands under one name."""

from __future__ import annotations

import atexit
import gc
import os
from inspect import cleandoc
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from analysis.api.allocator import keep_freed_memory
from analysis.cli.check import check
from analysis.cli.diff import diff
from analysis.cli.exit_codes import run
from analysis.cli.gate import gate
from analysis.cli.kernels import kernels
from analysis.cli.report import report
from analysis.cli.review import review
from analysis.cli.schema import schema
from analysis.cli.show import show
from analysis.cli.sweep import sweep
from analysis.cli.table import table
from analysis.cli.trend import trend

__all__ = ["EXAMPLES", "app", "main"]

_DEFAULT_COMMAND = "report"
_OPTIONS = ("--help", "-h", "--version", "--install-completion", "--show-completion")
"""Of the program itself, not of a report."""


class _ReportByDefault(TyperGroup):
    """``dsocr-analyze trace.sqlite`` means ``dsocr-analyze report trace.sqlite``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in _OPTIONS:
            args = [_DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="dsocr-analyze",
    cls=_ReportByDefault,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Say where an exported Nsight Systems trace spends its GPU time, how much of the hardware it uses, and why.\n\n"
    "dsocr-analyze TRACE writes the report; the commands below answer single questions.",
)


def _version(value: bool) -> None:
    if value:
        from importlib import metadata

        try:
            number = metadata.version("dsocr-profiler")
        except metadata.PackageNotFoundError:  # run from its source
            number = "(version unknown: the package is not installed)"
        typer.echo(f"dsocr-analyze {number}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Nothing to do before a command."""


EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "report": (
        "dsocr-analyze trace.sqlite",
        "dsocr-analyze reports/latest --out report --format html --format csv",
        "dsocr-analyze capture.nsys-rep --vocabulary vllm",
    ),
    "diff": (
        "dsocr-analyze diff runs/before runs/after",
        "dsocr-analyze diff main.sqlite.xz branch.sqlite.xz --out diff --format markdown --format json",
        "dsocr-analyze diff runs/eager runs/static runs/cuda-graph",
    ),
    "review": ("dsocr-analyze review reports/latest --counters census.csv --out review",),
    "show": ("dsocr-analyze show reports/latest", "dsocr-analyze show trace.sqlite --explain"),
    "table": ("dsocr-analyze table trace.sqlite --by module --stage decode",),
    "check": ("dsocr-analyze check trace.sqlite",),
    "kernels": ("dsocr-analyze kernels trace.sqlite --match attention --top 10",),
    "gate": (
        "dsocr-analyze gate reports/base reports/latest --policy gate.toml",
        "dsocr-analyze gate base/report.json new/report.json --policy gate.toml --band bands.json --out gate",
    ),
    "trend": (
        "dsocr-analyze trend --stage decode",
        "dsocr-analyze trend --store all.sqlite --model deepseek-ocr --out trend.html",
    ),
    "schema": ("dsocr-analyze schema report",),
    "sweep": ("dsocr-analyze sweep reports/sweep",),
}
"""Command lines for the end of each help."""

for _command in (report, diff, gate, review, show, table, check, kernels, trend, schema, sweep):
    app.command(
        help=cleandoc(_command.__doc__ or "").partition("\n\nRaises:")[0],  # errors are for readers of the code
        epilog="\n\n".join(("Examples:", *EXAMPLES[_command.__name__])),
    )(_command)


def main() -> NoReturn:
    """Entry point: a `DsocrError` becomes one line and its exit code."""
    # One short process: memory goes back by reference counts, and the collector would only walk the modules again and
    # again while they are imported.
    gc.disable()
    keep_freed_memory()
    # As the interpreter ends it collects once more, even so: 80 ms to look at objects that are about to go.
    atexit.register(gc.freeze)
    # numpy's linear algebra, which we never call, would start threads that spin beside the reading: 60 ms of a core.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    run(app)
