"""Which kernels do the work of which: renamed library kernels, fusions, splits, new and vanished ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from attrs import evolve

from analysis.api.options import AnalysisOptions
from analysis.api.sides import read_side
from analysis.compare.alignment import KernelTime, align, family_of, identity_of, same_modules
from analysis.compare.comparison import compare
from analysis.compare.headline import main_causes
from warped_trace import fuse_kernels, rename_kernels, slow_down

ALIKE = [
    ("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", "nvjet_sm90_tst_128x16_64x8_2x1_h_bz_TNT"),
    ("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_splitK_TNT"),
    ("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", "nvjet_tst_320x128_64x3_1x2_h_bz_TNT"),
    (
        "cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_128x128_32x4_tn_align8",
        "cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x256_64x3_tn_align4",
    ),
    (
        "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_tn",
        "ampere_bf16_s16816gemm_bf16_64x64_ldg8_f2f_stages_64x5_tn",
    ),
    (
        "sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x64x64_stage3_warpsize2x2x1_tensor16x8x16_kernel",
        "sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64_stage5_warpsize2x2x1_tensor16x8x16_kernel",
    ),
    (
        "cudnn_generated_fort_native_sdpa_sm80_flash_fprop_wmma_f16_knob_35_16x128x128_1x4x1_cga1x1x1_kernel0_0",
        "cudnn_generated_fort_native_sdpa_sm80_flash_fprop_wmma_f16_knob_6_64x64x64_4x1x1_cga1x1x1_kernel0_0",
    ),
    ("triton_poi_fused_add_mul_3", "triton_poi_fused_add_mul_17"),
    ("_fwd_kernel_0d1d2d3de", "_fwd_kernel_0d1d2d"),
]


@pytest.mark.parametrize(("first", "second"), ALIKE)
def test_what_a_library_chose_for_speed_is_not_identity(first: str, second: str) -> None:
    assert identity_of(first) == identity_of(second)
    assert identity_of(first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", "nvjet_sm90_hsh_64x8_64x16_4x1_v_bz_TNT"),
        ("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_NNT"),
        ("triton_poi_fused_add_mul_3", "triton_red_fused_add_mul_3"),
        ("softmax_warp_forward", "softmax_warp_backward"),
    ],
)
def test_what_a_kernel_computes_is(first: str, second: str) -> None:
    assert identity_of(first) != identity_of(second)


def kernel(
    name: str,
    calls: float,
    ns: float,
    *,
    words: str = "",
    category: str = "other",
    place: int | None = None,
    shape: int = 0,
) -> KernelTime:
    return KernelTime("layers.*.mlp", name, name, category, words, shape, calls, ns, place)


def kinds(base: Sequence[KernelTime], new: Sequence[KernelTime]) -> dict[tuple[tuple[str, ...], tuple[str, ...]], str]:
    matches = align("decode", base, new)
    assert sum(match.base_ns for match in matches) == pytest.approx(sum(row.ns for row in base))
    assert sum(match.new_ns for match in matches) == pytest.approx(sum(row.ns for row in new))
    return {(match.base_names, match.new_names): match.kind for match in matches}


def test_three_projections_in_one_product_are_fused() -> None:
    base = [kernel("nvjet_q", 36, 300, words="matrix product, bf16, tile 64×8", category="GEMM")]
    new = [kernel("nvjet_qkv", 12, 200, words="matrix product, bf16, tile 128×8", category="GEMM")]
    assert kinds(base, new) == {(("nvjet_q",), ("nvjet_qkv",)): "fused"}
    assert kinds(new, base) == {(("nvjet_qkv",), ("nvjet_q",)): "split"}


def test_many_kernels_between_the_same_neighbours_became_one() -> None:
    norm = [kernel(f"norm_part_{letter}", 24, 10, place=1 + number) for number, letter in enumerate("abcdefg")]
    before, after = kernel("embedding", 1, 5, place=0), kernel("activation", 24, 5, place=8)
    fused = kernel("rms_norm", 24, 20, place=1)
    elsewhere = kernel("debugging", 24, 7, place=3)
    made = kinds([before, *norm, after], [before, fused, evolve(after, place=2), elsewhere])
    assert made[tuple(f"norm_part_{letter}" for letter in "abcdefg"), ("rms_norm",)] == "fused"
    assert made[(), ("debugging",)] == "new"


def test_without_the_order_of_launch_nothing_is_guessed() -> None:
    base, new = [kernel("one", 3, 5), kernel("two", 3, 5)], [kernel("other", 3, 5)]
    assert set(kinds(base, new).values()) == {"new", "vanished"}


def test_a_kernel_with_another_grid_in_every_step_is_one() -> None:
    base = [kernel("concatenate", 0.5, 2, shape=number) for number in range(20)]
    new = [kernel("concatenate", 0.5, 2, shape=number) for number in range(10, 34)]
    assert kinds(base, new) == {(("concatenate",), ("concatenate",)): "same"}


def test_families_say_what_and_not_how() -> None:
    words = ["matrix product, bf16, tile 64×8, split-K", "matrix product, bf16, tile 384×8", "matrix product, bf16"]
    assert {family_of(kernel("x", 1, 1, words=text, category="GEMM")) for text in words} == {"matrix product, bf16"}
    assert (
        family_of(kernel("x", 1, 1, words="elementwise add, fp32, vectorised ×4", category="elementwise"))
        == "elementwise add, fp32"
    )
    assert family_of(kernel("triton_poi_fused_7", 1, 1, words="triton_poi_fused_7")) == "triton_poi_fused"


@pytest.mark.parametrize(
    ("base", "new", "pairs"),
    [
        (["layers.*.mlp"], ["layers.*.mlp"], {"layers.*.mlp": "layers.*.mlp"}),
        (["layers.*.mlp"], ["_orig_mod.layers.*.mlp"], {"_orig_mod.layers.*.mlp": "layers.*.mlp"}),
        (["layers.*.mlp"], ["model.layers.*.mlp"], {"model.layers.*.mlp": "layers.*.mlp"}),
        (["layers.*.mlp"], ["layers.0.mlp"], {"layers.0.mlp": "layers.*.mlp"}),
        (["a", "b"], ["c"], {"c": "c"}),
        (["x.mlp", "y.mlp"], ["mlp"], {"mlp": "mlp"}),
    ],
)
def test_modules_are_found_again(base: list[str], new: list[str], pairs: dict[str, str]) -> None:
    assert same_modules(base, new) == pairs


def test_another_tile_of_a_real_trace_is_the_same_work(real_trace: Callable[[str], Path], tmp_path: Path) -> None:
    trace = real_trace("deepseek-ocr_h100_small")
    assert rename_kernels(
        trace, tmp_path / "new.sqlite", lambda name: name.replace("_64x8_64x16_4x1_v_", "_32x8_64x12_2x2_h_")
    )
    made = compare(read_side(trace), read_side(tmp_path / "new.sqlite"))
    renamed = [match for match in made.kernels if match.base_names != match.new_names]
    assert renamed
    for match in renamed:
        assert match.kind == "same work, another kernel"
        assert re.match("matrix product", match.family)
        assert match.difference_ns == 0
    assert not any(match.kind in ("new", "vanished") for match in made.kernels)


@pytest.mark.parametrize(
    ("factor", "module"), [(1.1, "layers.*.mlp"), (1.1, "vision.sam"), (0.9, "layers.*.self_attn")]
)
def test_a_module_that_was_slowed_is_named_with_its_size(
    real_trace: Callable[[str], Path], tmp_path: Path, factor: float, module: str
) -> None:
    """The whole of a real capture, in which one module's kernels last 10 % longer or shorter."""
    trace = real_trace("deepseek-ocr_h100_small")
    pattern = re.compile(re.escape(module).replace(r"\*", r"\d+"))
    added = slow_down(trace, tmp_path / "new.sqlite", lambda path: bool(pattern.fullmatch(path)), factor)
    base, new = read_side(trace), read_side(tmp_path / "new.sqlite")
    made = compare(base, new)
    slower = sum(
        row.difference_ns * base.stages[row.stage].units
        for row in made.contributions
        if (row.level, row.name) == ("module", module)
    )
    assert slower == pytest.approx(added, rel=0.02)
    stage = max(made.stages, key=lambda row: abs(row.difference_ns or 0))
    (cause, *_) = main_causes(made, stage)
    assert (cause.level, cause.name) == ("module", module)
    assert cause.difference_ns == pytest.approx(stage.difference_ns, rel=0.2)
    assert cause.difference_ns == pytest.approx((factor - 1) * cause.base_ns, rel=0.2)
    assert f"GPU time of {module}" in made.headline
    sign = "+" if factor > 1 else "−"
    said = rf"changed in {re.escape(module)} {re.escape(sign)}[\d.]+ .s \({re.escape(sign)}(8|9|10)\.\d %\)"
    assert any(re.search(said, note) for note in made.notes)
    others = [
        row for row in made.contributions if row.stage == stage.stage and row.level == "module" and row.name != module
    ]
    assert max(abs(row.difference_ns) for row in others) < 0.2 * abs(cause.difference_ns)


