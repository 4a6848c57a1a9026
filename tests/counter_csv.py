"""Writes CSVs as Nsight Compute prints its raw page, for cases that no real file holds."""

import csv
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

NVTX = "thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg"
FIXED = ("ID", "Process ID", "Process Name", NVTX, "Kernel Name", "Block Size", "Grid Size", "CC",
         "device__attribute_display_name", "launch__shared_mem_per_block_static",
         "launch__shared_mem_per_block_dynamic")  # fmt: skip
UNITS = {"dram": "byte", "lts__": "byte", "inst_executed": "inst"}


@frozen
class Profiled:
    """One kernel of the file."""

    name: str
    grid: tuple[int, int, int] = (1, 1, 1)
    block: tuple[int, int, int] = (128, 1, 1)
    state: str = ""
    shared: int = 0
    values: tuple[float, ...] = ()
    process: int = 7


def step_state(payload: int | None = 8, *, image: int = 0, stage: str = "decode", step: bool = True) -> str:
    """Ranges of a decode step, or of a stage."""
    names = [f"image[{image}]:none:none", f"{stage}:none:none"]
    if step:
        names.append("decode_step:none:none" if payload is None else f"decode_step:Int64:{payload}")
    ranges = "  ".join(f'"dsocr:{name}:RGB:0xff:REGISTERED:{name.split(":")[0]}"' for name in names)
    return f"7  {ranges}  "


def write_csv(
    path: Path,
    kernels: Sequence[Profiled],
    metrics: Sequence[str] = ("dram__bytes_read.sum", "dram__bytes_write.sum"),
    *,
    device: str = "NVIDIA H100 80GB HBM3",
    nvtx: bool = True,
    units: dict[str, str] | None = None,
) -> Path:
    """Write kernels with their values."""
    fixed = [name for name in FIXED if nvtx or name != NVTX]
    with path.open("w", newline="") as file:
        write = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        write.writerow([*fixed, *metrics])
        unit = {name: next((one for part, one in UNITS.items() if part in name), "") for name in metrics}
        write.writerow([*("" for _ in fixed), *((unit | (units or {}))[name] for name in metrics)])
        for number, one in enumerate(kernels):
            known = {
                "ID": number, "Process ID": one.process, "Process Name": "python3", NVTX: one.state,
                "Kernel Name": one.name, "Block Size": str(one.block), "Grid Size": str(one.grid), "CC": "9.0",
                "device__attribute_display_name": device, "launch__shared_mem_per_block_static": 0,
                "launch__shared_mem_per_block_dynamic": f"{one.shared:,}",
            }  # fmt: skip
            write.writerow([*(known[name] for name in fixed), *(f"{value:,}" for value in one.values)])
    return path
