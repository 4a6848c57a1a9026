"""--config: what stages and an engine's steps need, on real traces, and what contradicts them."""

from __future__ import annotations

import ast
import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.api.options import AnalysisOptions
from analysis.attribution.attribution import Attribution
from analysis.attribution.vocabulary import Composition
from analysis.domain.errors import RequestError
from analysis.efficiency.config_costs import ConfigRequest, requests_of, step_costs
from analysis.efficiency.decoder_config import ConfiguredDecoder, read_decoder_config
from analysis.efficiency.hardware import Peak, peak_for
from analysis.efficiency.stated import check_needs
from analysis.efficiency.step_cost import Requests, step_cost
from analysis.efficiency.utilisation import KnownCosts, costs_of, shared
from analysis.render.spec.headline import not_known
from analysis.report import ReportOptions, assemble
from analysis.sums.records import InstanceSummary
from analysis.sums.stages import instance_summaries
from analysis.trace.reader import Trace
from analyze_command import analyze, assert_one_line
from fuzz.bases import make_bases
from trace_builder import TraceBuilder

RealAttribution = Callable[[str], tuple[Trace, Attribution]]
KINDS = ("prefill", "mixed", "decode")

# The 1.2 B parameters of the vLLM trace's model.
LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
# The text part of DeepSeek-OCR.
DEEPSEEK_OCR: dict[str, Any] = {
    "model_type": "deepseek_v2", "use_mla": False, "hidden_size": 1280, "intermediate_size": 6848,
    "num_hidden_layers": 12, "num_attention_heads": 10, "num_key_value_heads": 10, "vocab_size": 129280,
    "n_routed_experts": 64, "num_experts_per_tok": 6, "moe_intermediate_size": 896, "n_shared_experts": 2,
    "first_k_dense_replace": 1, "torch_dtype": "bfloat16",
}  # fmt: skip

# The vLLM trace's mixture of experts; how many experts a token has no range tells.
MIXTURE: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 8,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "num_experts": 64,
    "num_experts_per_tok": 8, "moe_intermediate_size": 768, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def decoder(tmp_path: Path) -> Callable[..., ConfiguredDecoder]:
    def reader(table: dict[str, Any], **changes: Any) -> ConfiguredDecoder:
        (path := tmp_path / "config.json").write_text(json.dumps({**table, **changes}))
        return read_decoder_config(path)

    return reader


@pytest.fixture
def engine_steps(real_attribution: RealAttribution) -> tuple[InstanceSummary, ...]:
    return instance_summaries(real_attribution("vllm_h100_llama")[1])


def h100() -> Peak:
    peak = peak_for(
        "NVIDIA H100 80GB HBM3", compute_capability="9.0", sm_count=132, clock_hz=None, memory_bandwidth=None
    )
    assert isinstance(peak, Peak)
    return peak


# --- an engine's steps ------------------------------------------------------------------------------------------------


def test_products_follow_from_the_tokens_in_the_steps_names(
    engine_steps: tuple[InstanceSummary, ...], decoder: Callable[..., ConfiguredDecoder], expected: Callable[[str], Any]
) -> None:
    costs = costs_of(None, ConfigRequest(decoder(LLAMA)), engine_steps)
    assert costs.missing is None
    steps = expected("vllm_h100_llama_steps")["with_the_ranges_that_follow"]
    for kind in KINDS:
        mine = [costs.of(instance) for instance in engine_steps if instance.stage == kind]
        assert len(mine) == steps[kind]["steps"]
        parts = [part for cost in mine if cost is not None for part in cost.components]
        tokens = steps[kind]["ctx_tokens"] + steps[kind]["gen_tokens"]
        requests = steps[kind]["ctx_reqs"] + steps[kind]["gen_reqs"]
        found = {
            name: sum(part.flop for part in parts if part.component == name)
            for name in ("dense_mlp", "attention_projections", "lm_head")
        }
        assert found == {
            "dense_mlp": 2 * tokens * 16 * 3 * 2048 * 8192,
            "attention_projections": 2 * tokens * 16 * 2048 * (2 * 2048 + 2 * 512),
            "lm_head": 2 * requests * 2048 * 128256,
        }
        weights = sum(part.weight_bytes for part in parts if part.component == "dense_mlp")
        assert weights == steps[kind]["steps"] * 16 * 3 * 2048 * 8192 * 2, "read once per step"
        written = sum(part.kv_write_bytes for part in parts)
        assert written == tokens * 16 * 2 * 512 * 2
    assert "carry no sums" in (costs.bound or "")
    empty = next(costs.of(instance) for instance in engine_steps if instance.stage == "empty")
    assert empty is not None
    assert empty.components == ()


