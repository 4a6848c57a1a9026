"""What DeepSeek-OCR needs, in closed form: FLOPs and bytes per component, for traces whose manifest does not say.

Conventions (the runner's counter, `runner.child.flops`, follows the same):

- Multiply-add = 2 FLOP. Matrix products and convolutions only: norms, activations and biases are left out.
- Decoder attention is causal-exact in ``flop``: T(T+1)/2 query-key pairs for a prompt of T. ``flop_full`` has T².
  The vision towers attend in both directions, and are full in both. SAM pads its windows, and computes on the padding.
- MoE layers count the experts that a token is sent to. ``lm_head`` counts once per emitted position: once in prefill.
- ``weight_bytes`` are the parameters that a stage touches, read once per forward pass (prefill: one; decode: one per
  step). A layer of E experts, k per token, of which n tokens draw evenly and independently touches
  E · (1 − (1 − k/E)ⁿ) of them: k for one token, all for a page. The embedding is read by row.
- KV cache: prefill writes a key and a value per prompt token and layer, and reads none (it has them at hand); a
  decode step over a context of c tokens reads c of them and writes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen

from analysis.domain.errors import RequestError
from analysis.domain.manifest import ComponentCost, PromptTokens, StageCost

__all__ = [
    "DEEPSEEK_OCR",
    "DTYPE_BYTES",
    "PRESETS",
    "ClipShape",
    "DecoderShape",
    "OcrShape",
    "SamShape",
    "closed_form",
    "decode_cost",
    "expected_experts",
    "prefill_cost",
]

DTYPE_BYTES: Final[Mapping[str, int]] = {"bf16": 2, "fp16": 2, "fp32": 4}


@frozen
class SamShape:
    """SAM ViT-B with its neck and the two convolutions that make 16 times fewer tokens."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    patch: int = 16
    channels: int = 3
    window: int = 14
    global_layers: int = 4
    pretrained_grid: int = 64
    """Patches per side of the position embedding."""
    neck: int = 256
    downsample: tuple[int, int] = (512, 1024)


@frozen
class ClipShape:
    """CLIP-L, fed with SAM's features in place of patches."""

    width: int = 1024
    layers: int = 24
    mlp: int = 4096
    positions: int = 257


@frozen
class DecoderShape:
    """The MoE decoder. Its first ``dense_layers`` have a dense MLP."""

    width: int = 1280
    layers: int = 12
    heads: int = 10
    kv_heads: int = 10
    head_dim: int = 128
    dense_layers: int = 1
    dense_mlp: int = 6848
    experts: int = 64
    experts_per_token: int = 6
    expert_mlp: int = 896
    shared_experts: int = 2
    vocabulary: int = 129280

    @property
    def moe_layers(self) -> int:
        """Layers with routed experts."""
        return self.layers - self.dense_layers


@frozen
class OcrShape:
    """A whole model, and the sizes of the views in each of its input modes."""

    sam: SamShape = field(factory=SamShape)
    clip: ClipShape = field(factory=ClipShape)
    decoder: DecoderShape = field(factory=DecoderShape)
    views: Mapping[str, tuple[int, int]] = field(
        factory=lambda: {
            "tiny": (512, 0),
            "small": (640, 0),
            "base": (1024, 0),
            "large": (1280, 0),
            "gundam": (1024, 640),
        }
    )
    """Mode → side of the global view and of a tile, pixels (0: no tiles)."""


DEEPSEEK_OCR: Final = OcrShape()
"""Sizes as in arXiv:2510.18234 and the configuration beside the released weights."""

PRESETS: Final[Mapping[str, OcrShape]] = {"deepseek-ocr": DEEPSEEK_OCR}


def closed_form(
    preset: str, prompts: Sequence[PromptTokens], *, max_new_tokens: int, dtype: str = "bf16", batch_size: int = 1
) -> tuple[StageCost, ...]:
    """What each image needs in prefill and in decode.

    Args:
        preset: one of `PRESETS`.
        prompts: what each image becomes; ``expected_new_tokens`` takes precedence over ``max_new_tokens``.
        max_new_tokens: tokens generated, the first one (prefill's) included.
        dtype: of weights and KV cache.
        batch_size: sequences that run at once, each as the prompt says.

    Returns:
        Per image a prefill, and a decode if there is a second token.

    Raises:
        RequestError: no closed form for that preset, dtype or input mode.
    """
    if preset not in PRESETS:
        raise RequestError(f"no closed form for {preset!r}; there is one for {', '.join(PRESETS)}")
    if dtype not in DTYPE_BYTES:
        raise RequestError(f"unknown dtype {dtype!r}; known are {', '.join(DTYPE_BYTES)}")
    shape, dtype_bytes = PRESETS[preset], DTYPE_BYTES[dtype]
    costs = []
    for prompt in prompts:
        if prompt.mode not in shape.views:
            raise RequestError(f"unknown input mode {prompt.mode!r} of {preset}; known are {', '.join(shape.views)}")
        side, tile_side = shape.views[prompt.mode]
        views = [side, *[tile_side] * prompt.tiles]
        costs.append(
            prefill_cost(
                shape,
                view_sides=views,
                prompt_tokens=prompt.prompt_tokens,
                image_index=prompt.image_index,
                dtype_bytes=dtype_bytes,
                batch_size=batch_size,
            )
        )
        steps = (prompt.expected_new_tokens or max_new_tokens) - 1
        if steps > 0:
            costs.append(
                decode_cost(
                    shape.decoder,
                    context_first=prompt.prompt_tokens + 1,
                    steps=steps,
                    image_index=prompt.image_index,
                    dtype_bytes=dtype_bytes,
                    batch_size=batch_size,
                )
            )
    return tuple(costs)


