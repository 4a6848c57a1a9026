"""What the doctor says of Nsight Compute."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch_kit import environment, fake_ncu
from runner.collectors.ncu.fitness import driver_mismatch
from runner.collectors.ncu.tool import NcuTool
from runner.launcher.check import Check
from runner.launcher.doctor_ncu import ncu_checks
from runner.process.driver import DriverFacts, VisibleGpu

GPU = DriverFacts(cuda=(13, 0), driver="580.1", gpus=(VisibleGpu("NVIDIA H100 80GB HBM3", "7"),))
NONE = DriverFacts(cuda=None, driver=None)


def checks(tmp_path: Path, facts: DriverFacts, how: str = "") -> dict[str, Check]:
    tool = fake_ncu(tmp_path)
    return {
        one.name: one for one in ncu_checks(environment(NCU=tool.path, NSYS_NCU_FAKE=how), facts, lambda line: None)
    }


def test_no_ncu_is_no_failure(tmp_path: Path) -> None:
    (check,) = ncu_checks(environment(NCU=str(tmp_path / "none")), GPU, lambda line: None)
    assert check.verdict == "warning"
    assert "review" in (check.remedy or "")


def test_without_a_gpu_nothing_more_is_tried(tmp_path: Path) -> None:
    found = checks(tmp_path, NONE)
    assert found.pop("ncu").verdict == "ok"
    assert {check.verdict for check in found.values()} == {"skipped"}


def test_with_a_gpu_a_kernel_is_counted(tmp_path: Path) -> None:
    found = checks(tmp_path, GPU)
    assert found["ncu metrics"].verdict == "ok"
    assert "11 of a census" in found["ncu metrics"].observed
    assert found["ncu probe"].observed == "counters may be read: 3 kernels were counted"


def test_missing_permission_is_told_with_its_remedy(tmp_path: Path) -> None:
    check = checks(tmp_path, GPU, "no permission")["ncu probe"]
    assert check.verdict == "warning"
    assert check.observed == "the GPU's counters may not be read by this user"
    assert "NVreg_RestrictProfilingToAdminUsers=0" in (check.remedy or "")
    assert "SYS_ADMIN" in (check.remedy or "")


@pytest.mark.parametrize(
    ("version", "cuda", "fits"),
    [
        ("2025.3.1.0", (13, 0), True),
        ("2022.3.0.0", (13, 0), False),
        ("2025.3.1.0", (12, 4), False),
        ("2099.1.0", (13, 0), True),
    ],
)
def test_an_ncu_of_another_cuda_is_told(version: str, cuda: tuple[int, int], fits: bool) -> None:
    tool = NcuTool("/opt/ncu", version, frozenset(), "", ())
    assert (driver_mismatch(tool, DriverFacts(cuda=cuda, driver="1")) is None) == fits
