"""Which part of profiling slows a run: the same workload alone and under nsys, one thing changed at a time.

    python -m benchmarks.overhead deepseek-ocr --images page.png --out overhead [--only PATTERN] [--budget-s 540]

Each variant is a process of its own with the same model, inputs and seed. Times are the program's own (median over
passes), so that they are comparable whether or not anything is attached. ``alone`` runs first and last: the
difference of the two is what the machine itself drifts by. Results are written after every variant.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

from attrs import asdict, field, frozen

from analysis.contracts import LLMProfileRequest
from analysis.convert import from_json_file, to_json
from analysis.errors import DsocrError
from runner.collectors import local_folders
from runner.environment import child_environment
from runner.nsys import NsysTool, find_nsys, profile_argv
from runner.plan import AnnotationLevel, RunPlan, WorkloadResult

OWN_DOMAINS = "dsocr,dsocr.module,dsocr.meta"
QUIET = {"sample": "none", "cpuctxsw": "none", "resolve-symbols": "false"}
RANGE = {"capture-range": "cudaProfilerApi", "capture-range-end": "stop"}
CUDA = {"trace": "cuda", "cuda-graph-trace": "graph", "cuda-memory-usage": "false"}
BOTH = {**CUDA, "trace": "cuda,nvtx"}


@frozen
class Variant:
    """One way to run the workload."""

    name: str
    asks: str
    """The question that it answers."""
    marks: AnnotationLevel | None = None
    """Our own ranges; None: none."""
    nsys: dict[str, str] | None = None
    """Options; None: without nsys."""
    unset: tuple[str, ...] = ()
    """Variables taken from the program after nsys has set them."""
    env: dict[str, str] = field(factory=dict)


VARIANTS = (
    Variant("alone", "the reference"),
    Variant("alone, marked", "what our ranges and hooks cost where nobody listens", marks="modules"),
    Variant("trace none", "nsys' launcher and agent, nothing injected", nsys={"trace": "none", **QUIET}),
    Variant("attached, idle", "injection; collection never starts", nsys={**BOTH, **QUIET, **RANGE}),
    Variant("nvtx, unmarked", "ranges made by libraries", nsys={"trace": "nvtx", **QUIET}),
    Variant(
        "nvtx, unmarked, own domains",
        "the same, library ranges filtered by nsys",
        nsys={"trace": "nvtx", "nvtx-domain-include": OWN_DOMAINS, **QUIET},
    ),
    Variant(
        "nvtx, not injected",
        "the same, NVTX of the program and its libraries not connected",
        nsys={"trace": "nvtx", **QUIET},
        unset=("NVTX_INJECTION64_PATH",),
    ),
    Variant(
        "nvtx, no injection at all",
        "the same, and no preloaded or CUDA injection library either",
        nsys={"trace": "nvtx", **QUIET},
        unset=("NVTX_INJECTION64_PATH", "CUDA_INJECTION64_PATH", "LD_PRELOAD"),
    ),
    Variant("nvtx, stages", "our stage ranges", marks="stages", nsys={"trace": "nvtx", **QUIET, **RANGE}),
    Variant("nvtx, modules", "our module ranges", marks="modules", nsys={"trace": "nvtx", **QUIET, **RANGE}),
    Variant("cuda, unmarked", "CUPTI activity records", nsys={**CUDA, **QUIET}),
    Variant("preset light", "the preset", marks="stages", nsys={**BOTH, **QUIET, **RANGE}),
    Variant("preset default", "the preset", marks="modules", nsys={**BOTH, **QUIET, **RANGE}),
    Variant(
        "default, own domains",
        "library ranges filtered by nsys",
        marks="modules",
        nsys={**BOTH, "nvtx-domain-include": OWN_DOMAINS, **QUIET, **RANGE},
    ),
    Variant(
        "default, no event trace",
        "CUDA event records",
        marks="modules",
        nsys={**BOTH, "cuda-event-trace": "false", **QUIET, **RANGE},
    ),
    Variant(
        "default, flush 10 s",
        "when CUPTI buffers are saved",
        marks="modules",
        nsys={**BOTH, "cuda-flush-interval": "10000", **QUIET, **RANGE},
    ),
    Variant(
        "default, one thread",
        "host threads",
        marks="modules",
        nsys={**BOTH, **QUIET, **RANGE},
        env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    ),
    Variant("alone, one thread", "its reference", env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}),
    Variant(
        "default, one arena",
        "the host's allocator",
        marks="modules",
        nsys={**BOTH, **QUIET, **RANGE},
        env={"MALLOC_ARENA_MAX": "1"},
    ),
    Variant(
        "default, resolve symbols",
        "the option that the presets switch off",
        marks="modules",
        nsys={**BOTH, **QUIET, "resolve-symbols": "true", **RANGE},
    ),
    Variant("operators", "a range per operator", marks="operators", nsys={**BOTH, **QUIET, **RANGE}),
    Variant("alone again", "drift of the machine since the first"),
)


@frozen
class Measured:
    """What one variant took."""

    name: str
    asks: str
    prefill_ms: float | None = None
    step_ms: float | None = None
    step_p95_ms: float | None = None
    steps: int = 0
    command: str = ""
    wall_s: float = 0.0
    left_out: str | None = None
    """Why there is no figure."""


def main() -> int:
    """Run the variants one after another and write overhead.json and overhead.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("overhead"))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--input-mode")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--nsys")
    parser.add_argument("--only", default="*", help="pattern of variants' names; `alone` always runs")
    parser.add_argument("--budget-s", type=float, help="start no variant that may not end in this time")
    arguments = parser.parse_args()
    try:
        tool = find_nsys(arguments.nsys, os.environ, folders=local_folders(), need_import=False)
    except DsocrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    longest = 0.0
    measured: list[Measured] = []
    for variant in VARIANTS:
        if variant.name != "alone" and not fnmatch.fnmatch(variant.name, arguments.only):
            continue
        spent = time.monotonic() - started
        if arguments.budget_s is not None and spent + 1.2 * longest > arguments.budget_s:
            measured.append(Measured(variant.name, variant.asks, left_out="no time was left"))
        else:
            print(f"{spent:6.0f} s  {variant.name}", file=sys.stderr, flush=True)
            measured.append(measure(variant, tool, arguments))
            longest = max(longest, measured[-1].wall_s)
        write(arguments, tool, measured)
    print((arguments.out / "overhead.md").read_text())
    return 0


