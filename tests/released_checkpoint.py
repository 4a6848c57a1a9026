"""Small checkpoints on disk, in the form in which DeepSeek-OCR is released."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

VOCABULARY, HIDDEN, DENSE, EXPERT, EXPERTS, LAYERS = 512, 64, 96, 32, 8, 2
SAM, SAM_OUT, CLIP, CLIP_LAYERS = 32, 256, 48, 2
IMAGE_TOKEN = VOCABULARY - 1

CONFIG = {
    "model_type": "deepseek_vl_v2",
    "architectures": ["DeepseekOCRForCausalLM"],
    "auto_map": {"AutoModel": "modeling_deepseekocr.DeepseekOCRForCausalLM"},
    "torch_dtype": "bfloat16",
    "image_token_id": IMAGE_TOKEN,
    "language_config": {
        "architectures": ["DeepseekV2ForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": DENSE,
        "moe_intermediate_size": EXPERT,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "n_routed_experts": EXPERTS,
        "n_shared_experts": 2,
        "num_experts_per_tok": 3,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "max_position_embeddings": 2048,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "use_mla": False,
        "kv_lora_rank": None,
        "q_lora_rank": None,
    },
    "vision_config": {
        "image_size": 1024,
        "model_name": "deeplip_b_l",
        "width": {
            "sam_vit_b": {
                "width": SAM,
                "layers": 2,
                "heads": 2,
                "global_attn_indexes": [1],
                "downsample_channels": [40, CLIP],
            },
            "clip-l-14-224": {
                "width": CLIP,
                "layers": CLIP_LAYERS,
                "heads": 4,
                "image_size": 224,
                "patch_size": 14,
            },
        },
    },
}


def released_weights() -> dict[str, torch.Tensor]:
    """Random weights under the names of the released DeepSeek-OCR checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (VOCABULARY, HIDDEN),
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "model.image_newline": (HIDDEN,),
        "model.view_seperator": (HIDDEN,),
        "model.projector.layers.weight": (HIDDEN, 2 * CLIP),
        "model.projector.layers.bias": (HIDDEN,),
        "model.sam_model.pos_embed": (1, 64, 64, SAM),
        "model.sam_model.patch_embed.proj.weight": (SAM, 3, 16, 16),
        "model.sam_model.patch_embed.proj.bias": (SAM,),
        "model.sam_model.neck.0.weight": (SAM_OUT, SAM, 1, 1),
        "model.sam_model.neck.1.weight": (SAM_OUT,),
        "model.sam_model.neck.1.bias": (SAM_OUT,),
        "model.sam_model.neck.2.weight": (SAM_OUT, SAM_OUT, 3, 3),
        "model.sam_model.neck.3.weight": (SAM_OUT,),
        "model.sam_model.neck.3.bias": (SAM_OUT,),
        "model.sam_model.net_2.weight": (40, SAM_OUT, 3, 3),
        "model.sam_model.net_3.weight": (CLIP, 40, 3, 3),
        "model.vision_model.embeddings.class_embedding": (CLIP,),
        "model.vision_model.embeddings.patch_embedding.weight": (CLIP, 3, 14, 14),
        "model.vision_model.embeddings.position_embedding.weight": (257, CLIP),
        "model.vision_model.pre_layrnorm.weight": (CLIP,),
        "model.vision_model.pre_layrnorm.bias": (CLIP,),
    }
    for index, window in enumerate((14, 64)):
        block = f"model.sam_model.blocks.{index}"
        shapes |= {
            f"{block}.attn.qkv.weight": (3 * SAM, SAM),
            f"{block}.attn.qkv.bias": (3 * SAM,),
            f"{block}.attn.proj.weight": (SAM, SAM),
            f"{block}.attn.proj.bias": (SAM,),
            f"{block}.attn.rel_pos_h": (2 * window - 1, SAM // 2),
            f"{block}.attn.rel_pos_w": (2 * window - 1, SAM // 2),
            f"{block}.mlp.lin1.weight": (4 * SAM, SAM),
            f"{block}.mlp.lin1.bias": (4 * SAM,),
            f"{block}.mlp.lin2.weight": (SAM, 4 * SAM),
            f"{block}.mlp.lin2.bias": (SAM,),
        }
        shapes |= {f"{block}.norm{n}.{kind}": (SAM,) for n in (1, 2) for kind in ("weight", "bias")}
    for index in range(CLIP_LAYERS):
        layer = f"model.vision_model.transformer.layers.{index}"
        shapes |= {
            f"{layer}.self_attn.qkv_proj.weight": (3 * CLIP, CLIP),
            f"{layer}.self_attn.qkv_proj.bias": (3 * CLIP,),
            f"{layer}.self_attn.out_proj.weight": (CLIP, CLIP),
            f"{layer}.self_attn.out_proj.bias": (CLIP,),
            f"{layer}.mlp.fc1.weight": (4 * CLIP, CLIP),
            f"{layer}.mlp.fc1.bias": (4 * CLIP,),
            f"{layer}.mlp.fc2.weight": (CLIP, 4 * CLIP),
            f"{layer}.mlp.fc2.bias": (CLIP,),
        }
        shapes |= {f"{layer}.layer_norm{n}.{kind}": (CLIP,) for n in (1, 2) for kind in ("weight", "bias")}
    for index in range(LAYERS):
        layer = f"model.layers.{index}"
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{layer}.{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
        if index == 0:
            shapes |= _feed_forward(f"{layer}.mlp", DENSE)
            continue
        shapes[f"{layer}.mlp.gate.weight"] = (EXPERTS, HIDDEN)
        shapes |= _feed_forward(f"{layer}.mlp.shared_experts", 2 * EXPERT)
        for expert in range(EXPERTS):
            shapes |= _feed_forward(f"{layer}.mlp.experts.{expert}", EXPERT)
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}


def _feed_forward(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.gate_proj.weight": (width, HIDDEN),
        f"{prefix}.up_proj.weight": (width, HIDDEN),
        f"{prefix}.down_proj.weight": (HIDDEN, width),
    }


def write_checkpoint(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Write config.json and one weights file; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
