"""The record of a sweep is read back as it was written, whatever became of its points."""

from __future__ import annotations

import pytest
from attrs import evolve

from analysis.domain.convert import from_json, to_json
from analysis.domain.energy import energy_of, stage_energy
from analysis.domain.errors import RequestError
from analysis.domain.sweep import MemoryUse, StageFigures, Sweep, SweepPoint, SweepSetting

EAGER = SweepSetting(batch_size=2, input_mode="tiny", max_new_tokens=4, prompt_tokens=None, decode_mode="eager")

DECODE = StageFigures(
    stage="decode",
    per="step",
    samples_ns=(10, 12, 11, 10, 10, 10),
    pass_ns=(11.0, 10.0),
    flop=1000,
    weight_bytes=200,
    kv_bytes=20,
    mfu=0.01,
    mbu=0.2,
    ideal_ns=2.5,
    utilisation_unknown_because=None,
    launches=12.0,
    busy_ns=4.0,
    busy_share=0.4,
    bound="launch-bound",
    sentence="Decode is launch-bound.",
    at_best_ns=5.0,
)

SWEEP = Sweep(
    sweep_id="a",
    status="unfinished",
    model="deepseek-ocr-tiny",
    weights="random weights",
    parameters=12,
    dtype="fp32",
    device="cpu",
    gpu_name=None,
    peak_flop_per_s=1e9,
    peak_bytes_per_s=1e9,
    peak_how="measured",
    versions={"torch": "2.13.0"},
    page="page.png",
    passes=2,
    window_steps=3,
    budget_s=60.0,
    options={"seed": 0},
    argv=("dsocr-profile", "sweep"),
    started_at="2026-11-25T01:00:00+00:00",
    finished_at=None,
    seconds=None,
    setup_s=1.5,
    planned=(EAGER, evolve(EAGER, batch_size=4), evolve(EAGER, batch_size=8)),
    points=(
        SweepPoint(
            EAGER,
            "measured",
            seconds=1.0,
            prompt_tokens=90,
            image_tokens=73,
            new_tokens=4,
            decode=DECODE,
            tokens_per_s=1.9e8,
            memory=MemoryUse(1, 2, 3, 6, 8, 2, 100),
            energy=energy_of(
                (stage_energy("decode", loop_s=2.1, loop_joules=180.0, pages=9, new_tokens=4, idle_w=30.0),),
                idle_w=30.0,
                idle_s=1.0,
                new_tokens=4,
                source="power samples",
                sampling_s=0.1,
                how="",
            ),
        ),
        SweepPoint(evolve(EAGER, batch_size=4), "out of memory", reason="tried to allocate 2 GiB"),
    ),
    unfinished_because="interrupted",
)


def test_a_sweep_is_read_back_as_it_was_written() -> None:
    assert from_json(Sweep, to_json(SWEEP)) == SWEEP


def test_the_headline_of_a_stage_is_the_median_of_its_passes() -> None:
    assert DECODE.median_ns == 10.5
    assert SWEEP.points[0].stages == (DECODE,)
    assert SWEEP.points[1].stages == ()


def test_a_point_of_no_sequence_is_refused_with_its_place() -> None:
    text = to_json(SWEEP).replace('"batch_size": 2', '"batch_size": 0', 1)
    with pytest.raises(RequestError, match=r"\$\.points\[0\]\.setting\.batch_size: must be >= 1"):
        from_json(Sweep, text)
