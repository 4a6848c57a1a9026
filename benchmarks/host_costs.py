"""Which host operation profiling slows: the same short loops alone and under nsys, one library or option at a time.

    python -m benchmarks.host_costs [--nsys PATH] [--device cuda:0] [--out host-costs]

Each mode is a process of its own. `benchmarks.overhead` says how much slower a whole model runs; this says where the
time goes: a mode that slows the bare interpreter disturbs the machine, one that slows launches alone is a callback.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.nsys_modes import INJECTED, QUIET, chosen_nsys, program_environment, without
from runner.collectors.nsys.tool import NsysTool, profile_argv

BOTH = {"trace": "cuda,nvtx", "cuda-graph-trace": "graph", "cuda-memory-usage": "false", **QUIET}
IDLE = {**BOTH, "capture-range": "cudaProfilerApi", "capture-range-end": "stop"}

PRELOAD = ("LD_PRELOAD",)

MODES: dict[str, tuple[dict[str, str] | None, tuple[str, ...]]] = {
    "alone": (None, ()),
    "trace none": ({"trace": "none", **QUIET}, ()),
    "nvtx": ({"trace": "nvtx", **QUIET}, ()),
    "nvtx, no preload": ({"trace": "nvtx", **QUIET}, PRELOAD),
    "nvtx, nothing injected": ({"trace": "nvtx", **QUIET}, INJECTED),
    "cuda": ({"trace": "cuda", "cuda-graph-trace": "graph", **QUIET}, ()),
    "cuda,nvtx, idle": (IDLE, ()),
    "cuda,nvtx": (BOTH, ()),
    "cuda,nvtx, no preload": (BOTH, PRELOAD),
    "cuda,nvtx, no event trace": ({**BOTH, "cuda-event-trace": "false"}, ()),
    "alone again": (None, ()),
}
"""Name → nsys' options (None: no nsys), variables taken from the program after nsys has set them."""

ROUNDS = 7


