"""Measure ``dsocr-analyze`` end to end beside the floor and, where it is installed, beside ``nsys stats``.

python benchmarks/run.py [--runs 5] [--kernels 115572 1000000 10000000] [--out benchmarks/RESULTS.md]

Every command is a process of its own, interpreter start and all outputs included; commands take turns (A B C A B C …), so
that a machine whose speed drifts slows all of them. Times are medians; peak memory is the largest resident set that the
kernel saw. Python may keep its bytecode, as it does where the program is installed.
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
from typing import NamedTuple

HERE = Path(__file__).parent
SOURCE = HERE.parent / "tests" / "data" / "deepseek-ocr_h100_64tok.sqlite.xz"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
REPORT = "dsocr-analyze, default outputs"
RANKS = "dsocr-analyze, each file by a worker"
RANK_FILES = 8
"""Files of one rank each."""
RANKS_OF = 1_000_000
"""Kernels in each of them."""
IMPORTS = "imports alone, in a process of their own"
PRELOADED = "dsocr-analyze, everything imported before"
AGGREGATE, MERGE = "floor: SQL aggregate", "floor: Arrow + sorted merge"
NSYS_STATS = "nsys stats nvtx_kern_sum"
GROWTH = {"names": "114,744, each with a name of its own", "depth": "900, each in 1,000 ranges"}
"""Traces of `growth.py`, that are large in one way alone, in words."""


class Measured(NamedTuple):
    """One command on one trace."""

    trace: str
    command: str
    kernels: int | None
    """None: the trace is large in something else."""
    seconds: tuple[float, ...]
    """Wall time of each run."""
    peak_megabytes: float

    @property
    def median(self) -> float:
        """Of the runs, seconds."""
        return statistics.median(self.seconds)


class Goal(NamedTuple):
    """What the analysis is to reach."""

    name: str
    wanted: str
    reached: float | None
    """None: not measured this time."""
    limit: float
    at_least: bool

    @property
    def outcome(self) -> str:
        """In words."""
        if self.reached is None:
            return "not measured"
        return "met" if (self.reached >= self.limit if self.at_least else self.reached <= self.limit) else "missed"


def measure(command: list[str], folder: Path, *, says_its_seconds: bool = False) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of one run.

    Args:
        command: to run.
        folder: to run it in.
        says_its_seconds: it prints the seconds that count; else those of the whole process do.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as error:
        child = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=answer, stderr=error)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            error.seek(0)
            said = error.read().decode(errors="replace")[-400:]
            sys.exit(f"{' '.join(command)}: exit {child.returncode}: {said}")
        if says_its_seconds:
            answer.seek(0)
            seconds = float(answer.read())
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
    measured = []
    for label, path in traces(arguments.folder, arguments.kernels, arguments.processes):
        measured += bench(label, path, arguments)
        if label == f"{RANKS_OF:,}":
            measured.append(bench_ranks(path, arguments))
    measured += [bench_growth(kind, arguments) for kind in GROWTH]
    text = render(measured, arguments)
    arguments.out.write_text(text)
    print(text)


def report_name(nsys: str) -> str:
    """The report's name in this nsys: older ones write it without underscores."""
    listed = subprocess.run([nsys, "stats", "--help-reports"], capture_output=True, text=True, check=False).stdout
    return "nvtx_kern_sum" if "nvtx_kern_sum" in listed else "nvtxkernsum"


def installed_nsys() -> str | None:
    local = HERE.parent / ".nsys" / "target-linux-x64" / "nsys"
    return os.environ.get("NSYS") or shutil.which("nsys") or (str(local) if local.exists() else None)


