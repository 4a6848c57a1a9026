"""Hypothesis strategies for every record of the domain, the wire and the manifest, from their type hints.

All fields vary, also the optional ones; a new field is covered as soon as it exists. `CONSTRAINED` holds what the
validators narrow down.
"""

from __future__ import annotations

import types
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from math import ceil
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from hypothesis import strategies as st

from analysis.domain.contracts import LLMProfileAccepted, LLMProfileReportSummary, LLMProfileRequest
from analysis.domain.entities import (
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
from analysis.domain.manifest import (
    ComponentCost,
    ControlPass,
    DeviceState,
    ExitCodes,
    MeasuredPeak,
    Overhead,
    PhaseTime,
    PromptTokens,
    Resumption,
    RunManifest,
    StageCost,
)
from analysis.domain.measures import KINDS, kind_of
from analysis.domain.predictions import Came, Prediction, Scored

ENTITIES = (
    Stats,
    ModelUnderTest,
    InputImage,
    InputSet,
    StageTiming,
    OperatorSummary,
    KernelSummary,
    RunMeta,
    LLMProfileReport,
)
CONTRACTS = (LLMProfileRequest, LLMProfileAccepted, LLMProfileReportSummary)
MANIFEST = (
    PromptTokens,
    ComponentCost,
    StageCost,
    ControlPass,
    DeviceState,
    MeasuredPeak,
    Overhead,
    ExitCodes,
    PhaseTime,
    Resumption,
    RunManifest,
)
PREDICTIONS = (Prediction, Came, Scored)

_text = st.text(max_size=20)
_not_negative = st.floats(min_value=0, max_value=2.0**62)
_positive = st.floats(min_value=0, exclude_min=True, max_value=2.0**62)
_counts = st.integers(min_value=0, max_value=2**63 - 1)
_at_least_one = st.integers(min_value=1, max_value=2**63 - 1)
_absolute = _text.map(lambda one: f"/{one}")
_model = st.one_of(_absolute, st.sampled_from(["deepseek-ocr", "deepseek-ai/DeepSeek-OCR", "a/b.c-d_e"]))
_mfu = st.one_of(st.none(), st.floats(min_value=0, max_value=1.5))
_ratio = st.one_of(st.none(), st.floats(min_value=0, max_value=1))
_moments = st.datetimes(
    datetime(2, 1, 1),
    datetime(9998, 1, 1),
    timezones=st.one_of(st.just(UTC), st.integers(-1439, 1439).map(lambda one: timezone(timedelta(minutes=one)))),
)
_optional_count = st.one_of(st.none(), _counts)

CONSTRAINED: dict[tuple[type, str], st.SearchStrategy[Any]] = {
    (Stats, "std"): _not_negative,
    (ModelUnderTest, "model_path"): _model,
    **{(ModelUnderTest, name): _optional_count for name in ("n_layers", "d_model", "d_ff", "n_heads", "parameters")},
    (InputImage, "path"): _absolute,
    (InputImage, "width"): _at_least_one,
    (InputImage, "height"): _at_least_one,
    (InputSet, "root_dir"): _absolute,
    (StageTiming, "elapsed_ms"): _positive,
    (StageTiming, "tokens"): _counts,
    (StageTiming, "throughput_toks_per_s"): _not_negative,
    (OperatorSummary, "total_time_ms"): _not_negative,
    (OperatorSummary, "cuda_time_ms"): _not_negative,
    (OperatorSummary, "calls"): _counts,
    (KernelSummary, "calls"): _at_least_one,
    (KernelSummary, "shapes"): _at_least_one,
    **{(KernelSummary, name): _counts for name in ("total_ns", "min_ns", "max_ns")},
    **{(KernelSummary, name): _not_negative for name in ("mean_ns", "median_ns")},
    **{(KernelSummary, name): _ratio for name in ("share", "theoretical_occupancy")},
    **{(KernelSummary, name): st.one_of(st.none(), _not_negative) for name in ("p95_ns", "per_token", "waves")},
    (RunMeta, "repeats"): _at_least_one,
    (RunMeta, "repo_root"): st.one_of(st.none(), _absolute),
    (RunMeta, "peak_tflops_bf16"): st.one_of(st.none(), _positive),
    (LLMProfileReport, "mfu_model_level"): _mfu,
    (LLMProfileReport, "mfu_per_stage"): st.dictionaries(st.sampled_from(["prefill", "decode"]), _mfu),
    (LLMProfileReportSummary, "mfu_model_level"): _mfu,
    (LLMProfileReportSummary, "mfu_per_stage"): st.dictionaries(st.sampled_from(["prefill", "decode"]), _mfu),
    (LLMProfileRequest, "model_path"): _model,
    (LLMProfileRequest, "input_dir"): _absolute,
    (LLMProfileRequest, "repeats"): _at_least_one,
    (LLMProfileRequest, "device"): st.sampled_from(["cpu", "cuda", "cuda:0", "cuda:7"]),
    (LLMProfileRequest, "max_new_tokens"): _at_least_one,
    (LLMProfileAccepted, "artifacts_dir"): _absolute,
    (Prediction, "was_ns"): _at_least_one,
    (Prediction, "best_ns"): _counts,
    (RunManifest, "manifest_version"): st.just(1),
}


def records(kind: type) -> st.SearchStrategy[Any]:
    """Valid instances of a record class."""
    hints = get_type_hints(kind)
    fields: dict[str, st.SearchStrategy[Any]] = {
        one.name: CONSTRAINED.get((kind, one.name), _values(hints[one.name], (kind.__name__, one.name)))
        for one in attrs.fields(kind)
    }
    if kind is InputSet:
        images = st.lists(records(InputImage), min_size=1, max_size=3).map(tuple)
        del fields["count"], fields["images"]
        return st.builds(lambda found, **rest: InputSet(images=found, count=len(found), **rest), found=images, **fields)
    if kind is LLMProfileReport:
        fields["operators_topk"] = fields["operators_topk"].map(
            lambda found: tuple(sorted(found, key=lambda one: one.total_time_ms, reverse=True))
        )
    return st.builds(kind, **fields)


def _values(kind: Any, place: tuple[str, str] = ("", "")) -> st.SearchStrategy[Any]:
    """Values of a type; numbers those that the name of their record and field allows."""
    origin, arguments = get_origin(kind), get_args(kind)
    below = partial(_values, place=place)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(below, arguments))
    if origin is tuple and arguments[-1] is ...:
        return st.lists(below(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(below, arguments))
    if origin is dict:
        return st.dictionaries(*map(below, arguments), max_size=3)
    if attrs.has(kind):
        return records(kind)
    allowed = KINDS[kind_of(*place, fraction=kind is float) or "any"]
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        str: _text,
        int: st.integers(ceil(max(allowed.low, -(2**63))), int(min(allowed.high, 2**63 - 1))),
        float: st.floats(_double(allowed.low), _double(allowed.high)),
        bool: st.booleans(),
        datetime: _moments,
        type(None): st.none(),
        Any: st.none() | st.integers(-(2**63), 2**63 - 1) | st.lists(_text, max_size=3),  # plain JSON
    }
    return scalars[kind]


def _double(limit: float) -> float:
    """A limit as a fraction: 2^63 - 1 is none."""
    return limit if abs(limit) < 2**62 or abs(limit) > 2.0**63 else 2.0**62 if limit > 0 else -(2.0**62)
