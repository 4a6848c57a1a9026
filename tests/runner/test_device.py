"""What the child says of its device. NVML is played by a stand-in: this machine has no GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from analysis.domain.manifest import DeviceState
from runner.child.device import device_state, peak_memory, software_versions

GPU = torch.device("cuda:1")
UUID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An NVML of one board that does not measure its power, behind the second of torch's devices."""
    asked: list[str] = []

    def handle(uuid: str) -> str:
        asked.append(uuid)
        return "handle"

    def power(_: str) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: asked.append("shut down"),
        "nvmlDeviceGetHandleByUUID": handle,
        "nvmlDeviceGetClockInfo": lambda _, kind: {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}[kind],
        "nvmlDeviceGetTemperature": lambda _, sensor: 41 + sensor,
        "nvmlDeviceGetPowerUsage": power,
        "nvmlSystemGetDriverVersion": lambda: "580.95.05",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=UUID))
    return asked


def test_the_state_is_that_of_torchs_own_device(nvml: list[str]) -> None:
    (state,) = device_state(GPU, "before")
    assert state == DeviceState("before", sm_clock_mhz=1980, memory_clock_mhz=2619, temperature_c=41, power_w=None)
    assert nvml == [f"GPU-{UUID}", "shut down"]


def test_power_is_in_watts(nvml: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda handle: 121_500)
    (state,) = device_state(GPU, "after")
    assert state.power_w == 121.5


def test_the_driver_is_among_the_versions(nvml: list[str]) -> None:
    assert software_versions(GPU)["driver"] == "580.95.05"
    assert "driver" not in software_versions(torch.device("cpu"))


def test_a_machine_without_a_driver_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert device_state(GPU, "before") == ()
    assert "driver" not in software_versions(GPU)
    assert device_state(torch.device("cpu"), "before") == ()


def test_peak_memory_is_that_of_what_runs_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(("reset", device)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7_000 if asked == [("reset", GPU)] else 0)
    with peak_memory(GPU) as peak:
        assert peak == []
    assert peak == [7_000]
    with peak_memory(torch.device("cpu")) as peak:
        pass
    assert peak == []
