"""What a range costs, and what each annotation level costs the tiny model.

    python -m benchmarks.annotations [--model deepseek-ocr-tiny] [--device cpu] [--passes 5]

Run it alone for the cost where nobody listens, and under ``nsys profile -t nvtx`` for the cost where somebody does.
Levels alternate pass by pass, so that a machine's drift meets all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import nvtx
import torch

from analysis.domain.contracts import LLMProfileRequest
from runner.child.annotate import Annotator
from runner.child.models.loading import load_model
from runner.child.passes import make_decoder, prepare_inputs, run_pass
from runner.collectors.interface.recording import RangeSink
from runner.collectors.nvidia.recording import NvtxSink
from runner.inputs.inputs import discover, sample_set
from runner.plan.plan import RunPlan
from runner.plan.settings import AnnotationLevel, Settings

CALLS = 20_000
LEVELS: tuple[AnnotationLevel | None, ...] = (None, "stages", "modules", "operators")


def main() -> int:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deepseek-ocr-tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=16)
    arguments = parser.parse_args()
    print("| a range (push and pop) | µs |\n|---|--:|")
    for name, cost_us in ranges().items():
        print(f"| {name} | {cost_us:.3f} |")
    print(
        f"\n| level, {arguments.model} on {arguments.device} | ranges a step | prefill ms | decode step ms |\n|---|--:|--:|--:|"
    )
    for row in levels(arguments):
        print(row)
    return 0


def ranges() -> dict[str, float]:
    """Microseconds per range, the best of five rounds: what disturbs a round only ever adds."""
    sink = NvtxSink()
    sink.prepare("bench", ("range",))

    def prepared() -> None:
        for _ in range(CALLS):
            sink.push("bench", "range")
            sink.pop("bench")

    def with_payload() -> None:
        for index in range(CALLS):
            sink.push("bench", "range", index)
            sink.pop("bench")

    def annotate() -> None:
        for _ in range(CALLS):
            with nvtx.annotate("range", domain="bench"):
                pass

    def formatted() -> None:
        for index in range(CALLS):
            with nvtx.annotate(f"range {index % 64}", domain="bench"):
                pass

    def nothing() -> None:
        for _ in range(CALLS):
            pass

    loop_us = _best(nothing)
    return {
        "attributes built once, pushed through their domain": _best(prepared) - loop_us,
        "the same with a payload": _best(with_payload) - loop_us,
        "nvtx.annotate with a constant name": _best(annotate) - loop_us,
        "nvtx.annotate with a formatted name": _best(formatted) - loop_us,
    }


def _best(work: Callable[[], None]) -> float:
    times = []
    for _ in range(5):
        begun = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - begun)
    return min(times) / CALLS / 1e3


class _Counter:
    """A sink that counts."""

    torch_writes_operators = False

    def __init__(self) -> None:
        self.ranges = 0

    def prepare(self, domain: str, names: Sequence[str] = ()) -> None:
        pass

    def push(self, domain: str, name: str, payload: int | None = None) -> None:
        self.ranges += 1

    def pop(self, domain: str) -> None:
        pass

    def mark(self, domain: str, text: str) -> None:
        pass


@torch.inference_mode()
def levels(arguments: argparse.Namespace) -> list[str]:
    """Rows: median prefill and decode step per level."""
    with tempfile.TemporaryDirectory() as folder:
        sample_set(Path(folder))
        page = discover(Path(folder)).images[0].path
        request = LLMProfileRequest(
            arguments.model, page, device=arguments.device, max_new_tokens=arguments.max_new_tokens
        )
        plan = RunPlan("bench", request, folder, "nsys", settings=Settings(ignore_eos=True))
        model = load_model(plan)
        inputs = prepare_inputs(plan, model, discover(Path(page)))
        decoder = make_decoder(plan, model, inputs)
        run_pass(plan, model, decoder, inputs, Annotator(), 0)
        prefill: dict[AnnotationLevel | None, list[float]] = {level: [] for level in LEVELS}
        step: dict[AnnotationLevel | None, list[float]] = {level: [] for level in LEVELS}
        per_step: dict[AnnotationLevel | None, float] = {}
        for index in range(arguments.passes + 1):
            for level in LEVELS:
                counter = _Counter()
                sinks: tuple[RangeSink, ...] = () if level is None else (counter,) if index == 0 else (NvtxSink(),)
                annotator = Annotator(sinks, level or "stages")
                with ExitStack() as stack:
                    stack.enter_context(annotator.modules(model.modules))
                    stack.enter_context(annotator.operators(model.device))
                    done = run_pass(plan, model, decoder, inputs, annotator, index)
                if index == 0:  # counted, not timed
                    per_step[level] = counter.ranges / max(sum(one.new_tokens for one in done), 1)
                    continue
                prefill[level] += [one.prefill_ns / 1e6 for one in done]
                step[level] += [ns / 1e6 for one in done for ns in one.step_ns]
    return [
        f"| {level or 'none'} | {per_step[level]:.0f} | {statistics.median(prefill[level]):.2f} | "
        f"{statistics.median(step[level]):.3f} |"
        for level in LEVELS
    ]


if __name__ == "__main__":
    sys.exit(main())
