from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
import torch
from PIL import Image

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.entities import Dtype
from analysis.domain.errors import ModelError
from graph_tape import play_graphs_on_the_cpu
from runner.child.annotate import Annotator
from runner.child.generate import Decoder, DynamicDecoder, Generation, GraphDecoder, StaticDecoder, generate
from runner.child.models.family import LoadedModel, ModelInputs
from runner.child.models.loading import load_model
from runner.child.passes import record_annotated
from runner.collectors.torch_profiler.recording import MemorySink
from runner.collectors.torch_profiler.trace import RangeRecord
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings

NEW_TOKENS = 7


@pytest.fixture(scope="module", params=["deepseek-ocr-tiny", "deepseek-ocr-2-tiny", "llama-tiny"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return load_model(RunPlan("test", LLMProfileRequest(request.param, "/nowhere", device="cpu"), "/nowhere", "torch"))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def inputs_of(model: LoadedModel, index: int = 0) -> ModelInputs:
    page = Image.linear_gradient("L").rotate(90 * index).convert("RGB")
    return model.family.inputs(page, index, model.default_mode, model.tokens, None, model.network.config)


def run(model: LoadedModel, decoder: Decoder, inputs: ModelInputs, **options: Any) -> Generation:
    options = {"max_new_tokens": NEW_TOKENS, "annotator": Annotator(), **options}
    return generate(model, decoder, inputs, **options)


def test_tokens_are_those_of_transformers_own_greedy_generation(model: LoadedModel) -> None:
    inputs = inputs_of(model)
    mine = run(model, DynamicDecoder(model.network), inputs, ignore_eos=True)
    theirs = model.network.generate(
        **inputs.tensors, **inputs.options, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False
    )
    assert [row[0] for row in mine.tokens] == theirs[0, inputs.prompt.prompt_tokens :].tolist()


def test_the_static_cache_gives_the_same_tokens_and_is_used_again(model: LoadedModel) -> None:
    first, second = inputs_of(model, 0), inputs_of(model, 1)
    decoder = StaticDecoder(model.network, first.prompt.prompt_tokens + NEW_TOKENS)
    for inputs in (first, second, first):
        static = run(model, decoder, inputs, ignore_eos=True)
        assert static.tokens == run(model, DynamicDecoder(model.network), inputs, ignore_eos=True).tokens


def test_every_sequence_of_a_batch_gives_the_same_tokens(model: LoadedModel) -> None:
    one = inputs_of(model)
    tensors = {name: torch.cat([tensor] * 3) for name, tensor in one.tensors.items()}
    batch = run(model, DynamicDecoder(model.network), ModelInputs(tensors, one.prompt, one.options), ignore_eos=True)
    alone = run(model, DynamicDecoder(model.network), one, ignore_eos=True)
    assert batch.tokens == tuple(row * 3 for row in alone.tokens)


@pytest.mark.parametrize("kind", ["dynamic", "static", "graph"])
def test_a_rewound_decoder_gives_the_same_tokens_again(
    model: LoadedModel, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of(model)
    decoder: Decoder = DynamicDecoder(model.network)
    if kind == "static":
        decoder = StaticDecoder(model.network, inputs.prompt.prompt_tokens + NEW_TOKENS)
    elif kind == "graph":
        play_graphs_on_the_cpu(monkeypatch)
        decoder = GraphDecoder(model.network, inputs.prompt.prompt_tokens + NEW_TOKENS)
        decoder.warm_up(inputs)
        decoder.record()
    decoder.begin()
    first = decoder.prefill(inputs).clone()
    rounds = []
    for _ in range(3):
        token, made = first, []
        for _ in range(NEW_TOKENS - 1):
            token = decoder.step(token)
            made.append(token.item())
        decoder.rewind(NEW_TOKENS - 1)
        rounds.append(made)
    assert rounds[0] == rounds[1] == rounds[2]
    assert rounds[0] == [
        row[0] for row in run(model, DynamicDecoder(model.network), inputs, ignore_eos=True).tokens[1:]
    ]


class Scripted:
    """A decoder that says what it is told to: [steps][batch]."""

    def __init__(self, *rows: tuple[int, ...]) -> None:
        self.rows = rows
        self.at = 0

    def begin(self) -> None:
        self.at = 0

    def prefill(self, inputs: ModelInputs) -> torch.Tensor:
        return torch.tensor(self.rows[0])[:, None]

    def step(self, token: torch.Tensor) -> torch.Tensor:
        assert token.flatten().tolist() == list(self.rows[self.at])
        self.at += 1
        return torch.tensor(self.rows[self.at])[:, None]

    def cached_bytes(self) -> int:
        return 0

    def rewind(self, steps: int) -> None:
        self.at -= steps


@pytest.fixture(scope="module")
def llama() -> LoadedModel:
    return load_model(RunPlan("test", LLMProfileRequest("llama-tiny", "/nowhere", device="cpu"), "/nowhere", "torch"))


EOS = 2


@pytest.mark.parametrize(
    ("rows", "most", "expected"),
    [
        ([(5,), (6,), (7,), (8,)], 3, 3),
        ([(5,), (EOS,), (7,)], 9, 2),
        ([(EOS,), (6,)], 9, 1),
        ([(5,), (6,)], 1, 1),
        ([(EOS, 5), (6, 6), (6, EOS), (7, 7)], 9, 3),
    ],
)
def test_it_ends_at_eos_of_all_sequences_or_at_the_limit(
    llama: LoadedModel, rows: list[tuple[int, ...]], most: int, expected: int
) -> None:
    done = run(llama, Scripted(*rows), inputs_of(llama), max_new_tokens=most)
    assert done.tokens == tuple(rows[:expected])
    assert len(done.step_ns) == expected - 1
    assert (done.decode_ns == 0) == (expected == 1)


def test_eos_can_be_ignored(llama: LoadedModel) -> None:
    done = run(llama, Scripted((EOS,), (6,), (7,)), inputs_of(llama), max_new_tokens=3, ignore_eos=True)
    assert len(done.tokens) == 3


def test_times_are_first_token_last_token_and_the_steps_between(llama: LoadedModel) -> None:
    ticks = count(1000, 10)
    done = run(llama, Scripted((5,), (6,), (7,)), inputs_of(llama), max_new_tokens=3, clock=lambda: next(ticks))
    assert (done.prefill_ns, done.decode_ns, done.step_ns) == (10, 20, (10, 10))


def test_ranges_nest_and_carry_prompt_tokens_and_context_lengths(llama: LoadedModel) -> None:
    sink = MemorySink()
    inputs = inputs_of(llama)
    prompt = inputs.prompt.prompt_tokens
    run(llama, DynamicDecoder(llama.network), inputs, max_new_tokens=3, ignore_eos=True, annotator=Annotator((sink,)))
    assert [(one.name, one.payload) for one in sink.records] == [
        ("prefill", prompt),
        ("decode", None),
        ("decode_step", prompt + 1),
        ("decode_step", prompt + 2),
    ]
    prefill, decode, *steps = sink.records
    assert prefill.end_ns is not None
    assert prefill.end_ns <= decode.start_ns
    times = [decode.start_ns, *(time for one in steps for time in (one.start_ns, one.end_ns)), decode.end_ns]
    assert times == sorted(time for time in times if time is not None)


def test_one_token_has_no_decode(llama: LoadedModel) -> None:
    sink = MemorySink()
    run(llama, DynamicDecoder(llama.network), inputs_of(llama), max_new_tokens=1, annotator=Annotator((sink,)))
    assert [one.name for one in sink.records] == ["prefill"]


def modules_by_step(records: Sequence[RangeRecord]) -> list[list[str]]:
    """Names of the module ranges in each decode step, in order."""
    steps = [one for one in records if one.name == "decode_step" and one.end_ns is not None]
    return [
        [
            one.name
            for one in records
            if one.domain == "dsocr.module" and step.start_ns <= one.start_ns <= (step.end_ns or 0)
        ]
        for step in steps
    ]


def test_a_graph_recorded_anew_replays_the_same_step(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = play_graphs_on_the_cpu(monkeypatch)
    first, second = inputs_of(model, 0), inputs_of(model, 1)
    length = first.prompt.prompt_tokens + NEW_TOKENS
    graph, static = GraphDecoder(model.network, length), StaticDecoder(model.network, length)
    graph.warm_up(first)
    graph.record()
    before = run(model, graph, first, ignore_eos=True)
    sink = MemorySink()
    annotator = Annotator((sink,))
    with annotator.modules(model.modules):
        record_annotated(graph, annotator)
        recorded = len(sink.records)
        after = [run(model, graph, inputs, ignore_eos=True, annotator=annotator) for inputs in (first, second)]
        replayed = len(sink.records)
        eager = run(model, static, first, ignore_eos=True, annotator=annotator)
    assert before.tokens == after[0].tokens == eager.tokens
    assert after[1].tokens == run(model, static, second, ignore_eos=True).tokens
    # The first graph is freed, the second replayed once more than there are steps: its way to the device.
    assert [len(one.calls) > 0 for one in graphs] == [False, True]
    assert [one.replays for one in graphs] == [NEW_TOKENS - 1, 1 + 2 * (NEW_TOKENS - 1)]
    # One step's modules, once, inside the recording, as an eager step calls them; none in a step that is replayed.
    outer, *inner = sink.records[:recorded]
    assert (outer.domain, outer.name) == ("dsocr", "graph_record")
    assert outer.end_ns is not None
    assert all(one.end_ns is not None and one.end_ns <= outer.end_ns for one in inner)
    steps = modules_by_step(sink.records[replayed:])
    assert len(steps) == NEW_TOKENS - 1
    assert all(step == [one.name for one in inner] and step for step in steps)
    assert modules_by_step(sink.records[recorded:replayed]) == [[]] * 2 * (NEW_TOKENS - 1)


def test_other_decoders_have_nothing_to_record(llama: LoadedModel) -> None:
    sink = MemorySink()
    record_annotated(DynamicDecoder(llama.network), Annotator((sink,)))
    assert sink.records == ()


def test_what_comes_before_what(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    play_graphs_on_the_cpu(monkeypatch)
    inputs = inputs_of(llama)
    decoder = GraphDecoder(llama.network, inputs.prompt.prompt_tokens + NEW_TOKENS)
    with pytest.raises(RuntimeError, match="warm_up"):
        decoder.record()
    decoder.warm_up(inputs)
    with pytest.raises(RuntimeError, match="record"):
        decoder.replay_once()


def test_a_step_that_cannot_be_recorded_gives_its_reason(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    play_graphs_on_the_cpu(monkeypatch)
    inputs = inputs_of(llama)
    decoder = GraphDecoder(llama.network, inputs.prompt.prompt_tokens + NEW_TOKENS)
    decoder.warm_up(inputs)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("\nCUDA error: operation not permitted when stream is capturing\nmore words")

    monkeypatch.setattr(llama.network, "forward", refuse)
    with pytest.raises(ModelError, match=r"cannot be recorded \(CUDA error: operation not permitted[^\n]*grouped_mm"):
        decoder.record()


def test_a_cuda_graph_needs_a_gpu(llama: LoadedModel) -> None:
    with pytest.raises(ModelError, match="CUDA graphs need a GPU, and the model is on cpu"):
        GraphDecoder(llama.network, 100)


def test_a_sliding_window_cannot_be_replayed() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=8,
    )
    with pytest.raises(ModelError, match=r"layer 0 keeps its own in a StaticSlidingWindowLayer"):
        StaticDecoder(MistralForCausalLM(config), 100)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
# Grouped experts in fp32 wait for the host on a GPU (torch 2.11): their graph cannot be recorded.
@pytest.mark.parametrize(("name", "dtype"), [("deepseek-ocr-tiny", "bf16"), ("llama-tiny", "fp32")])
def test_a_replayed_graph_gives_the_tokens_of_the_static_cache(name: str, dtype: Dtype) -> None:
    loaded = load_model(
        RunPlan("test", LLMProfileRequest(name, "/nowhere"), "/nowhere", "nsys", settings=Settings(dtype=dtype))
    )
    first, second = (inputs_of(loaded, index).cast(loaded.dtype).on(loaded.device) for index in (0, 1))
    length = first.prompt.prompt_tokens + NEW_TOKENS
    graph, static = GraphDecoder(loaded.network, length), StaticDecoder(loaded.network, length)
    graph.warm_up(first)
    for _ in range(2):
        graph.record()
    for inputs in (first, second, first):
        assert run(loaded, graph, inputs, ignore_eos=True).tokens == run(loaded, static, inputs, ignore_eos=True).tokens


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_that_waits_for_the_host_cannot_be_recorded() -> None:
    request = LLMProfileRequest("deepseek-ocr-tiny", "/nowhere")
    loaded = load_model(RunPlan("test", request, "/nowhere", "nsys", settings=Settings(experts_implementation="eager")))
    inputs = inputs_of(loaded).cast(loaded.dtype).on(loaded.device)
    decoder = GraphDecoder(loaded.network, inputs.prompt.prompt_tokens + NEW_TOKENS)
    decoder.warm_up(inputs)
    with pytest.raises(ModelError, match="cannot be recorded"):
        decoder.record()
