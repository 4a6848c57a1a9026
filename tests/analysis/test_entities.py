import math
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.domain.entities import (
    MFU_GUARDRAIL,
    InputImage,
    InputSet,
    KernelSummary,
    LLMProfileReport,
    ModelUnderTest,
    OperatorSummary,
    RunMeta,
    StageTiming,
    Stats,
)
from record_strategies import ENTITIES, records

PAGE = InputImage(path="/pages/1.png", width=10, height=20)
MODEL = ModelUnderTest(id="m", model_path="m", dtype="bf16", device="cuda:0", use_flash_attn=True)
TIMING = StageTiming(stage="decode", elapsed_ms=1.0, tokens=1, throughput_toks_per_s=1.0)
OPERATOR = OperatorSummary(op_name="sam", total_time_ms=1.0, cuda_time_ms=1.0, calls=1)
META = RunMeta(run_id="r", created_at=datetime(2026, 1, 1, tzinfo=UTC), repeats=1)
PAGES = InputSet(id="pages", root_dir="/pages", count=1, images=(PAGE,))
STATS = Stats(mean=1.0, std=0.0)
KERNEL = KernelSummary(
    name="k", short_name="k", category="gemm", stage="decode", calls=1, total_ns=1, mean_ns=1.0, median_ns=1.0,
    min_ns=1, max_ns=1,
)  # fmt: skip
REPORT = LLMProfileReport(
    run_id="r", model=MODEL, input_set=PAGES, timings=(TIMING,), operators_topk=(OPERATOR,), mfu_model_level=0.5,
    mfu_per_stage={"prefill": 0.5, "decode": None}, aggregates={"ttft_ms": STATS}, notes="", meta=META,
)  # fmt: skip


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        # data-model.md: elapsed_ms > 0, tokens >= 0, throughput_toks_per_s >= 0
        (TIMING, "elapsed_ms", 0.0),
        (TIMING, "elapsed_ms", -1.0),
        (TIMING, "elapsed_ms", math.nan),
        (TIMING, "elapsed_ms", math.inf),
        (TIMING, "tokens", -1),
        (TIMING, "throughput_toks_per_s", -0.1),
        (TIMING, "throughput_toks_per_s", math.inf),
        (TIMING, "stage", "vision"),
        # paths are absolute
        (PAGE, "path", "pages/1.png"),
        (PAGE, "path", ""),
        (PAGES, "root_dir", "./pages"),
        (META, "repo_root", "repo"),
        (MODEL, "model_path", "./checkpoint"),
        (MODEL, "model_path", "../checkpoint"),
        (MODEL, "model_path", "a/b/c"),
        (MODEL, "model_path", ""),
        (MODEL, "model_path", "name with spaces"),
        # enumerations
        (MODEL, "dtype", "int8"),
        (MODEL, "encoder_type", "RNN"),
        (PAGE, "category", "texty"),
        # images of an input set
        (PAGE, "width", 0),
        (PAGE, "height", -1),
        (PAGES, "images", ()),
        (PAGES, "count", 2),
        # mfu in 0..1.5
        (REPORT, "mfu_model_level", -0.01),
        (REPORT, "mfu_model_level", 1.51),
        (REPORT, "mfu_model_level", math.nan),
        (REPORT, "mfu_per_stage", {"prefill": 1.6}),
        (REPORT, "mfu_per_stage", {"prefill": 0.1, "decode": -0.1}),
        # counts and times of sums
        (OPERATOR, "total_time_ms", -1.0),
        (OPERATOR, "cuda_time_ms", -1.0),
        (OPERATOR, "calls", -1),
        (KERNEL, "calls", 0),
        (KERNEL, "total_ns", -1),
        (KERNEL, "mean_ns", math.nan),
        (KERNEL, "share", 1.01),
        (KERNEL, "share", -0.01),
        (KERNEL, "share", math.nan),
        (KERNEL, "theoretical_occupancy", 1.01),
        (KERNEL, "waves", -1.0),
        (KERNEL, "p95_ns", math.inf),
        (STATS, "std", -1.0),
        (STATS, "mean", math.nan),
        (META, "repeats", 0),
        (META, "peak_tflops_bf16", 0.0),
        (MODEL, "n_layers", -1),
    ],
)
def test_rules_are_held(record: Any, field: str, value: Any) -> None:
    assert attrs.evolve(record) == record
    with pytest.raises(ValueError, match=field):
        attrs.evolve(record, **{field: value})


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        (TIMING, "tokens", 0),
        (TIMING, "throughput_toks_per_s", 0.0),
        (KERNEL, "share", 1.0),
        (KERNEL, "share", 0.0),
        (KERNEL, "share", None),
        (REPORT, "mfu_model_level", 0.0),
        (REPORT, "mfu_model_level", MFU_GUARDRAIL),
        (REPORT, "mfu_model_level", None),
        (REPORT, "model", None),
        (MODEL, "model_path", "/models/DeepSeek OCR"),
        (MODEL, "model_path", "deepseek-ai/DeepSeek-OCR"),
        (MODEL, "n_layers", None),
        (META, "repo_root", "/repo"),
    ],
)
def test_what_is_allowed(record: Any, field: str, value: Any) -> None:
    assert getattr(attrs.evolve(record, **{field: value}), field) == value


