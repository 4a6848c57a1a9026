"""What the presets need, in closed form: FLOPs and bytes per component, for traces whose manifest does not say.

Conventions (the runner's counter, `runner.child.flops`, follows the same):

- Multiply-add = 2 FLOP. Matrix products and convolutions only: norms, activations and biases are left out.
- Decoder attention is causal-exact in ``flop``: T(T+1)/2 query-key pairs for a prompt of T. ``flop_full`` has T².
  The vision towers attend in both directions, and are full in both. SAM pads its windows, and computes on the padding.
- MoE layers count the experts that a token is sent to. ``lm_head`` counts once per emitted position: once in prefill.
- ``weight_bytes`` are the parameters that a stage touches, read once per forward pass (prefill: one; decode: one per
  step). A layer of E experts, k per token, of which n tokens draw evenly and independently touches
  E · (1 − (1 − k/E)ⁿ) of them: k for one token, all for a page. The embedding is read by row.
- Where the head is tied to the embedding, the table is read by row for the input and whole for the head, unless the
  input reads as many rows as it has.
- KV cache: prefill writes a key and a value per prompt token and layer, and reads none (it has them at hand); a
  decode step over a context of c tokens reads c of them and writes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen

from analysis.domain.errors import RequestError
from analysis.domain.experts import expected_experts
from analysis.domain.manifest import ComponentCost, PromptTokens, StageCost

__all__ = [
    "DEEPSEEK_OCR",
    "DTYPE_BYTES",
    "PRESETS",
    "TEXT_MODE",
    "ClipShape",
    "DecoderShape",
    "ModelShape",
    "QueryEncoderShape",
    "SamShape",
    "ViewSizes",
    "VisionShape",
    "closed_form",
    "decode_cost",
    "find_preset",
    "prefill_cost",
    "view_sides",
]

DTYPE_BYTES: Final[Mapping[str, int]] = {"bf16": 2, "fp16": 2, "fp32": 4}
TEXT_MODE: Final = "text"
"""Input mode of a model that reads no images."""


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
    """CLIP-L, fed with SAM's features in place of patches. Its output lies beside SAM's for the projector."""

    width: int = 1024
    layers: int = 24
    mlp: int = 4096
    positions: int = 257

    def vectors(self, cells: int) -> int:
        """Vectors that go to the projector for a view of ``cells`` × ``cells`` features."""
        return cells**2


@frozen
class QueryEncoderShape:
    """A tower of Qwen2's shape over SAM's features with learnt queries behind them; only the queries go on."""

    width: int = 896
    layers: int = 24
    heads: int = 14
    kv_heads: int = 2
    mlp: int = 4864
    few_queries: int = 144
    """Of a view of at most as many features."""
    many_queries: int = 256

    def vectors(self, cells: int) -> int:
        """Vectors that go to the projector for a view of ``cells`` × ``cells`` features."""
        return self.few_queries if cells**2 <= self.few_queries else self.many_queries


@frozen
class ViewSizes:
    """How one input mode shows a page."""

    side: int
    """Of the global view, pixels."""
    tile_side: int = 0
    """Of a local view, pixels; 0: the mode has none."""
    max_tiles: int = 0
    """A page that is cut at all gives 2 tiles or more, and no more than this."""


@frozen
class VisionShape:
    """The towers, and the sizes of the views in each input mode."""

    encoder: ClipShape | QueryEncoderShape
    modes: Mapping[str, ViewSizes]
    default_mode: str
    """Where none is asked for: the runner's default for that preset."""
    sam: SamShape = field(factory=SamShape)

    @property
    def projected_width(self) -> int:
        """Width of a vector that goes to the projector."""
        beside = self.sam.downsample[-1] if isinstance(self.encoder, ClipShape) else 0
        return self.encoder.width + beside

    def cells(self, side: int) -> int:
        """Features per side of a view of ``side`` pixels."""
        return _cells(self.sam, side)

    def least_image_tokens(self, mode: str, tiles: int) -> int:
        """The fewest positions that an image of so many tiles takes; the grid of the tiles may add some."""
        sizes = self.modes[mode]
        views, side = _cells(self.sam, sizes.side), _cells(self.sam, sizes.tile_side)
        if isinstance(self.encoder, QueryEncoderShape):
            return self.encoder.vectors(views) + tiles * self.encoder.vectors(side) + 1
        # A vector ends each row of features: of the global view, and of the tiles side by side (at least one row).
        return views * (views + 1) + 1 + (tiles * side**2 + side if tiles else 0)


@frozen
class DecoderShape:
    """The decoder. Its first ``dense_layers`` have a dense MLP, the others routed experts."""

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
    tied: bool = False
    """The head is the embedding's table."""

    @property
    def moe_layers(self) -> int:
        """Layers with routed experts."""
        return self.layers - self.dense_layers


@frozen
class ModelShape:
    """A whole model."""

    decoder: DecoderShape
    vision: VisionShape | None = None
    """None: it reads text only."""

    @property
    def default_mode(self) -> str:
        """The input mode where none is asked for."""
        return TEXT_MODE if self.vision is None else self.vision.default_mode


