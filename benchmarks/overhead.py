"""Which part of profiling slows a run: the same workload alone and under nsys, one thing changed at a time.

    python -m benchmarks.overhead deepseek-ocr --images page.png --out overhead [--only PATTERN …] [--budget-s 540]

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

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json_file, to_json
from analysis.domain.errors import CaptureError, DsocrError
from analysis.domain.manifest import DecodeMode
from benchmarks.nsys_modes import INJECTED, QUIET, chosen_nsys, program_environment, without
from runner.collectors.nsys.presets import load_preset, resolve_options
from runner.collectors.nsys.tool import NsysTool, profile_argv
from runner.plan.plan import RunPlan, WorkloadResult
from runner.plan.settings import AnnotationLevel, Settings

OWN_DOMAINS = "dsocr,dsocr.module,dsocr.meta"
CUDA = {"trace": "cuda", "cuda-graph-trace": "graph", "cuda-memory-usage": "false"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@frozen
class Variant:
    """One way to run the workload."""

    name: str
    asks: str
    """The question that it answers."""
    preset: str | None = None
    """Options and annotation level of this preset, collected between cudaProfilerStart and cudaProfilerStop."""
    marks: AnnotationLevel | None = None
    """Our own ranges; None: the preset's, without one none."""
    options: dict[str, str] | None = None
    """Of nsys, on top of the preset's; None with no preset: without nsys."""
    unset: tuple[str, ...] = ()
    """Variables taken from the program after nsys has set them."""
    env: dict[str, str] = field(factory=dict)
    decode: DecodeMode = "eager"