def prefill_cost(
    shape: OcrShape,
    *,
    view_sides: Sequence[int],
    prompt_tokens: int,
    image_index: int = 0,
    dtype_bytes: int = 2,
    batch_size: int = 1,
) -> StageCost:
    """Vision included.

    Args:
        shape: the model.
        view_sides: side of each view in pixels, the global one and the tiles.
        prompt_tokens: positions of the prefill.
        image_index: of the input set.
        dtype_bytes: size of a weight and of a cached value.
        batch_size: such prompts at once.

    Returns:
        The sums over the batch.
    """
    sam_flop = sum(_sam_flop(shape.sam, side) for side in view_sides)
    clip_flop = sum(_clip_flop(shape.clip, _cells(shape.sam, side)) for side in view_sides)
    features = shape.sam.downsample[-1] + shape.clip.width
    projector_flop = sum(2 * _cells(shape.sam, side) ** 2 * features * shape.decoder.width for side in view_sides)
    vision = [
        _component("sam", sam_flop * batch_size, _sam_parameters(shape.sam) * dtype_bytes),
        _component("clip", clip_flop * batch_size, _clip_parameters(shape.clip) * dtype_bytes),
        _component("projector", projector_flop * batch_size, (features + 1) * shape.decoder.width * dtype_bytes),
    ]
    decoder = _decoder(
        shape.decoder,
        tokens=prompt_tokens,
        pairs=prompt_tokens * (prompt_tokens + 1) // 2,
        pairs_full=prompt_tokens**2,
        emitted=1,
        passes=1,
        kv_read_tokens=0,
        # The separator between views and the newline after a row of vision tokens.
        extra_vectors=2 if view_sides else 0,
        dtype_bytes=dtype_bytes,
        batch_size=batch_size,
    )
    return StageCost("prefill", image_index, prompt_tokens, 0, 0, (*vision, *decoder), "closed form")


def decode_cost(
    shape: DecoderShape,
    *,
    context_first: int,
    steps: int,
    image_index: int = 0,
    dtype_bytes: int = 2,
    batch_size: int = 1,
) -> StageCost:
    """All decode steps of one image.

    Args:
        shape: the decoder.
        context_first: tokens that the first step attends over, its own included.
        steps: at least 1; each attends over one token more.
        image_index: of the input set.
        dtype_bytes: size of a weight and of a cached value.
        batch_size: sequences at once.

    Returns:
        The sums over steps and batch. ``tokens`` are the steps.
    """
    context_last = context_first + steps - 1
    contexts = steps * (context_first + context_last) // 2
    components = _decoder(
        shape,
        tokens=steps,
        pairs=contexts,
        pairs_full=contexts,
        emitted=steps,
        passes=steps,
        kv_read_tokens=contexts,
        extra_vectors=0,
        dtype_bytes=dtype_bytes,
        batch_size=batch_size,
    )
    return StageCost("decode", image_index, steps, context_first, context_last, components, "closed form")


def expected_experts(experts: int, experts_per_token: int, tokens: int) -> float:
    """How many of a layer's experts ``tokens`` tokens touch, each drawing ``experts_per_token`` evenly: a mean."""
    return experts * (1 - (1 - experts_per_token / experts) ** tokens)


def _component(name: str, flop: int, weight_bytes: int) -> ComponentCost:
    return ComponentCost(component=name, flop=flop, flop_full=flop, weight_bytes=weight_bytes)