_PLAIN_MODES: Final = {
    "tiny": ViewSizes(512),
    "small": ViewSizes(640),
    "base": ViewSizes(1024),
    "large": ViewSizes(1280),
}
_MODES_1: Final = {**_PLAIN_MODES, "gundam": ViewSizes(1024, 640, 9)}
_MODES_2: Final = {**_PLAIN_MODES, "gundam": ViewSizes(1024, 768, 6)}

_TINY_DECODER: Final = DecoderShape(
    width=256, layers=2, heads=4, kv_heads=4, head_dim=64, dense_mlp=1024, experts=16, expert_mlp=128, vocabulary=8192
)


def _tiny_sam(last: int) -> SamShape:
    return SamShape(width=128, layers=2, heads=4, mlp=512, global_layers=1, neck=64, downsample=(96, last))


DEEPSEEK_OCR: Final = ModelShape(DecoderShape(), VisionShape(ClipShape(), _MODES_1, "gundam"))
"""Sizes as in arXiv:2510.18234 and the configuration beside the released weights."""

PRESETS: Final[Mapping[str, ModelShape]] = {
    "deepseek-ocr": DEEPSEEK_OCR,
    "deepseek-ocr-tiny": ModelShape(
        _TINY_DECODER, VisionShape(ClipShape(width=192, layers=2, mlp=768), _MODES_1, "tiny", _tiny_sam(192))
    ),
    "deepseek-ocr-2": ModelShape(
        DecoderShape(), VisionShape(QueryEncoderShape(), _MODES_2, "gundam", SamShape(downsample=(512, 896)))
    ),
    "deepseek-ocr-2-tiny": ModelShape(
        _TINY_DECODER,
        VisionShape(QueryEncoderShape(width=192, layers=2, heads=4, mlp=768), _MODES_2, "tiny", _tiny_sam(192)),
    ),
    "llama-1b": ModelShape(
        DecoderShape(
            width=2048, layers=16, heads=32, kv_heads=8, head_dim=64, dense_layers=16, dense_mlp=8192, experts=0,
            experts_per_token=0, expert_mlp=0, shared_experts=0, vocabulary=128256, tied=True,
        )
    ),
    "llama-tiny": ModelShape(
        DecoderShape(
            width=256, layers=2, heads=8, kv_heads=2, head_dim=32, dense_layers=2, dense_mlp=1024, experts=0,
            experts_per_token=0, expert_mlp=0, shared_experts=0, vocabulary=8192, tied=True,
        )
    ),
}  # fmt: skip
"""The runner's presets; a test counts each of them with the runner's own counter."""


def find_preset(name: str) -> ModelShape:
    """Look a preset up.

    Raises:
        RequestError: there is no closed form for it.
    """
    if name not in PRESETS:
        raise RequestError(f"no closed form for {name!r}; there is one for {', '.join(PRESETS)}")
    return PRESETS[name]


def view_sides(preset: str, mode: str, tiles: int) -> list[int]:
    """Side of each view of a page, the global one first; none where the model reads no images.

    Raises:
        RequestError: the preset has no such mode, or the mode not so many tiles.
    """
    vision = find_preset(preset).vision
    if vision is None:
        if mode != TEXT_MODE or tiles:
            raise RequestError(f"{preset} reads no images: it has neither the input mode {mode!r} nor tiles")
        return []
    if mode not in vision.modes:
        raise RequestError(f"unknown input mode {mode!r} of {preset}; known are {', '.join(vision.modes)}")
    sizes = vision.modes[mode]
    if tiles and not 2 <= tiles <= sizes.max_tiles:
        allowed = f"2 to {sizes.max_tiles} tiles, or 0" if sizes.max_tiles else "no tiles"
        raise RequestError(f"input mode {mode!r} of {preset} has {allowed}, not {tiles}")
    return [sizes.side, *[sizes.tile_side] * tiles]


