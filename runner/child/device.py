"""Facts about the device and the software under it: names, versions, clocks, and what it measurably reaches."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from statistics import median
from time import perf_counter_ns
from typing import Any, Literal

import torch

from analysis.domain.entities import Dtype
from analysis.domain.manifest import DeviceState, MeasuredPeak

__all__ = [
    "compute_capability",
    "device_state",
    "gpu_name",
    "measure_peak",
    "nvml_answer",
    "nvml_handle",
    "open_nvml",
    "peak_memory",
    "software_versions",
]


def software_versions(device: torch.device) -> dict[str, str]:
    """Versions of what ran; absent where it is not installed or does not say."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("transformers", "nvtx", "dsocr-profiler"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    if device.type == "cuda":
        with open_nvml() as nvml:
            driver = None if nvml is None else nvml_answer(nvml, nvml.nvmlSystemGetDriverVersion)
        if driver is not None:
            versions["driver"] = driver
    return versions


def gpu_name(device: torch.device) -> str | None:
    """The GPU's name as the driver gives it; None on a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def compute_capability(device: torch.device) -> str | None:
    """Such as ``9.0``; None on a CPU."""
    return ".".join(map(str, torch.cuda.get_device_capability(device))) if device.type == "cuda" else None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """The most that torch's allocator had given out at once while the context lasts, bytes.

    Yields:
        A list that holds it when the context is over; it stays empty on a CPU, where no allocator of ours tells.
    """
    peak: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield peak
    if device.type == "cuda":
        peak.append(torch.cuda.max_memory_allocated(device))


def device_state(device: torch.device, when: Literal["before", "after"]) -> tuple[DeviceState, ...]:
    """Ask the driver for clocks, temperature and power; empty on a CPU and where NVML does not answer."""
    if device.type != "cuda":
        return ()
    with open_nvml() as nvml:
        handle = None if nvml is None else nvml_handle(nvml, device)
        if nvml is None or handle is None:
            return ()
        power_mw = nvml_answer(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
        return (
            DeviceState(
                when,
                sm_clock_mhz=nvml_answer(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
                memory_clock_mhz=nvml_answer(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
                temperature_c=nvml_answer(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
                power_w=None if power_mw is None else power_mw / 1000,
            ),
        )


@contextmanager
def open_nvml() -> Iterator[Any]:
    """NVIDIA's management library, open; None where this machine has none that answers."""
    import pynvml  # a run on a CPU does without it

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def nvml_handle(nvml: Any, device: torch.device) -> Any | None:
    """NVML's handle of torch's device, by its UUID: ``CUDA_VISIBLE_DEVICES`` renumbers torch's devices, not NVML's."""
    return nvml_answer(nvml, nvml.nvmlDeviceGetHandleByUUID, f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def nvml_answer(nvml: Any, ask: Callable[..., Any], *arguments: Any) -> Any | None:
    """What NVML says, or None: not every board measures everything, and a MIG slice next to nothing."""
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None


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
