"""Are the GPUs that a trace describes possible, and are they those that its operations name?"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted
from analysis.efficiency.hardware import contradiction
from analysis.quality.findings import CAPTURE_AGAIN, Contradiction, Finding, severity_of
from analysis.trace import schema
from analysis.trace.reader import Trace
from analysis.trace.records import KERNEL

__all__ = ["check"]

_SHOWN: Final = 3
_NO_PEAK: Final = (
    "no peak is taken for it, so that MFU is not known; "
    f"{CAPTURE_AGAIN}, or state the peak (--peak-tflops, --peak-gbps)"
)


def check(trace: Trace, attribution: Attribution) -> list[Finding]:
    """All checks of devices."""
    return [
        *_unlisted(trace, attribution),
        *_same_ids(trace),
        *_contradictory(trace),
        *_too_much_of_an_sm(trace, attribution),
    ]


def _unlisted(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Operations of devices that the file's own list of devices lacks."""
    listed, device = trace.info.cuda_ordinals, attribution.operations.device
    if not listed or not device.size:
        return []
    of_device = np.bincount(np.maximum(device, 0))
    missing = [ordinal for ordinal in np.flatnonzero(of_device).tolist() if ordinal not in listed]
    if not missing:
        return []
    rows = int(of_device[missing].sum())
    named = ", ".join(map(str, missing[:_SHOWN])) + (" and others" if len(missing) > _SHOWN else "")
    return [
        Finding(
            "unlisted-device",
            "warning",
            f"{counted(rows, 'GPU operation is', 'GPU operations are')} of a device that the trace does not describe",
            f"{rows:,} of {counted(device.size, 'GPU operation')} ran on device {named}, and the trace describes "
            f"{', '.join(map(str, sorted(listed)[:_SHOWN]))}{' and others' if len(listed) > _SHOWN else ''}",
            _NO_PEAK,
        )
    ]


def _same_ids(trace: Trace) -> list[Finding]:
    """Devices that differ and have one id."""
    rows = trace.database.rows(schema.GPUS, *schema.GPUS.columns)
    different = Counter(row["id"] for row in {tuple(row.items()): row for row in rows}.values())
    same = {number for number, times in different.items() if number is not None and times > 1}
    if not same:
        return []
    number = min(same)
    names = " and ".join(dict.fromkeys(str(row["name"] or "unknown GPU") for row in rows if row["id"] == number))
    return [
        Finding(
            "devices-share-an-id",
            "warning",
            "two devices have one id",
            f"{counted(len(same), 'id')} of {schema.GPUS.names[0]}, such as {number} ({names}): which of them the work ran on is "
            "not known, and none of them is taken for it",
            _NO_PEAK,
        )
    ]


def _contradictory(trace: Trace) -> list[Finding]:
    """Devices whose name is known, and whose compute capability or number of SMs is another device's."""
    contradictions = {
        device.name: wrong
        for device in trace.info.devices
        if (wrong := contradiction(device.name, device.compute_capability, device.sm_count)) is not None
    }
    if not contradictions:
        return []
    return [
        Contradiction(
            "contradictory-device",
            "warning",
            f"{counted(len(contradictions), 'device is', 'devices are')} not what the name says",
            "; ".join(f"{name}: {wrong}" for name, wrong in list(contradictions.items())[:_SHOWN]),
            _NO_PEAK,
        )
    ]


def _too_much_of_an_sm(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Kernels one block of which needs more registers or shared memory than an SM of any of the devices has."""
    operations, devices = attribution.operations, trace.info.devices
    shapes, registers, shared = operations.shapes, *(
        None if not devices or None in sizes else max(size for size in sizes if size is not None)
        for sizes in (
            [device.max_registers_per_sm for device in devices], [device.max_shared_bytes_per_sm for device in devices],
        )
    )  # fmt: skip
    needs = shapes.need_more_than(registers, shared)
    if not needs.any():
        return []
    rows = np.flatnonzero((operations.shape >= 0) & needs[np.maximum(operations.shape, 0) % needs.size])
    if not rows.size:
        return []
    kernels = int(np.count_nonzero(operations.kind == KERNEL))
    worst = int(operations.shape[rows[0]])
    block = shapes.block(worst) or (0, 0, 0)
    of_sm = [f"{registers:,} registers" if registers else "", f"{shared:,} bytes of shared memory" if shared else ""]
    return [
        Contradiction(
            "impossible-block-needs",
            severity_of(rows.size, kernels),
            f"{counted(rows.size, 'kernel needs', 'kernels need')} more than an SM has",
            f"{rows.size:,} of {counted(kernels, 'kernel')}, such as blocks of {' × '.join(map(str, block))} threads with "
            f"{shapes.registers(worst):,} registers each and {shapes.shared_bytes(worst) or 0:,} bytes of shared memory; an SM of "
            f"this device has {' and '.join(filter(None, of_sm))}",
            CAPTURE_AGAIN,
        )
    ]
