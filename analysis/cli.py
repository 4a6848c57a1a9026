"""``dsocr-analyze``: parses, calls, prints. Heavy modules are imported where they are used, so that --help is quick."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from analysis.domain.errors import DsocrError, UnfitTraceError

if TYPE_CHECKING:
    from analysis.attribution.attribution import Attribution
    from analysis.quality.findings import Finding
    from analysis.report import Report, ReportOptions
    from analysis.trace.reader import Trace

__all__ = ["app", "main"]

_DEFAULT_COMMAND = "report"


class _ReportByDefault(TyperGroup):
    """``dsocr-analyze trace.sqlite`` means ``dsocr-analyze report trace.sqlite``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h", "--version"):
            args = [_DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="dsocr-analyze",
    cls=_ReportByDefault,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Say where an exported Nsight Systems trace spends its GPU time, how much of the hardware it uses, and why.\n\n"
    "dsocr-analyze TRACE.sqlite writes the report; the commands below answer single questions.",
)


class By(StrEnum):
    """What a row of a table is."""

    stage = "stage"
    instance = "instance"
    step = "step"
    module = "module"
    range = "range"
    kernel = "kernel"


class StageName(StrEnum):
    """Which stage's operations to keep."""

    prefill = "prefill"
    decode = "decode"


class TableFormat(StrEnum):
    """How a table is written."""

    md = "md"
    csv = "csv"
    json = "json"


TraceFile = Annotated[
    # readable=False: whether it can be read is for the reader to say, in one line.
    Path,
    typer.Argument(
        metavar="TRACE", readable=False, help="What `nsys export --type sqlite` wrote, or our own trace.sqlite."
    ),
]
ManifestFile = Annotated[
    Path | None,
    typer.Option("--manifest", readable=False, help="run.json of the run, if it lies neither beside nor in the trace."),
]
CrossThread = Annotated[
    bool,
    typer.Option(
        "--cross-thread",
        help="Attribute launches outside all stages of their thread to the stage open on another thread of the process "
        "at that time.",
    ),
]
AcceptLossy = Annotated[
    bool, typer.Option("--accept-lossy", help="Report on a capture that its own evidence calls unfit (else: exit 4).")
]
PeakTflops = Annotated[
    float | None, typer.Option("--peak-tflops", help="Dense peak of the model's dtype, 10^12 FLOP/s.")
]
PeakGbps = Annotated[float | None, typer.Option("--peak-gbps", help="Memory bandwidth, 10^9 bytes/s.")]
ModelPreset = Annotated[
    str | None,
    typer.Option("--model", help="For a trace without manifest: count FLOPs and bytes by this preset's closed form."),
]
InputMode = Annotated[str, typer.Option("--input-mode", help="With --model: tiny, small, base, large or gundam.")]
Tiles = Annotated[int, typer.Option("--tiles", help="With --model: local views per image (gundam).", min=0)]
PromptTokens = Annotated[int | None, typer.Option("--prompt-tokens", help="With --model: positions of each prefill.")]


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


@app.command()
def report(
    trace: TraceFile,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory for the report; default: reports/<trace's name>/.")
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="markdown, json, html, parquet (these by default), csv, perfetto; repeatable."),
    ] = None,
    manifest: ManifestFile = None,
    rules: Annotated[
        Path | None, typer.Option("--kernel-rules", readable=False, help="Rules of your own, tried before ours.")
    ] = None,
    cross_thread: CrossThread = False,
    accept_lossy: AcceptLossy = False,
    peak_tflops: PeakTflops = None,
    peak_gbps: PeakGbps = None,
    model: ModelPreset = None,
    input_mode: InputMode = "gundam",
    tiles: Tiles = 0,
    prompt_tokens: PromptTokens = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the arithmetic behind MFU and MBU too.")] = False,
) -> None:
    """Write the whole report and print its headline table."""
    directory = out if out is not None else Path("reports") / trace.name.removesuffix(".sqlite")
    with _opened(trace) as opened, _progress() as say:
        say("reading")
        from analysis import render  # imported while the trace is being read

        render.check(formats)
        options = _options(cross_thread, peak_tflops, peak_gbps, model, input_mode, tiles, prompt_tokens, rules)
        attribution, assembled = _assemble(opened, manifest, options)
        _refuse_unfit(assembled.findings, trace, accept_lossy)
        say("writing")
        written = render.write_all(assembled, attribution, directory, formats)
    from analysis.render import answers, terminal

    terminal.print_headline(assembled, answers.console())
    if explain:
        answers.print_explanation(assembled)
    answers.print_written(written)


