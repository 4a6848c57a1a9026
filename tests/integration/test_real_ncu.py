"""The real Nsight Compute, as far as it goes without a GPU: its names, its options, its answers to mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.domain.errors import CaptureError
from launch_kit import ROOT
from runner.collectors.ncu.command import Selection, import_argv, profile_argv
from runner.collectors.ncu.metrics import CHIP_OF_CAPABILITY, SECTIONS, beside_sections, census_sets
from runner.collectors.ncu.output import fault
from runner.collectors.ncu.tool import NcuTool, find_ncu, known_metrics, ncu_environment
from runner.collectors.nsys.collector import local_folders
from runner.process.driver import driver_facts

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ncu() -> NcuTool:
    try:
        return find_ncu(None, os.environ, folders=local_folders())
    except CaptureError as error:
        pytest.skip(f"{error} (make ncu)")


def ask(tool: NcuTool, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [tool.path, *arguments]
    return subprocess.run(argv, env=ncu_environment(os.environ), capture_output=True, text=True, check=False)


def test_every_metric_of_a_census_is_known_or_missed_with_its_reason(ncu: NcuTool) -> None:
    looked_at = [chip for chip in CHIP_OF_CAPABILITY.values() if chip in ncu.chips]
    assert "gh100" in looked_at
    for chip in looked_at:
        known = known_metrics(ncu, chip, os.environ)
        for dtype in ("bf16", "fp16", "fp32", "fp8"):
            traffic, cores = census_sets(dtype, known, chip)
            # Traffic and CUDA-core operations have had these names since Volta.
            assert {"dram__bytes_read.sum", "dram__bytes_write.sum", "lts__t_bytes.sum"} < set(traffic.metrics), chip
            assert len(cores.metrics) == 6, chip
            assert {name.partition(".")[0] for name in (*traffic.metrics, *cores.metrics)} <= known
            assert len(beside_sections(known)) == 4, chip
            has_tensor = any("tensor" in name for name in traffic.metrics)
            assert has_tensor != any("tensor operations" in reason for reason in traffic.missing)
        if ncu.version_key >= (2025,) and chip == "gh100":
            assert all(not census_sets(dtype, known, chip)[0].missing for dtype in ("bf16", "fp16", "fp32", "fp8"))


def test_an_unknown_chip_is_told(ncu: NcuTool) -> None:
    with pytest.raises(CaptureError, match="Invalid chip"):
        known_metrics(ncu, "zz999", os.environ)


def test_every_section_is_there(ncu: NcuTool) -> None:
    listed = {line.split()[0] for line in ask(ncu, "--list-sections").stdout.splitlines() if line.strip()}
    assert set(SECTIONS) <= listed


def test_it_leaves_nothing_in_the_home(ncu: NcuTool, tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path)}
    argv = [ncu.path, "--list-sections"]
    done = subprocess.run(argv, env=ncu_environment(env), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert not list(tmp_path.rglob("*.section"))


@pytest.mark.parametrize("sections", [False, True])
def test_it_takes_every_option_that_we_give_it(ncu: NcuTool, tmp_path: Path, sections: bool) -> None:
    """Without a GPU it still reads the whole command line, starts the program, and says that it met no driver."""
    selection = Selection(
        ("prefill", "decode"),
        metrics=("l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",) if sections else ("dram__bytes_read.sum",),
        sections=SECTIONS if sections else (),
        symbols=("_Z4fillPf", "a.b$1") if sections else (),
        once_per_shape=sections and ncu.filters_by_launch_shape(),
    )
    log = tmp_path / "log"
    target = [sys.executable, "-c", "print('the program ran')"]
    argv = profile_argv(ncu, selection, output=str(tmp_path / "out"), target=target)
    with log.open("wb") as output:
        subprocess.run(
            argv, env=ncu_environment(os.environ), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, check=False
        )
    text = log.read_text()
    assert "unrecognised" not in text
    assert "unrecognized" not in text
    assert not driver_facts().gpus or "the program ran" in text
    if driver_facts().cuda is None:
        assert fault(log) == "there is no NVIDIA driver on this machine"


def test_what_is_no_report_is_told(ncu: NcuTool, tmp_path: Path) -> None:
    report = tmp_path / "x.ncu-rep"
    report.write_bytes(b"no report" * 100)
    log = tmp_path / "log"
    done = ask(ncu, *import_argv(ncu, str(report))[1:])
    log.write_text(done.stdout + done.stderr)
    assert done.returncode != 0 or fault(log) is not None
    assert (fault(log) or "").startswith("ncu says: ")
