"""Can this capture be trusted? Each finding on a small trace that has just that flaw."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.attribution.attribution import Attribution
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import to_json
from analysis.domain.entities import RunMeta
from analysis.domain.manifest import ControlPass, PromptTokens, RunManifest
from analysis.domain.program import ProgramManifest
from analysis.quality.examine import examine, is_unfit
from analysis.quality.findings import Finding
from analysis.trace.reader import Trace
from trace_builder import START_END, TraceBuilder, thread_id

Examine = Callable[..., dict[str, Finding]]

IMAGES, STEPS, LAYERS = 2, 6, 4
STEP_NS = 1_000_000


@pytest.fixture
def findings(tmp_path: Path) -> Examine:
    """Builder → findings by code. There is one of a code at most, but for cold starts."""

    def run(builder: TraceBuilder, manifest: RunManifest | None = None) -> dict[str, Finding]:
        with Trace(builder.write(tmp_path / "trace.sqlite")) as trace:
            return {one.code: one for one in examine(trace, Attribution.of(trace), manifest)}

    return run


def clean(*, skip: Callable[[int, int, int], bool] = lambda image, step, layer: False) -> TraceBuilder:
    """Two images, a prefill and six steps each, four layers with one launch each.

    Args:
        skip: image, step (−1: prefill) and layer → leave out this layer's range.
    """
    built = TraceBuilder().session(IMAGES * (STEPS + 2) * STEP_NS + 1_000_000).gpu()
    for image in range(IMAGES):
        begin = image * (STEPS + 2) * STEP_NS
        built.range(f"image[{image}]", begin, begin + (STEPS + 1) * STEP_NS, domain="dsocr")
        built.range("prefill", begin, begin + STEP_NS - 10, domain="dsocr", payload=100)
        built.range("decode", begin + STEP_NS, begin + (STEPS + 1) * STEP_NS, domain="dsocr")
        for step in range(-1, STEPS):
            at = begin + (step + 1) * STEP_NS
            if step >= 0:
                built.range("decode_step", at, at + STEP_NS - 10, domain="dsocr", payload=100 + step)
            for layer in range(LAYERS):
                start = at + 100 + layer * 1_000
                if not skip(image, step, layer):
                    built.range(f"layers.{layer}", start, start + 900, domain="dsocr.module")
                built.launch(start + 10, start + 20, ("gemm", start + 500, start + 700))
    return built


def manifest(**changes: Any) -> RunManifest:
    """Of the run that `clean` shows."""
    prompts = tuple(
        PromptTokens(number, "base", 0, 80, 20, 100, expected_new_tokens=STEPS + 1) for number in range(IMAGES)
    )
    plain = RunManifest(
        run_id="r1",
        status="complete",
        request=LLMProfileRequest(model_path="/models/m", input_dir="/pages"),
        collector="nsys",
        meta=RunMeta(run_id="r1", created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), repeats=1),
        prompts=prompts,
        versions={"driver": "580.65.06", "cuda": "13.0"},
    )
    return evolve(plain, **changes)


def test_a_whole_capture_passes_clean(findings: Examine) -> None:
    assert findings(clean(), manifest()) == {}
    assert list(findings(clean())) == ["no-manifest"]


# --- what should be there -------------------------------------------------------------------------------------


def test_no_ranges_at_all(findings: Examine) -> None:
    built = TraceBuilder().launch(10, 11, ("k", 20, 30))
    assert findings(built)["no-nvtx"].severity == "warning", "a stranger's program may write none"
    assert findings(built, manifest())["no-nvtx"].severity == "unfit"
    assert "missing" in findings(built)["no-nvtx"].evidence


def test_no_gpu_work(findings: Examine) -> None:
    found = findings(TraceBuilder().range("prefill", 0, 10, domain="dsocr").call(1, 2))
    assert found["no-gpu-work"].severity == "unfit"


def test_no_api_calls(findings: Examine) -> None:
    found = findings(clean().without("CUPTI_ACTIVITY_KIND_RUNTIME"), manifest())
    assert found["no-api-calls"].severity == "unfit"


def test_stages_missing(findings: Examine) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(10, 11, ("k", 20, 30))
    assert findings(built)["missing-stages"].severity == "warning", "a stranger's program may have no decode"
    assert findings(built, manifest())["missing-stages"].severity == "unfit"
    assert "decode" in findings(built, manifest())["missing-stages"].title


def test_a_run_of_one_token_has_no_decode(findings: Examine) -> None:
    built = TraceBuilder().range("image[0]", 0, 100, domain="dsocr").range("prefill", 0, 100, domain="dsocr")
    one = manifest(prompts=(PromptTokens(0, "base", 0, 80, 20, 100, expected_new_tokens=1),))
    assert findings(built.launch(10, 11, ("k", 20, 30)), one) == {}


def test_module_ranges_without_any_stage(findings: Examine) -> None:
    built = TraceBuilder().range("lm_head", 0, 100, domain="dsocr.module").launch(10, 11, ("k", 20, 30))
    assert findings(built)["missing-stages"].severity == "unfit"


@pytest.mark.parametrize(
    ("changes", "severity", "evidence"),
    [
        ({"capture_passes": 2}, "unfit", "2 of 4 image ranges; 2 of 4 prefill ranges"),
        ({"prompts": manifest().prompts[:1] * 3}, "unfit", "2 of 3 image ranges"),
        (
            {"prompts": tuple(evolve(one, expected_new_tokens=8) for one in manifest().prompts)},
            "warning",
            "12 of 14 step",
        ),
        ({"profiled": tuple(ControlPass(0, number, 1, 1, 8) for number in range(2))}, "unfit", "12 of 14 step ranges"),
    ],
)
def test_fewer_ranges_than_the_manifest_expects(
    findings: Examine, changes: dict[str, object], severity: str, evidence: str
) -> None:
    found = findings(clean(), manifest(**changes))["fewer-ranges-than-expected"]
    assert found.severity == severity
    assert evidence in found.evidence


def test_more_ranges_than_the_manifest_expects(findings: Examine) -> None:
    found = findings(clean(), manifest(prompts=manifest().prompts[:1]))
    assert found["more-ranges-than-expected"].severity == "warning"
    assert "fewer-ranges-than-expected" not in found


# --- a program that was ended before it was through ------------------------------------------------------------


def test_a_partial_capture_with_a_whole_image_can_be_reported(findings: Examine) -> None:
    """What is missing is missing for a reason that is known: it was called unfit for it."""
    three = manifest(prompts=tuple(evolve(manifest().prompts[0], image_index=number) for number in range(3)))
    assert "fewer-ranges-than-expected" in findings(clean(), three)
    found = findings(clean(), evolve(three, partial="--timeout 60"))
    assert list(found) == ["partial-capture"]
    assert found["partial-capture"].severity == "warning"
    assert found["partial-capture"].title == "partial capture: ended by --timeout 60; 2 of 3 images"
    assert "median" not in found["partial-capture"].evidence


def test_the_image_that_it_was_ended_in_is_not_whole(findings: Examine, tmp_path: Path) -> None:
    longer = tuple(evolve(prompt, expected_new_tokens=STEPS + 5) for prompt in manifest().prompts)
    found = findings(clean(), manifest(prompts=longer, partial="an interrupt"))
    assert found["partial-capture"].title == "partial capture: ended by an interrupt; 1 of 2 images"
    assert "in no median and no verdict" in found["partial-capture"].evidence


@pytest.mark.parametrize("tokens", [None, STEPS + 2])
def test_a_partial_capture_without_a_whole_image_is_unfit(findings: Examine, tokens: int | None) -> None:
    one = (PromptTokens(0, "base", 0, 80, 20, 100, expected_new_tokens=tokens),)
    built = TraceBuilder().session(10 * STEP_NS).gpu().range("image[0]", 0, 5 * STEP_NS, domain="dsocr")
    built.range("prefill", 0, STEP_NS, domain="dsocr").launch(10, 20, ("gemm", 30, 40))
    found = findings(built, manifest(prompts=one, partial="signal 11"))
    assert found["partial-capture"].severity == "unfit"
    assert found["partial-capture"].title == "partial capture: ended by signal 11; 0 of 1 image"
    assert "missing-stages" not in found


def test_what_was_cut_short_is_in_sums_and_in_no_median(tmp_path: Path) -> None:
    from analysis.report import assemble

    built = TraceBuilder().session(20 * STEP_NS).gpu()
    for image, steps in enumerate((STEPS, STEPS, 2)):
        begin = image * (STEPS + 2) * STEP_NS
        built.range(f"image[{image}]", begin, begin + (steps + 1) * STEP_NS, domain="dsocr")
        built.range("prefill", begin, begin + STEP_NS - 10, domain="dsocr", payload=100)
        built.range("decode", begin + STEP_NS, begin + (steps + 1) * STEP_NS, domain="dsocr")
        for step in range(steps):
            at = begin + (step + 1) * STEP_NS
            built.range("decode_step", at, at + STEP_NS - 10, domain="dsocr", payload=100 + step)
            built.launch(at + 10, at + 20, ("gemm", at + 500, at + 700))
    prompts = tuple(evolve(manifest().prompts[0], image_index=number) for number in range(3))
    with Trace(built.write(tmp_path / "trace.sqlite")) as trace:
        attribution = Attribution.of(trace)
        whole, partial = (
            assemble(trace, attribution, manifest(prompts=prompts, partial=ended)) for ended in (None, "--timeout 9")
        )
    assert [instance.cut for instance in partial.instances] == [False] * 4 + [True] * 2
    assert not any(instance.cut for instance in whole.instances)
    decode = next(times for times in partial.unit_times if times.stage == "decode")
    assert decode.instances == 2
    assert next(times for times in whole.unit_times if times.stage == "decode").instances == 3
    assert [row.busy_ns for row in partial.stages] == [row.busy_ns for row in whole.stages]
    assert "Partial capture: ended by --timeout 9; 2 of 3 images." in partial.report.notes


def test_a_program_of_exec_that_was_ended_early_is_told(findings: Examine, tmp_path: Path) -> None:
    record = ProgramManifest(
        run_id="r1",
        status="timed_out",
        command=("serve",),
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        traces=("trace.sqlite",),
        partial="--timeout 60",
    )
    (tmp_path / "run.json").write_text(to_json(record))
    found = findings(clean())
    assert found["partial-capture"].title == "partial capture: ended by --timeout 60"
    assert found["partial-capture"].severity == "warning"
    (tmp_path / "run.json").write_text(to_json(evolve(record, partial=None)))
    assert "partial-capture" not in findings(clean())


# --- ranges ---------------------------------------------------------------------------------------------------


def test_unclosed_range(findings: Examine) -> None:
    found = findings(clean().range("late", 16_100_000, None, domain="dsocr.module"), manifest())
    assert list(found) == ["unclosed-ranges"]
    assert "dsocr.module:late" in found["unclosed-ranges"].evidence


def test_range_that_lost_its_end(findings: Examine) -> None:
    """The first decode step's layer 2 lasts until the end of its decode and holds all later layers."""
    built = clean(skip=lambda image, step, layer: (image, step, layer) == (0, 0, 2))
    built.range("layers.2", STEP_NS + 2_100, (STEPS + 1) * STEP_NS - 1, domain="dsocr.module")
    found = findings(built, manifest())
    assert found["lost-range-ends"].severity == "unfit"
    assert "dsocr.module:layers.2" in found["lost-range-ends"].evidence
    assert found["depth-anomalies"].severity == "warning"


