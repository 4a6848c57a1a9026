"""A comparison written by hand – eager against CUDA graph, in small – and variations of it."""

from __future__ import annotations

from typing import TypeAlias

from attrs import evolve

from analysis.compare.records import (
    Answer,
    Comparison,
    Contribution,
    ContributionKind,
    Diff,
    Interval,
    KernelMatch,
    Level,
    SettingChange,
    SideSummary,
    StageDifference,
)

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    "a|b`c*d_e[f](http://g) @everyone",
    "\x1b[31mred\x1b[0m\u202e",
    "=HYPERLINK(1)",
)
"""Names that a program could give to a run, a module or a kernel."""

_NVJET = "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT"
_NVJET_OTHER = "nvjet_sm90_tst_128x8_64x12_2x1_v_bz_TNT"
_GLUE = tuple(f"void at::native::elementwise_kernel<{number}>" for number in range(7))


def side(label: str, decode: tuple[float, ...], prefill: tuple[float, ...], **more: str) -> SideSummary:
    """One run with its unprofiled repetitions, ns per unit."""
    return SideSummary(
        label=label,
        path=f"reports/{label}",
        run_id=f"{label}-1",
        model="deepseek-ai/DeepSeek-OCR",
        device=more.get("device", "NVIDIA H100 80GB HBM3"),
        collector="nsys",
        random_weights=True,
        units={"prefill": 12, "decode": 1_008},
        samples={"prefill": prefill, "decode": decode},
    )


_Part: TypeAlias = tuple[str, ContributionKind, float, float, float | None, float | None]
"""Name, kind, ns and calls on the base and on the new side."""


def _parts(stage: str, level: Level, rows: tuple[_Part, ...]) -> tuple[Contribution, ...]:
    return tuple(
        Contribution(stage, level, name, kind, base, new, new - base, base_calls, new_calls)
        for name, kind, base, new, base_calls, new_calls in rows
    )


_IDLE: tuple[_Part, ...] = (
    ("GPU idle: launching", "launches", 7_410_000.0, 96_000.0, 812.0, 2.0),
    ("GPU idle: waits", "waits", 310_500.0, 303_250.0, 3.0, 3.0),
    ("GPU idle: Python", "Python", 4_881_000.0, 512_400.0, None, None),
    ("GPU idle: inside CUDA graphs", "in graph", 0.0, 741_900.0, 0.0, 1.0),
    ("rest", "rest", 38_500.0, 130_250.0, None, None),
)
_DECODE = (
    *_parts("decode", "stage", (("GPU time", "GPU time", 4_272_000.0, 3_996_200.0, 790.0, 755.0), *_IDLE)),
    *_parts(
        "decode",
        "module",
        (
            ("language_model.layers.*.mlp", "GPU time", 2_100_300.0, 2_089_900.0, 396.0, 396.0),
            ("language_model.layers.*.self_attn", "GPU time", 1_500_400.0, 1_151_300.0, 300.0, 265.0),
            ("language_model.layers.*.input_layernorm", "GPU time", 271_300.0, 355_000.0, 82.0, 82.0),
            ("lm_head", "GPU time", 400_000.0, 400_000.0, 12.0, 12.0),
            *_IDLE,
        ),
    ),
    *_parts(
        "decode",
        "class",
        (
            ("matrix product", "GPU time", 3_000_000.0, 2_980_000.0, 310.0, 310.0),
            ("elementwise", "GPU time", 1_272_000.0, 1_016_200.0, 480.0, 445.0),
            *_IDLE,
        ),
    ),
    *_parts(
        "decode",
        "host",
        (
            ("kernels", "GPU time", 4_200_000.0, 3_930_000.0, 780.0, 745.0),
            ("copies", "copies", 72_000.0, 66_200.0, 10.0, 10.0),
            *_IDLE,
        ),
    ),
)
_PREFILL = (
    *_parts(
        "prefill",
        "stage",
        (
            ("GPU time", "GPU time", 61_200_000.0, 61_900_000.0, 4_100.0, 4_100.0),
            ("GPU idle: launching", "launches", 16_000_000.0, 16_350_000.0, 4_140.0, 4_140.0),
            ("rest", "rest", 1_090_000.0, 1_310_000.0, None, None),
        ),
    ),
    *_parts(
        "prefill",
        "module",
        (
            ("vision.blocks.*.attn", "GPU time", 61_200_000.0, 61_900_000.0, 4_100.0, 4_100.0),
            ("GPU idle: launching", "launches", 16_000_000.0, 16_350_000.0, 4_140.0, 4_140.0),
            ("rest", "rest", 1_090_000.0, 1_310_000.0, None, None),
        ),
    ),
)

_KERNELS = (
    KernelMatch(
        "decode", "language_model.layers.*.self_attn", "matrix product", "same work, another kernel",
        (_NVJET,), (_NVJET_OTHER,), 48.0, 48.0, 402_000.0, 391_000.0, -11_000.0,
    ),
    KernelMatch(
        "decode", "language_model.layers.*.self_attn", "elementwise", "fused",
        _GLUE, ("triton_poi_fused_add_mul_0",), 84.0, 12.0, 390_000.0, 51_900.0, -338_100.0,
    ),
    KernelMatch(
        "decode", "language_model.layers.*.input_layernorm", "normalisation", "split",
        ("rms_norm_kernel",), ("rms_partial", "rms_scale"), 12.0, 24.0, 271_300.0, 355_000.0, 83_700.0,
    ),
    KernelMatch(
        "decode", "language_model.layers.*.mlp", "matrix product", "same",
        ("gemv_kernel",), ("gemv_kernel",), 396.0, 396.0, 2_100_300.0, 2_089_900.0, -10_400.0, 1.91e9, 1.91e9,
    ),
    KernelMatch("decode", "lm_head", "sampling", "new", (), ("fill_kernel",), 0.0, 1.0, 0.0, 1_800.0, 1_800.0),
    KernelMatch("decode", "lm_head", "sampling", "vanished", ("sort_kernel",), (), 1.0, 0.0, 1_700.0, 0.0, -1_700.0),
)  # fmt: skip

