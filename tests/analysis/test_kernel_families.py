"""Names of kernels that engines and libraries launch → their category. Names only, each with the project that it is from."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from analysis.domain.errors import RequestError
from analysis.render import kernel_categories
from analysis.sums.kernel_classes import OTHER, classify, is_communication, load_rules

ATEN = "void at::native::"
TRT = "void tensorrt_llm::kernels::"

FAMILIES: dict[str, tuple[tuple[str, str], ...]] = {
    "attention": (
        # FlashAttention 2 and 3
        ("void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<(int)128, (int)64, (int)128>>(Params)", "FA 2"),
        ("void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<128, 128, 64, 4>>(Params)", "PyTorch"),
        ("void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwdSm90"
         "<(int)2, cute::tuple<cute::C<1>>>>>>(T1::Params)", "FA 3 in vLLM"),
        ("void cutlass::device_kernel<flash::FlashAttnFwdCombine<cute::tuple<cute::C<8>, cute::C<128>>>>", "FA 3 in vLLM"),
        ("void flash::prepare_varlen_num_blocks_kernel<(int)1, (bool)0>(int, int, int, const int *)", "FA 3 in vLLM"),
        # FlashInfer
        ("void flashinfer::BatchDecodeWithPagedKVCacheKernel<(flashinfer::PosEncodingMode)0, (unsigned int)2>", "SGLang"),
        ("void flashinfer::BatchPrefillWithRaggedKVCacheKernel<flashinfer::KernelTraits<>>", "SGLang"),
        ("SinglePrefillWithKVCacheKernel", "FlashInfer"),
        ("void flashinfer::PersistentVariableLengthMergeStatesKernel<8u, 16u, 8u, 4u, __nv_bfloat16, __nv_bfloat16, int>"
         "(__nv_bfloat16*, float*, int*)", "FlashInfer"),
        ("::flashinfer::MergeStatesKernel<8, float, float>", "FlashInfer"),
        ("void flashinfer::sparse_mla_sm120::sparse_mla_decode_dsv4_kernel<1>", "FlashInfer"),
        ("fmhaSm100fKernel_QkvBfloat16OBfloat16H64PagedKvCausalP64VarSeqQ128Kv128PersistentContext", "TensorRT-LLM"),
        ("kernel_mha", "TensorRT-LLM"),
        # paged, latent and Triton attention
        ("void vllm::paged_attention_v2_kernel<unsigned short, unsigned short, 128, 16, 128>", "vLLM"),
        ("void vllm::paged_attention_v2_reduce_kernel<unsigned short, 128, 128, 512>", "vLLM"),
        ("void vllm::merge_attn_states_kernel<__nv_bfloat16, __nv_bfloat16, (unsigned int)128, (bool)0>(T2 *)", "vLLM"),
        ("void flash::flash_fwd_splitkv_mla_kernel<Flash_fwd_kernel_traits_mla<576, 64>>", "FlashMLA"),
        ("flash::flash_fwd_splitkv_mla_combine_kernel", "FlashMLA"),
        ("get_mla_metadata_kernel", "FlashMLA"),
        ("void deep_gemm::sm90_fp8_paged_mqa_logits<1u, 64u>", "DeepGEMM"),
        ("kernel_unified_attention_3d", "vLLM"),
        ("kernel_unified_attention_2d", "vLLM"),
        ("reduce_segments", "vLLM"),
        ("_fwd_kernel", "SGLang"),
        ("_fwd_grouped_kernel_stage1", "SGLang"),
        ("_fwd_kernel_stage2", "SGLang"),
        ("void flash_attn_mma_ext_f16<(int)256, (int)8, (int)8, (int)4, (int)32>(const char *)", "llama.cpp"),
        ("void flash_attn_tile<256, 256, 16, 2, false>(char const*, char const*)", "llama.cpp"),
        ("void cudnn::fusion::lean_reduction_kernel<(bool)0, (bool)0, (bool)0>(void *, float *)", "cuDNN"),
    ),
    "GEMM": (
        ("void marlin::Marlin<(long)1125899906910725, (long)1125899906843648, (long)1125899906910725>", "vLLM"),
        ("void marlin::Marlin<1125899906909960l, 2814749767172868l, 1125899906909960l>", "vLLM"),
        ("void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int>, machete::MacheteCollectiveMma"
         "<int>>>", "vLLM"),
        ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, 2112u, 7168u, 1u>", "DeepGEMM"),
        ("void deep_gemm::sm100_fp8_fp4_gemm_1d1d_impl<(cute::UMMA::Major)0, (cute::UMMA::Major)0, 128u, 128u, 0u, true, "
         "(deep_gemm::GemmType)0, false, cutlass::float_e4m3_t>", "DeepGEMM"),
        ("void deep_gemm::sm90_tf32_hc_prenorm_gemm_impl<24u, 16384u, 64u>(unsigned int, CUtensorMap_st)", "DeepGEMM"),
        ("cutlass3x_sm90_tensorop_s64x128x32gemm_e4m3_e4m3_f32_bf16_bf16_64x128x128_2x1x1_0_tnt_align16", "CUTLASS"),
        ("cutlass3x_sm90_tensorop_gemm_f16_f16_f32_f16_f32_128x128x64_2x1x1_0_ntn_align8", "CUTLASS"),
        ("_ZN7cutlass13device_kernelINS_4gemm6kernel13GemmUniversalIN4cute5tupleIJiiiiEEENS1_10collective13CollectiveMmaINS1_"
         "34MainloopSm90TmaGmmaWarpSpecializedILi4EEE", "SGLang"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128_32x3_tn_align8>(T1::Params)", "PyTorch"),
        ("sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n_tilesize64x64x128_warpgroupsize1x1x1_execute", "cuBLAS"),
        ("nvjet_sm121_tst_mma_96x64x64_4_16x64x64_tmaAB_bz_TNNN", "cuBLAS"),
        ("nvjet_tst_192x16_64x8_2x2_2cta_h_bz_TNT", "cuBLAS"),
        ("ampere_bf16_s1688gemm_bf16_128x128_ldg8_f2f_stages_32x1_tn", "cuBLAS"),
        ("void vllm::awq::gemm_forward_4bit_cuda_m16nXk32<128>(int, int)", "vLLM"),
        ("void mul_mat_q<(ggml_type)14, (int)32, (bool)0>(const char *, const int *, const int *)", "llama.cpp"),
        ("void mul_mat_q<(ggml_type)8, 128, false>(char const*, int const*, int const*)", "llama.cpp"),
        ("void mul_mat_q_stream_k_fixup<(ggml_type)8, (int)16, (bool)0>", "llama.cpp"),
        ("_gemm_a8w8_blockscale_kernel", "aiter"),
        ("_w8a8_block_fp8_matmul", "SGLang"),
        ("fused_fused_dequantize2_NT_matmul11_kernel", "MLC"),
        ("void fused_a_gemm_kernel<1, 2112, 7168, 16, 16, 256, 12>(__nv_bfloat16*)", "TensorRT-LLM"),
    ),
    "grouped GEMM": (
        ("fused_moe_kernel", "vLLM"),
        ("void fused_moe::run_global<fused_moe::Fused_Moe_Kernel_sm80<cutlass::bfloat16_t, cutlass::bfloat16_t>>", "TensorRT-LLM"),
        ("void marlin_moe_wna16::Marlin<1125899906909960l, 16>", "vLLM"),
        ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, 4096u, 6144u, (deep_gemm::GemmType)2>", "DeepGEMM"),
        ("_ZN7cutlass13device_kernelINS_4gemm6kernel13GemmUniversalINS1_17GroupProblemShapeIN4cute5tuple", "TensorRT-LLM"),
        ("void tensorrt_llm::kernels::cutlass_kernels::computeStridesTmaWarpSpecializedKernel<__nv_bfloat16>", "TensorRT-LLM"),
        ("bmm_Bfloat16_E4m3E4m3_Fp32_t128x64x128u2_s6_et128x64_m256x64x32_c2x1x1_rM_TN", "TensorRT-LLM"),
        ("bmm_MxE4m3_MxE2m1MxE4m3_Fp32_Ab32_Bb32_Cb32_t128x16x256u2_s6_et128x16_m256x16x32_c2x1x1_rM_TN", "TensorRT-LLM"),
    ),
    "GEMV": (
        ("void mul_mat_vec_q<(ggml_type)8, 4, false, false>(void const*, void const*)", "llama.cpp"),
        ("kgemm_4bit_inference_naive<hip_bfloat16, 128, 1>", "bitsandbytes"),
        ("void vllm::awq::gemv_kernel<4, 1, 128, 128>(int)", "AWQ"),
    ),
    "convolution": (
        ("cutlass_tensorop_s16816fprop_optimized_f16_128x128_64x4_nhwc", "CUTLASS"),
        ("void cutlass::Kernel<cutlass_tensorop_f16_s16816fprop_optimized_f16_256x128_32x3_nhwc_align8>", "CUTLASS"),
        ("sm80_xmma_dgrad_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x128x16", "cuDNN"),
        ("causal_conv1d_update_kernel", "vLLM"),
        ("_causal_conv1d_fwd_kernel", "vLLM"),
        ("void causal_conv1d_fwd_kernel<Causal_conv1d_fwd_kernel_traits<128, 4, true, c10::BFloat16>>", "causal-conv1d"),
    ),
    "state space": (
        ("void selective_scan_fwd_kernel<Selective_Scan_fwd_kernel_traits<(int)32, (int)4, (int)1, (bool)0>>", "Mamba"),
        ("_selective_scan_update_kernel", "Mamba"),
        ("_chunk_scan_fwd_kernel", "Mamba 2"),
        ("_chunk_cumsum_fwd_kernel", "Mamba 2"),
        ("_state_passing_fwd_kernel", "Mamba 2"),
        ("chunk_gated_delta_rule_fwd_kernel_h_blockdim64", "flash-linear-attention"),
        ("fused_recurrent_gated_delta_rule_packed_decode_kernel", "flash-linear-attention"),
        ("chunk_scaled_dot_kkt_fwd_kernel", "flash-linear-attention"),
        ("chunk_local_cumsum_scalar_kernel", "flash-linear-attention"),
        ("merge_16x16_to_64x64_inverse_kernel", "flash-linear-attention"),
        ("recompute_w_u_fwd_kernel", "flash-linear-attention"),
        ("chunk_fwd_kernel_o", "flash-linear-attention"),
        ("fused_gdn_gating_kernel", "vLLM"),
        ("kda_gate_fwd_kernel", "vLLM"),
        ("_lightning_attn_kernel", "MiniMax in vLLM"),
        ("void delta_net_recurrent_f32<(int)128, (int)128>(const float *)", "ik_llama.cpp"),
    ),
    "normalisation": (
        ("void vllm::rms_norm_kernel<c10::BFloat16, (int)8, (int)3>(T1 *, const T1 *)", "vLLM"),
        ("void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>", "FlashInfer"),
        ("kernel_cutlass_kernel_flashinfernormkernelsfused_add_rmsnorm", "FlashInfer"),
        ("triton_red_fused_fused_add_rms_norm_2", "vLLM"),
        ("triton_per_fused__to_copy_add_mean_mul_pow_rsqrt_2", "vLLM"),
        ("void vllm::rms_norm_static_fp8_quant_kernel<c10::BFloat16, c10::Float8_e4m3fn, 8>", "vLLM"),
        ("rms_norm_f32(float const*, float*)", "llama.cpp"),
    ),
    "rotary": (
        ("void vllm::rotary_embedding_kernel<c10::BFloat16, c10::BFloat16, (bool)1>(const long *)", "vLLM"),
        ("void flashinfer::BatchQKApplyRotaryPosIdsCosSinCacheKernel<true, 128u, 8u, 16u, __nv_bfloat16, long>(kv)", "FlashInfer"),
        (f"{TRT}applyBiasRopeUpdateKVCacheV2<__nv_bfloat16, 256, 128, false, {TRT[5:]}KVBlockArray>", "TensorRT-LLM"),
        (f"{TRT}fusedQKNormRopeKernel<128, false>", "TensorRT-LLM"),
        ("rope_neox<true, false, float>(float const*, float*)", "llama.cpp"),
    ),
    "activation": (
        ("void vllm::act_and_mul_kernel<c10::BFloat16, __nv_bfloat162, &vllm::silu_kernel<c10::BFloat16>>(T1 *)", "vLLM"),
        ("void sglang::act_and_mul_kernel<__nv_bfloat16>", "SGLang"),
        ("triton_poi_fused_mul_silu_slice_1", "vLLM"),
        ("triton_poi_fused_dynamic_per_token_scaled_fp8_quant_mul_silu_slice_0", "vLLM"),
        ("void <unnamed>::silu_mul_quant_varlen_kernel<(bool)1, (bool)1, (bool)0>(<unnamed>::SiluMulParams)", "SGLang"),
        ("void moe::dev::activation::activationDeepSeekKernel", "TensorRT-LLM"),
        ("void doActivationKernel<__nv_bfloat16, __nv_fp4_e2m1>", "TensorRT-LLM"),
    ),
    "expert routing": (
        ("void vllm::moe::topkGating<8, 128, 4, 16, 32, int, __nv_bfloat16, (vllm::moe::ScoringFunc)0>", "vLLM"),
        ("vllm::moe::topk_softmax", "vLLM"),
        ("void vllm::moe::count_and_sort_expert_tokens_kernel<int>(const T1 *, int *)", "vLLM"),
        ("void vllm::moe::moe_align_block_size_kernel<int>", "vLLM"),
        ("moe_sum_kernel", "vLLM"),
        ("void moe_fused_gate_kernel_dynamic", "SGLang"),
        ("_fwd_kernel_ep_scatter_1", "SGLang"),
        ("_fwd_kernel_ep_gather", "SGLang"),
        ("void tensorrt_llm::kernels::cutlass_kernels::expandInputRowsKernel<__nv_bfloat16, __nv_bfloat16, (tensorrt_llm::"
         "kernels::cutlass_kernels::TmaWarpSpecializedGroupedGemmInput::FpXBlockScalingType)2, false>", "TensorRT-LLM"),
        ("void tensorrt_llm::kernels::cutlass_kernels::finalizeMoeRoutingKernel<__nv_bfloat16, __nv_bfloat16>", "TensorRT-LLM"),
        ("void finalizeMoeRoutingKernel_opt<8, 4>(__nv_bfloat16 const*, __nv_bfloat16*)", "FlashInfer"),
        ("void tensorrt_llm::kernels::cutlass_kernels::fusedBuildExpertMapsSortFirstTokenKernel<32, 8, 8>", "TensorRT-LLM"),
        ("void tensorrt_llm::kernels::cutlass_kernels::blockExpertPrefixSumKernel<1024>", "TensorRT-LLM"),
        (f"{TRT}customMoeRoutingKernel<__nv_bfloat16, float, int, 128, 8, false>", "TensorRT-LLM"),
        (f"{TRT}deepseek_v3_topk_kernel<float>", "TensorRT-LLM"),
        ("void moe::dev::finalize::finalizeKernelVecLoad<moe::dev::finalize::KernelParams<cutlass::bfloat16_t>>", "TensorRT-LLM"),
        ("void moe::dev::routing::routingCustom::routingIndicesBlockKernel<moe::dev::routing::routingCustom::KernelParams<float, "
         "__nv_bfloat16, 512, 22, moe::dev::routing::TopKExpertSelect<moe::dev::routing::SigmoidBiasPreprocess>>>", "TensorRT-LLM"),
        ("void mmq_ids_helper<(int)0>(const int *, int *, int *, int *)", "llama.cpp"),
    ),
    "KV cache": (
        ("void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16, (vllm::Fp8KVCacheDataType)0>", "vLLM"),
        ("void vllm::concat_and_cache_mla_kernel<__nv_bfloat16, __nv_bfloat16, (vllm::Fp8KVCacheDataType)0>", "vLLM"),
        ("void vllm::gather_and_maybe_dequant_cache<__nv_bfloat16, __nv_bfloat16, (vllm::Fp8KVCacheDataType)0>", "vLLM"),
        ("void flashinfer::AppendPagedKVCacheKernel<128u, 8u, __nv_bfloat16, int>(flashinfer::paged_kv_t<>)", "FlashInfer"),
        ("cp_gather_indexer_k_quant_cache_kernel", "vLLM"),
    ),
    "batch set-up": (
        ("_compute_slot_mapping_kernel", "vLLM"),
        ("create_flashinfer_kv_indices_triton", "SGLang"),
        ("write_req_to_token_pool_triton", "SGLang"),
        ("compute_position_kernel", "SGLang"),
    ),
    "quantisation": (
        ("void vllm::scaled_fp8_quant_kernel<c10::BFloat16>(c10::Float8_e4m3fn*, c10::BFloat16 const*)", "vLLM"),
        ("void vllm::dynamic_per_token_scaled_fp8_quant_kernel_strided<c10::BFloat16, c10::Float8_e4m3fn>", "vLLM"),
        ("per_token_group_quant_8bit_kernel", "SGLang"),
        ("_per_token_group_quant_fp8", "SGLang"),
        ("_static_quant_fp8", "SGLang"),
        ("vllm::awq::dequantize_weights(int *, half *, int *, half *, int)", "AWQ"),
        ("awq_dequantize_kernel", "AWQ in Triton"),
        ("void kDequantizeBlockwise<half, 512, 64, 8, NF4>(float *, unsigned char *, float *, half *, int, int)", "bitsandbytes"),
        ("void kQuantizeBlockwise<half, 4096, 4, 0>(float *, half *, float *, unsigned char *)", "bitsandbytes"),
        ("void tensorrt_llm::kernels::quantize_with_block_size<(tensorrt_llm::BlockScaleQuantizationType)2>", "TensorRT-LLM"),
        ("cvt_fp16_to_fp4", "vLLM"),
        ("_fp8_a_dequant_to_fp16_kernel", "vLLM"),
        ("kernel_cutlass_kernel_flashinferquantizationkernelsmxfp8_quantizeMXFP8QuantizeSwizzledKernel_object_at", "FlashInfer"),
        ("void quantize_mmq_q8_1<(mmq_q8_1_ds_layout)0>(const float *, const int *, void *, long)", "llama.cpp"),
        ("quantize_q8_1(float const*, void*, long, long)", "llama.cpp"),
        ("void marlin::gptq_marlin_repack_kernel<256, 4, false>", "vLLM"),
    ),
    "sampling": (
        ("void flashinfer::sampling::TopKTopPSamplingFromProbKernel<1024u, (cub::BlockScanAlgorithm)2>", "FlashInfer"),
        ("void flashinfer::sampling::OnlineSoftmaxMapKernel", "FlashInfer"),
        ("void flashinfer::sampling::TopKRenormProbKernel (float*, float*, int*)", "FlashInfer"),
        ("_topk_topp_kernel", "vLLM"),
        ("apply_penalty_kernel", "FastDeploy"),
        (f"{ATEN}(anonymous namespace)::distribution_elementwise_grid_stride_kernel<float, 4>", "PyTorch"),
    ),
    "top-k/sort": (
        ("void raft::matrix::detail::select::radix::impl::radix_kernel<float, int, 8, 512>", "RAFT"),
        ("radix_topk_one_block_kernel<float, int, 12, 1024>", "RAFT"),
        ("void vllm::topKPerRowDecode<512>", "vLLM"),
        (f"{ATEN}sbtopk::gatherTopK<c10::BFloat16, unsigned int, 2, false>", "PyTorch"),
    ),
    "pooling": (
        (f"{ATEN}(anonymous namespace)::max_pool_forward_nchw<float, float>(int, float const*)", "PyTorch"),
        (f"{ATEN}(anonymous namespace)::adaptive_average_pool<float>(float const*)", "PyTorch"),
        ("void cudnn::pooling_fw_4d_kernel<float, float, cudnn::maxpooling_func<float>, 2>", "cuDNN"),
    ),
    "custom AllReduce": (
        ("void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>", "vLLM"),
        ("void sglang::cross_device_reduce_1stage<__nv_bfloat16, 2>", "SGLang"),
        ("void tensorrt_llm::kernels::oneShotAllReduceKernel<__nv_bfloat16, 8, true, false>", "TensorRT-LLM"),
        ("void lowPrecisionTwoShotAllReduceKernel<__nv_bfloat16>", "TensorRT-LLM"),
        (f"{TRT}ar_fusion::allreduce_fusion_kernel_oneshot_lamport<1, __nv_bfloat16, 8, false>", "TensorRT-LLM"),
        ("void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<(flashinfer::trtllm_allreduce_fusion"
         "::AllReduceFusionPattern)1, __nv_bfloat16, 8, false, false>", "FlashInfer"),
        ("void (anonymous namespace)::all_reduce_one_shot_push_kernel<__nv_bfloat16, 8u, true>", "SGLang"),
    ),
    "expert exchange": (
        ("void deep_ep::internode_ll::dispatch<(bool)1, (bool)1, (int)6144>(void *, void *, int *, long *)", "DeepEP"),
        ("void deep_ep::internode_ll::combine<3, 10, 7168, 9>(void*, void*, int*, void*)", "DeepEP"),
        ("void dpsk::ep::internode::dispatch_ll", "DeepEP"),
    ),
    "NVSHMEM": (
        ("barrier_on_stream_kernel", "NVSHMEM"),
        ("void barrier_on_stream_kernel_threadgroup<(threadgroup_t)1>(int, int)", "NVSHMEM"),
        ("void nvshmemi_init_array_kernel<nvshmemi_team_t *>", "NVSHMEM"),
    ),
    "copy/cast": (
        (f"{ATEN}unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)::{{lambda()#3}}, "
         "at::native::memory::LoadWithCast<1>, at::native::memory::StoreWithCast<1>>", "PyTorch"),
        ("void deep_gemm::transpose_fp32<512, 64>(const float *, float *)", "DeepGEMM"),
        ("void cpy_scalar<float, __half>(char const*, char*)", "llama.cpp"),
    ),
    "elementwise": (
        ("triton_poi_fused_add_mul_0", "PyTorch Inductor"),
        ("triton_poi_fused_3", "vLLM"),
    ),
    "reduction": (
        ("triton_per_fused_sum_1", "PyTorch Inductor"),
        ("triton_red_fused_3", "vLLM"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "category"), [(name, key) for key, names in FAMILIES.items() for name, _ in names])
def test_a_name_has_the_category_of_its_family(name: str, category: str) -> None:
    """By the demangled name; and where the short name is all there is, by it."""
    assert classify(name, "").category == category
    assert classify("", name).category == category


def test_each_family_has_two_names() -> None:
    assert {key: len(names) for key, names in FAMILIES.items() if len(names) < 2} == {}


@pytest.mark.parametrize(
    ("name", "human", "library", "tensor_core"),
    [
        ("void mul_mat_q<(ggml_type)14, (int)32, (bool)0>(const char *)", "matrix product, quantised", "llama.cpp", True),
        ("void vllm::scaled_fp8_quant_kernel<c10::BFloat16>(c10::Float8_e4m3fn*)", "quantise to fp8", None, False),
        ("void vllm::act_and_mul_kernel<c10::BFloat16, &vllm::silu_kernel<c10::BFloat16>>", "SiLU and multiply, bf16", None, False),
        ("rms_norm_f32", "normalisation, fp32", "llama.cpp", False),
        ("void vllm::rms_norm_kernel<c10::BFloat16>(T1 *)", "normalisation, bf16", None, False),
        ("cutlass_tensorop_s16816fprop_optimized_f16_128x128_64x4_nhwc", "convolution, fp16", "CUTLASS", True),
        ("vllm::moe::topk_softmax", "expert routing", None, False),
        ("void moe::dev::finalize::finalizeKernel<>", "expert outputs, weighted sum", "TensorRT-LLM", False),
    ],
)  # fmt: skip
def test_what_it_does_is_named(name: str, human: str, library: str | None, tensor_core: bool | None) -> None:
    found = classify(name, "")
    assert (found.human_name, found.library, found.tensor_core) == (human, library, tensor_core)


def test_the_categories_are_declared_once() -> None:
    """Every rule's category has a meaning, and every meaning is of a category that a rule gives."""
    rules = load_rules()
    declared = [one.name for one in rules.categories]
    assert len(declared) == len(set(declared))
    assert {rule.category for rule in rules.rules} | {OTHER} == set(declared)
    assert [one.name for one in rules.categories if one.communication] == [
        name for name in declared if is_communication(name)
    ]
    assert is_communication("expert exchange")
    assert not is_communication("expert routing")