def test_range_that_is_only_long(findings: Examine) -> None:
    built = clean(skip=lambda image, step, layer: (image, step, layer) == (1, 5, 3))
    last = (2 * STEPS + 2) * STEP_NS
    found = findings(built.range("layers.3", last + 4_000, last + 900_000, domain="dsocr.module"), manifest())
    assert found["long-ranges"].severity == "warning"
    assert not is_unfit(tuple(found.values()))


def test_recursion_of_a_stranger_is_no_lost_end(findings: Examine) -> None:
    built = TraceBuilder().range("forward", 0, 1_000_000)
    for number in range(20):
        built.range("forward", number * 1_000, number * 1_000 + 900)
    found = findings(built.launch(10, 11, ("k", 20, 30)))
    assert not is_unfit(tuple(found.values()))


def test_names_at_several_depths(findings: Examine) -> None:
    built = clean().range("layers.1", 7_500_000, 7_500_900, domain="dsocr.module")
    built.range("layers.0", 7_500_100, 7_500_200, domain="dsocr.module")
    found = findings(built.range("layers.2", 7_510_000, 7_510_900, domain="dsocr.module"), manifest())
    assert "dsocr.module:layers.0" in found["depth-anomalies"].evidence


def test_numbers_that_say_how_large_a_step_was_count_no_layers(findings: Examine) -> None:
    """As serving engines name their steps, and modules with the shapes of their inputs."""
    built = clean()
    for number, tokens in enumerate((819, 4, 4, 4, 5, 5)):
        at = 7_500_000 + 1000 * number
        built.range(f"execute_context_0(0)_generation_4({tokens})", at, at + 900, domain="dsocr.module")
        built.range(f"{{'Module': 'mlp', 'Inputs': [[{tokens}, 2048]]}}", at + 10, at + 800, domain="dsocr.module")
    assert "unequal-siblings" not in findings(built, manifest())