_BASE = side("eager", (16_890e3, 16_912e3, 16_951e3, 16_905e3, 16_930e3), (78.1e6, 78.29e6, 79.9e6, 78.3e6, 78.2e6))
_NEW = side("cuda-graph", (5_790e3, 5_780e3, 5_802e3, 5_775e3, 5_781e3), (79.4e6, 79.56e6, 80.9e6, 79.6e6, 79.5e6))


def comparison() -> Comparison:
    """Decode three times as fast, prefill inside the noise; a kernel of each kind of match."""
    return Comparison(
        base=_BASE,
        new=_NEW,
        headline="cuda-graph decodes 2.93 times as fast as eager: 16.91 → 5.78 ms a token, mostly launches that are gone.",
        settings=(
            SettingChange("options", "decode mode", ("eager", "cuda-graph"), False),
            SettingChange("clocks", "SM clock before the capture", ("1,980 MHz", None), False),
            SettingChange("versions", "torch", ("2.13.0", "2.13.1"), False),
        ),
        stages=(
            StageDifference(
                stage="prefill", per="image", unprofiled=True, base_ns=78_290_000.0, new_ns=79_560_000.0,
                difference_ns=1_270_000.0, ratio=1.0162,
                interval=Interval(-450_000.0, 1_610_000.0, 0.95, 4000, 5, 5, 2_100_000.0, "20 A/A pairs"),
                answer="equal", because="+1.27 ms: the interval includes 0, and the difference is within the band of 2.10 ms.",
                explained=0.827,
            ),
            StageDifference(
                stage="decode", per="token", unprofiled=True, base_ns=16_912_000.0, new_ns=5_780_000.0,
                difference_ns=-11_132_000.0, ratio=0.3418,
                interval=Interval(-11_170_000.0, -11_101_000.0, 0.95, 4000, 5, 5, 51_000.0, "20 A/A pairs"),
                answer="improvement", because="−11.1 ms: the interval excludes 0, and the difference exceeds the band of 51.0 µs.",
                explained=1.008,
            ),
        ),
        contributions=(*_PREFILL, *_DECODE),
        kernels=_KERNELS,
        notes=("The weights are random: what the model says is noise, what it costs is not.",),
    )  # fmt: skip


def diff(*more: Comparison) -> Diff:
    """One comparison, or several."""
    first = comparison()
    return Diff(first.headline, (first, *more))


def answered(answer: Answer, difference_ns: float = 1_400_000.0) -> Comparison:
    """The comparison with another answer for decode, whose difference is that of its launches."""
    given = comparison()
    decode = given.stages[1]
    base = decode.base_ns or 0.0
    rows = tuple(row for row in given.contributions if row.stage != "decode")
    made = _parts(
        "decode",
        "stage",
        (
            ("GPU time", "GPU time", 4_272_000.0, 4_272_000.0, 790.0, 790.0),
            ("GPU idle: launching", "launches", 7_410_000.0, 7_410_000.0 + difference_ns, 812.0, 1_012.0),
            ("rest", "rest", base - 11_682_000.0, base - 11_682_000.0, None, None),
        ),
    )
    changed = evolve(
        decode,
        answer=answer,
        new_ns=base + difference_ns,
        difference_ns=difference_ns,
        ratio=(base + difference_ns) / base,
        interval=Interval(difference_ns - 9e4, difference_ns + 9e4, 0.95, 4000, 5, 5, 51_000.0, "20 A/A pairs"),
        explained=1.0,
    )
    return evolve(
        given,
        headline=f"decode: {answer}",
        stages=(given.stages[0], changed),
        contributions=(*rows, *made),
        new=evolve(given.new, label=answer.replace(" ", "-"), path=f"reports/{answer.replace(' ', '-')}"),
    )


def forbidden() -> Comparison:
    """The comparison on another device."""
    given = answered("cannot judge")
    because = "another device has other peaks"
    change = SettingChange("device", "device", ("NVIDIA H100 80GB HBM3", "NVIDIA H200"), True, because)
    return evolve(given, settings=(*given.settings, change))


def hostile() -> Comparison:
    """The comparison with hostile names wherever a name of others stands."""
    given = comparison()
    text = " ".join(HOSTILE)
    return evolve(
        given,
        headline=text,
        base=evolve(given.base, label=HOSTILE[0], model=HOSTILE[1]),
        new=evolve(given.new, label=HOSTILE[1], model=HOSTILE[1]),
        settings=(SettingChange("options", HOSTILE[0], (HOSTILE[1], HOSTILE[3]), True, HOSTILE[2]),),
        stages=tuple(evolve(stage, because=text) for stage in given.stages),
        contributions=tuple(
            evolve(row, name=HOSTILE[place % len(HOSTILE)] if row.kind == "GPU time" else row.name, note=text)
            for place, row in enumerate(given.contributions)
        ),
        kernels=tuple(
            evolve(row, module=HOSTILE[0], family=HOSTILE[4], base_names=HOSTILE, new_names=HOSTILE[:2])
            for row in given.kernels
        ),
        notes=(text,),
    )