def closed_form(
    preset: str, prompts: Sequence[PromptTokens], *, max_new_tokens: int, dtype: str = "bf16", batch_size: int = 1
) -> tuple[StageCost, ...]:
    """What each image needs in prefill and in decode.

    Args:
        preset: one of `PRESETS`.
        prompts: what each image becomes; ``expected_new_tokens`` takes precedence over ``max_new_tokens``.
        max_new_tokens: tokens generated, the first one (prefill's) included.
        dtype: of weights and KV cache.
        batch_size: copies of each prompt that run at once, as in a run of ours.

    Returns:
        Per image a prefill, and a decode if there is a second token.

    Raises:
        RequestError: no closed form for that preset, dtype, input mode or number of tiles.
    """
    shape = find_preset(preset)
    if dtype not in DTYPE_BYTES:
        raise RequestError(f"unknown dtype {dtype!r}; known are {', '.join(DTYPE_BYTES)}")
    dtype_bytes = DTYPE_BYTES[dtype]
    costs = []
    for prompt in prompts:
        costs.append(
            prefill_cost(
                shape,
                view_sides=view_sides(preset, prompt.mode, prompt.tiles),
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
    shape: ModelShape,
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
        view_sides: side of each view in pixels, the global one and the tiles; none for text.
        prompt_tokens: positions of the prefill.
        image_index: of the input set.
        dtype_bytes: size of a weight and of a cached value.
        batch_size: copies of the prompt that run at once.

    Returns:
        The sums over the batch.
    """
    vision = [] if shape.vision is None else _vision(shape, shape.vision, view_sides, dtype_bytes, batch_size)
    decoder = _decoder(
        shape.decoder,
        tokens=prompt_tokens,
        pairs=prompt_tokens * (prompt_tokens + 1) // 2,
        pairs_full=prompt_tokens**2,
        emitted=1,
        passes=1,
        kv_read_tokens=0,
        more_weights=0 if shape.vision is None else _learnt_vectors(shape.vision, shape.decoder.width, view_sides),
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
        batch_size: copies of the sequence that run at once.

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
        more_weights=0,
        dtype_bytes=dtype_bytes,
        batch_size=batch_size,
    )
    return StageCost("decode", image_index, steps, context_first, context_last, components, "closed form")


def _vision(
    shape: ModelShape, vision: VisionShape, view_sides: Sequence[int], dtype_bytes: int, batch_size: int
) -> list[ComponentCost]:
    """Towers and projector over all views of an image."""
    if not view_sides:
        return []
    sam, encoder, width = vision.sam, vision.encoder, shape.decoder.width
    cells = [_cells(sam, side) for side in view_sides]
    vectors = sum(encoder.vectors(side) for side in cells)
    if isinstance(encoder, ClipShape):
        name, flop, parameters = "clip", sum(_clip_flop(encoder, side) for side in cells), _clip_parameters(encoder)
    else:
        name, flop = "encoder", sum(_query_encoder_flop(encoder, side) for side in cells)
        parameters = _query_encoder_parameters(encoder)
    sam_flop = sum(_sam_flop(sam, side) for side in view_sides)
    projector = 2 * vectors * vision.projected_width * width
    return [
        _component("sam", sam_flop * batch_size, _sam_parameters(sam) * dtype_bytes),
        _component(name, flop * batch_size, parameters * dtype_bytes),
        _component("projector", projector * batch_size, (vision.projected_width + 1) * width * dtype_bytes),
    ]


def _learnt_vectors(vision: VisionShape, width: int, view_sides: Sequence[int]) -> int:
    """Parameters between towers and decoder: what ends an image, what ends a row of features, and tables of queries."""
    if not view_sides:
        return 0
    encoder = vision.encoder
    if isinstance(encoder, ClipShape):
        return 2 * width
    # Each table is read whole, once for all views of that size.
    return width + encoder.width * sum({encoder.vectors(_cells(vision.sam, side)) for side in view_sides})


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


def _query_encoder_flop(encoder: QueryEncoderShape, cells: int) -> int:
    tokens = cells**2 + encoder.vectors(cells)
    cached = encoder.kv_heads * (encoder.width // encoder.heads)
    projections = 2 * tokens * encoder.width * (2 * encoder.width + 2 * cached)
    scores = 2 * 2 * tokens**2 * encoder.width
    mlp = 2 * 3 * tokens * encoder.width * encoder.mlp
    return encoder.layers * (projections + scores + mlp)


def _query_encoder_parameters(encoder: QueryEncoderShape) -> int:
    """Without the queries, of which a view reads one table."""
    width, cached = encoder.width, encoder.kv_heads * (encoder.width // encoder.heads)
    attention = 2 * width**2 + width + 2 * (width * cached + cached)
    layer = attention + 3 * width * encoder.mlp + 2 * width
    return encoder.layers * layer + width


def _decoder(
    shape: DecoderShape,
    *,
    tokens: int,
    pairs: int,
    pairs_full: int,
    emitted: int,
    passes: int,
    kv_read_tokens: int,
    more_weights: int,
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
    tokens_at_once = tokens // passes * batch_size
    # Copies of a token go to the same experts: a batch touches no more of them than one of its sequences.
    touched = expected_experts(shape.experts, shape.experts_per_token, tokens // passes) if shape.experts else 0
    rows_read = 0 if shape.tied and tokens_at_once >= shape.vocabulary else tokens * batch_size
    kv_token_bytes = 2 * shape.layers * cached * dtype_bytes
    positions = tokens * batch_size

    def product(name: str, weights: int, rows: int) -> ComponentCost:
        return _component(name, 2 * rows * weights, weights * passes * dtype_bytes)

    routed_weights = shape.moe_layers * expert_weights
    parts = (
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
        _component("embedding", 0, rows_read * width * dtype_bytes),
        _component("other", 0, ((2 * shape.layers + 1) * passes * width + more_weights) * dtype_bytes),
    )
    return tuple(part for part in parts if part.flop or part.weight_bytes)
