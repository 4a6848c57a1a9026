"""What the torch collector can say of the machine: product, threads, processor, CUDA devices."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from runner.collectors.torch_profiler.trace_tables import SCHEMA_VERSION

__all__ = ["cpu_name", "cuda_devices", "export_meta", "task_name"]

_PRODUCT: Final = "dsocr-profiler torch collector"


def export_meta() -> dict[str, str]:
    """Rows of ``META_DATA_EXPORT``: who wrote the file, and whose schema it follows."""
    try:
        package = version("dsocr-profiler")
    except PackageNotFoundError:  # run from a source tree
        package = "unknown"
    major, minor, micro = SCHEMA_VERSION
    return {
        "EXPORT_PRODUCT_NAME": _PRODUCT,
        "EXPORT_PRODUCT_VERSION": package,
        "EXPORT_SCHEMA_VERSION": f"{major}.{minor}.{micro}",
        "EXPORT_SCHEMA_VERSION_MAJOR": str(major),
        "EXPORT_SCHEMA_VERSION_MINOR": str(minor),
        "EXPORT_SCHEMA_VERSION_MICRO": str(micro),
        "EXPORT_PLATFORM": platform.system().lower(),
        "EXPORT_ARCH": platform.machine(),
        "EXPORT_TIME_UTC": datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00"),
    }


def task_name(thread_id: int) -> str:
    """Name of a thread of this process; empty if it has ended."""
    try:
        return Path(f"/proc/self/task/{thread_id}/comm").read_text().strip()
    except OSError:
        return ""


def cpu_name() -> str:
    """``CPU (<model>)``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
    return f"CPU ({model or platform.processor() or platform.machine()})"


def cuda_devices() -> Iterator[dict[str, Any]]:
    """What torch knows of each device, under the export's column names and in its units (B, B/s, Hz)."""
    for index in range(torch.cuda.device_count()):
        device: Any = torch.cuda.get_device_properties(index)

        def known(attribute: str, device: Any = device) -> Any:
            return getattr(device, attribute, None) or None

        memory_khz, bus_bits, clock_khz = known("memory_clock_rate"), known("memory_bus_width"), known("clock_rate")
        threads, warp = known("max_threads_per_multi_processor"), known("warp_size")
        yield {
            "id": index,
            "name": device.name,
            "l2CacheSize": known("L2_cache_size"),
            "totalMemory": device.total_memory,
            # Two transfers per clock: gives what nsys writes for an H100 (3,352,320,000,000 B/s).
            "memoryBandwidth": 2 * memory_khz * 1000 * bus_bits // 8 if memory_khz and bus_bits else None,
            "clockRate": clock_khz * 1000 if clock_khz else None,
            "smCount": device.multi_processor_count,
            "uuid": str(uuid) if (uuid := known("uuid")) else None,
            "cuDevice": index,
            "maxShmemPerSm": known("shared_memory_per_multiprocessor"),
            "maxRegistersPerSm": known("regs_per_multiprocessor"),
            "threadsPerWarp": warp,
            "maxWarpsPerSm": threads // warp if threads and warp else None,
            "computeMajor": device.major,
            "computeMinor": device.minor,
        }