@pytest.mark.parametrize(("missing", "severity"), [(1, "info"), (3, "warning")])
def test_layers_that_ran_unequally_often(findings: Examine, missing: int, severity: str) -> None:
    found = findings(
        clean(skip=lambda image, step, layer: layer == 2 and image == 1 and step < missing - 1), manifest()
    )
    assert found["unequal-siblings"].severity == severity
    assert "layers.2" in found["unequal-siblings"].evidence


def test_experts_may_run_unequally_often(findings: Examine) -> None:
    built = clean()
    for number, times in enumerate((1, 5, 2)):
        for call in range(times):
            at = 7_500_000 + number * 10_000 + call * 1_000
            built.range(f"layers.1.experts.{number}", at, at + 100, domain="dsocr.module")
    assert findings(built, manifest()) == {}


def test_start_end_range_across_threads(findings: Examine) -> None:
    built = clean().range("request", 0, 100, domain="mine", style=START_END, end_thread=thread_id(1, 2))
    assert findings(built, manifest())["ranges-across-threads"].severity == "info"


def test_cold_first_step(findings: Examine) -> None:
    built = TraceBuilder().range("prefill", 0, 90, domain="dsocr").launch(10, 11, ("p", 20, 30))
    built.range("decode", 100, 1_000, domain="dsocr").range("decode_step", 100, 600, domain="dsocr")
    for step in range(4):
        built.range("decode_step", 600 + step * 100, 690 + step * 100, domain="dsocr")
        built.launch(610 + step * 100, 620 + step * 100, ("d", 650 + step * 100, 660 + step * 100))
    found = findings(built.launch(110, 120, ("d", 150, 160)))
    assert "decode step" in found["cold-start"].title
    assert "48%" in found["cold-start"].evidence


