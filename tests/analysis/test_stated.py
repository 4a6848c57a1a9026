"""Stated sizes against traces of which it is known what ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from analysis.attribution.attribution import Attribution
from analysis.domain.entities import KernelSummary
from analysis.domain.errors import RequestError
from analysis.domain.manifest import PromptTokens
from analysis.efficiency.hardware import Peak, peak_for
from analysis.efficiency.stated import TraceEvidence, check_needs, check_stated
from analysis.efficiency.utilisation import CostRequest, costs_of
from analysis.report import ReportOptions, assemble
from analysis.sums.records import InstanceSummary, StepPoint
from analysis.trace.reader import Trace

Opened = Callable[[str], tuple[Trace, Attribution]]

EAGER = "deepseek-ocr_h100_64tok"
"""Two pages in gundam mode, 6 tiles each, 916 prompt tokens; no payloads, modules of the decoder only by ``lm_head``."""
REPLAYED = "deepseek-ocr_h200_cuda-graph"
"""Three pages in gundam mode, 6 tiles each; payloads say 909 prompt tokens."""
BASE = "deepseek-ocr_h200_torch"
"""One page in base mode with all module ranges; the payload says 279 prompt tokens."""
SMALL = "deepseek-ocr_h100_small"
LLAMA = "llama_h100_cuda-graph"


def stated(preset: str, mode: str | None, tiles: int, prompt_tokens: int) -> ReportOptions:
    return ReportOptions(cost=CostRequest(preset, mode, tiles, prompt_tokens))


@pytest.mark.parametrize(
    ("trace", "preset", "mode", "tiles", "prompt_tokens", "message"),
    [
        (EAGER, "deepseek-ocr", "base", 6, 100, "input mode 'base' of deepseek-ocr has no tiles, not 6"),
        (EAGER, "deepseek-ocr", "gundam", 1, 916, "has 2 to 9 tiles, or 0, not 1"),
        (EAGER, "deepseek-ocr", "gundam", 10, 1916, "has 2 to 9 tiles, or 0, not 10"),
        (EAGER, "deepseek-ocr", "base", 0, 100, "--prompt-tokens 100: an image of input mode 'base' alone takes 273"),
        (EAGER, "deepseek-ocr", None, 6, 800, "'gundam' and 6 tiles alone takes 883 positions"),
        (EAGER, "deepseek-ocr", "base", 0, 286, "257 and 4096 rows .* 9600 .* which is --input-mode gundam --tiles 6"),
        (EAGER, "deepseek-ocr", None, 4, 916, "257, 404, 4096 and 6400 rows .* 9600 .* gundam --tiles 6"),
        (EAGER, "deepseek-ocr", "small", 0, 916, "101 and 1600 rows at once"),
        (EAGER, "llama-1b", None, 0, 916, "llama-1b with input mode 'text': its towers normalise no rows at once"),
        (EAGER, "llama-1b", None, 6, 916, "llama-1b reads no images"),
        (EAGER, "llama-1b", "base", 0, 916, "llama-1b reads no images"),
        (EAGER, "deepseek-ocr-2", None, 6, 1200, "deepseek-ocr-2 with input mode 'gundam' and 6 tiles"),
        (REPLAYED, "deepseek-ocr", None, 6, 916, r"--prompt-tokens 916: image\[0\]/prefill ran 909, by its range's"),
        (BASE, "deepseek-ocr", "base", 0, 286, r"--prompt-tokens 286: image\[0\]/prefill ran 279"),
        (BASE, "deepseek-ocr-tiny", "base", 0, 279, "it has 2 decoder layers, this trace's module ranges name 12"),
        (BASE, "deepseek-ocr-2", "base", 0, 279, "vision.encoder, vision.projector and vision.sam, .* vision.clip"),
        (BASE, "llama-1b", None, 0, 279, "it has 16 decoder layers, this trace's module ranges name 12"),
        (LLAMA, "llama-1b", None, 0, 900_000, "would need .* FLOP, at least .* ms on this device, and its GPU work"),
    ],
)
def test_what_the_trace_contradicts_is_refused_in_one_line(
    real_attribution: Opened, trace: str, preset: str, mode: str | None, tiles: int, prompt_tokens: int, message: str
) -> None:
    opened, attribution = real_attribution(trace)
    with pytest.raises(RequestError, match=message) as refused:
        assemble(opened, attribution, None, stated(preset, mode, tiles, prompt_tokens))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("trace", "preset", "mode", "tiles", "prompt_tokens", "unchecked"),
    [
        (EAGER, "deepseek-ocr", None, 6, 916, ["prompt tokens", "the model"]),
        (SMALL, "deepseek-ocr", "gundam", 6, 916, ["prompt tokens"]),
        (REPLAYED, "deepseek-ocr", None, 6, 909, ["the model"]),
        (BASE, "deepseek-ocr", "base", 0, 279, []),
        (LLAMA, "llama-1b", None, 0, 300, ["prompt tokens", "the model", "input mode and tiles"]),
    ],
)
def test_what_the_trace_bears_out_is_used_and_what_it_cannot_is_said(
    real_attribution: Opened,
    trace: str,
    preset: str,
    mode: str | None,
    tiles: int,
    prompt_tokens: int,
    unchecked: list[str],
) -> None:
    opened, attribution = real_attribution(trace)
    report = assemble(opened, attribution, None, stated(preset, mode, tiles, prompt_tokens))
    said = [one for one in report.findings if one.code == "stated-sizes-unchecked"]
    assert len(said) == bool(unchecked)
    for words in ("prompt tokens", "the model", "input mode and tiles", "least time"):
        assert any(words in one.evidence for one in said) == (words in unchecked), words
    assert any(one.flop for one in report.utilisation)


def evidence(**changes: Any) -> TraceEvidence:
    return evolve(TraceEvidence([instance()], [], [], ()), **changes)


def instance(**changes: Any) -> InstanceSummary:
    made = InstanceSummary(
        path="image[0]/prefill", image="image[0]", stage="prefill", start_ns=0, end_ns=10, profiled_host_ns=10,
        projected_ns=10, busy_ns=10, kernel_sum_ns=10, kernels=1, payload=None, steps=0, image_index=0,
    )  # fmt: skip
    return evolve(made, **changes)


def layer_norm(rows: int, calls: int, stage: str = "prefill") -> KernelSummary:
    return KernelSummary(
        name="void vectorized_layer_norm_kernel<…>", short_name="vectorized_layer_norm_kernel", category="norm",
        stage=stage, calls=calls, total_ns=1, mean_ns=1.0, median_ns=1.0, min_ns=1, max_ns=1, grid=(rows, 1, 1),
    )  # fmt: skip


GUNDAM = CostRequest("deepseek-ocr", "gundam", 2, 500)


def test_pages_of_which_some_have_no_tiles_are_not_all_tiled() -> None:
    alike = [layer_norm(4096, 26), layer_norm(3200, 26), layer_norm(257, 49), layer_norm(202, 49)]
    check_stated(GUNDAM, evidence(kernels=alike))
    mixed = [layer_norm(4096, 52), layer_norm(3200, 26), layer_norm(257, 98), layer_norm(202, 49)]
    with pytest.raises(RequestError, match=r"3200 \(26 times\), 4096 \(52 times\)"):
        check_stated(GUNDAM, evidence(kernels=mixed))


def test_layer_norms_outside_prefill_say_nothing_of_views() -> None:
    remarks = check_stated(GUNDAM, evidence(kernels=[layer_norm(17, 3, stage="decode")]))
    assert any("input mode and tiles" in one for one in remarks)


def test_a_first_decode_steps_context_tells_the_prompt() -> None:
    step = StepPoint("image[0]/decode", 0, 0, 1, 1, 1, context=501)
    assert not any("prompt tokens" in one for one in check_stated(GUNDAM, evidence(steps=[step])))
    with pytest.raises(RequestError, match=r"first step of image\[0\]/decode attends over 502"):
        check_stated(GUNDAM, evidence(steps=[evolve(step, context=502)]))
    with pytest.raises(
        RequestError, match="--prompt-tokens 499; if its payload is the token's position, counted from 0"
    ):
        check_stated(GUNDAM, evidence(steps=[evolve(step, context=500)]))
    later = evolve(step, index=4, context=999)
    assert any("prompt tokens" in one for one in check_stated(GUNDAM, evidence(steps=[later])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_tokens": 499}, "--prompt-tokens 500: by the run's manifest .* 499"),
        ({"mode": "base"}, "--input-mode gundam: by the run's manifest .* base"),
        ({"tiles": 3}, "--tiles 2: by the run's manifest .* 3"),
    ],
)
def test_a_manifest_that_says_otherwise_is_believed(change: dict[str, Any], message: str) -> None:
    prompt = PromptTokens(0, "gundam", 2, 487, 13, 500)
    assert check_stated(GUNDAM, evidence(prompts=[prompt])) == ("the model (this trace has no module ranges)",)
    with pytest.raises(RequestError, match=message):
        check_stated(GUNDAM, evidence(prompts=[evolve(prompt, **change)]))


def test_more_bytes_than_the_memory_gives_are_refused() -> None:
    peak = peak_for("NVIDIA H100 80GB HBM3")
    assert isinstance(peak, Peak)
    decode = instance(path="image[0]/decode", stage="decode", steps=10)
    costs = costs_of(None, CostRequest("llama-1b", None, 0, 100), [instance(), decode])
    # 2.5 GB a step at 3.35 TB/s: less than 0.7 ms is too short, were all of it to come from memory.
    slow, fast = (evolve(decode, busy_ns=ns) for ns in (8_000_000, 4_000_000))
    assert check_needs(costs, [slow], peak, "bf16") is None
    with pytest.raises(RequestError, match="bytes from memory"):
        check_needs(costs, [fast], peak, "bf16")


def test_what_cannot_be_compared_is_said() -> None:
    peak = peak_for("NVIDIA H100 80GB HBM3")
    assert isinstance(peak, Peak)
    costs = costs_of(None, CostRequest("llama-1b", None, 0, 100_000), [instance()])
    assert "no peak" in (check_needs(costs, [instance()], None, "bf16") or "")
    assert "several processes" in (check_needs(costs, [instance(rank=0)], peak, "bf16") or "")
    assert "stated as well" in (check_needs(costs, [instance()], evolve(peak, how="override"), "bf16") or "")
