"""Does an nsys fit the nvtx package and the driver? Pairs that do not lose events and exit with success."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from runner.collectors.nsys.tool import NsysTool
from runner.process.driver import DriverFacts

__all__ = ["Mismatch", "driver_mismatch", "nvtx_mismatch"]

_LAST_GOOD_NVTX: Final = (0, 2, 11)
_NVTX_NEEDS_NSYS: Final = (2025,)


@frozen
class Mismatch:
    """Why two programs do not fit each other, and what to do."""

    observed: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.observed}: {self.remedy}"


def nvtx_mismatch(tool: NsysTool, version: str | None) -> Mismatch | None:
    """Newer nvtx packages under older nsys: every range in a domain vanishes (seen with 2022.4 and 2023.4).

    Args:
        tool: the nsys.
        version: of the nvtx package; None: it is not installed.
    """
    if version is None:
        return None
    key = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if key <= _LAST_GOOD_NVTX or tool.version_key >= _NVTX_NEEDS_NSYS:
        return None
    return Mismatch(
        f"nvtx {version} loses every domain range under nsys {tool.version}",
        "pip install nvtx==0.2.11, or use nsys 2025.3 or newer",
    )


def driver_mismatch(tool: NsysTool, facts: DriverFacts) -> Mismatch | None:
    """An nsys built for an older CUDA than the driver speaks loses most kernels (seen with 2023.4 on CUDA 13).

    Unknown on either side counts as fitting: what arrives is checked after the capture.
    """
    if facts.cuda is None or tool.cupti_cuda is None or tool.cupti_cuda[0] >= facts.cuda[0]:
        return None
    speaks, knows = (f"{major}.{minor}" for major, minor in (facts.cuda, tool.cupti_cuda))
    return Mismatch(
        f"the driver speaks CUDA {speaks}, nsys {tool.version} knows CUDA up to {knows}: such pairs lose kernels and exit 0",
        "install an nsys that is as new as the driver, and check with the functional probe",
    )
