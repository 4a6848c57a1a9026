"""How true Nsight Compute's counters are: kernels whose work is known, counted beside it.

``python -m benchmarks.counter_truth`` runs itself under ncu on one GPU (about half a minute) and prints measured ÷ known for a
bf16 product of 8192³, two whose operands fit into L2 together, a fp16 product of 4096³, a kernel that copies 1 GiB, and
``addcmul`` of 2²⁶ floats. docs/review.md holds what it gave.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from analysis.domain.errors import DsocrError
from analysis.efficiency.counters.file import DRAM_READ, DRAM_WRITE, CounterFile, read_counters
from runner.collectors.ncu.tool import find_ncu

TENSOR: Final = {name: f"sm__ops_path_tensor_src_{name}.sum" for name in ("bf16_dst_fp32", "fp16")}
FFMA: Final = "sm__sass_thread_inst_executed_op_ffma_pred_on.sum"
GIB: Final = 1 << 30
KNOWN: Final[tuple[tuple[str, dict[str, int]], ...]] = (
    (
        "bf16 product, 8192³",
        {TENSOR["bf16_dst_fp32"]: 2 * 8192**3, DRAM_READ: 2 * 2 * 8192**2, DRAM_WRITE: 2 * 8192**2},
    ),
    (
        "bf16 product, 8192 × 8192 × 512",
        {TENSOR["bf16_dst_fp32"]: 2 * 8192**2 * 512, DRAM_READ: 2 * 2 * 8192 * 512, DRAM_WRITE: 2 * 8192**2},
    ),
    ("bf16 product, 2048³", {TENSOR["bf16_dst_fp32"]: 2 * 2048**3, DRAM_READ: 2 * 2 * 2048**2}),
    ("fp16 product, 4096³", {TENSOR["fp16"]: 2 * 4096**3, DRAM_WRITE: 2 * 4096**2}),
    ("copy of 1 GiB by a kernel", {DRAM_READ: GIB, DRAM_WRITE: GIB}),
    ("addcmul of 2²⁶ floats", {FFMA: 2**26, DRAM_READ: 2 * 4 * 2**26, DRAM_WRITE: 4 * 2**26}),
)
"""In the order in which `work` launches them: what must be done and moved."""


def work() -> None:
    """Launch the kernels once, between cudaProfilerStart and -Stop."""
    import torch

    def kernels() -> None:
        torch.mm(a, b, out=c)
        torch.mm(tall, wide, out=c)
        torch.mm(square, square_too, out=small)
        torch.mm(half, half, out=product)
        torch.neg(source, out=copy)  # a plain copy would be a memcpy, which ncu does not profile
        torch.addcmul(first, second, second, out=third)

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    c, half = torch.empty_like(a), torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    tall, wide = a[:, :512].contiguous(), b[:512].contiguous()
    square, square_too = a[:2048, :2048].contiguous(), b[:2048, :2048].contiguous()
    small, product = torch.empty_like(square), torch.empty_like(half)
    source = torch.randn(GIB // 4, device="cuda")
    copy = torch.empty_like(source)
    first, second = (torch.randn(2**26, device="cuda") for _ in range(2))
    third = torch.empty_like(first)
    kernels()  # libraries choose their kernels in the first call
    torch.cuda.synchronize()
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch's own gap
    runtime.cudaProfilerStart()
    kernels()
    torch.cuda.synchronize()
    runtime.cudaProfilerStop()


def counted(ncu: str, folder: Path) -> CounterFile:
    """Profile `work` and read what was counted."""
    metrics = ",".join([DRAM_READ, DRAM_WRITE, FFMA, *TENSOR.values()])
    report = folder / "truth.ncu-rep"
    program = [sys.executable, "-m", "benchmarks.counter_truth", "--work"]
    argv = [
        ncu,
        "-f",
        "--profile-from-start",
        "off",
        "--clock-control",
        "none",
        "--metrics",
        metrics,
        "-o",
        str(report),
    ]
    subprocess.run([*argv, *program], check=True, stdout=subprocess.DEVNULL)
    printed = folder / "truth.csv"
    with printed.open("wb") as file:
        argv = [ncu, "--import", str(report), "--page", "raw", "--csv", "--print-units", "base"]
        subprocess.run(argv, check=True, stdout=file)
    return read_counters(printed)


def rows(file: CounterFile) -> list[str]:
    """Markdown rows: kernel, metric, measured, known, their ratio."""
    if len(file) != len(KNOWN):
        raise SystemExit(f"error: {len(file)} kernels were profiled, not {len(KNOWN)}: {', '.join(file.names)}")
    return [
        f"| {name} | {metric} | {file.metrics[metric][place]:,.0f} | {known:,} | {file.metrics[metric][place] / known:.4f} |"
        for place, (name, figures) in enumerate(KNOWN)
        for metric, known in figures.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ncu", help="the ncu to use; default: $NCU, else the newest")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work()
        return
    try:
        tool = find_ncu(arguments.ncu, os.environ)
        with tempfile.TemporaryDirectory() as folder:
            file = counted(tool.path, Path(folder))
    except DsocrError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{', '.join(sorted(file.devices))}, ncu {tool.version}\n")
    print(
        "| kernel | counter | measured | must be | measured ÷ must |\n|---|---|---:|---:|---:|", *rows(file), sep="\n"
    )


if __name__ == "__main__":
    main()