@app.command()
def show(
    trace: TraceFile,
    manifest: ManifestFile = None,
    cross_thread: CrossThread = False,
    accept_lossy: AcceptLossy = False,
    peak_tflops: PeakTflops = None,
    peak_gbps: PeakGbps = None,
    model: ModelPreset = None,
    input_mode: InputMode = "gundam",
    tiles: Tiles = 0,
    prompt_tokens: PromptTokens = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the arithmetic behind MFU and MBU.")] = False,
) -> None:
    """Print the report's essence to the terminal; write nothing."""
    from analysis.render import answers, terminal

    options = _options(cross_thread, peak_tflops, peak_gbps, model, input_mode, tiles, prompt_tokens, None)
    with _opened(trace) as opened, _progress() as say:
        say("reading")
        _, assembled = _assemble(opened, manifest, options)
    _refuse_unfit(assembled.findings, trace, accept_lossy)
    terminal.print_report(assembled, answers.console())
    if explain:
        answers.print_explanation(assembled)


@app.command()
def table(
    trace: TraceFile,
    by: Annotated[By, typer.Option("--by", help="What a row is; range is inclusive, the others add up.")] = By.stage,
    stage: Annotated[StageName | None, typer.Option("--stage", help="Keep this stage's operations only.")] = None,
    output: Annotated[TableFormat, typer.Option("--format", help="md, csv or json.")] = TableFormat.md,
    cross_thread: CrossThread = False,
) -> None:
    """Print one table of GPU time, integers in ns, to standard output."""
    from analysis.attribution.attribution import Attribution
    from analysis.render.table import write_table
    from analysis.sums.grouping import COLUMNS
    from analysis.sums.tables import gpu_table

    with _opened(trace) as opened, _progress() as say:
        say("reading")
        attribution = Attribution.of(opened, cross_thread=cross_thread)
        found = gpu_table(attribution, by.value, stage=stage.value if stage else None)
    write_table(found.rows(), output.value, sys.stdout, COLUMNS)


