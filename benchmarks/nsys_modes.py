"""What the benchmarks of nsys' cost share: which nsys, quiet options, what it injects, a program's environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from analysis.domain.errors import DsocrError
from runner.collectors.nsys.collector import local_folders
from runner.collectors.nsys.tool import NsysTool, find_nsys
from runner.process.environment import child_environment

QUIET: Final = {"sample": "none", "cpuctxsw": "none", "resolve-symbols": "false"}
INJECTED: Final = ("LD_PRELOAD", "NVTX_INJECTION64_PATH", "CUDA_INJECTION64_PATH", "QUADD_INJECTION_PROXY")
"""Variables by which nsys gets into a program. The preloaded library sets the others again: all of them or that one."""


def chosen_nsys(named: str | None) -> NsysTool:
    """The nsys to measure with; where there is none the program ends with one line that says why."""
    try:
        return find_nsys(named, os.environ, folders=local_folders(), need_import=False)
    except DsocrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def program_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a run's child would get, with this checkout on the module path."""
    source = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH")) if part)
    return child_environment(os.environ, extra={"PYTHONPATH": path, **(extra or {})})


def without(variables: Sequence[str], target: list[str]) -> list[str]:
    """The command that starts ``target`` with variables taken away after nsys has set them."""
    return ["env", *(part for name in variables for part in ("-u", name)), *target] if variables else target