def test_skipping_the_first_is_advised_where_it_leaves_something(findings: Examine) -> None:
    """An option that would be refused, or would skip a step of each kind of an engine, is no advice."""
    own = TraceBuilder().range("prefill", 0, 90, domain="dsocr").launch(10, 11, ("p", 20, 30))
    engine = TraceBuilder()
    for number, lasts in enumerate((5_000, 1_000, 1_010)):
        start = 1_000 + number * 10_000
        own.range("decode", start, start + lasts, domain="dsocr").launch(
            start + 5, start + 9, ("d", start + 20, start + 30)
        )
        engine.range("execute_context_0(0)_generation_4(4)", start, start + lasts)
        engine.launch(start + 5, start + 9, ("d", start + 20, start + 30))
    for built in (own, engine):
        assert findings(built)["cold-start"].remedy == "warm up with the same input before the capture starts"
    assert "--config" in findings(engine)["no-manifest"].remedy


def test_cold_first_prefill_of_the_same_work(findings: Examine) -> None:
    built = TraceBuilder()
    for number, lasts in enumerate((5_000, 1_000, 1_010)):
        built.range("prefill", number * 10_000, number * 10_000 + lasts, domain="dsocr")
        built.range("decode", number * 10_000 + 6_000, number * 10_000 + 7_000, domain="dsocr")
        for at in (100, 6_100):
            built.launch(
                number * 10_000 + at,
                number * 10_000 + at + 10,
                ("k", number * 10_000 + at + 50, number * 10_000 + at + 60),
            )
    cold = findings(built)["cold-start"]
    assert "prefill" in cold.title
    assert cold.remedy.endswith("(--skip-first 1)")


