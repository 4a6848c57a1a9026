from __future__ import annotations

import json
import lzma
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.attribution.attribution import Attribution
from analysis.domain.errors import RequestError
from analysis.sums.kernel_classes import (
    OTHER,
    KernelClass,
    classify,
    classify_all,
    is_communication,
    load_rules,
)
from analysis.sums.kernels import category_rows, quotients, shares, spread
from trace_builder import TraceBuilder

NAMES = json.loads(lzma.decompress((Path(__file__).parents[1] / "data" / "kernel_names.json.xz").read_bytes()))
"""Every distinct kernel name of seven real traces (H100, H200), with the GPU time it took in each."""

TRACES = sorted({trace for entry in NAMES for trace in entry["total_ns"]})


@pytest.mark.parametrize("trace", TRACES)
def test_other_is_at_most_two_per_cent_of_gpu_time(trace: str) -> None:
    time_ns: Counter[str] = Counter()
    for entry in NAMES:
        if trace in entry["total_ns"]:
            time_ns[classify(entry["name"], entry["short_name"]).category] += entry["total_ns"][trace]
    assert time_ns.total() > 0
    assert time_ns[OTHER] <= 0.02 * time_ns.total()


def test_the_fixture_has_all_traces() -> None:
    assert len(TRACES) == 7
    assert len(NAMES) == 195


ATEN = "void at::native::"


@pytest.mark.parametrize(
    ("name", "short_name", "expected"),
    [
        (
            f"{ATEN}vectorized_elementwise_kernel<(int)4, at::native::BinaryFunctor<c10::BFloat16, c10::BFloat16, "
            "c10::BFloat16, at::native::binary_internal::MulFunctor<float>>, std::array<char *, 3>>(int, T2, T3)",
            "vectorized_elementwise_kernel",
            KernelClass("elementwise", "ATen", "elementwise multiply, bf16, vectorised ×4", False),
        ),
        # The torch collector demangles without casts before values.
        (
            f"{ATEN}vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::Half>, std::array<char*, 3ul> >"
            "(int, at::native::CUDAFunctor_add<c10::Half>, std::array<char*, 3ul>)",
            "",
            KernelClass("elementwise", "ATen", "elementwise add, fp16, vectorised ×8", False),
        ),
        (
            "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_splitK_TNT",
            "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_splitK_TNT",
            KernelClass("GEMM", "cuBLAS", "matrix product, bf16, tile 64×8, split-K", True),
        ),
        (
            "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize128x32x8_stage3_warpsize2x2x1_ffma_aligna4_alignc4_execute_"
            "kernel__5x_cublas",
            "",
            KernelClass("GEMM", "cuBLAS", "matrix product, no tensor cores, fp32", False),
        ),
        (
            "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_32x1_tn_align2>(T1::Params)",
            "Kernel2",
            KernelClass("GEMM", "CUTLASS", "matrix product, bf16", True),
        ),
        (
            "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_cga1x1x1_kernel0_0",
            "",
            KernelClass("attention", "cuDNN", "fused attention", True),
        ),
        (
            "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<(unsigned long)4096>)",
            "ncclDevKernel_AllReduce_Sum_bf16_RING_LL",
            KernelClass("NCCL AllReduce", "NCCL", "all-reduce, sum, bf16, ring, LL", False),
        ),
        (
            f"{ATEN}vectorized_elementwise_kernel<(int)8, at::native::bfloat16_copy_kernel_cuda(at::TensorIteratorBase "
            "&)::[lambda(float) (instance 1)], std::array<char *, (unsigned long)2>>(int, T2, T3)",
            "vectorized_elementwise_kernel",
            KernelClass("copy/cast", "ATen", "cast, to bf16, vectorised ×8", False),
        ),
        (
            f"{ATEN}unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase &)::[lambda() "
            "(instance 3)]::operator ()() const::[lambda(float) (instance 1)], std::array<char *, (unsigned long)2>, "
            "(int)4, TrivialOffsetCalculator<(int)1, unsigned int>, at::native::memory::LoadWithCast<(int)1>, "
            "at::native::memory::StoreWithCast<(int)1>>(int, T1, T2, T4, T5, T6, T7)",
            "unrolled_elementwise_kernel",
            KernelClass("copy/cast", "ATen", "cast, to fp32, unrolled", False),
        ),
        (
            f"{ATEN}elementwise_kernel<(int)128, (int)2, void at::native::gpu_kernel_impl_nocast<at::native::"
            "direct_copy_kernel_cuda(at::TensorIteratorBase &)::[lambda(float) (instance 1)]>(at::TensorIteratorBase &)>",
            "elementwise_kernel",
            KernelClass("copy/cast", "ATen", "copy, fp32, strided", False),
        ),
        (
            "void cudnn::fusion::lean_reduction_kernel<(bool)0, (bool)0, (bool)0>(void *, float *)",
            "lean_reduction_kernel",
            KernelClass("attention", "cuDNN", "fused attention, combine the splits, fp32", False),
        ),
    ],
)
def test_a_kernel_is_named_in_full(name: str, short_name: str, expected: KernelClass) -> None:
    assert classify(name, short_name) == expected


