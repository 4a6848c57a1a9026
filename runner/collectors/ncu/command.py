"""The command lines that ask Nsight Compute to profile, and to print what it stored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attrs import field, frozen

from analysis.domain.annotations import DECODE_STEP, PREFILL, STAGE_DOMAIN, Stage
from runner.collectors.ncu.tool import NcuTool

__all__ = ["LONGEST_FILTER", "Selection", "import_argv", "kernel_filter", "profile_argv"]

LONGEST_FILTER: Final = 100_000
"""Characters of a kernel filter: Linux allows 128 KiB for one argument."""

_RANGE: Final[dict[Stage, str]] = {"prefill": PREFILL, "decode": DECODE_STEP}
_SPECIAL: Final = re.compile(r"([^\w])", re.ASCII)


@frozen
class Selection:
    """Which launches are profiled, and what is collected of each."""

    stages: tuple[Stage, ...]
    """None: whatever is launched."""
    metrics: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    symbols: tuple[str, ...] = field(default=())
    """Mangled names of the kernels; none: every kernel."""
    once_per_shape: bool = False
    """Only the first launch of each kernel and launch shape."""
    from_start: bool = False
    """Not only between cudaProfilerStart and -Stop."""


def kernel_filter(symbols: Sequence[str]) -> str:
    """An expression that matches exactly these symbols; they are the program's own words, and never read by a shell.

    Mangled names are compared: both tools take them from the loaded code as they are, while each demangles in its own
    way.
    """
    return "regex:^(" + "|".join(_SPECIAL.sub(r"\\\1", symbol) for symbol in symbols) + ")$"


def profile_argv(tool: NcuTool, selection: Selection, *, output: str, target: Sequence[str]) -> list[str]:
    """``ncu … program``.

    Clocks are left alone and, where nothing is replayed, so are the caches: a kernel is to find in L2 what the one
    before left there, as it does in the run. ncu follows cudaProfilerStart and -Stop, so warm-up is not profiled; within
    that, NVTX ranges choose. The program itself ends after one image's first decode step, so that no numbering of
    ranges is needed, which older versions lack.

    Args:
        tool: options that it does not have are left out, where it does the same without them.
        selection: what to profile.
        output: the report's path, without ``.ncu-rep``.
        target: the program's command line.
    """
    argv = [tool.path, "--force-overwrite", "--export", output, "--target-processes", "all"]
    argv += [
        "--profile-from-start",
        "on" if selection.from_start else "off",
        "--clock-control",
        "none",
        "--apply-rules",
        "no",
    ]
    if selection.sections:
        for section in selection.sections:
            argv += ["--section", section]
    else:
        argv += ["--cache-control", "none"]
    if selection.metrics:
        argv += ["--metrics", ",".join(selection.metrics)]
    if "graph-profiling" in tool.options:  # kernels inside a CUDA graph one by one, not the graph as a whole
        argv += ["--graph-profiling", "node"]
    argv += _nothing_else(tool)
    argv += ["--nvtx"]
    for stage in selection.stages:
        argv += ["--nvtx-include", f"{STAGE_DOMAIN}@{_RANGE[stage]}/"]
    if selection.symbols:
        argv += ["--kernel-name-base", "mangled", "--kernel-name", kernel_filter(selection.symbols)]
    if selection.once_per_shape:
        argv += ["--filter-mode", "per-launch-config", "--launch-count", "1"]
    return [*argv, *target]


def import_argv(tool: NcuTool, report: str) -> list[str]:
    """``ncu --import``: the raw page as CSV, one row per kernel, in base units."""
    argv = [tool.path, "--import", report, "--page", "raw", "--csv", "--print-units", "base"]
    return [*argv, *_nothing_else(tool)]


def _nothing_else(tool: NcuTool) -> list[str]:
    """Switch off what changes names or adds options.

    Newer versions shorten names by default (``at::native::`` is dropped), and filters then see the short ones; the names
    are to match the trace's.
    """
    argv = ["--rename-kernels", "off"] if "rename-kernels" in tool.options else []
    # Nor may a file of options in the current folder or the user's home add to what is asked for.
    return ["--config-file", "off", *argv] if "config-file" in tool.options else argv
