"""Made sweeps with the shape of real ones: eager steps at the host's pace, graph steps at the GPU's, an end of the memory."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from analysis.domain.energy import energy_of, stage_energy
from analysis.domain.manifest import DecodeMode
from analysis.domain.sweep import MemoryUse, StageFigures, Sweep, SweepPoint, SweepSetting

__all__ = ["BYTES_PER_S", "FLOP_PER_S", "made_point", "made_sweep"]

FLOP_PER_S, BYTES_PER_S = 989.4e12, 3.35e12
_HOST_NS: dict[DecodeMode, float] = {"eager": 17.4e6, "static": 17.4e6, "cuda-graph": 0.3e6}
_DEVICE = 85_000_000_000
_PROMPT = {"base": 287, "gundam": 903, "text": 32}


def _figures(stage: str, batch: int, mode: str, decode_mode: DecodeMode) -> StageFigures:
    prompt = _PROMPT[mode]
    if stage == "decode":
        flop = int(1.15e9 * batch)
        weights = int(1.1e9 + 4.9e9 * (1 - 0.9**batch))
        cache = int(prompt * batch * 0.12e6)
        busy, host = (weights + cache) / BYTES_PER_S * 1e9 * 1.6 + 2.2e6, _HOST_NS[decode_mode]
        launches = 866.0 if decode_mode == "eager" else 1.0
    else:
        flop = int(prompt * batch * 5.5e9)
        weights, cache = 6_600_000_000, int(prompt * batch * 0.06e6)
        busy, host = flop / FLOP_PER_S * 1e9 * 2.4 + 3e6, 31e6
        launches = 1_630.0
    time = max(host * 1.05, busy * 1.02)
    share = busy / time
    roofs = ((weights + cache) / BYTES_PER_S, flop / FLOP_PER_S)
    device = "memory-bound" if roofs[0] >= roofs[1] else "compute-bound"
    bound = device if share > 0.85 else "launch-bound"
    return StageFigures(
        stage="decode" if stage == "decode" else "prefill",
        per="step" if stage == "decode" and batch > 1 else "token" if stage == "decode" else "image",
        samples_ns=tuple(round(time * factor) for factor in (0.99, 1.0, 1.02)),
        pass_ns=(time * 0.995, time, time * 1.01),
        flop=flop,
        weight_bytes=weights,
        kv_bytes=cache,
        mfu=flop / FLOP_PER_S / time * 1e9,
        mbu=(weights + cache) / BYTES_PER_S / time * 1e9,
        ideal_ns=max(roofs) * 1e9,
        utilisation_unknown_because=None,
        launches=launches,
        busy_ns=busy,
        busy_share=share,
        bound=bound,
        sentence=f"{stage.capitalize()} is {bound}: the GPU is busy for {share:.0%} of it.",
        at_best_ns=busy,
    )


def made_point(batch: int, mode: str = "base", decode_mode: DecodeMode = "eager", tokens: int = 64) -> SweepPoint:
    """A point that was measured, or that did not fit."""
    setting = SweepSetting(batch, mode, tokens, None, decode_mode)
    prompt = _PROMPT[mode]
    cache = int((prompt + tokens) * batch * 0.06e6)
    activations = int(prompt * batch * 4.2e6)
    allocated = 6_680_000_000 + cache + activations
    if allocated > _DEVICE * 0.97:
        return SweepPoint(setting, "out of memory", reason="tried to allocate 2.50 GiB; 1.20 GiB is free", seconds=2.0)
    prefill = _figures("prefill", batch, mode, decode_mode)
    decode = _figures("decode", batch, mode, decode_mode) if tokens > 1 else None
    decode_ns = (tokens - 1) * decode.median_ns if decode else 0.0
    return SweepPoint(
        setting=setting,
        status="measured",
        seconds=6.2,
        prompt_tokens=prompt,
        image_tokens=prompt - 14,
        new_tokens=tokens,
        prefill=prefill,
        decode=decode,
        tokens_per_s=batch / decode.median_ns * 1e9 if decode else None,
        pages_per_min=batch * 60e9 / (prefill.median_ns + decode_ns),
        memory=MemoryUse(
            weights=6_680_000_000,
            kv_cache=cache,
            activations=activations,
            peak_allocated=allocated,
            peak_reserved=int(allocated * 1.08),
            reserved_unused=int(allocated * 0.08),
            device_total=_DEVICE,
        ),
    )


def made_sweep(
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    modes: Sequence[str] = ("base", "gundam"),
    decode_modes: Sequence[DecodeMode] = ("eager", "cuda-graph"),
    tokens: int = 64,
    energy: bool = False,
) -> Sweep:
    """A sweep of an H100 with all its points."""
    points = [made_point(batch, mode, how, tokens) for batch in batches for mode in modes for how in decode_modes]
    if energy:
        points = [_with_energy(point) for point in points]
    return Sweep(
        sweep_id="made",
        status="complete",
        model="deepseek-ocr",
        weights="random weights",
        parameters=3_336_106_240,
        dtype="bf16",
        device="cuda:0",
        gpu_name="NVIDIA H100 80GB HBM3",
        peak_flop_per_s=FLOP_PER_S,
        peak_bytes_per_s=BYTES_PER_S,
        peak_how="spec",
        versions={"torch": "2.13.0", "cuda": "13.0", "driver": "580.95.05"},
        page="page.png",
        passes=3,
        window_steps=4,
        budget_s=None,
        options={},
        argv=("dsocr-profile", "sweep", "deepseek-ocr"),
        started_at="2026-11-25T02:10:00+00:00",
        finished_at="2026-11-25T02:17:00+00:00",
        seconds=418.0,
        setup_s=22.0,
        points=tuple(points),
        planned=tuple(point.setting for point in points),
    )


def _with_energy(point: SweepPoint) -> SweepPoint:
    if point.prefill is None:
        return point
    batch, tokens = point.setting.batch_size, point.setting.max_new_tokens
    stages = [
        stage_energy(
            stage.stage,
            loop_s=2.1,
            loop_joules=2.1 * watts,
            pages=2.1e9 / stage.median_ns * batch / (1 if stage.stage == "prefill" else tokens - 1),
            new_tokens=tokens,
            idle_w=112.0,
        )
        for stage, watts in zip(point.stages, (420.0, 260.0), strict=False)
    ]
    energy = energy_of(
        tuple(stages),
        idle_w=112.0,
        idle_s=1.1,
        new_tokens=tokens,
        source="energy counter",
        sampling_s=0.1,
        how="the driver's counter of the board's energy",
    )
    return evolve(point, energy=energy)