def _cells(sam: SamShape, side: int) -> int:
    """Vision tokens per side of a view: patches, halved twice by strided convolutions."""
    return _halved(_halved(side // sam.patch))


def _halved(cells: int) -> int:
    """Cells per side after a convolution of stride 2, kernel 3, padding 1."""
    return (cells + 1) // 2


def _sam_flop(sam: SamShape, side: int) -> int:
    grid = side // sam.patch
    patches = grid**2
    windows = (-(-grid // sam.window)) ** 2
    width, head_dim = sam.width, sam.width // sam.heads
    windowed = _sam_attention(windows, sam.window, width, sam.heads, head_dim)
    everywhere = _sam_attention(1, grid, width, sam.heads, head_dim)
    layers = (sam.layers - sam.global_layers) * windowed + sam.global_layers * everywhere
    mlps = sam.layers * 2 * 2 * patches * width * sam.mlp
    embedding = 2 * patches * sam.channels * sam.patch**2 * width
    neck = 2 * patches * sam.neck * (width + 9 * sam.neck)
    half, quarter = _halved(grid), _cells(sam, side)
    first, second = sam.downsample
    downsampling = 2 * 9 * (half**2 * sam.neck * first + quarter**2 * first * second)
    return embedding + layers + mlps + neck + downsampling


def _sam_attention(windows: int, side: int, width: int, heads: int, head_dim: int) -> int:
    """One layer's projections, scores and decomposed relative positions over square windows of ``side`` patches."""
    tokens = side**2
    projections = 2 * tokens * width * (3 * width + width)
    scores = 2 * 2 * heads * tokens**2 * head_dim
    relative_positions = 2 * 2 * heads * tokens * side * head_dim
    return windows * (projections + scores + relative_positions)


def _sam_parameters(sam: SamShape) -> int:
    width, head_dim = sam.width, sam.width // sam.heads
    norms = 2 * 2 * width
    attention = width * 3 * width + 3 * width + width**2 + width
    mlp = 2 * width * sam.mlp + sam.mlp + width
    positions = (
        2
        * head_dim
        * ((sam.layers - sam.global_layers) * (2 * sam.window - 1) + sam.global_layers * (2 * sam.pretrained_grid - 1))
    )
    embedding = sam.channels * sam.patch**2 * width + width + sam.pretrained_grid**2 * width
    neck = width * sam.neck + 9 * sam.neck**2 + 2 * 2 * sam.neck
    downsampling = 9 * (sam.neck * sam.downsample[0] + sam.downsample[0] * sam.downsample[1])
    return embedding + sam.layers * (norms + attention + mlp) + positions + neck + downsampling


def _clip_flop(clip: ClipShape, cells: int) -> int:
    tokens = cells**2 + 1
    projections = 4 * 2 * tokens * clip.width**2
    scores = 2 * 2 * tokens**2 * clip.width
    mlp = 2 * 2 * tokens * clip.width * clip.mlp
    return clip.layers * (projections + scores + mlp)


def _clip_parameters(clip: ClipShape) -> int:
    width = clip.width
    layer = 4 * (width**2 + width) + 2 * width * clip.mlp + clip.mlp + width + 2 * 2 * width
    return width + clip.positions * width + 2 * width + clip.layers * layer


def _decoder(
    shape: DecoderShape,
    *,
    tokens: int,
    pairs: int,
    pairs_full: int,
    emitted: int,
    passes: int,
    kv_read_tokens: int,
    extra_vectors: int,
    dtype_bytes: int,
    batch_size: int,
) -> tuple[ComponentCost, ...]:
    """The decoder's components for ``passes`` forward passes over ``tokens`` positions (per sequence)."""
    width, attended = shape.width, shape.heads * shape.head_dim
    cached = shape.kv_heads * shape.head_dim
    projection_weights = shape.layers * width * (2 * attended + 2 * cached)
    dense_weights = shape.dense_layers * 3 * width * shape.dense_mlp
    expert_weights = 3 * width * shape.expert_mlp
    shared_weights = shape.moe_layers * shape.shared_experts * expert_weights
    router_weights = shape.moe_layers * width * shape.experts
    touched = expected_experts(shape.experts, shape.experts_per_token, tokens // passes * batch_size)
    kv_token_bytes = 2 * shape.layers * cached * dtype_bytes
    positions = tokens * batch_size

    def product(name: str, weights: int, rows: int) -> ComponentCost:
        return _component(name, 2 * rows * weights, weights * passes * dtype_bytes)

    routed_weights = shape.moe_layers * expert_weights
    return (
        product("attention_projections", projection_weights, positions),
        ComponentCost(
            component="attention_scores",
            flop=shape.layers * 2 * 2 * pairs * attended * batch_size,
            flop_full=shape.layers * 2 * 2 * pairs_full * attended * batch_size,
            weight_bytes=0,
            kv_read_bytes=kv_read_tokens * kv_token_bytes * batch_size,
            kv_write_bytes=positions * kv_token_bytes,
        ),
        product("dense_mlp", dense_weights, positions),
        _component(
            "routed_experts",
            2 * positions * shape.experts_per_token * routed_weights,
            round(touched * routed_weights * passes * dtype_bytes),
        ),
        product("shared_experts", shared_weights, positions),
        product("router", router_weights, positions),
        product("lm_head", width * shape.vocabulary, emitted * batch_size),
        _component("embedding", 0, positions * width * dtype_bytes),
        _component("other", 0, ((2 * shape.layers + 1) * passes + extra_vectors) * width * dtype_bytes),
    )