def test_the_device_can_have_met_them(
    engine_steps: tuple[InstanceSummary, ...], decoder: Callable[..., ConfiguredDecoder]
) -> None:
    """By the time that each step's GPU work took; a model of ten times the size cannot have run."""
    costs = costs_of(None, ConfigRequest(decoder(LLAMA)), engine_steps)
    assert check_needs(costs, engine_steps, h100(), "bf16", "--config") is None
    large = costs_of(None, ConfigRequest(decoder(LLAMA, num_hidden_layers=160)), engine_steps)
    with pytest.raises(RequestError, match=r"cannot have run here: .* check --config$"):
        check_needs(large, engine_steps, h100(), "bf16", "--config")


def test_a_configuration_that_cannot_have_run_is_named(tmp_path: Path) -> None:
    trace = make_bases(tmp_path).traces["engine"]
    (config := tmp_path / "config.json").write_text(json.dumps(LLAMA | {"intermediate_size": 2**31}))
    assert_one_line(
        analyze("report", trace, "--config", config, "--out", tmp_path / "out"), 2, f"check --config {config}"
    )


def test_sums_in_the_names_make_attention_exact(
    engine_steps: tuple[InstanceSummary, ...], decoder: Callable[..., ConfiguredDecoder]
) -> None:
    """Two prompts of 5 and 7 new tokens over contexts of 5 and 20, and decodes over 9 and 30."""
    summed = Composition(
        4, 14, 2, 12, 2, 2, prefill_sk=25, prefill_sqsq=74, prefill_sqsk=165, decode_sk=39, decode_sqsq=2,
        decode_sqsk=39,
    )  # fmt: skip
    model = decoder(LLAMA)
    costs = step_costs(model, [evolve(engine_steps[-1], composition=summed)])
    assert costs.bound is None
    ((_, cost),) = costs.by_path.items()
    (scores,) = [part for part in cost.components if part.component == "attention_scores"]
    pairs = 5 * 6 // 2 + sum(range(14, 21)) + 9 + 30
    assert scores.flop == 16 * 2 * 2 * 2048 * pairs
    assert scores.kv_read_bytes == (13 + 39) * 16 * 2 * 512 * 2
    windowed = step_costs(
        decoder(LLAMA, model_type="mistral", sliding_window=16), [evolve(engine_steps[-1], composition=summed)]
    )
    assert "sliding windows" in (windowed.bound or "")