@app.command()
def check(
    trace: TraceFile,
    manifest: ManifestFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Print what speaks for and against trusting the capture; exit 4 if it is unfit."""
    from analysis.attribution.attribution import Attribution
    from analysis.quality.examine import examine
    from analysis.render import answers
    from analysis.trace.manifest import find_manifest

    with _opened(trace) as opened, _progress() as say:
        say("reading")
        attribution = Attribution.of(opened)
        findings = examine(opened, attribution, find_manifest(trace, opened.marks, manifest))
    answers.print_findings(findings, as_json=as_json)
    _refuse_unfit(findings, trace, accept=False)


@app.command()
def kernels(
    trace: TraceFile,
    stage: Annotated[StageName | None, typer.Option("--stage", help="Kernels of this stage only.")] = None,
    match: Annotated[
        str | None, typer.Option("--match", help="Kernels whose name or category holds this text.")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many rows.", min=1)] = 20,
    output: Annotated[TableFormat | None, typer.Option("--format", help="md, csv or json instead of a table.")] = None,
    cross_thread: CrossThread = False,
) -> None:
    """List kernels by time: calls, durations, shape, occupancy."""
    from attrs import fields

    from analysis.attribution.attribution import Attribution
    from analysis.domain.convert import to_plain
    from analysis.domain.entities import KernelSummary
    from analysis.render import answers
    from analysis.render.table import write_table
    from analysis.sums.kernels import kernels_of
    from analysis.trace.manifest import find_manifest

    with _opened(trace) as opened, _progress() as say:
        say("reading")
        attribution = Attribution.of(opened, cross_thread=cross_thread)
        rows = kernels_of(opened, attribution, find_manifest(trace, opened.marks, None)).by_name
    wanted = [
        row
        for row in rows
        if (stage is None or row.stage == stage.value)
        and (match is None or match.casefold() in f"{row.name}\n{row.short_name}\n{row.category}".casefold())
    ]
    if output is None:
        answers.print_kernels(wanted[:top], len(wanted))
    else:
        columns = [one.name for one in fields(KernelSummary)]
        write_table([to_plain(row) for row in wanted[:top]], output.value, sys.stdout, columns)


# --- what the commands share ------------------------------------------------------------------------------------


def _options(
    cross_thread: bool,
    tflops: float | None,
    gbps: float | None,
    model: str | None,
    mode: str,
    tiles: int,
    prompt_tokens: int | None,
    rules: Path | None,
) -> ReportOptions:
    from analysis.domain.errors import RequestError
    from analysis.efficiency.utilisation import CostRequest, PeakOverrides
    from analysis.report import ReportOptions

    for name, value in (("--peak-tflops", tflops), ("--peak-gbps", gbps)):
        if value is not None and not 0 < value < float("inf"):
            raise RequestError(f"{name} must be a positive number, not {value:g}")
    cost = None
    if model is not None:
        if prompt_tokens is None or prompt_tokens < 1:
            raise RequestError("--model needs --prompt-tokens, the positions of each prefill (image and text tokens)")
        cost = CostRequest(model, mode, tiles, prompt_tokens)
    return ReportOptions(cross_thread=cross_thread, peaks=PeakOverrides(tflops, gbps), cost=cost, kernel_rules=rules)


@contextmanager
def _opened(path: Path) -> Iterator[Trace]:
    from analysis.trace.reader import Trace

    with Trace(path) as trace:
        trace.begin()
        yield trace


def _assemble(trace: Trace, manifest_path: Path | None, options: ReportOptions) -> tuple[Attribution, Report]:
    from analysis.attribution.attribution import Attribution
    from analysis.domain.manifest import ran_on_cpu
    from analysis.report import assemble
    from analysis.trace.manifest import find_manifest

    attribution = Attribution.of(trace, cross_thread=options.cross_thread)
    manifest = find_manifest(trace.path, trace.marks, manifest_path)
    if manifest is None or not ran_on_cpu(manifest):
        trace.require_operations()  # a run that was meant for the CPU has host times only, and its report says so
    return attribution, assemble(trace, attribution, manifest, options)


def _refuse_unfit(findings: tuple[Finding, ...], trace: Path, accept: bool) -> None:
    unfit = [one for one in findings if one.severity == "unfit"]
    if unfit and not accept:
        evidence = "; ".join(f"{one.title}: {one.evidence}" for one in unfit)
        raise UnfitTraceError(
            f"{trace}: unfit for conclusions – {evidence}. {unfit[0].remedy} (--accept-lossy reports all the same)"
        )


@contextmanager
def _progress() -> Iterator[Any]:
    """Say on standard error what is going on, where somebody watches."""
    if not sys.stderr.isatty():
        yield lambda what: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda what: status.update(f"{what}…")


def main() -> None:
    """Entry point: a `DsocrError` becomes one line and its exit code."""
    # One short process: memory goes back by reference counts, and the collector would only walk the modules again and
    # again while they are imported.
    gc.disable()
    _speak_utf8()
    try:
        app()
    except DsocrError as error:
        sys.stderr.write(f"dsocr-analyze: error: {_one_line(str(error))}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say, and closing must not say it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _speak_utf8() -> None:
    """Write UTF-8 into files and pipes whatever the locale; a terminal keeps its encoding, and never fails on a name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def _one_line(text: str) -> str:
    """Names come from the file: no line breaks and no control characters reach the terminal."""
    return "".join(one if one.isprintable() else " " for one in text)


if __name__ == "__main__":
    main()
