"""What the doctor says of Nsight Compute, which only ``review`` needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from analysis.domain.errors import DsocrError, InterruptedRunError
from runner.collectors.ncu.fitness import cuda_of, driver_mismatch
from runner.collectors.ncu.metrics import census_sets
from runner.collectors.ncu.probe import functional_probe
from runner.collectors.ncu.tool import NcuTool, find_ncu, known_metrics
from runner.collectors.nsys.collector import local_folders
from runner.launcher.check import Check
from runner.process.driver import DriverFacts

__all__ = ["ncu_checks"]

_INSTALL: Final = "only `review` needs it: install Nsight Compute, a part of the CUDA toolkit, or set $NCU"


def ncu_checks(environ: Mapping[str, str], facts: DriverFacts, say: Callable[[str], None]) -> list[Check]:
    """Look for an ncu that can count on this machine; none of it speaks against runs.

    Args:
        environ: as a run would see it.
        facts: what the driver says.
        say: told what is being done before it takes long.
    """
    try:
        tool = find_ncu(None, environ, folders=local_folders())
    except DsocrError as error:
        return [Check("ncu", "warning", str(error), _INSTALL)]
    return [
        Check("ncu", "ok", f"{tool.path}, version {tool.version}"),
        _driver_fits(tool, facts),
        _metrics(tool, environ, facts),
        _permission(tool, environ, facts, say),
    ]


def _driver_fits(tool: NcuTool, facts: DriverFacts) -> Check:
    name = "ncu and driver"
    if facts.cuda is None:
        return Check(name, "skipped", "no driver")
    made_for = cuda_of(tool)
    if made_for is None:
        return Check(name, "skipped", f"it is not known here which CUDA ncu {tool.version} belongs to")
    mismatch = driver_mismatch(tool, facts)
    if mismatch is not None:
        return Check(name, "warning", *mismatch)
    return Check(name, "ok", f"driver CUDA {facts.cuda[0]}.{facts.cuda[1]}, ncu of CUDA {made_for[0]}.{made_for[1]}")


def _metrics(tool: NcuTool, environ: Mapping[str, str], facts: DriverFacts) -> Check:
    name = "ncu metrics"
    if not facts.gpus:
        return Check(name, "skipped", "no GPU")
    try:
        known = known_metrics(tool, None, environ)
    except DsocrError as error:
        return Check(name, "warning", str(error), "use an ncu that knows this GPU (--ncu, or $NCU)")
    traffic, cores = census_sets("bf16", known, facts.gpus[0].name)
    missing = (*traffic.missing, *cores.missing)
    if missing:
        return Check(
            name, "warning", "; ".join(missing), "a newer ncu may know more; what is missing is n/a in a review"
        )
    count = len(traffic.metrics) + len(cores.metrics)
    return Check(name, "ok", f"all {count} of a census are known for {facts.gpus[0].name}")


def _permission(tool: NcuTool, environ: Mapping[str, str], facts: DriverFacts, say: Callable[[str], None]) -> Check:
    name = "ncu probe"
    if not facts.gpus:
        return Check(name, "skipped", "no GPU")
    say("probing: a short program under ncu")
    try:
        kernels = functional_probe(tool, environ)
    except InterruptedRunError:
        raise
    except DsocrError as error:
        what, _, remedy = str(error).partition("; ")
        return Check(name, "warning", what, remedy or _INSTALL)
    return Check(
        name, "ok", f"counters may be read: {kernels} {'kernel was' if kernels == 1 else 'kernels were'} counted"
    )
