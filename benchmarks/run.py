"""Measure ``dsocr-analyze`` end to end beside the floor and, where it is installed, beside ``nsys stats``.

python benchmarks/run.py [--runs 5] [--kernels 115572 1000000 10000000] [--out benchmarks/RESULTS.md]

Every command is a process of its own, interpreter start and all outputs included; commands take turns (A B C A B C …), so
that a machine whose speed drifts slows all of them. Times are medians; peak memory is the largest resident set that the
kernel saw.
"""

from __future__ import annotations

import argparse
import lzma
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent / "tests" / "data" / "deepseek-ocr_h100_64tok.sqlite.xz"


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of one run."""
    begin = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if child.returncode:
        sys.exit(f"{' '.join(command)}: exit {child.returncode}: {error.decode(errors='replace')[-400:]}")
    return seconds, usage.ru_maxrss / 1000


def machine() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def traces(folder: Path, sizes: list[int], processes: int) -> list[tuple[str, Path]]:
    source = folder / "source.sqlite"
    if not source.exists():
        with lzma.open(SOURCE) as packed, source.open("wb") as plain:
            shutil.copyfileobj(packed, plain)

    def replicate(path: Path, kernels: int, processes: int) -> None:
        # In a process of its own: a child's peak memory begins with that of the parent it was forked from.
        options = ["--kernels", str(kernels), "--processes", str(processes)]
        subprocess.run([sys.executable, str(HERE / "replicate.py"), str(source), str(path), *options], check=True)

    found = []
    for size in sizes:
        path = folder / f"{size}.sqlite"
        if not path.exists():
            replicate(path, size, 1)
        found.append((f"{size:,}", path))
    if processes > 1 and len(sizes) > 1:
        path = folder / f"{sizes[1]}x{processes}.sqlite"
        if not path.exists():
            replicate(path, sizes[1], processes)
        found.append((f"{sizes[1]:,} in {processes} processes", path))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kernels", type=int, nargs="+", default=[115_572, 1_000_000, 10_000_000])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--nsys", default=installed_nsys())
    parser.add_argument("--nsys-up-to", type=int, default=1_000_000, help="nsys stats runs up to this many kernels")
    parser.add_argument("--folder", type=Path, default=HERE / "data")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label, path in traces(arguments.folder, arguments.kernels, arguments.processes):
        rows += bench(label, path, arguments)
    text = render(rows, arguments)
    arguments.out.write_text(text)
    print(text)


def report_name(nsys: str) -> str:
    """The report's name in this nsys: older ones write it without underscores."""
    listed = subprocess.run([nsys, "stats", "--help-reports"], capture_output=True, text=True, check=False).stdout
    return "nvtx_kern_sum" if "nvtx_kern_sum" in listed else "nvtxkernsum"


def installed_nsys() -> str | None:
    local = HERE.parent / ".nsys" / "target-linux-x64" / "nsys"
    return os.environ.get("NSYS") or shutil.which("nsys") or (str(local) if local.exists() else None)


def bench(label: str, path: Path, arguments: argparse.Namespace) -> list[list[str]]:
    commands = {
        "dsocr-analyze, default outputs": [sys.executable, "-m", "analysis.cli", str(path), "--out", "report"],
        "floor: SQL aggregate": [sys.executable, str(HERE / "floor.py"), str(path), "aggregate"],
        "floor: Arrow + sorted merge": [sys.executable, str(HERE / "floor.py"), str(path), "merge"],
    }
    kernels = int(label.split()[0].replace(",", ""))
    if arguments.nsys and kernels <= arguments.nsys_up_to and "processes" not in label:
        # nsys stats writes an index into the file that it reads: it gets a copy.
        shutil.copy(path, arguments.folder / "for-nsys.sqlite")
        commands["nsys stats nvtx_kern_sum"] = [
            arguments.nsys, "stats", "--report", report_name(arguments.nsys), "--format", "csv", "--output", "nsys",
            "--force-overwrite", "true", str(arguments.folder / "for-nsys.sqlite"),
        ]  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    memory: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.runs + 1):
            for name, command in commands.items():
                took, peak = measure(command, Path(folder))
                if turn:  # the first one warms the page cache
                    seconds[name].append(took)
                    memory[name].append(peak)
    own = statistics.median(seconds["dsocr-analyze, default outputs"])
    rows = []
    for name in commands:
        middle = statistics.median(seconds[name])
        rows.append([
            label, name, f"{middle:.2f}", f"{min(seconds[name]):.2f}–{max(seconds[name]):.2f}",
            f"{statistics.median(memory[name]):,.0f}", f"{own / middle:.2f}", f"{middle / kernels * 1e6:.2f}",
        ])  # fmt: skip
    return rows


def render(rows: list[list[str]], arguments: argparse.Namespace) -> str:
    head = ["kernels", "command", "s (median)", "min–max", "peak MB", "dsocr-analyze / this", "µs per kernel"]
    lines = [
        "# Benchmarks",
        "",
        f"{machine()}. {datetime.now(UTC):%Y-%m-%d}, `make bench`: {arguments.runs} runs each after one to warm up, in turns,",
        "whole processes with interpreter start and all outputs. Traces: `_64tok` replicated by `benchmarks/replicate.py`.",
        "",
        "| " + " | ".join(head) + " |",
        "|---|---|---:|---:|---:|---:|---:|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
