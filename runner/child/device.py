"""Facts about the device and the software under it: names, versions, clocks, and what it measurably reaches."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import metadata
from statistics import median
from time import perf_counter_ns
from typing import Final, Literal

import torch

from analysis.domain.entities import Dtype
from analysis.domain.manifest import DeviceState, MeasuredPeak

__all__ = ["compute_capability", "device_state", "gpu_name", "measure_peak", "software_versions"]

_QUERY: Final = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")
_QUERY_TIMEOUT_S: Final = 10


def software_versions(device: torch.device) -> dict[str, str]:
    """Versions of what ran; absent where it is not installed or does not say."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("transformers", "nvtx", "dsocr-profiler"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    if device.type == "cuda":
        driver = _nvidia_smi(device, ("driver_version",))
        if driver:
            found["driver"] = driver[0]
    return found


def gpu_name(device: torch.device) -> str | None:
    """The GPU's name as the driver gives it; None on a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def compute_capability(device: torch.device) -> str | None:
    """Such as ``9.0``; None on a CPU."""
    return ".".join(map(str, torch.cuda.get_device_capability(device))) if device.type == "cuda" else None


def device_state(device: torch.device, when: Literal["before", "after"]) -> tuple[DeviceState, ...]:
    """Ask the driver for clocks, temperature and power; empty on a CPU and where nvidia-smi does not answer."""
    values = _nvidia_smi(device, _QUERY) if device.type == "cuda" else None
    if values is None:
        return ()
    sm, memory, temperature, power = (_number(value) for value in values)
    return (
        DeviceState(
            when,
            sm_clock_mhz=None if sm is None else int(sm),
            memory_clock_mhz=None if memory is None else int(memory),
            temperature_c=None if temperature is None else int(temperature),
            power_w=power,
        ),
    )


def _nvidia_smi(device: torch.device, fields: tuple[str, ...]) -> list[str] | None:
    """One device's values of ``fields``, or None where there is no answer.

    The device is named by its UUID: ``CUDA_VISIBLE_DEVICES`` renumbers torch's devices, and not nvidia-smi's.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    which = [] if uuid is None else [f"--id=GPU-{uuid}"]
    query = [command, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", *which]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    return values if len(values) == len(fields) else None


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None  # "[N/A]": the device does not say


def measure_peak(device: torch.device, dtype: torch.dtype, dtype_name: Dtype) -> MeasuredPeak:
    """Time a large matrix product and a large copy, each the median of several, in less than a second.

    Sizes leave caches far behind on a GPU (8192² matrices, 1 GiB copied) and stay quick on a CPU (768², 128 MiB).
    A product of n × n matrices takes 2n³ FLOP; a copy reads and writes each byte once.
    """
    side, copied_bytes, rounds = (8192, 2**30, 10) if device.type == "cuda" else (768, 2**27, 5)
    left = torch.randn(side, side, device=device, dtype=dtype)
    right = torch.randn(side, side, device=device, dtype=dtype)
    product = torch.empty(side, side, device=device, dtype=dtype)
    source = torch.ones(copied_bytes, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)

    def timed(copy: bool) -> int:
        _synchronise(device)
        started = perf_counter_ns()
        if copy:
            target.copy_(source)
        else:
            torch.mm(left, right, out=product)
        _synchronise(device)
        return perf_counter_ns() - started

    def typical_ns(copy: bool) -> float:
        timed(copy)  # the first one chooses kernels and touches pages
        return median(timed(copy) for _ in range(rounds))

    return MeasuredPeak(
        dtype=dtype_name,
        flop_per_s=2 * side**3 / typical_ns(copy=False) * 1e9,
        bytes_per_s=2 * copied_bytes / typical_ns(copy=True) * 1e9,
        how=(
            f"torch {torch.__version__} on {device}: {side}×{side} matrix product and a copy of "
            f"{copied_bytes // 2**20} MiB (read + written), median of {rounds}"
        ),
    )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