def test_a_step_name_with_sums_makes_attention_exact(
    attribute: Callable[..., Attribution], decoder: Callable[..., ConfiguredDecoder]
) -> None:
    """As vLLM writes it: the step's tokens in all, then the sums of its requests in prefill and in decode."""
    name = "execute_14_context_2(sq12sk25sqsq74sqsk165)_generation_2(sq2sk39sqsq2sqsk39)"
    built = TraceBuilder().range(name, 0, 50).launch(10, 11, ("k", 20, 25))
    costs = step_costs(decoder(LLAMA), instance_summaries(attribute(built)))
    assert costs.missing is None
    assert costs.bound is None
    ((_, cost),) = costs.by_path.items()
    (scores,) = [part for part in cost.components if part.component == "attention_scores"]
    assert scores.flop == 16 * 2 * 2 * 2048 * (5 * 6 // 2 + sum(range(14, 21)) + 9 + 30)


def test_sums_that_cannot_be_are_not_used() -> None:
    impossible = Composition(1, 5, 1, 5, 0, 0, prefill_sk=3, prefill_sqsq=25, prefill_sqsk=25, decode_sk=0,
                             decode_sqsq=0, decode_sqsk=0)  # fmt: skip
    assert requests_of(impossible) == (Requests(False, 1, 5), Requests(True, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    "composition",
    [
        Composition(),
        Composition(requests=3, tokens=40),
        Composition(prefill_requests=2, decode_requests=1),
        Composition(prefill_requests=2, prefill_tokens=1, decode_requests=0, decode_tokens=0),
        Composition(prefill_requests=0, prefill_tokens=9, decode_requests=0, decode_tokens=0),
    ],
)
def test_steps_that_do_not_say_what_they_are_made_of_have_no_cost(
    composition: Composition, engine_steps: tuple[InstanceSummary, ...], decoder: Callable[..., ConfiguredDecoder]
) -> None:
    costs = step_costs(decoder(LLAMA), [evolve(engine_steps[-1], composition=composition)])
    assert costs.by_path == {}
    assert "does not say how many requests and tokens" in (costs.missing or "")


def test_without_a_configuration_the_reason_names_the_option(engine_steps: tuple[InstanceSummary, ...]) -> None:
    assert "--config config.json" in (costs_of(None, None, engine_steps).missing or "")


def test_a_rank_is_charged_its_share(
    engine_steps: tuple[InstanceSummary, ...], decoder: Callable[..., ConfiguredDecoder]
) -> None:
    costs = costs_of(None, ConfigRequest(decoder(LLAMA)), engine_steps)
    half = shared(costs, 2)
    path = next(instance.path for instance in engine_steps if instance.stage == "decode")
    for whole, part in zip(costs.by_path[path].components, half.by_path[path].components, strict=True):
        assert part.flop == pytest.approx(whole.flop / 2, abs=1)
    assert shared(KnownCosts({}), 2).by_path == {}


def test_the_report_of_an_engine_has_its_utilisation(
    real_attribution: RealAttribution, decoder: Callable[..., ConfiguredDecoder], tmp_path: Path
) -> None:
    trace, attribution = real_attribution("vllm_h100_llama")
    decoder(LLAMA)
    report = assemble(trace, attribution, None, options(tmp_path / "config.json"))
    rows = {row.stage: row for row in report.utilisation if row.time_base == "profiled gpu busy"}
    assert list(rows) == ["prefill", "mixed", "decode", "total"], "empty steps need nothing"
    assert 0.3 < (rows["prefill"].mfu or 0) < 0.8
    assert 0.3 < (rows["mixed"].mfu or 0) < 0.8
    assert 0.3 < (rows["decode"].mbu or 0) < 1
    assert (rows["decode"].derivation or "").endswith("attention's part is a lower bound")
    (limits,) = [finding for finding in report.findings if finding.code == "config-bounds"]
    assert "carry no sums over contexts" in limits.evidence


def test_weights_are_those_that_the_engine_writes_into_its_ranges(
    real_trace: Callable[[str], Path], decoder: Callable[..., ConfiguredDecoder]
) -> None:
    """vLLM's layer-wise names hold the shapes of every module's parameters: an independent count on a real model."""
    with closing(sqlite3.connect(real_trace("vllm_h100_moe-eager"))) as database:
        names = database.execute(
            "SELECT DISTINCT coalesce(text, value) FROM NVTX_EVENTS LEFT JOIN StringIds ON id = textId "
            "WHERE coalesce(text, value) LIKE '{''Module'': ''Qwen3MoeForCausalLM.model.%'"
        ).fetchall()
    shapes = {}
    for (name,) in names:
        module = ast.literal_eval(name)
        for parameter, shape in module.get("TrainableParams", {}).items():
            shapes[module["Module"], parameter] = shape
    stored = {key: math.prod(shape) for key, shape in shapes.items() if "embed_tokens" not in key[0]}
    model = decoder(MIXTURE)
    parts = step_cost(model, [Requests.prompt(1_000_000)])
    counted = sum(part.weight_bytes for part in parts if part.component not in ("lm_head", "embedding")) / 2
    assert counted == sum(stored.values())
    assert sum(1 for module, _ in stored if module.endswith(".mlp.experts")) == 2 * 8


def test_what_an_engine_needs_is_asked_for(real_attribution: RealAttribution) -> None:
    trace, attribution = real_attribution("vllm_h100_llama")
    report = assemble(trace, attribution, None)
    assert "no MFU and MBU (give its config.json with --config)" in not_known(report)
    assert "--model" not in not_known(report)


def test_prompt_tokens_of_an_engine_are_refused(
    engine_steps: tuple[InstanceSummary, ...], decoder: Callable[..., ConfiguredDecoder]
) -> None:
    with pytest.raises(RequestError, match="--prompt-tokens: of no use here"):
        costs_of(None, ConfigRequest(decoder(LLAMA), prompt_tokens=9), engine_steps)


def test_an_engines_modules_contradict_another_models_layers(
    real_attribution: RealAttribution, decoder: Callable[..., ConfiguredDecoder], tmp_path: Path
) -> None:
    trace, attribution = real_attribution("vllm_h100_moe-eager")
    decoder(LLAMA)
    with pytest.raises(RequestError, match="it has 16 layers, this trace's module ranges name 8"):
        assemble(trace, attribution, None, options(tmp_path / "config.json"))


# --- stages of one sequence -------------------------------------------------------------------------------------------


def options(path: Path, **more: Any) -> ReportOptions:
    return AnalysisOptions(config=path, **more).report_options()


def test_a_trace_of_ours_by_its_configuration(
    real_attribution: RealAttribution, decoder: Callable[..., ConfiguredDecoder], tmp_path: Path
) -> None:
    trace, attribution = real_attribution("deepseek-ocr_h100_small")
    model = decoder(DEEPSEEK_OCR)
    report = assemble(trace, attribution, None, options(tmp_path / "config.json", prompt_tokens=916))
    decode = next(row for row in report.utilisation if (row.stage, row.time_base) == ("decode", "profiled elapsed"))
    each = [part for step in range(4) for part in step_cost(model, [Requests.token(917 + step)])]
    assert decode.flop == sum(part.flop for part in each)
    assert decode.bytes_moved == sum(part.weight_bytes + part.kv_read_bytes + part.kv_write_bytes for part in each)
    assert decode.mfu is not None
    assert decode.mbu is not None
    assert report.capture.stated_model == "deepseek_v2 by config.json"
    assert not [finding for finding in report.findings if finding.code == "config-bounds"]


def test_layers_and_positions_that_the_trace_contradicts_are_refused(
    real_attribution: RealAttribution, decoder: Callable[..., ConfiguredDecoder], tmp_path: Path
) -> None:
    trace, attribution = real_attribution("deepseek-ocr_h100_small")
    decoder(DEEPSEEK_OCR, num_hidden_layers=11)
    with pytest.raises(RequestError, match=r"config\.json: it has 11 layers, this trace's module ranges name 12"):
        assemble(trace, attribution, None, options(tmp_path / "config.json", prompt_tokens=916))
    decoder(DEEPSEEK_OCR)
    with pytest.raises(RequestError, match="--config needs --prompt-tokens"):
        assemble(trace, attribution, None, options(tmp_path / "config.json"))


def test_two_statements_of_the_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--model and --config both say what the model is"):
        AnalysisOptions(config=tmp_path, model="llama-1b", prompt_tokens=3)
    with pytest.raises(RequestError, match="--tiles: of no use without --model"):
        AnalysisOptions(config=tmp_path, tiles=2)
    with pytest.raises(RequestError, match="--prompt-tokens: of no use without --model or --config"):
        AnalysisOptions(prompt_tokens=2)
    with pytest.raises(RequestError, match=r"config\.json: cannot be read .No such file or directory"):
        options(tmp_path)


def test_what_the_file_does_not_say_is_said(
    real_attribution: RealAttribution, decoder: Callable[..., ConfiguredDecoder], tmp_path: Path
) -> None:
    trace, attribution = real_attribution("deepseek-ocr_h100_small")
    decoder(DEEPSEEK_OCR, torch_dtype=None)
    report = assemble(trace, attribution, None, options(tmp_path / "config.json", prompt_tokens=916))
    (limits,) = [finding for finding in report.findings if finding.code == "config-bounds"]
    assert limits.evidence == "bf16, as the file names no dtype"