def test_larger_first_image_is_no_cold_start(findings: Examine) -> None:
    built = TraceBuilder().range("prefill", 0, 5_000, domain="dsocr")
    for call in range(10):
        built.launch(call * 100, call * 100 + 10, ("k", call * 100 + 50, call * 100 + 60))
    built.range("prefill", 10_000, 11_000, domain="dsocr").launch(10_100, 10_110, ("k", 10_150, 10_160))
    assert "cold-start" not in findings(built)


# --- calls and GPU rows ---------------------------------------------------------------------------------------


def test_launch_without_a_gpu_row(findings: Examine) -> None:
    found = findings(clean().launch(7_500_000, 7_500_010), manifest())
    assert found["launches-without-gpu-rows"].severity == "warning"
    assert not is_unfit(tuple(found.values())), "one sign alone condemns nothing"


def test_launch_at_the_end_of_the_capture_may_stay_unanswered(findings: Examine) -> None:
    assert findings(clean().launch(16_500_000, 16_500_010), manifest()) == {}


def test_launches_that_a_stream_capture_records_leave_no_row(findings: Examine) -> None:
    built = clean().call(7_400_000, 7_400_010, "cudaStreamBeginCapture_v10000")
    built.launch(7_500_000, 7_500_010).call(7_600_000, 7_600_010, "cudaStreamEndCapture_v10000")
    assert findings(built, manifest()) == {}


def test_driver_call_inside_a_runtime_call_is_not_unanswered(findings: Examine) -> None:
    built = clean().launch(7_500_000, 7_500_100, ("k", 7_500_200, 7_500_300), correlation=55)
    assert findings(built.call(7_500_010, 7_500_090, "cuLaunchKernel", 55), manifest()) == {}


@pytest.mark.parametrize("runtime", [55, 56])
def test_driver_call_of_another_id_inside_a_runtime_call_is_not_unanswered(findings: Examine, runtime: int) -> None:
    """The kernel bears the id of one of the two: the outer call is the launch, and it is answered."""
    built = clean().call(7_500_000, 7_500_100, "cudaLaunchKernel_v7000", runtime)
    built.call(7_500_010, 7_500_090, "cuLaunchKernel", 111 - runtime).kernel("k", 7_500_200, 7_500_300, correlation=55)
    assert findings(built, manifest()) == {}


def test_a_lost_launch_of_two_nested_calls_is_one(findings: Examine) -> None:
    built = clean().call(7_500_000, 7_500_100, "cudaLaunchKernel_v7000", 55)
    found = findings(built.call(7_500_010, 7_500_090, "cuLaunchKernel", 55), manifest())
    assert found["launches-without-gpu-rows"].title == "1 launch left no GPU row"


def test_launches_that_failed_are_not_lost(findings: Examine) -> None:
    built = clean().call(7_500_000, 7_500_100, "cudaLaunchKernel_v7000", 55, result=701)
    built.call(7_500_010, 7_500_090, "cuLaunchKernel", 55, result=701)
    built.call(7_600_000, 7_600_100, "cudaGraphLaunch_v10000", result=999)
    found = findings(built, manifest())
    assert list(found) == ["failed-launches"]
    assert found["failed-launches"].title == "2 launches failed"
    assert "1 cudaLaunchKernel_v7000" in found["failed-launches"].evidence
    assert (
        "1 × 701 (too many resources requested for launch), 1 × 999 (unknown error)"
        in found["failed-launches"].evidence
    )


