"""The functional probe: profile a short program with a given nsys, export, and see what arrived."""

from __future__ import annotations

import sqlite3
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from analysis.domain.errors import CaptureError, InterruptedRunError
from analysis.domain.programs import SAFE_FOLDER
from runner.collectors.nsys.export import export_report, finish_import
from runner.collectors.nsys.tool import NsysTool, profile_argv
from runner.process.environment import RUN_MARK, child_environment
from runner.process.isolation import namespace_prefix
from runner.process.process import Interrupts, run_process
from runner.process.program_log import log_text
from runner.process.python import module_command

__all__ = ["PROBE_DOMAIN", "PROBE_MARK", "PROBE_RANGE", "ProbeResult", "functional_probe"]

PROBE_DOMAIN: Final = "dsocr.probe"
PROBE_RANGE: Final = "probe range"
PROBE_MARK: Final = "probe mark"

_TIMEOUT_S: Final = 120.0


@frozen
class ProbeResult:
    """What arrived in the export of what the program did."""

    seen: tuple[str, ...]
    missing: tuple[str, ...]


def functional_probe(tool: NsysTool, environ: Mapping[str, str], *, with_kernel: bool) -> ProbeResult:
    """Profile and export a short program.

    Args:
        tool: the nsys to try.
        environ: as a run would see it; it is put through the same allow-list.
        with_kernel: there is a GPU, so a kernel is expected too.

    Raises:
        CaptureError: nsys left no report, or the program failed.
        ExportError: the report could not be exported.
        TimeoutExceededError: the export did not finish.
    """
    wanted = {"trace": "cuda,nvtx" if with_kernel else "nvtx", "sample": "none", "cpuctxsw": "none"}
    options = {name: value for name, value in wanted.items() if name in tool.profile_options}
    with tempfile.TemporaryDirectory(prefix="dsocr-") as name, Interrupts() as interrupts:
        folder = Path(name)
        run_id = f"probe-{uuid.uuid4()}"
        (folder / "tmp").mkdir()
        env = child_environment(environ, extra={RUN_MARK: run_id, "TMPDIR": str(folder / "tmp")})
        target = module_command("runner.collectors.nsys.probe_program", *(["kernel"] if with_kernel else []))
        argv = profile_argv(tool, options, output=str(folder / "trace"), session=run_id[:14], target=target)
        log = folder / "log"
        outcome = run_process(
            [*namespace_prefix(environ), *argv],
            env=env,
            log=log,
            cwd=SAFE_FOLDER,
            interrupts=interrupts,
            target=target,
            deadline=time.monotonic() + _TIMEOUT_S,
        )
        if outcome.ended_by == "interrupt":
            raise InterruptedRunError(f"{outcome.interrupted} in the functional probe")
        if outcome.ended_by != "itself":
            raise CaptureError(f"the functional probe was ended ({outcome.ended_by})")
        if outcome.returncode not in (0, 1):  # 1: nsys could not import, which the next step says better
            raise CaptureError(f"the probe's program failed with exit code {outcome.returncode}: {_tail(log)}")
        report = finish_import(tool, folder, env=env, log=log, interrupts=interrupts)
        export_report(tool, report, folder / "trace.sqlite", env=env, log=log, interrupts=interrupts)
        return _look(folder / "trace.sqlite", with_kernel=with_kernel)


def _look(database: Path, *, with_kernel: bool) -> ProbeResult:
    connection = sqlite3.connect(database)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        names: set[tuple[int, str]] = set()
        domains: set[str] = set()
        if "NVTX_EVENTS" in tables:
            for kind, text in connection.execute(
                "SELECT e.eventType, coalesce(e.text, s.value)"
                " FROM NVTX_EVENTS e LEFT JOIN StringIds s ON s.id = e.textId"
            ):
                names.add((kind, text))
                if kind == 75:
                    domains.add(text)
        kernels = 0
        for table in ("CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_MEMSET"):
            if table in tables:
                kernels += connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    finally:
        connection.close()
    results = {
        "the range": (59, PROBE_RANGE) in names,
        "its domain": PROBE_DOMAIN in domains,
        "the mark": (34, PROBE_MARK) in names,
    }
    if with_kernel:
        results["GPU work"] = kernels > 0
    return ProbeResult(
        seen=tuple(name for name, there in results.items() if there),
        missing=tuple(name for name, there in results.items() if not there),
    )


def _tail(log: Path) -> str:
    lines = log_text(log).replace("\r", "\n").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
