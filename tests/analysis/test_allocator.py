"""Freed columns are used again, and not given back to the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FAULTS = """
import resource
from analysis.api.allocator import keep_freed_memory
import numpy as np
taken = keep_freed_memory() if {settings} else False
np.ones(4_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(4_000_000, dtype=np.int64).view(np.uint8)[::4096].sum()
print(int(taken), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(settings: bool) -> tuple[bool, int]:
    # Without huge pages a fault is 4 KiB, whatever this machine does with larger ones.
    ran = subprocess.run(
        [sys.executable, "-c", _FAULTS.format(settings=settings)],
        env={"NUMPY_MADVISE_HUGEPAGE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    taken, faults = ran.stdout.split()
    return taken == "1", int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of glibc")
def test_a_freed_column_is_not_mapped_anew() -> None:
    taken, faults = _page_faults(True)
    _, by_default = _page_faults(False)
    assert taken
    assert faults * 10 < by_default