def bench(label: str, path: Path, arguments: argparse.Namespace) -> list[Measured]:
    names = arguments.folder / "imported.txt"
    subprocess.run(
        [sys.executable, str(HERE / "imports.py"), "list", str(names), str(path)],
        stdout=subprocess.DEVNULL, cwd=arguments.folder, env=ENVIRONMENT, check=True,
    )  # fmt: skip
    commands = {
        REPORT: [sys.executable, "-m", "analysis.cli", str(path), "--out", "report"],
        IMPORTS: [sys.executable, str(HERE / "imports.py"), "import", str(names)],
        PRELOADED: [sys.executable, str(HERE / "imports.py"), "preloaded", str(names), str(path)],
        AGGREGATE: [sys.executable, str(HERE / "floor.py"), str(path), "aggregate"],
        MERGE: [sys.executable, str(HERE / "floor.py"), str(path), "merge"],
    }
    kernels = int(label.split()[0].replace(",", ""))
    if arguments.nsys and kernels <= arguments.nsys_up_to and "processes" not in label:
        # nsys stats writes an index into the file that it reads: it gets a copy.
        shutil.copy(path, arguments.folder / "for-nsys.sqlite")
        commands[NSYS_STATS] = [
            arguments.nsys, "stats", "--report", report_name(arguments.nsys), "--format", "csv", "--output", "nsys",
            "--force-overwrite", "true", str(arguments.folder / "for-nsys.sqlite"),
        ]  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    memory: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.runs + 1):
            for name, command in commands.items():
                for left in Path(folder).glob("nsys*.csv"):
                    left.unlink()
                took, peak = measure(command, Path(folder), says_its_seconds=name == PRELOADED)
                if name == NSYS_STATS and not any(each.stat().st_size for each in Path(folder).glob("nsys*.csv")):
                    sys.exit(f"{' '.join(command)}: exit 0, but wrote no table")
                if turn:  # the first one warms the page cache
                    seconds[name].append(took)
                    memory[name].append(peak)
    return [Measured(label, name, kernels, tuple(seconds[name]), statistics.median(memory[name])) for name in commands]


def bench_ranks(path: Path, arguments: argparse.Namespace) -> Measured:
    """Several files that are read as the ranks of one run: names of one trace."""
    seconds, memory = [], []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        files = [Path(folder) / f"rank{rank}.sqlite" for rank in range(RANK_FILES)]
        for file in files:
            file.hardlink_to(path)  # a symbolic link would be the same file named twice, which is refused
        command = [sys.executable, "-m", "analysis.cli", *map(str, files), "--out", "report"]
        for turn in range(arguments.runs + 1):
            took, peak = measure(command, Path(folder))
            if turn:
                seconds.append(took)
                memory.append(peak)
    kernels = RANK_FILES * RANKS_OF
    return Measured(f"{RANK_FILES} × {RANKS_OF:,}", RANKS, kernels, tuple(seconds), statistics.median(memory))


def bench_growth(kind: str, arguments: argparse.Namespace) -> Measured:
    """A trace of `growth.py`."""
    path = arguments.folder / f"{kind}.sqlite"
    if not path.exists():
        # In a process of its own, as those that are replicated.
        subprocess.run([sys.executable, str(HERE / "growth.py"), kind, str(path)], check=True)
    command = [sys.executable, "-m", "analysis.cli", str(path), "--out", "report"]
    with tempfile.TemporaryDirectory() as folder:
        runs = [measure(command, Path(folder)) for _ in range(arguments.runs + 1)][1:]
    seconds, memory = zip(*runs, strict=True)
    kernels = 114_744 if kind == "names" else None
    return Measured(GROWTH[kind], REPORT, kernels, seconds, statistics.median(memory))