@pytest.mark.parametrize(
    ("name", "category", "library", "tensor_core"),
    [
        (
            "void flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4>>(Params)",
            "attention",
            "FlashAttention",
            True,
        ),
        (
            "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<Mainloop>>>(Params)",
            "attention",
            "FlashAttention",
            True,
        ),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::Params)", "attention", "CUTLASS", True),
        ("ampere_sgemm_128x64_tn", "GEMM", "cuBLAS", False),
        ("ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_32x6_tn", "GEMM", "cuBLAS", True),
        ("void gemv2T_kernel_val<int, int, __nv_bfloat16, float>(Params)", "GEMV", "cuBLAS", False),
        ("void gemvNSP_kernel<float, float, 1, 32>(Params)", "GEMV", "cuBLAS", False),
        ("fused_moe_kernel", "grouped GEMM", None, True),
        ("triton_poi_fused_add_mul_0", "elementwise", "Triton", False),
        ("triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_3", "normalisation", "Triton", False),
        ("triton_per_fused_sum_1", "reduction", "Triton", False),
        ("void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*)", "rotary", None, False),
        (
            "void at::native::tensor_kernel_scan_innermost_dim<float, std::plus<float>>(float*)",
            "scan/select",
            "ATen",
            False,
        ),
        (
            "void (anonymous namespace)::softmax_warp_forward<float, float, float, 6, false, false>(float*)",
            "softmax",
            "ATen",
            False,
        ),
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "NCCL AllGather", "NCCL", False),
        ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL", "NCCL ReduceScatter", "NCCL", False),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "NCCL SendRecv", "NCCL", False),
        ("ncclDevKernel_Generic(ncclDevKernelArgsStorage<4096ul>)", "NCCL other", "NCCL", False),
        ("[CUDA memcpy Host-to-Device]", "memcpy Host-to-Device", None, False),
        ("Memcpy DtoH (Device -> Pinned)", "memcpy Device-to-Host", None, False),
        ("[CUDA memset]", "memset", None, False),
        ("Memset (Device)", "memset", None, False),
        ("aten::mm", "GEMM", "ATen", None),
        ("aten::addmm", "GEMM", "ATen", None),
        ("aten::bmm", "GEMM", "ATen", None),
        ("aten::_grouped_mm", "grouped GEMM", "ATen", None),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention", "ATen", None),
        ("aten::mkldnn_convolution", "convolution", "ATen", None),
        ("aten::convolution", "convolution", "ATen", None),
        ("aten::add", "elementwise", "ATen", None),
        ("aten::mul", "elementwise", "ATen", None),
        ("aten::copy_", "copy/cast", "ATen", None),
        ("aten::cat", "concat", "ATen", None),
        ("aten::silu", "activation", "ATen", None),
        ("aten::native_layer_norm", "normalisation", "ATen", None),
        ("aten::_softmax", "softmax", "ATen", None),
        ("aten::topk", "top-k/sort", "ATen", None),
        ("aten::index", "gather/scatter", "ATen", None),
        ("aten::embedding", "gather/scatter", "ATen", None),
        ("aten::argmax", "reduction", "ATen", None),
        ("aten::maximum", "elementwise", "ATen", None),
        ("aten::cumsum", "scan/select", "ATen", None),
    ],
)
def test_a_name_has_its_category(name: str, category: str, library: str | None, tensor_core: bool | None) -> None:
    found = classify(name, name)
    assert (found.category, found.library, found.tensor_core) == (category, library, tensor_core)


def test_what_no_rule_knows_is_other_under_its_own_name() -> None:
    assert classify("my_secret_kernel", "my_secret_kernel") == KernelClass(OTHER, None, "my_secret_kernel", None)
    assert classify("", "").human_name == "(no name)"


def test_all_are_classified_in_order() -> None:
    names = ["aten::mm", "x", "aten::mm"]
    assert [found.category for found in classify_all(names, names)] == ["GEMM", OTHER, "GEMM"]
    with pytest.raises(ValueError):
        classify_all(["a"], [])