def test_a_file_of_ones_own_may_declare_its_categories(tmp_path: Path) -> None:
    (own := tmp_path / "rules.toml").write_text(
        '[[category]]\nname = "mine"\nmeaning = "What is mine."\n'
        '[[rule]]\nprefix = ["my_"]\ncategory = "mine"\nhuman = "mine"\n'
    )
    rules = load_rules(own)
    assert (rules.categories[0].name, rules.categories[0].communication) == ("mine", False)
    assert classify("my_kernel", "", rules).category == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[category]]\nname = "mine"\n', "meaning must be a text"),
        ('[[category]]\nname = "mine"\nmeaning = "x"\ncommunication = 1\n', "communication must be true or false"),
        ('[[category]]\nname = "mine"\nmeaning = "x"\ncolour = "red"\n', "unknown key 'colour'"),
        ("category = 3\n", "category must be written as"),
    ],
)
def test_a_broken_category_gets_one_line(text: str, words: str, tmp_path: Path) -> None:
    (own := tmp_path / "rules.toml").write_text(text)
    with pytest.raises(RequestError, match=words) as caught:
        load_rules(own)
    assert "rules.toml" in str(caught.value)


def test_the_page_is_of_today() -> None:
    page = Path(__file__).parents[2] / "docs" / "kernels.md"
    assert page.read_text(encoding="utf-8") == kernel_categories.reference(), "make docs"


@pytest.mark.parametrize("trace", ["vllm_h100_llama", "vllm_h100_moe-eager", "tensor-parallel_2xh200_rank1"])
def test_no_kernel_of_an_engine_is_other(trace: str, real_trace: Callable[[str], Path]) -> None:
    with closing(sqlite3.connect(real_trace(trace))) as database:
        names = database.execute(
            "SELECT d.value, s.value, count(*) FROM CUPTI_ACTIVITY_KIND_KERNEL JOIN StringIds d ON d.id = demangledName "
            "JOIN StringIds s ON s.id = shortName GROUP BY 1, 2"
        ).fetchall()
    kernels: Counter[str] = Counter()
    for name, short, count in names:
        kernels[classify(name, short).category] += count
    assert OTHER not in kernels
    if trace == "vllm_h100_moe-eager":
        # 73 steps with kernels, 8 layers.
        assert kernels["grouped GEMM"] == 2 * 73 * 8
        assert kernels["KV cache"] == kernels["rotary"] == kernels["activation"] == 73 * 8
