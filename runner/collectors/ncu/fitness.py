"""Does an ncu fit the driver?"""

from __future__ import annotations

from typing import Final

from runner.collectors.ncu.tool import NcuTool
from runner.process.driver import DriverFacts

__all__ = ["cuda_of", "driver_mismatch"]

_CUDA_OF: Final = {
    (2022, 1): (11, 6),
    (2022, 2): (11, 7),
    (2022, 3): (11, 8),
    (2022, 4): (12, 0),
    (2023, 1): (12, 1),
    (2023, 2): (12, 2),
    (2023, 3): (12, 3),
    (2024, 1): (12, 4),
    (2024, 2): (12, 5),
    (2024, 3): (12, 6),
    (2025, 1): (12, 8),
    (2025, 2): (12, 9),
    (2025, 3): (13, 0),
}
"""Release of Nsight Compute → the CUDA toolkit that it is a part of (NVIDIA's release notes of both)."""


def cuda_of(tool: NcuTool) -> tuple[int, int] | None:
    """The CUDA version that an ncu was released with; None: not known here."""
    return _CUDA_OF.get((tool.version_key[0], tool.version_key[1]))


def driver_mismatch(tool: NcuTool, facts: DriverFacts) -> tuple[str, str] | None:
    """What does not fit, and what to do; None: nothing speaks against the pair, or one side is unknown.

    Counters are read through libraries of the ncu's own CUDA: an older driver refuses a newer one's calls, and an ncu
    of an older major version knows neither the driver's interface nor its newest GPUs.
    """
    made_for = cuda_of(tool)
    if facts.cuda is None or made_for is None or made_for[0] == facts.cuda[0]:
        return None
    speaks, release = (f"{major}.{minor}" for major, minor in (facts.cuda, made_for))
    observed = f"the driver speaks CUDA {speaks}, and ncu {tool.version} is of CUDA {release}"
    return observed, f"use the ncu of CUDA {facts.cuda[0]} (--ncu, or $NCU)"