NORM = (
    "cast, to fp32, unrolled",
    "elementwise power, fp32, vectorised ×4",
    "reduction (mean), fp32",
    "elementwise add, fp32, vectorised ×4",
    "elementwise reciprocal square root, fp32, vectorised ×4",
    "elementwise multiply, fp32, strided",
    "cast, to bf16, vectorised ×8",
)
"""The seven kernels of an RMS norm that nobody has fused, in words."""


def test_the_seven_kernels_of_a_real_norm_became_one(real_trace: Callable[[str], Path], tmp_path: Path) -> None:
    trace = real_trace("deepseek-ocr_h100_small")
    base = read_side(trace)
    words = {
        row.name: row.human_name
        for row in base.report.kernel_modules
        if (row.stage, row.module) == ("decode", "layers.*") and row.human_name in NORM
    }
    seven = set(words)
    assert len(seven) == 7
    gone = fuse_kernels(
        trace,
        tmp_path / "new.sqlite",
        lambda path: bool(re.fullmatch(r"layers\.\d+", path)),
        seven.__contains__,
        lambda name: words.get(name) == "reduction (mean), fp32",
        "void rms_norm_kernel<float>(float *)",
    )
    assert gone
    made = compare(base, read_side(tmp_path / "new.sqlite", AnalysisOptions(accept_lossy=True)))
    match = next(row for row in made.kernels if (row.stage, row.module, row.kind) == ("decode", "layers.*", "fused"))
    assert set(match.base_names) == seven
    assert match.new_names == ("void rms_norm_kernel<float>(float *)",)
    assert match.base_calls == 7 * match.new_calls
    row = next(row for row in made.contributions if (row.stage, row.level, row.match) == ("decode", "kernel", "fused"))
    assert row.note.startswith("These 7 kernels (168 launches a unit) became this one (24 launches)")
    others = [row for row in made.kernels if (row.stage, row.module) == ("decode", "layers.*") and row != match]
    assert {row.kind for row in others} == {"same"}
