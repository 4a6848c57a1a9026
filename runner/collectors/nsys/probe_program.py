"""What the doctor profiles: a domain range, a mark, and a kernel where there is a GPU. Takes about a second."""

from __future__ import annotations

import ctypes
import sys
import time

import nvtx

from runner.collectors.nsys.probe import PROBE_DOMAIN, PROBE_MARK, PROBE_RANGE

__all__: list[str] = []


def main() -> int:
    """Mark, and launch if asked to. Returns 3 if the GPU could not be used."""
    nvtx.mark(PROBE_MARK, domain=PROBE_DOMAIN)
    with nvtx.annotate(PROBE_RANGE, domain=PROBE_DOMAIN):
        launched = _memset_and_kernel() if "kernel" in sys.argv[1:] else True
        time.sleep(0.5)
    time.sleep(0.3)
    return 0 if launched else 3


def _memset_and_kernel() -> bool:
    """Launch a kernel: with torch where it is built for CUDA, else at least a memset through the driver."""
    try:
        import torch
    except ImportError:
        return _driver_memset()
    if not torch.cuda.is_available():
        return _driver_memset()
    torch.ones(1024, device="cuda").add_(1).sum().item()
    torch.cuda.synchronize()
    return True


def _driver_memset() -> bool:
    library = ctypes.CDLL("libcuda.so.1")
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    return bool(
        library.cuInit(0) == 0
        and library.cuDeviceGet(ctypes.byref(device), 0) == 0
        and library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
        and library.cuCtxSetCurrent(context) == 0
        and library.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(4096)) == 0
        and library.cuMemsetD8_v2(memory, 1, ctypes.c_size_t(4096)) == 0
        and library.cuCtxSynchronize() == 0
    )


if __name__ == "__main__":
    sys.exit(main())