def main() -> int:
    """Run every mode and print a table of nanoseconds per operation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nsys")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=Path("host-costs"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        return measure(arguments.device, arguments.measure)
    tool = chosen_nsys(arguments.nsys)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for name, (options, unset) in MODES.items():
        started = time.monotonic()
        results[name] = run_mode(tool, arguments, name, options, unset)
        print(f"{time.monotonic() - started:6.1f} s  {name}", file=sys.stderr, flush=True)
        (arguments.out / "host-costs.json").write_text(json.dumps(results, indent=2) + "\n")
        (arguments.out / "host-costs.md").write_text(table(tool, results))
    print((arguments.out / "host-costs.md").read_text())
    return 0


def run_mode(
    tool: NsysTool, arguments: argparse.Namespace, name: str, options: dict[str, str] | None, unset: tuple[str, ...]
) -> dict[str, Any]:
    """Measure in a fresh process; gives what it wrote, or why it wrote nothing."""
    result = (arguments.out / f"{uuid.uuid4().hex}.json").absolute()
    target = [sys.executable, "-m", "benchmarks.host_costs", "--device", arguments.device, "--measure", str(result)]
    argv = target = without(unset, target)
    report = arguments.out / f"{result.stem}-trace"
    if options is not None:
        known = {option: value for option, value in options.items() if option in tool.profile_options}
        argv = profile_argv(tool, known, output=str(report.absolute()), session=f"h{result.stem[:8]}", target=target)
    done = subprocess.run(argv, env=program_environment(), capture_output=True, text=True, check=False)
    for left in arguments.out.glob(f"{result.stem}-trace*"):
        left.unlink()
    if not result.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()
        return {"failed": f"{name}: exit code {done.returncode}: {said[-1] if said else 'it said nothing'}"}
    found: dict[str, Any] = json.loads(result.read_text())
    result.unlink()
    return found


def table(tool: NsysTool, results: dict[str, dict[str, Any]]) -> str:
    """Rows: operations; columns: modes; nanoseconds, and the factor to ``alone``."""
    reference = results["alone"].get("ns", {})
    names = list(results)
    lines = [
        f"nsys {tool.version}, median of {ROUNDS} rounds, ns per operation:",
        "",
        "| operation | " + " | ".join(names) + " |",
        "|---|" + "--:|" * len(names),
    ]
    for operation, alone in reference.items():
        cells = []
        for name in names:
            value = results[name].get("ns", {}).get(operation)
            cells.append("n/a" if value is None else f"{value:,.0f} ({value / alone:.2f}×)")
        lines.append(f"| {operation} | " + " | ".join(cells) + " |")
    for name, found in results.items():
        if "failed" in found:
            lines.append(f"\n{found['failed']}")
        else:
            shown = ", ".join(f"{key}={Path(value).name}" for key, value in found["injected"].items())
            lines.append(f"\n{name}: {found['threads']} threads; {shown or 'nothing injected'}")
    return "\n".join(lines) + "\n"


def measure(device: str, result: Path) -> int:
    """The measured program: write nanoseconds per operation as JSON."""
    import torch

    costs = {name: per_call(body, calls) for name, (body, calls) in operations(torch.device(device)).items()}
    document = {
        "ns": costs,
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "injected": {name: os.environ[name] for name in INJECTED if name in os.environ},
    }
    result.write_text(json.dumps(document))
    return 0


def operations(device: Any) -> dict[str, tuple[Callable[[int], None], int]]:
    """Name → (body that does it n times, calls per round). Each body has its own loop: a call would cost as much again."""
    import nvtx
    import torch

    found: dict[str, tuple[Callable[[int], None], int]] = {}
    on_host = torch.ones(8)
    lock = threading.Lock()
    clock = time.perf_counter_ns

    def interpreter(calls: int) -> None:
        total = 0
        for index in range(calls):
            total += index

    def allocate(calls: int) -> None:
        for _ in range(calls):
            bytearray(4096)

    def lock_unlock(calls: int) -> None:
        for _ in range(calls):
            with lock:
                pass

    def read_clock(calls: int) -> None:
        for _ in range(calls):
            clock()

    def operator(calls: int) -> None:
        for _ in range(calls):
            on_host.add_(1)

    def system_call(calls: int) -> None:
        for _ in range(calls):
            os.getppid()

    def annotated(calls: int) -> None:
        for _ in range(calls):
            nvtx.push_range("range")
            nvtx.pop_range()

    found["interpreter loop"] = (interpreter, 1_000_000)
    found["allocate 4 KiB"] = (allocate, 200_000)
    found["lock and unlock"] = (lock_unlock, 500_000)
    found["read the clock"] = (read_clock, 500_000)
    found["system call"] = (system_call, 100_000)
    found["operator on the CPU"] = (operator, 100_000)
    found["nvtx range"] = (annotated, 20_000)
    if device.type != "cuda":
        return found

    small = torch.ones(64, device=device)
    matrix = torch.randn(64, 64, device=device, dtype=torch.bfloat16)
    heads = torch.randn(1, 8, 64, 64, device=device, dtype=torch.bfloat16)
    stream = torch.cuda.current_stream(device)

    def gpu_allocate(calls: int) -> None:
        for _ in range(calls):
            torch.empty(64, device=device)

    def launch(calls: int) -> None:
        for _ in range(calls):
            small.add_(1)

    def product(calls: int) -> None:
        for _ in range(calls):
            torch.mm(matrix, matrix)

    def attention(calls: int) -> None:
        for _ in range(calls):
            torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)

    def query(calls: int) -> None:
        for _ in range(calls):
            stream.query()

    def synchronise(calls: int) -> None:
        for _ in range(calls):
            stream.synchronize()

    def to_host(calls: int) -> None:
        for _ in range(calls):
            small[0].item()

    found["cached GPU allocation"] = (gpu_allocate, 20_000)
    found["kernel launch (add_)"] = (launch, 5_000)
    found["matrix product"] = (product, 5_000)
    found["attention"] = (attention, 2_000)
    found["query a stream"] = (query, 20_000)
    found["synchronise an idle stream"] = (synchronise, 20_000)
    found["item()"] = (to_host, 2_000)
    return found


def per_call(body: Callable[[int], None], calls: int) -> float:
    """Median over rounds of nanoseconds per operation; the GPU's queue is emptied between rounds."""
    import torch

    rounds = []
    body(max(1, calls // 10))
    for _ in range(ROUNDS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter_ns()
        body(calls)
        rounds.append((time.perf_counter_ns() - started) / calls)
    return statistics.median(rounds)


if __name__ == "__main__":
    sys.exit(main())
