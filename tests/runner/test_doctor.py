"""The doctor names what is wrong and the remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from launch_kit import ROOT, environment, fake_nsys
from runner.collectors.choosing import choose_collector
from runner.collectors.nsys.presets import load_preset
from runner.launcher.doctor import Check, diagnose
from runner.process.driver import DriverFacts, VisibleGpu, default_device, torch_cuda_version

BAD_IMPORTER = "#!/bin/sh\nexit 127\n"


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_every_subject_of_the_doctor_is_there(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path / "nsys", importer=None)
    diagnosis = diagnose(environment(), tmp_path, nsys=tool.path)
    checks = by_name(diagnosis.checks)
    assert {
        "python", "torch", "transformers", "nvtx", "GPU", "nsys", "nsys importer", "nsys and driver", "functional probe",
        "private process view", "ncu", "GPU metrics", "CPU sampling", "disk", "temporary folder", "file locking",
    } <= set(checks)  # fmt: skip
    assert checks["nsys importer"].verdict == "failed"
    assert checks["nsys importer"].remedy
    assert checks["functional probe"].verdict == "skipped"
    assert not diagnosis.usable  # that nsys was asked for by name


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.collectors.nsys.tool.missing_libraries", lambda binary, environ: ("libdw.so.1",))
    tool = fake_nsys(tmp_path / "nsys")
    check = by_name(diagnose(environment(), tmp_path, nsys=tool.path).checks)["nsys importer"]
    assert check.verdict == "failed"
    assert "libdw.so.1" in check.observed
    assert "LD_LIBRARY_PATH" in (check.remedy or "")


def test_a_probe_whose_events_do_not_arrive_fails(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path / "nsys")
    check = by_name(diagnose(environment(), tmp_path, nsys=tool.path).checks)["functional probe"]
    assert check.verdict == "failed"
    assert "the mark" in check.observed


def test_the_doctor_chooses_as_a_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a run takes an nsys that is there without trying it, so one that loses events makes runs fail."""
    tool = fake_nsys(tmp_path / "nsys")
    facts = DriverFacts(cuda=(13, 0), driver="580.1", gpus=(VisibleGpu("a GPU", "7"),))
    monkeypatch.setattr("runner.launcher.doctor.driver_facts", lambda: facts)
    monkeypatch.setattr("runner.launcher.doctor.default_device", lambda facts: ("cuda:0", "a GPU is visible"))
    environ = environment() | {"NSYS": tool.path}
    diagnosis = diagnose(environ, tmp_path)
    choice = choose_collector("auto", "cuda:0", load_preset("default"), None, environ)
    assert (diagnosis.collector, diagnosis.usable) == (choice.name, False) == ("nsys", False)
    probe = by_name(diagnosis.checks)["functional probe"]
    assert probe.verdict == "failed"
    assert "--collector torch" in (probe.remedy or "")
    (tmp_path / "nsys/host-linux-x64/QdstrmImporter").unlink()
    without = diagnose(environ, tmp_path)
    assert (without.collector, without.usable) == ("torch", True)
    assert diagnose(environ, tmp_path, nsys=tool.path).usable is False


def test_an_nsys_older_than_the_driver_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = fake_nsys(tmp_path / "nsys", importer=None)
    (tmp_path / "nsys/target-linux-x64/libcupti.so.12.3").touch()
    facts = DriverFacts(cuda=(13, 0), driver="580.1", gpus=(VisibleGpu("a GPU", "7"),))
    monkeypatch.setattr("runner.launcher.doctor.driver_facts", lambda: facts)
    check = by_name(diagnose(environment(), tmp_path, nsys=tool.path).checks)["nsys and driver"]
    assert check.verdict == "failed"
    assert "13.0" in check.observed
    assert "12.3" in check.observed


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert by_name(diagnose(environment(), closed).checks)["disk"].verdict == "failed"


def test_json_and_exit_code(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path / "nsys", importer=None)
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", "doctor", "--json", "--nsys", tool.path, "--out", str(tmp_path)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 10
    answer = json.loads(done.stdout)
    assert answer["usable"] is False
    assert all({"name", "verdict", "observed", "remedy"} == set(check) for check in answer["checks"])


def test_the_default_device_has_its_reason() -> None:
    assert default_device(DriverFacts(None, None)) == ("cpu", "no CUDA device is visible")
    device, reason = default_device(DriverFacts((13, 0), "580", (VisibleGpu("NVIDIA H100", "7"),)))
    expected = "cpu" if torch_cuda_version() is None else "cuda:0"
    assert device == expected
    assert reason


def test_a_full_temporary_folder_is_told(tmp_path: Path) -> None:
    """An empty folder can still be made on a full disk, and that was all that was tried."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        nearly = by_name(diagnose({**environment(), "TMPDIR": str(small)}, tmp_path).checks)["temporary folder"]
        with suppress(OSError), (small / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        full = by_name(diagnose({**environment(), "TMPDIR": str(small)}, tmp_path).checks)["temporary folder"]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    assert (nearly.verdict, nearly.observed) == ("warning", f"2 MiB free in {small}")
    assert (full.verdict, full.observed) == ("failed", f"{small}: the disk is full")
    assert "free space" in (full.remedy or "")