def measure(variant: Variant, tool: NsysTool, arguments: argparse.Namespace) -> Measured:
    """Run one variant."""
    unknown = [name for name in variant.nsys or {} if name not in tool.profile_options]
    if unknown:
        return Measured(variant.name, variant.asks, left_out=f"nsys {tool.version} has no --{', --'.join(unknown)}")
    folder = (arguments.out / variant.name.replace(" ", "-").replace(",", "")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    request = LLMProfileRequest(
        model_path=arguments.model,
        input_dir=str(arguments.images.absolute()),
        repeats=arguments.repeats,
        device=arguments.device,
        max_new_tokens=arguments.max_new_tokens,
    )
    plan = RunPlan(
        run_id=str(uuid.uuid4()),
        request=request,
        run_dir=str(folder),
        collector="nsys",
        input_mode=arguments.input_mode,
        capture_passes=arguments.repeats,
        annotation_level=variant.marks or "stages",
        ignore_eos=True,
    )
    (folder / "plan.json").write_text(to_json(plan))
    role, result_name = ("control", "control.json") if variant.marks is None else ("capture", "profiled.json")
    target = [sys.executable, "-m", "runner.workload", str(folder / "plan.json"), "--role", role]
    if variant.unset:
        target = ["env", *(part for name in variant.unset for part in ("-u", name)), *target]
    argv = target
    if variant.nsys is not None:
        options = dict(variant.nsys)
        if not arguments.device.startswith("cuda"):
            options = {name: value for name, value in options.items() if name not in RANGE}
        extra = ("--force-overwrite=true",)
        session = f"b{plan.run_id[:8]}"
        argv = profile_argv(tool, options, output=str(folder / "trace"), session=session, target=target, extra=extra)
    (folder / result_name).unlink(missing_ok=True)
    begun = time.monotonic()
    source = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH")) if part)
    env = child_environment(os.environ, extra={"PYTHONPATH": path, **variant.env})
    with (folder / "log").open("wb") as log:
        code = subprocess.run(argv, env=env, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    wall_s = time.monotonic() - begun
    for left in (*folder.glob("trace.*"),):
        left.unlink()  # hundreds of megabytes each, and not looked at
    if not (folder / result_name).is_file():
        why = f"exit code {code}, see {folder / 'log'}"
        return Measured(variant.name, variant.asks, left_out=why, command=" ".join(argv), wall_s=wall_s)
    result = from_json_file(WorkloadResult, folder / result_name)
    steps = sorted(step for one in result.passes for step in one.step_ns)
    return Measured(
        name=variant.name,
        asks=variant.asks,
        prefill_ms=statistics.median(one.prefill_ns for one in result.passes) / 1e6,
        step_ms=statistics.median(steps) / 1e6 if steps else None,
        step_p95_ms=steps[int(0.95 * (len(steps) - 1))] / 1e6 if steps else None,
        steps=len(steps),
        command=" ".join(argv),
        wall_s=wall_s,
    )


def write(arguments: argparse.Namespace, tool: NsysTool, measured: list[Measured]) -> None:
    """Write what is known so far."""
    facts = {
        "model": arguments.model,
        "device": arguments.device,
        "input_mode": arguments.input_mode,
        "max_new_tokens": arguments.max_new_tokens,
        "repeats": arguments.repeats,
        "nsys": tool.version,
        "python": platform.python_version(),
        "machine_cores": os.cpu_count(),
    }
    document = {**facts, "variants": [asdict(one) for one in measured]}
    (arguments.out / "overhead.json").write_text(json.dumps(document, indent=2) + "\n")
    reference = measured[0]
    lines = [
        f"{arguments.model} on {arguments.device}, nsys {tool.version}, {arguments.repeats} passes of "
        f"{arguments.max_new_tokens} tokens, medians of the program's own timings:",
        "",
        "| variant | what it shows | prefill ms | × | decode step ms | × | p95 step ms |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for one in measured:
        if one.left_out is not None:
            lines.append(f"| {one.name} | {one.asks} | n/a ({one.left_out}) | | | | |")
            continue
        prefill = _cells(one.prefill_ms, reference.prefill_ms)
        lines.append(
            f"| {one.name} | {one.asks} | {prefill} | {_cells(one.step_ms, reference.step_ms)} | {_ms(one.step_p95_ms)} |"
        )
    (arguments.out / "overhead.md").write_text("\n".join(lines) + "\n")


def _cells(value: float | None, reference: float | None) -> str:
    factor = "" if value is None or not reference else f"{value / reference:.2f}"
    return f"{_ms(value)} | {factor}"


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
