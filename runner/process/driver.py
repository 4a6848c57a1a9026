"""What the NVIDIA driver says, asked without torch: versions and devices. Nothing here creates a CUDA context."""

from __future__ import annotations

import ast
import ctypes
import importlib.metadata
import importlib.util
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

__all__ = [
    "DriverFacts",
    "default_device",
    "driver_facts",
    "installed_version",
    "physical_device",
    "torch_cuda_version",
]

_TIMEOUT_S: Final = 30.0


@frozen
class DriverFacts:
    """The driver and its devices."""

    cuda: tuple[int, int] | None
    """Newest CUDA that the driver speaks; None: no driver."""
    driver: str | None
    device_count: int
    """CUDA devices that this process may use (CUDA_VISIBLE_DEVICES applies)."""
    names: tuple[str, ...] = ()
    """All devices of the machine, as nvidia-smi names them."""


def driver_facts(environ: Mapping[str, str]) -> DriverFacts:
    """Ask libcuda and nvidia-smi; both may be missing."""
    cuda, count = _ask_libcuda()
    rows = _nvidia_smi(environ, "driver_version,name")
    return DriverFacts(
        cuda=cuda,
        driver=rows[0][0] if rows else None,
        device_count=count,
        names=tuple(row[1] for row in rows),
    )


def default_device(facts: DriverFacts) -> tuple[str, str]:
    """Choose ``cuda:0`` or ``cpu``, with the reason in words."""
    if facts.device_count == 0:
        return "cpu", "no CUDA device is visible"
    built_for = torch_cuda_version()
    if built_for is None:
        return "cpu", "this torch is built without CUDA"
    return "cuda:0", f"{facts.names[0] if facts.names else 'a CUDA device'} is visible"


def torch_cuda_version() -> str | None:
    """CUDA version that the installed torch is built for, read without importing it; None: CPU only, or no torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        tree = ast.parse((Path(spec.origin).parent / "version.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return None
    for node in tree.body:
        name = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(name, ast.Name) and name.id == "cuda" and isinstance(node, (ast.Assign, ast.AnnAssign)):
            value = node.value
            return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
    return None


def physical_device(device: str, environ: Mapping[str, str]) -> str:
    """Name the machine's device behind ``cuda:0``: its index or UUID, through CUDA_VISIBLE_DEVICES; ``cpu`` stays."""
    if not device.startswith("cuda"):
        return device
    index = int(device.partition(":")[2] or 0)
    visible = environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    names = [name.strip() for name in visible.split(",")] if visible else []
    return f"cuda-{names[index]}" if index < len(names) else f"cuda-{index}"


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ask_libcuda() -> tuple[tuple[int, int] | None, int]:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, 0
    number = ctypes.c_int()
    version = None
    if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
        version = (number.value // 1000, number.value % 1000 // 10)
    if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(number)) != 0:
        return version, 0
    return version, number.value


def _nvidia_smi(environ: Mapping[str, str], fields: str) -> list[list[str]]:
    argv = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            argv, env=dict(environ) or dict(os.environ), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode != 0:
        return []
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