def test_a_query_that_is_not_ready_is_no_failure(findings: Examine) -> None:
    assert findings(clean().call(7_500_000, 7_500_100, "cudaStreamQuery_v3020", result=600), manifest()) == {}


def test_gpu_rows_without_a_call(findings: Examine) -> None:
    found = findings(clean().kernel("orphan", 7_500_000, 7_500_100, correlation=987_654), manifest())
    assert found["gpu-rows-without-launch"].severity == "warning"


def test_kernel_that_was_under_way_when_the_capture_began(findings: Examine) -> None:
    assert findings(clean().kernel("before", 50, 60, correlation=987_654), manifest()) == {}


def test_correlation_ids_that_were_given_out_but_never_recorded(findings: Examine) -> None:
    built = clean().launch(7_500_000, 7_500_010, ("k", 7_500_200, 7_500_300), correlation=1_000_000)
    found = findings(built, manifest())
    assert found["unrecorded-api-calls"].severity == "warning"


def test_launches_of_threads_without_stages(findings: Examine) -> None:
    found = findings(clean().thread(1, 2).launch(7_500_000, 7_500_010, ("k", 7_500_200, 7_500_300)), manifest())
    assert found["launches-on-other-threads"].severity == "info"


def test_whole_graphs_are_named_and_explained(findings: Examine) -> None:
    found = findings(clean().graph(7_500_000, 7_500_010, (7_500_100, 7_500_200)), manifest())
    assert "--cuda-graph-trace=node" in found["whole-graphs"].remedy


def test_two_independent_signs_make_a_capture_unfit(findings: Examine) -> None:
    built = clean(skip=lambda image, step, layer: layer == 2 and image == 1 and step < 2).launch(7_500_000, 7_500_010)
    found = findings(built, manifest())
    assert found["lossy-capture"].severity == "unfit"
    assert found["lossy-capture"].evidence.startswith("2 independent signs")


# --- messages, versions, clocks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "severity", "code"),
    [
        ("Not all CUDA events might have been collected.", 2, None),
        ("Not all NVTX events might have been collected.", 2, None),
        ("Number of CUPTI events produced: \t386391, CUPTI buffers: 50.", 1, None),
        ("Buffers holding CUDA trace data will be flushed on CudaProfilerStop() call.", 1, None),
        ("Number of dropped CUPTI records: 0", 2, None),
        ("Dropped 1,204 CUPTI activity records.", 2, "dropped-events"),
        ("CUPTI buffer overflow: 3 buffers were lost", 3, "dropped-events"),
        ("CUPTI error: CUPTI_ERROR_INSUFFICIENT_PRIVILEGES", 2, "profiler-errors"),
        ("CUDA profiling might have not been started correctly.", 2, "profiler-errors"),
        ("Event requestor failed", 3, "profiler-errors"),
    ],
)
def test_messages_of_the_profiler(findings: Examine, text: str, severity: int, code: str | None) -> None:
    found = findings(clean().diagnostic(text, severity=severity), manifest())
    assert list(found) == ([] if code is None else [code])
    if code is not None:
        assert text in found[code].evidence


def test_a_message_that_comes_again_is_shown_once(findings: Examine) -> None:
    twice = clean()
    for _ in range(2):
        twice.diagnostic("CUDA profiling might have not been started correctly.", severity=2)
    found = findings(twice, manifest())["profiler-errors"]
    assert found.title == "the profiler reported 2 errors"
    assert found.evidence == "CUDA profiling might have not been started correctly. (2 times)"
    once = findings(clean().diagnostic("Event requestor failed", severity=3), manifest())["profiler-errors"]
    assert once.title == "the profiler reported 1 error"


FRONT_END, COMPILER, WORKER = ((281475 << 40) + (pid << 24) for pid in (22, 30, 151))