VARIANTS = (
    Variant("alone", "the reference"),
    Variant("preset light", "the preset", preset="light"),
    Variant("preset default", "the preset", preset="default"),
    Variant("preset modules", "the preset", preset="modules"),
    Variant("preset gpu-metrics", "the preset", preset="gpu-metrics"),
    Variant("preset operators", "the preset", preset="operators"),
    Variant("alone, marked", "what our ranges and hooks cost where nobody listens", marks="modules"),
    Variant("trace none", "nsys' launcher and agent, nothing injected", options={"trace": "none", **QUIET}),
    Variant(
        "nvtx, nothing injected", "the agent, and no library of it", options={"trace": "nvtx", **QUIET}, unset=INJECTED
    ),
    Variant("nvtx", "injection, and ranges made by libraries", options={"trace": "nvtx", **QUIET}),
    Variant(
        "nvtx, own domains",
        "the same, library ranges filtered by nsys",
        options={"trace": "nvtx", "nvtx-domain-include": OWN_DOMAINS, **QUIET},
    ),
    Variant("nvtx, stages", "and our stage ranges", marks="stages", options={"trace": "nvtx", **QUIET}),
    Variant("cuda", "CUPTI's activity records", options={**CUDA, **QUIET}),
    Variant("alone, second time", "drift of the machine"),
    Variant(
        "default, own domains",
        "library ranges filtered by nsys",
        preset="default",
        options={"nvtx-domain-include": OWN_DOMAINS},
    ),
    Variant("default, no event trace", "CUDA event records", preset="default", options={"cuda-event-trace": "false"}),
    Variant("default, no preload", "the preloaded library", preset="default", unset=("LD_PRELOAD",)),
    Variant(
        "default, flush 10 s", "how often buffers are saved", preset="default", options={"cuda-flush-interval": "10000"}
    ),
    Variant("default, one thread", "host threads", preset="default", env=ONE_THREAD),
    Variant("alone, one thread", "its reference", env=ONE_THREAD),
    Variant("default, one arena", "the host's allocator", preset="default", env={"MALLOC_ARENA_MAX": "1"}),
    Variant("graph, alone", "decode replayed from a CUDA graph, the reference", decode="cuda-graph"),
    Variant("graph, preset light", "the preset", preset="light", decode="cuda-graph"),
    Variant("graph, preset cuda-graph-nodes", "the preset", preset="cuda-graph-nodes", decode="cuda-graph"),
    Variant("alone, third time", "drift of the machine"),
    Variant("preset os-runtime", "the preset", preset="os-runtime"),
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
    report_mb: float | None = None
    """Size of what nsys wrote."""
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
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--nsys")
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of variants' names; `alone` always runs")
    parser.add_argument("--budget-s", type=float, help="start no variant that may not end in this time")
    arguments = parser.parse_args()
    tool = chosen_nsys(arguments.nsys)
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    longest = 0.0
    measured: list[Measured] = []
    for variant in VARIANTS:
        if variant.name != "alone" and not any(fnmatch.fnmatch(variant.name, one) for one in arguments.only):
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


def nsys_options(variant: Variant, tool: NsysTool, device: str) -> tuple[dict[str, str] | None, AnnotationLevel | None]:
    """Options (None: without nsys) and annotation level of a variant.

    Raises:
        DsocrError: this nsys or this device does not have what the variant needs.
    """
    options, marks = variant.options, variant.marks
    if variant.preset is not None:
        preset = load_preset(variant.preset)
        options = resolve_options(preset, tool, device=device).options | (options or {})
        marks = marks or preset.annotations
    unknown = [name for name in options or {} if name not in tool.profile_options]
    if unknown:
        raise CaptureError(f"nsys {tool.version} has no --{', --'.join(unknown)}")
    return options, marks


def measure(variant: Variant, tool: NsysTool, arguments: argparse.Namespace) -> Measured:
    """Run one variant."""
    try:
        options, marks = nsys_options(variant, tool, arguments.device)
    except DsocrError as error:
        return Measured(variant.name, variant.asks, left_out=str(error))
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
        annotation_level=marks or "stages",
        settings=Settings(
            input_mode=arguments.input_mode,
            capture_passes=arguments.repeats,
            decode_mode=variant.decode,
            ignore_eos=True,
        ),
    )
    (folder / "plan.json").write_text(to_json(plan))
    role, result_name = ("control", "control.json") if marks is None else ("capture", "profiled.json")
    target = [sys.executable, "-m", "runner.child.workload", str(folder / "plan.json"), "--role", role, "--no-costs"]
    argv = target = without(variant.unset, target)
    if options is not None:
        extra = ("--force-overwrite=true",)
        session = f"b{plan.run_id[:8]}"
        argv = profile_argv(tool, options, output=str(folder / "trace"), session=session, target=target, extra=extra)
    (folder / result_name).unlink(missing_ok=True)
    begun = time.monotonic()
    env = program_environment(variant.env)
    with (folder / "log").open("wb") as log:
        code = subprocess.run(argv, env=env, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    wall_s = time.monotonic() - begun
    report_mb = None
    for left in folder.glob("trace.*"):
        report_mb = left.stat().st_size / 1e6
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
        report_mb=report_mb,
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
    by_name = {one.name: one for one in measured}
    lines = [
        f"{arguments.model} on {arguments.device}, nsys {tool.version}, {arguments.repeats} passes of "
        f"{arguments.max_new_tokens} tokens, medians of the program's own timings:",
        "",
        "| variant | what it shows | prefill ms | × | decode step ms | × | p95 step ms | report MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for one in measured:
        if one.left_out is not None:
            lines.append(f"| {one.name} | {one.asks} | n/a ({one.left_out}) | | | | | |")
            continue
        base = by_name.get("graph, alone", reference) if one.name.startswith("graph") else reference
        lines.append(
            f"| {one.name} | {one.asks} | {_cells(one.prefill_ms, base.prefill_ms)} | {_cells(one.step_ms, base.step_ms)} "
            f"| {_ms(one.step_p95_ms)} | {'' if one.report_mb is None else f'{one.report_mb:.1f}'} |"
        )
    (arguments.out / "overhead.md").write_text("\n".join(lines) + "\n")


def _cells(value: float | None, reference: float | None) -> str:
    factor = "" if value is None or not reference else f"{value / reference:.2f}"
    return f"{_ms(value)} | {factor}"


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
