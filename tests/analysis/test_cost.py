"""The closed form against figures worked out by hand, and its arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.domain.errors import RequestError
from analysis.domain.experts import expected_experts
from analysis.domain.manifest import ComponentCost, PromptTokens, StageCost
from analysis.efficiency.cost import (
    DEEPSEEK_OCR,
    PRESETS,
    TEXT_MODE,
    closed_form,
    decode_cost,
    prefill_cost,
)

GUNDAM = PromptTokens(image_index=0, mode="gundam", tiles=6, image_tokens=903, text_tokens=13, prompt_tokens=916)


def by_component(cost: StageCost) -> dict[str, ComponentCost]:
    return {part.component: part for part in cost.components}


def test_prefill_of_a_page_by_hand() -> None:
    prefill, decode = closed_form("deepseek-ocr", [GUNDAM], max_new_tokens=64)
    assert (prefill.stage, prefill.tokens, prefill.source) == ("prefill", 916, "closed form")
    parts = by_component(prefill)
    # 12 layers × 4 projections of 1280², for 916 tokens.
    assert parts["attention_projections"].flop == 2 * 916 * 12 * 4 * 1280**2
    # Scores and their sum over values: 2 products of 1280 per pair.
    assert parts["attention_scores"].flop == 12 * 2 * 2 * 1280 * (916 * 917 // 2)
    assert parts["attention_scores"].flop_full == 12 * 2 * 2 * 1280 * 916**2
    assert parts["dense_mlp"].flop == 2 * 916 * 3 * 1280 * 6848
    assert parts["routed_experts"].flop == 2 * 916 * 11 * 6 * 3 * 1280 * 896
    assert parts["shared_experts"].flop == 2 * 916 * 11 * 2 * 3 * 1280 * 896
    assert parts["router"].flop == 2 * 916 * 11 * 1280 * 64
    assert parts["lm_head"].flop == 2 * 1280 * 129280, "once, for the only position that emits a token"
    # 256 + 6 × 100 vision tokens through 2048 → 1280.
    assert parts["projector"].flop == 2 * 856 * 2048 * 1280
    assert parts["routed_experts"].weight_bytes == 2 * 11 * 64 * 3 * 1280 * 896, "916 tokens touch all experts"
    assert parts["attention_scores"].kv_write_bytes == 916 * 12 * 2 * 1280 * 2
    assert parts["attention_scores"].kv_read_bytes == 0
    assert (decode.tokens, decode.context_first, decode.context_last) == (63, 917, 979)


def test_a_decode_step_by_hand() -> None:
    parts = by_component(decode_cost(DEEPSEEK_OCR.decoder, context_first=917, steps=1))
    assert parts["attention_scores"].flop == parts["attention_scores"].flop_full == 12 * 4 * 1280 * 917
    assert parts["attention_scores"].kv_read_bytes == 917 * 12 * 2 * 1280 * 2
    assert parts["routed_experts"].weight_bytes == 2 * 11 * 6 * 3 * 1280 * 896, "one token touches 6 experts a layer"
    assert parts["lm_head"].weight_bytes == 2 * 1280 * 129280
    # Every product reads its weights once for one token: 2 FLOP per weight of 2 bytes.
    for name in ("attention_projections", "dense_mlp", "routed_experts", "shared_experts", "router", "lm_head"):
        assert parts[name].flop == parts[name].weight_bytes


@given(st.integers(2, 3000), st.integers(1, 200), st.integers(1, 8))
def test_steps_add_up(context: int, steps: int, batch_size: int) -> None:
    whole = by_component(decode_cost(DEEPSEEK_OCR.decoder, context_first=context, steps=steps, batch_size=batch_size))
    singly = [
        by_component(decode_cost(DEEPSEEK_OCR.decoder, context_first=one, steps=1, batch_size=batch_size))
        for one in range(context, context + steps)
    ]
    for name, part in whole.items():
        assert part.flop == sum(one[name].flop for one in singly)
        assert part.kv_read_bytes == sum(one[name].kv_read_bytes for one in singly)
        assert part.weight_bytes == pytest.approx(sum(one[name].weight_bytes for one in singly), abs=steps)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 2000))
def test_experts_touched_lie_between_one_tokens_and_all(experts: int, per_token: int, tokens: int) -> None:
    per_token = min(per_token, experts)
    touched = expected_experts(experts, per_token, tokens)
    assert per_token - 1e-9 <= touched <= experts


def test_one_token_touches_its_own_experts_and_a_page_all() -> None:
    assert expected_experts(64, 6, 1) == pytest.approx(6)
    assert expected_experts(64, 6, 916) == pytest.approx(64)


def test_a_batch_shares_weights_and_no_arithmetic() -> None:
    one, four = (
        by_component(prefill_cost(DEEPSEEK_OCR, view_sides=[1024], prompt_tokens=286, batch_size=size))
        for size in (1, 4)
    )
    for name in one:
        assert four[name].flop == 4 * one[name].flop
    assert four["sam"].weight_bytes == one["sam"].weight_bytes
    assert four["attention_scores"].kv_write_bytes == 4 * one["attention_scores"].kv_write_bytes


def test_one_new_token_needs_no_decode() -> None:
    assert [cost.stage for cost in closed_form("deepseek-ocr", [GUNDAM], max_new_tokens=1)] == ["prefill"]


def test_fp32_moves_twice_the_bytes() -> None:
    half, full = (closed_form("deepseek-ocr", [GUNDAM], max_new_tokens=2, dtype=dtype) for dtype in ("bf16", "fp32"))
    for one, two in zip(half, full, strict=True):
        assert sum(part.weight_bytes for part in two.components) == pytest.approx(
            2 * sum(part.weight_bytes for part in one.components), abs=2
        )


@pytest.mark.parametrize("preset", sorted(PRESETS))
@given(data=st.data())
def test_more_work_never_needs_less(preset: str, data: st.DataObject) -> None:
    """More positions, tiles, tokens, sequences or wider numbers: no component needs fewer FLOPs or bytes."""
    vision = PRESETS[preset].vision
    mode = data.draw(st.sampled_from(sorted(vision.modes) if vision else [TEXT_MODE]))
    most_tiles = vision.modes[mode].max_tiles if vision else 0
    tiles = data.draw(st.sampled_from([0, *range(2, most_tiles + 1)]))
    tokens, steps, batch = (data.draw(st.integers(1, most)) for most in (4000, 50, 8))

    def needs(**more: Any) -> dict[tuple[str, str, str], float]:
        prompt = PromptTokens(0, mode, more.get("tiles", tiles), 0, tokens, tokens + more.get("tokens", 0))
        costs = closed_form(
            preset,
            [prompt],
            max_new_tokens=1 + steps + more.get("steps", 0),
            dtype=more.get("dtype", "bf16"),
            batch_size=batch + more.get("batch", 0),
        )
        return {
            (cost.stage, part.component, name): getattr(part, name)
            for cost in costs
            for part in cost.components
            for name in ("flop", "flop_full", "weight_bytes", "kv_read_bytes", "kv_write_bytes")
        }

    less = needs()
    more_tiles = min(most_tiles, max(2, tiles + 1)) if most_tiles else 0
    for change in ({"tokens": 7}, {"steps": 3}, {"batch": 1}, {"dtype": "fp32"}, {"tiles": more_tiles}):
        more = needs(**change)
        # A table that is read whole for the head is not read again by row, once the input reads as many rows.
        assert less.keys() - more.keys() <= {key for key in less if key[1] == "embedding"}
        assert all(more[key] >= less[key] for key in less if key in more), change
    for (stage, component, name), amount in less.items():
        if name == "flop":
            assert amount <= less[stage, component, "flop_full"]


def test_a_tied_table_is_read_by_row_and_whole() -> None:
    short, long = (
        by_component(prefill_cost(PRESETS["llama-tiny"], view_sides=[], prompt_tokens=tokens))
        for tokens in (8191, 8192)
    )
    assert short["embedding"].weight_bytes == 2 * 256 * 8191
    assert short["lm_head"].weight_bytes == long["lm_head"].weight_bytes == 2 * 256 * 8192
    assert "embedding" not in long


def test_a_text_model_has_no_vision_and_no_experts() -> None:
    prompt = PromptTokens(0, "text", 0, 0, 100, 100)
    prefill, decode = closed_form("llama-1b", [prompt], max_new_tokens=3)
    names = {"attention_projections", "attention_scores", "dense_mlp", "lm_head", "embedding", "other"}
    assert by_component(prefill).keys() == by_component(decode).keys() == names
    # 16 layers; 32 heads and 8 key heads of 64; an MLP of three matrices.
    per_layer = 2048 * (2 * 2048 + 2 * 512) + 3 * 2048 * 8192
    products = 16 * per_layer + 2048 * 128256
    assert sum(part.weight_bytes for part in decode.components if part.flop) == 2 * 2 * products


@pytest.mark.parametrize(
    ("preset", "mode", "tiles", "message"),
    [
        ("deepseek-ocr", "base", 6, "'base' of deepseek-ocr has no tiles, not 6"),
        ("deepseek-ocr", "gundam", 1, "has 2 to 9 tiles, or 0, not 1"),
        ("deepseek-ocr-2", "gundam", 7, "has 2 to 6 tiles, or 0, not 7"),
        ("llama-1b", "gundam", 0, "llama-1b reads no images"),
        ("llama-1b", "text", 2, "llama-1b reads no images"),
        ("deepseek-ocr", "text", 0, "unknown input mode 'text' of deepseek-ocr; known are tiny, small"),
    ],
)
def test_views_that_a_preset_does_not_have_are_refused(preset: str, mode: str, tiles: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        closed_form(preset, [PromptTokens(0, mode, tiles, 0, 900, 900)], max_new_tokens=2)


@pytest.mark.parametrize(
    ("preset", "mode", "dtype"),
    [("gpt-9", "base", "bf16"), ("deepseek-ocr", "huge", "bf16"), ("deepseek-ocr", "base", "int3")],
)
def test_what_has_no_closed_form_is_refused(preset: str, mode: str, dtype: str) -> None:
    prompt = PromptTokens(image_index=0, mode=mode, tiles=0, image_tokens=1, text_tokens=1, prompt_tokens=2)
    with pytest.raises(RequestError):
        closed_form(preset, [prompt], max_new_tokens=4, dtype=dtype)
