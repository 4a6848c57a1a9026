"""What the NVIDIA driver says, asked without torch: versions and devices. Nothing here creates a CUDA context."""

from __future__ import annotations

import ast
import ctypes
import importlib.metadata
import importlib.util
import uuid
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

__all__ = [
    "DriverFacts",
    "VisibleGpu",
    "default_device",
    "driver_facts",
    "installed_version",
    "physical_device",
    "shares_gpus",
    "torch_cuda_version",
]


@frozen
class VisibleGpu:
    """One GPU that CUDA programs see here."""

    name: str
    uuid: str
    """Of the GPU, or of the MIG instance; the same however CUDA_VISIBLE_DEVICES or CUDA_DEVICE_ORDER spell it."""


@frozen
class DriverFacts:
    """The driver and its devices."""

    cuda: tuple[int, int] | None
    """Newest CUDA that the driver speaks; None: no driver."""
    driver: str | None
    gpus: tuple[VisibleGpu, ...] = ()
    """As CUDA numbers them: the first is ``cuda:0``."""


def driver_facts() -> DriverFacts:
    """Ask the driver; there may be none."""
    cuda, gpus = _ask_cuda()
    return DriverFacts(cuda=cuda, driver=_driver_version(), gpus=gpus)


def default_device(facts: DriverFacts) -> tuple[str, str]:
    """Choose ``cuda:0`` or ``cpu``, with the reason in words."""
    if not facts.gpus:
        return "cpu", "no CUDA device is visible"
    built_for = torch_cuda_version()
    if built_for is None:
        return "cpu", "this torch is built without CUDA"
    return "cuda:0", f"{facts.gpus[0].name} is visible"


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


def physical_device(device: str, gpus: Sequence[VisibleGpu]) -> str:
    """Name the machine's own device behind ``cuda:0``, the same for every process of the machine.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        gpus: as CUDA numbers them for the process that says ``device``.

    Returns:
        ``cuda-`` and the UUID; ``cpu`` stays, and so does the number of a GPU that is not there.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return device
    index = int(number or 0)
    return f"cuda-{gpus[index].uuid if index < len(gpus) else index}"


def shares_gpus() -> bool:
    """Whether every GPU of this machine lets several processes use it at once; true where there is none."""
    import pynvml  # see _driver_version

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return True
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return all(pynvml.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_DEFAULT for handle in handles)
    except pynvml.NVMLError:
        return False
    finally:
        pynvml.nvmlShutdown()


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver_version() -> str | None:
    import pynvml  # of the extra `runner`; `dsocr-profile --help` must work without it

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _ask_cuda() -> tuple[tuple[int, int] | None, tuple[VisibleGpu, ...]]:
    """Ask libcuda for the CUDA version that it speaks and the devices that this process may use.

    NVML knows neither CUDA_VISIBLE_DEVICES nor CUDA's order of devices (the fastest first), and to parse the variable
    again would be to guess what the driver makes of indices, prefixes of UUIDs and mistakes. These six calls are all
    that is wanted of libcuda; a package of bindings for them would be larger than this program.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, ()
    number = ctypes.c_int()
    version = None
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        version = (number.value // 1000, number.value % 1000 // 10)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(number)) != 0:
        return version, ()
    # The second version tells MIG instances of one GPU apart; drivers before CUDA 11.4 lack it.
    get_uuid = getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid
    gpus = []
    for index in range(number.value):
        device, name, identity = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.create_string_buffer(16)
        if (
            cuda.cuDeviceGet(ctypes.byref(device), index) != 0
            or cuda.cuDeviceGetName(name, len(name), device) != 0
            or get_uuid(identity, device) != 0
        ):
            return version, ()
        gpus.append(VisibleGpu(name.value.decode("utf-8", "replace"), str(uuid.UUID(bytes=identity.raw))))
    return version, tuple(gpus)