@pytest.mark.parametrize("kind", ["HtoD", "DtoH", "DtoD"])
def test_a_copy_direction_has_one_name(kind: str, attribute: Callable[..., Attribution]) -> None:
    """By the trace's row and by the name, as the table of categories and the rules have it."""
    attribution = attribute(TraceBuilder().copy(0, 5, (10, 30), kind=kind))
    (row,) = category_rows(attribution, ())
    (name,) = attribution.operations.names
    assert row.category == classify(name, name).category == classify(f"Memcpy {kind} (a -> b)", "").category


def test_communication_is_told_apart() -> None:
    assert is_communication("NCCL AllReduce")
    assert is_communication("memcpy Peer-to-Peer")
    assert not is_communication("memcpy Device-to-Host")
    assert not is_communication("GEMM")


@given(st.text(max_size=300), st.text(max_size=40))
def test_any_name_has_a_class(name: str, short_name: str) -> None:
    found = classify(name, short_name)
    assert found.category
    assert len(found.human_name) <= 200


@pytest.mark.parametrize(
    "filler", ["<", "at::native::", "_", "(int)", "a" * 7, "_bf16", "vectorized_elementwise_kernel<", "\x1b[31m"]
)
def test_a_huge_name_keeps_a_short_human_name(filler: str) -> None:
    huge = (filler * 200_000)[:200_000]
    found = classify(huge, huge)
    assert len(found.human_name) <= 200
    # What tells the kernel may stand at either end.
    assert classify("ncclDevKernel_AllReduce_Sum" + huge, "").category == "NCCL AllReduce"
    assert classify("x" * 200_000 + "nccl_allreduce", "").category == "NCCL AllReduce"


def test_a_users_rules_come_first(tmp_path: Path) -> None:
    own = tmp_path / "rules.toml"
    own.write_text(
        '[[rule]]\nequal = ["my_kernel"]\ncategory = "rotary"\nlibrary = "Mine"\n'
        'human = "my {operation}"\ntensor_core = true\n'
        '[[rule]]\nprefix = ["nvjet"]\ncategory = "products"\nhuman = "product"\n'
        '[[operation]]\nany = ["my_kernel"]\nname = "turn"\n'
    )
    rules = load_rules(own)
    assert classify("My_Kernel", "", rules) == KernelClass("rotary", "Mine", "my turn", True)
    assert classify("nvjet_sm90_tst_64x8_x", "", rules).category == "products"
    assert classify("aten::mm", "aten::mm", rules).category == "GEMM"
    assert classify("My_Kernel", "").category == OTHER


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[rule", "not valid TOML"),
        ('[[rules]]\ncategory = "x"\n', "unknown table 'rules'"),
        ('[[rule]]\ncategory = "x"\nhuman = "x"\n', r"\[\[rule\]\] number 1: needs a condition; write prefix"),
        ('[[rule]]\nany = ["x"]\nhuman = "x"\n', "category must be a text"),
        ('[[rule]]\nany = "x"\ncategory = "x"\nhuman = "x"\n', "any must be a list of texts"),
        ('[[rule]]\nany = ["x"]\nmatch = "x"\ncategory = "x"\nhuman = "x"\n', "unknown key 'match'"),
        (
            '[[rule]]\nany = ["x"]\ncategory = "x"\nhuman = "x"\ntensor_core = "yes"\n',
            "tensor_core must be true or false",
        ),
        ("rule = 3\n", "must be written as"),
    ],
)
def test_a_bad_rule_file_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    own = tmp_path / "rules.toml"
    own.write_text(text)
    with pytest.raises(RequestError, match=complaint) as caught:
        load_rules(own)
    assert str(own) in str(caught.value)


def test_a_missing_rule_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        load_rules(tmp_path / "none.toml")


def test_the_import_needs_no_pandas() -> None:
    program = "import sys, analysis.efficiency.hardware\nprint('pandas' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("above", [[1, 2**53], [7, 2**62 + 1], [0, 2**53 + 1]])
def test_quotients_of_integers_are_exact_whatever_their_size(above: list[int]) -> None:
    below = [3, 2**61 + 1]
    wanted = [over / under for over, under in zip(above, below, strict=True)]
    assert quotients(np.array(above), np.array(below)).tolist() == wanted
    assert list(shares(np.array(above), np.array([3, 0]))) == [wanted[0], None]


def test_values_of_few_things_are_an_array_only_where_all_are_numbers() -> None:
    code = np.array([1, 0, 1])
    numbers = spread([2.5, 4.5], code)
    assert isinstance(numbers, np.ndarray)
    assert numbers.tolist() == [4.5, 2.5, 4.5]
    assert spread([2, None], code) == [None, 2, None]
    assert spread([(1, 2, 3), (4, 5, 6)], code) == [(4, 5, 6), (1, 2, 3), (4, 5, 6)]