def test_the_guardrail_is_that_of_the_data_model() -> None:
    assert MFU_GUARDRAIL == 1.5


def test_operators_are_sorted_by_time() -> None:
    short, long = attrs.evolve(OPERATOR, total_time_ms=1.0), attrs.evolve(OPERATOR, total_time_ms=2.0)
    assert attrs.evolve(REPORT, operators_topk=[long, short]).operators_topk == (long, short)
    with pytest.raises(ValueError, match="operators_topk must be sorted"):
        attrs.evolve(REPORT, operators_topk=(short, long))


def test_lists_become_tuples() -> None:
    assert attrs.evolve(PAGES, images=[PAGE]).images == (PAGE,)
    assert attrs.evolve(REPORT, timings=[TIMING]).timings == (TIMING,)


@pytest.mark.parametrize("kind", ENTITIES, ids=lambda kind: kind.__name__)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_records_cannot_be_changed(kind: type[attrs.AttrsInstance], data: st.DataObject) -> None:
    record = data.draw(records(kind))
    name = attrs.fields(kind)[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(record, name, getattr(record, name))


@given(st.text(max_size=30))
def test_a_path_is_absolute_or_refused(path: str) -> None:
    if path.startswith("/"):
        assert attrs.evolve(PAGE, path=path).path == path
    else:
        with pytest.raises(ValueError, match="path must be an absolute path"):
            attrs.evolve(PAGE, path=path)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ModelUnderTest, "id model_path dtype device use_flash_attn n_layers d_model d_ff n_heads encoder_type"),
        (InputImage, "path width height category"),
        (InputSet, "id root_dir count images"),
        (StageTiming, "stage elapsed_ms tokens throughput_toks_per_s"),
        (OperatorSummary, "op_name total_time_ms cuda_time_ms calls"),
        (Stats, "mean std"),
        (
            RunMeta,
            "run_id created_at repeats repo_root gpu_name compute_capability peak_tflops_bf16 torch_version "
            "transformers_version cuda_version",
        ),
        (
            LLMProfileReport,
            "run_id model input_set timings operators_topk mfu_model_level mfu_per_stage aggregates notes meta",
        ),
    ],
)
def test_the_fields_of_the_data_model_come_first_and_others_are_optional(kind: type, names: str) -> None:
    wanted = names.split()
    fields = {one.name: one for one in attrs.fields(kind)}
    assert set(wanted) <= set(fields)
    assert all(fields[name].default is not attrs.NOTHING for name in set(fields) - set(wanted))