def render(measured: list[Measured], arguments: argparse.Namespace) -> str:
    head = ["kernels", "command", "s (median)", "min–max", "peak MB", "dsocr-analyze / this", "µs per kernel"]
    own = {each.trace: each.median for each in measured if each.command in (REPORT, RANKS)}
    rows = [
        [
            each.trace, each.command, f"{each.median:.2f}", f"{min(each.seconds):.2f}–{max(each.seconds):.2f}",
            f"{each.peak_megabytes:,.0f}", f"{own[each.trace] / each.median:.2f}",
            "n/a" if each.kernels is None else f"{each.median / each.kernels * 1e6:.2f}",
        ]
        for each in measured
    ]  # fmt: skip
    lines = [
        "# Benchmarks",
        "",
        f"{machine()}. {datetime.now(UTC):%Y-%m-%d}, `make bench`: {arguments.runs} runs each after one to warm up, in turns,",
        "whole processes with interpreter start and all outputs. Traces: `_64tok` replicated by `benchmarks/replicate.py`, and two",
        "that are large in one way alone, by `benchmarks/growth.py`.",
        "",
        "| " + " | ".join(head) + " |",
        "|---|---|---:|---:|---:|---:|---:|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *about_nsys(arguments),
        "| goal on two cores | wanted | reached | |",
        "|---|---:|---:|---|",
        *(
            f"| {goal.name} | {goal.wanted} | {'n/a' if goal.reached is None else f'{goal.reached:.2f}'} | {goal.outcome} |"
            for goal in goals(measured)
        ),
        "",
        "The floors attribute to no level and write no report. The imports' share is what the report takes less when everything is",
        "imported before (interpreter start included). A process that only imports takes longer, for in the report a part of the",
        "imports runs while another thread reads the trace.",
        "",
    ]
    return "\n".join(lines)


def goals(measured: list[Measured]) -> list[Goal]:
    found = {(each.trace, each.command): each for each in measured}

    def ratio(trace: str, above: str, below: str) -> float | None:
        one, other = found.get((trace, above)), found.get((trace, below))
        return None if one is None or other is None else one.median / other.median

    def per_kernel(trace: str) -> float | None:
        each = found.get((trace, REPORT))
        return None if each is None or each.kernels is None else each.median / each.kernels

    def seconds(kind: str) -> float | None:
        each = found.get((GROWTH[kind], REPORT))
        return None if each is None else each.median

    small, middle, large = "115,572", "1,000,000", "10,000,000"
    at_large, at_middle = per_kernel(large), per_kernel(middle)
    growth = None if at_large is None or at_middle is None else at_large / at_middle
    rest = ratio(small, PRELOADED, REPORT)
    eight, one = found.get((f"{RANK_FILES} × {RANKS_OF:,}", RANKS)), found.get((f"{RANKS_OF:,}", REPORT))
    of_ranks = None if eight is None or one is None else eight.median / one.median
    return [
        Goal("115 k: times faster than nsys stats", "≥ 2.5", ratio(small, NSYS_STATS, REPORT), 2.5, True),
        Goal("1 M: times faster than nsys stats", "≥ 10", ratio(middle, NSYS_STATS, REPORT), 10, True),
        Goal("10 M: times the floor (Arrow + sorted merge)", "≤ 3", ratio(large, REPORT, MERGE), 3, False),
        Goal("115 k: the imports' share of the time", "≤ 0.50", None if rest is None else 1 - rest, 0.5, False),
        Goal("cost per kernel at 10 M over that at 1 M", "≤ 1", growth, 1, False),
        Goal(f"{RANK_FILES} files of 1 M: times one file of 1 M", "≤ 4.5", of_ranks, 4.5, False),
        Goal("114,744 kernels, each with a name of its own: seconds", "≤ 3", seconds("names"), 3, False),
        Goal("900,000 ranges, 1,000 deep: seconds", "≤ 5", seconds("depth"), 5, False),
    ]


def about_nsys(arguments: argparse.Namespace) -> list[str]:
    """Which nsys was measured, and where it was left out."""
    if not arguments.nsys:
        return []
    version = subprocess.run([arguments.nsys, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return [
        f"`nsys stats` is that of {version.removeprefix('NVIDIA ')}, whose report is called `{report_name(arguments.nsys)}`; "
        f"it was not run above {arguments.nsys_up_to:,} kernels.",
        "",
    ]


if __name__ == "__main__":
    main()
