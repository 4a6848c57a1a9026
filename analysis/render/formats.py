"""Which formats there are, and who writes them: a module each, with ``render(report, out) -> tuple[Path, ...]``.

A renderer writes into the folder ``out``, replaces what is there in one step, and returns the paths that it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

from analysis.domain.errors import RequestError

if TYPE_CHECKING:
    from analysis.attribution.attribution import Attribution
    from analysis.report import Report
    from analysis.sums.host_calls import HostCalls
    from analysis.sums.records import MetricSeries

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "TRACE_FORMATS",
    "PageParts",
    "Renderer",
    "load_formats",
    "render_all",
    "renderer",
    "write_report",
]

FORMATS: Final[dict[str, str]] = {
    "markdown": "analysis.render.markdown",
    "html": "analysis.render.html.page",
    "json": "analysis.render.json",
    "parquet": "analysis.render.parquet",
    "csv": "analysis.render.csv",
}
"""Format → module, imported when it is first asked for."""

DEFAULT_FORMATS: Final = ("markdown", "html", "json", "parquet")
TRACE_FORMATS: Final[dict[str, str]] = {"perfetto": "analysis.render.perfetto"}
"""Formats that need the trace itself: ``render_trace(attribution, out, metrics)``."""
_BESIDE_THE_REPORT: Final = 3_000_000
"""Operations up to which the page's parts are made beside the report: of ten million, that took 19.0 s for 16.9 s, and a
quarter more memory."""
_PAGE_PARTS: Final = "analysis.render.html.trace_parts"
"""What the page shows beyond the report."""


class Renderer(Protocol):
    """What a module of `FORMATS` offers."""

    def render(self, report: Report, out: Path) -> tuple[Path, ...]:
        """Write the report into the folder ``out``; returns the files."""


class TraceRenderer(Protocol):
    """What a module of `TRACE_FORMATS` offers."""

    def render_trace(self, attribution: Attribution, out: Path, metrics: Sequence[MetricSeries]) -> tuple[Path, ...]:
        """Write the trace's events into the folder ``out``; returns the files."""


def renderer(name: str) -> Renderer:
    """Load the renderer of a format.

    Raises:
        RequestError: there is no such format; names those that there are.
    """
    if name not in FORMATS:
        raise RequestError(f"unknown format {name!r}: choose from {', '.join((*FORMATS, *TRACE_FORMATS))}")
    return cast(Renderer, import_module(FORMATS[name]))


def render_all(report: Report, out: Path, formats: Sequence[str] = DEFAULT_FORMATS) -> tuple[Path, ...]:
    """Write a report in several formats.

    Raises:
        RequestError: a format is unknown (before anything is written), or the folder cannot be written to.
    """
    renderers = [renderer(name) for name in formats]
    return tuple(path for each in renderers for path in each.render(report, out))


def load_formats(formats: Sequence[str] | None) -> None:
    """Import what writes the formats asked for, before the work begins: while the trace is being read, that costs nothing.

    Args:
        formats: None or empty: `DEFAULT_FORMATS`.

    Raises:
        RequestError: there is no such format; names those that there are.
    """
    for name in formats or DEFAULT_FORMATS:
        if name not in TRACE_FORMATS:
            renderer(name)
        if name == "html":
            import_module(_PAGE_PARTS)


class PageParts:
    """The page's timeline and modules, made on a thread of their own; a context manager.

    They need the trace, and of the report only the kernels' names in words, which they wait for last. So they may begin
    while the report is being assembled, and go on while the other files are written: numpy and zlib let go of the interpreter.

    Args:
        formats: that will be written; without a page nothing is made.
    """

    def __init__(self, formats: Sequence[str] | None) -> None:
        self._formats = tuple(formats or DEFAULT_FORMATS)
        self._report: Future[Report] = Future()
        self._pool = ThreadPoolExecutor(1)
        self._parts: Future[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._report.cancel()  # nobody waits for a report that was never made
        self._pool.shutdown()

    def begin_beside(self, attribution: Attribution, host: HostCalls) -> None:
        """Begin while the report is assembled, unless the trace is so large that both at once want for memory's speed."""
        if len(attribution.operations) <= _BESIDE_THE_REPORT:
            self.begin(attribution, host)

    def begin(self, attribution: Attribution, host: HostCalls | None = None) -> None:
        """Begin, once, with the attribution of the report to be, and the trace's calls where they are read already."""
        if self._parts is None and "html" in self._formats:
            make = import_module(_PAGE_PARTS).trace_parts
            self._parts = self._pool.submit(
                make, attribution, self._report, host=host, perfetto="perfetto" in self._formats
            )

    def of(self, report: Report) -> Future[Any] | None:
        """Hand over the report; its page's parts, `trace_parts.TraceParts`, are there when they are made. None: no page."""
        self._report.set_result(report)
        return self._parts


def write_report(
    report: Report,
    attribution: Attribution,
    out: Path,
    formats: Sequence[str] | None = None,
    parts: PageParts | None = None,
) -> tuple[Path, ...]:
    """Write a report in the formats asked for, those that need the trace itself included.

    Args:
        report: what to write.
        attribution: of its trace.
        out: folder; made if it is missing.
        formats: None or empty: `DEFAULT_FORMATS`.
        parts: of the same formats, if they have begun.

    Raises:
        RequestError: the folder cannot be written to.
    """
    if parts is None:
        with PageParts(formats) as own:
            return write_report(report, attribution, out, formats, own)
    chosen = tuple(formats or DEFAULT_FORMATS)
    written: dict[str, tuple[Path, ...]] = {}
    parts.begin(attribution)
    of_the_page = parts.of(report)
    renderers = {name: renderer(name) for name in chosen if name not in TRACE_FORMATS}
    with ThreadPoolExecutor(1) as beside:
        # Half of the time of Parquet is compression, which lets go of the interpreter.
        compressed = beside.submit(renderers["parquet"].render, report, out) if "parquet" in renderers else None
        for name in chosen:
            if name in TRACE_FORMATS:
                module = cast(TraceRenderer, import_module(TRACE_FORMATS[name]))
                written[name] = module.render_trace(attribution, out, report.metrics)
            elif name not in ("html", "parquet"):
                written[name] = renderers[name].render(report, out)
        if compressed is not None:
            written["parquet"] = compressed.result()
    if of_the_page is not None:
        written["html"] = import_module(FORMATS["html"]).render(report, out, of_the_page.result())
    return tuple(path for name in chosen for path in written[name])