def engine(*, worker_says: tuple[str, ...] = ("CUDA injection initialized successfully.",)) -> TraceBuilder:
    """The profiler's words about an engine's front end and a compiler, which use no CUDA, and its worker."""
    built = clean()
    for process in (FRONT_END, COMPILER):
        built.diagnostic("CUDA profiling might have not been started correctly.", severity=2, process=process)
        built.diagnostic("No CUDA events collected. Does the process use CUDA?", severity=2, process=process)
    for text in worker_says:
        built.diagnostic(text, process=WORKER)
    return built


def test_a_process_that_uses_no_cuda_is_no_error_beside_one_that_does(findings: Examine) -> None:
    assert not findings(engine().diagnostic("Number of CUDA events collected: 5.", process=WORKER), manifest())


def test_a_process_that_lost_its_cuda_events_is_still_told(findings: Examine) -> None:
    lost = engine().diagnostic("Number of CUDA events collected: 5.", process=WORKER)
    lost.diagnostic("CUDA injection initialized successfully.", process=FRONT_END)
    assert findings(lost, manifest())["profiler-errors"].title == "the profiler reported 1 error"
    # Where no process has CUDA events the profiler may have failed in all of them.
    assert findings(engine(), manifest())["profiler-errors"].title == "the profiler reported 2 errors"


def test_rows_that_the_profiler_collected_but_the_file_lacks(findings: Examine) -> None:
    built = (
        clean()
        .diagnostic("Number of NVTX events collected: \t5000.")
        .diagnostic("Number of CUDA events collected: 10.")
    )
    found = findings(built, manifest())
    assert list(found) == ["fewer-rows-than-collected"]
    assert "5,000" in found["fewer-rows-than-collected"].evidence


@pytest.mark.parametrize(
    ("product", "versions", "mismatch"),
    [
        ("2023.4.4.54", {"driver": "580.65.06"}, True),
        ("2023.4.4.54", {"driver": "550.54.15", "cuda": "12.4"}, False),
        ("2022.4.2.1", {"driver": "470.10", "cuda": "13.0"}, True),
        ("2025.3.2.0", {"driver": "580.65.06", "cuda": "13.0"}, False),
        ("2023.4.4.54", {}, False),
    ],
)
def test_profiler_older_than_the_driver(
    findings: Examine, product: str, versions: dict[str, str], mismatch: bool
) -> None:
    found = findings(clean().product_version(product), manifest(versions=versions))
    assert ("profiler-older-than-driver" in found) == mismatch


def test_cupti_library_older_than_the_entry_points_that_were_called(findings: Examine) -> None:
    built = clean().diagnostic("Loaded CUPTI library: /opt/lib/libcupti.so.12.4")
    assert findings(built, manifest(versions={})) == {}
    built.call(7_500_000, 7_500_010, "cudaMemPoolTrimTo_v13000")
    found = findings(built, manifest(versions={}))
    assert "libcupti.so.12" in found["profiler-older-than-driver"].evidence


def test_kernel_before_its_launch(findings: Examine) -> None:
    built = clean().launch(7_500_000, 7_500_010, ("early", 7_490_000, 7_491_000))
    assert "start before their launch" in findings(built, manifest())["clock-oddities"].evidence


def test_clocks_are_matched_not_one(findings: Examine) -> None:
    assert findings(clean().launch(7_500_000, 7_500_010, ("k", 7_499_000, 7_501_000)), manifest()) == {}


def test_negative_durations(findings: Examine) -> None:
    built = clean().launch(7_500_000, 7_500_010, ("k", 7_600_000, 7_590_000))
    built.range("backwards", 7_700_000, 7_600_000, domain="mine").call(7_800_010, 7_800_000)
    evidence = findings(built, manifest())["clock-oddities"].evidence
    assert [name in evidence for name in ("KIND_KERNEL", "NVTX_EVENTS", "KIND_RUNTIME")] == [True] * 3


def test_events_after_the_session(findings: Examine) -> None:
    built = clean().launch(16_900_000, 16_900_010, ("k", 17_500_000, 17_600_000))
    assert "after the session" in findings(built, manifest())["clock-oddities"].evidence
