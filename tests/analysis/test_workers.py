"""Processes that read several traces: they begin ready, and with the allocator of the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merged_trace import merge_exports

ROOT = Path(__file__).parents[2]

_ASK = """
import json, os, resource, sys, threading
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command does: its threads would make a fork unsafe
from analysis.api.workers import local_workers

def ask(task):
    imported = "analysis.report" in sys.modules and "analysis.render.html.page" in sys.modules
    import numpy as np
    np.ones(4_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(4_000_000).view(np.uint8)[::4096].sum()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"pid": os.getpid(), "parent": os.getppid(), "imported": imported, "faults": faults}

if __name__ == "__main__":
    os.sched_getaffinity = lambda process: {0, 1}
    done = threading.Event()
    if ANOTHER:
        threading.Thread(target=done.wait).start()
    with local_workers(4) as workers:
        answers = workers.run(ask, range(4))
    done.set()
    print(json.dumps({"answers": answers, "own": ask(0), "pid": os.getpid()}))
"""


def _ask(tmp_path: Any, thread: bool) -> dict[str, Any]:
    script = tmp_path / "ask.py"
    script.write_text(_ASK.replace("ANOTHER", str(thread)))
    ran = subprocess.run(
        [sys.executable, str(script)], env={"NUMPY_MADVISE_HUGEPAGE": "0"}, capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of glibc")
@pytest.mark.parametrize("thread", [False, True], ids=["forked from the command", "forked from a server"])
def test_workers_begin_with_all_imports_and_use_freed_columns_again(tmp_path: Any, thread: bool) -> None:
    said = _ask(tmp_path, thread)
    assert all((answer["parent"] == said["pid"]) != thread for answer in said["answers"])
    pids = {answer["pid"] for answer in said["answers"]}
    assert said["pid"] not in pids
    assert len(pids) <= 2
    assert all(answer["imported"] for answer in said["answers"])
    assert all(answer["faults"] * 10 < said["own"]["faults"] for answer in said["answers"])


_REPORT = """
import os, resource, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.sched_getaffinity = lambda process: {0, 1}
import atexit
from analysis.cli import report
from analysis.cli.app import main
report.WORTH_FORKING = int(sys.argv.pop(1))
process = os.getpid()

@atexit.register
def say():
    if os.getpid() == process:
        print("forked" if resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0.02 else "alone", file=sys.stderr)

main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing says how many threads there are")
def test_ranks_of_one_file_are_the_same_from_workers_that_share_it(
    real_trace: Callable[[str], Path], tmp_path: Path
) -> None:
    """The trace is read once and shared by a fork; formats that need the trace itself do not read it again."""
    files = [real_trace(f"tensor-parallel_2xh200_rank{rank}") for rank in (0, 1)]
    both = merge_exports(files[0], files[1], tmp_path / "both.sqlite")
    said = {}
    for name, least in (("shared", 0), ("alone", 10_000_000)):
        formats = ("--format", "json", "--format", "html", "--format", "perfetto")
        command = [sys.executable, "-c", _REPORT, str(least), str(both), "--out", str(tmp_path / name), *formats]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        said[name] = done.stderr.splitlines()[-1]
    assert said == {"shared": "forked", "alone": "alone"}
    alone = sorted(path for path in (tmp_path / "alone").rglob("*") if path.is_file())
    assert len(alone) > 6
    for path in alone:
        other = tmp_path / "shared" / path.relative_to(tmp_path / "alone")
        assert other.read_bytes() == path.read_bytes(), path.name
