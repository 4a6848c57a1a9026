"""The functional probe: count one kernel of a short program with a given ncu."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from analysis.domain.errors import CaptureError, InterruptedRunError
from runner.collectors.ncu.command import Selection, profile_argv
from runner.collectors.ncu.output import ProgressReader, fault
from runner.collectors.ncu.tool import NcuTool, ncu_environment
from runner.process.environment import RUN_MARK, child_environment
from runner.process.isolation import namespace_prefix
from runner.process.process import Interrupts, run_process
from runner.process.python import module_command

__all__ = ["functional_probe"]

_TIMEOUT_S: Final = 120.0
_METRIC: Final = "dram__bytes_read.sum"


def functional_probe(tool: NcuTool, environ: Mapping[str, str]) -> int:
    """Profile a short program that launches kernels, the way a review does.

    Args:
        tool: the ncu to try.
        environ: as a run would see it; it is put through the same allow-list.

    Returns:
        Kernels counted, at least 1.

    Raises:
        CaptureError: none was; the message says why, as far as ncu tells, and what to do.
    """
    with tempfile.TemporaryDirectory(prefix="dsocr-") as name, Interrupts() as interrupts:
        folder = Path(name)
        run_id = f"probe-{uuid.uuid4()}"
        (folder / "tmp").mkdir()
        target = module_command("runner.collectors.nsys.probe_program", "kernel")
        selection = Selection((), metrics=(_METRIC,), from_start=True)
        log = folder / "log"
        outcome = run_process(
            [*namespace_prefix(environ), *profile_argv(tool, selection, output=str(folder / "probe"), target=target)],
            env=ncu_environment(
                child_environment(environ, extra={RUN_MARK: run_id, "TMPDIR": str(folder / "tmp")}),
            ),
            log=log,
            interrupts=interrupts,
            target=target,
            deadline=time.monotonic() + _TIMEOUT_S,
        )
        if outcome.ended_by == "interrupt":
            raise InterruptedRunError(f"{outcome.interrupted} in the functional probe")
        if outcome.ended_by != "itself":
            raise CaptureError(f"the functional probe was ended ({outcome.ended_by})")
        kernels = ProgressReader(log).read().kernels
        if not kernels:
            said = fault(log) or f"no kernel was counted (exit code {outcome.returncode})"
            raise CaptureError(said)
        return kernels
