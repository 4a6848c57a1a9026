"""The prefill and decode loop: greedy, with a KV cache, until EOS or max_new_tokens.

Prefill is one forward pass over the whole prompt, vision included; decode is one forward pass per further token. Three
decoders run the same step: on a cache that grows, on a static one, and on a static one replayed from a CUDA graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any, Final, Protocol

import torch
from attrs import frozen

from analysis.domain.annotations import DECODE, DECODE_STEP, PREFILL
from analysis.domain.errors import ModelError
from runner.child.annotate import Annotator
from runner.child.models.family import LoadedModel, ModelInputs

__all__ = [
    "SYNCHRONISES",
    "Decoder",
    "DynamicDecoder",
    "Generation",
    "GraphDecoder",
    "StaticDecoder",
    "generate",
    "next_token",
]

SYNCHRONISES: Final = (
    "end of prefill and end of decode: the loop waits for the device, so that a stage ends with its work",
    "every generated token: it is copied to the host for the EOS check, which the algorithm itself needs",
)

_GRAPH_WARMUP_STEPS: Final = 3


@frozen
class Generation:
    """What one image gave, and how long it took."""

    tokens: tuple[tuple[int, ...], ...]
    """[steps][batch]: token ids in the order of their making, prefill's first."""
    prefill_ns: int
    """Tensors on the device → first token on the host."""
    decode_ns: int
    """First → last token on the host; 0 if there was one only."""
    step_ns: tuple[int, ...]
    """One per decode step; they add up to decode_ns."""


class Decoder(Protocol):
    """Holds the cache of one sequence (or batch of equally long ones)."""

    def begin(self) -> None:
        """Forget the sequence before."""

    def prefill(self, inputs: ModelInputs) -> torch.Tensor:
        """Run the prompt, int64 [batch, prompt_tokens]; returns the first token, int64 [batch, 1]."""

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Run one token, int64 [batch, 1], behind the cached ones; returns the next, int64 [batch, 1]."""

    def rewind(self, steps: int) -> None:
        """Forget the last ``steps`` steps: the next one stands where the first of them stood.

        Raises:
            ModelError: the model's cache cannot be taken back.
        """

    def cached_bytes(self) -> int | None:
        """Size of the keys and values that are held now, the whole batch; None: the model caches something else."""


def next_token(network: Any, cache: Any, **inputs: Any) -> tuple[torch.Tensor, Any]:
    """One forward pass and the most likely token after its last position.

    Args:
        network: a transformers causal language model.
        cache: keys and values of the positions before, or None for the model's own new one.
        inputs: arguments of the forward pass; ``input_ids`` is int64 [batch, positions].

    Returns:
        The token, int64 [batch, 1], and the cache with the new positions in it.
    """
    output = network(past_key_values=cache, use_cache=True, **inputs)
    # logits: [batch, 1, vocabulary] where the model can leave out the other positions.
    return output.logits[:, -1].argmax(dim=-1, keepdim=True), output.past_key_values


def _last_logits_only(network: Any) -> dict[str, int]:
    """The argument that spares the head all positions but the last, where the model knows it."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(network.forward).parameters else {}


class DynamicDecoder:
    """The usual cache, one position longer with each step."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._options = _last_logits_only(network)
        self._cache: Any = None

    def begin(self) -> None:
        """Drop the cache."""
        self._cache = None

    def prefill(self, inputs: ModelInputs) -> torch.Tensor:
        """Run the prompt on a new cache."""
        token, self._cache = next_token(self._network, None, **inputs.tensors, **inputs.options, **self._options)
        return token

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Run one token; all shapes of the cache grow by one."""
        token, self._cache = next_token(self._network, self._cache, input_ids=token, **self._options)
        return token

    def rewind(self, steps: int) -> None:
        """Cut the last positions off the cache.

        Raises:
            ModelError: a layer keeps no past that could be gone back to (sliding windows, recurrent states).
        """
        try:
            self._cache.crop(-steps)
        except (RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
            raise ModelError(f"the cache of this model cannot be taken back by {steps} steps ({error})") from error

    def cached_bytes(self) -> int | None:
        """Those of the positions so far; 0 before a prompt."""
        return 0 if self._cache is None else _cached_bytes(self._cache)


class StaticDecoder:
    """A cache of fixed size at fixed addresses: attention runs over all of it, masked behind the current position.

    Args:
        network: a transformers model with full attention in every layer.
        max_length: positions of the longest prompt plus its new tokens.

    Raises:
        ModelError: a layer of this model has no cache that stays the same from step to step.
    """

    def __init__(self, network: Any, max_length: int) -> None:
        from transformers import StaticCache
        from transformers.cache_utils import StaticLayer

        self._network = network
        self._options = _last_logits_only(network)
        try:
            self._cache: Any = StaticCache(config=network.config, max_cache_len=max_length)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"this model has no static cache ({error}); use --decode eager") from error
        for index, layer in enumerate(self._cache.layers):
            # Subclasses (sliding windows, indexers) branch on how full they are; a recorded graph cannot.
            if type(layer) is not StaticLayer:
                raise ModelError(
                    f"this model has no static cache: layer {index} keeps its own in a {type(layer).__name__}, whose "
                    "steps differ as it fills, so that one cannot be replayed for all; use --decode eager"
                )

    def begin(self) -> None:
        """Go back to position 0. Old keys and values stay: the mask hides what lies behind the position."""
        for layer in self._cache.layers:
            layer.cumulative_length.zero_()

    def prefill(self, inputs: ModelInputs) -> torch.Tensor:
        """Run the prompt into the cache's first positions."""
        token, _ = next_token(self._network, self._cache, **inputs.tensors, **inputs.options, **self._options)
        return token

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Run one token; the position advances on the device."""
        token, _ = next_token(self._network, self._cache, input_ids=token, **self._options)
        return token

    def rewind(self, steps: int) -> None:
        """Take the position back. Keys and values behind it stay: the mask hides them."""
        for counter in self.positions():
            counter.sub_(steps)

    def cached_bytes(self) -> int | None:
        """Those of all positions that there is room for; 0 before the first prompt."""
        return _cached_bytes(self._cache)

    def positions(self) -> list[torch.Tensor]:
        """The layers' counters of cached positions (scalars on the device), as they are."""
        return [layer.cumulative_length for layer in self._cache.layers]


class GraphDecoder(StaticDecoder):
    """The static decoder's step, recorded once as a CUDA graph and replayed for every token.

    The recorded step reads its token from, and writes the next one to, the same buffer, so that replay follows replay
    without a copy. Positions and masks are computed on the device from the cache's own counters, inside the graph.

    Args:
        network: as for `StaticDecoder`, on a CUDA device, with no step that waits for the host.
        max_length: as for `StaticDecoder`.

    Raises:
        ModelError: the model is not on a GPU, or has no static cache.
    """

    def __init__(self, network: Any, max_length: int) -> None:
        if network.device.type != "cuda":
            raise ModelError(f"--decode cuda-graph: CUDA graphs need a GPU, and the model is on {network.device}")
        super().__init__(network, max_length)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._token: torch.Tensor | None = None

    def warm_up(self, inputs: ModelInputs) -> None:
        """Run what is to be recorded, behind a prefill of ``inputs`` (any prompt of the same batch).

        Libraries choose kernels and allocate workspaces in their first calls, which no graph may hold; and the cache
        gets its memory.

        Raises:
            ModelError: the step fails, with CUDA's or the model's reason.
        """
        self.begin()
        token = StaticDecoder.prefill(self, inputs).clone()
        counters = self.positions()
        after_prefill = [counter.clone() for counter in counters]
        device = token.device
        with _told_as_model_error():
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own gap
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(_GRAPH_WARMUP_STEPS):
                    StaticDecoder.step(self, token)
                    _restore(counters, after_prefill)
            torch.cuda.current_stream(device).wait_stream(stream)
            torch.cuda.synchronize(device)
        self._token = token
        self.begin()

    def record(self) -> None:
        """Record the step, and free what was recorded before. No kernel runs: what is launched becomes a node.

        Raises:
            ModelError: the step cannot be recorded, with CUDA's or the model's reason.
            RuntimeError: nothing was warmed up.
        """
        if self._token is None:
            raise RuntimeError("warm_up() comes before record()")
        if self._graph is not None:
            self._graph.reset()  # its memory, which the new one may need
            self._graph = None
        with _told_as_model_error():
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._token.copy_(StaticDecoder.step(self, self._token))
        self._graph = graph

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Replay the recorded step.

        Raises:
            RuntimeError: nothing was recorded.
        """
        if self._graph is None or self._token is None:
            raise RuntimeError("record() comes before step()")
        if token is not self._token:
            self._token.copy_(token)
        self._graph.replay()
        return self._token

    def replay_once(self) -> None:
        """Replay behind position 0, whatever the token: a graph's first replay copies it to the device.

        Raises:
            RuntimeError: nothing was recorded.
        """
        if self._token is None:
            raise RuntimeError("record() comes before replay_once()")
        self.begin()
        self.step(self._token)
        _synchronise(self._token.device)
        self.begin()


def _cached_bytes(cache: Any) -> int | None:
    """Size of the tensors of keys and values in a transformers cache; None: it is no such cache."""
    layers = getattr(cache, "layers", None)
    if layers is None:
        return None
    states = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    return sum(tensor.numel() * tensor.element_size() for tensor in states if isinstance(tensor, torch.Tensor))


@contextmanager
def _told_as_model_error() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # a RuntimeError too, but no fault of the step
    except (RuntimeError, NotImplementedError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"--decode cuda-graph: this model's decode step cannot be recorded ({reason.strip()}); a step that "
            "waits for the host, such as eager experts, cannot: try grouped_mm experts, or decode eagerly"
        ) from error


def _restore(counters: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for counter, value in zip(counters, values, strict=True):
        counter.copy_(value)


def generate(
    model: LoadedModel,
    decoder: Decoder,
    inputs: ModelInputs,
    *,
    max_new_tokens: int,
    annotator: Annotator,
    ignore_eos: bool = False,
    clock: Callable[[], int] = perf_counter_ns,
) -> Generation:
    """Run one prompt to its end.

    Args:
        model: the network, its device and its EOS tokens.
        decoder: holds the cache.
        inputs: on the device; ``input_ids`` int64 [batch, prompt_tokens].
        max_new_tokens: at least 1; prefill's token counts.
        annotator: writes the ranges ``prefill``, ``decode`` and ``decode_step``.
        ignore_eos: go on to max_new_tokens whatever is generated (the tokens still come to the host one by one).
        clock: nanoseconds.

    Returns:
        The tokens and the times. Ends when every sequence of the batch has met EOS.
    """
    eos = frozenset() if ignore_eos else model.eos_token_ids
    prompt_tokens = inputs.tensors["input_ids"].shape[1]
    decoder.begin()
    _synchronise(model.device)

    started = clock()
    with annotator.range(PREFILL, payload=prompt_tokens):
        token = decoder.prefill(inputs)  # [batch, 1]
        on_host = _to_host(token)
        first_at = clock()
        _synchronise(model.device)  # stage end
    tokens = [on_host]
    ended = [token_id in eos for token_id in on_host]

    step_ns: list[int] = []
    if len(tokens) < max_new_tokens and not all(ended):
        last_at = first_at
        with annotator.range(DECODE):
            while len(tokens) < max_new_tokens and not all(ended):
                # Attends over the prompt, the tokens cached since, and the one that this step adds.
                with annotator.range(DECODE_STEP, payload=prompt_tokens + len(tokens)):
                    token = decoder.step(token)  # [batch, 1]
                    on_host = _to_host(token)  # EOS check
                now = clock()
                step_ns.append(now - last_at)
                last_at = now
                tokens.append(on_host)
                ended = [before or token_id in eos for before, token_id in zip(ended, on_host, strict=True)]
            _synchronise(model.device)  # stage end

    return Generation(tuple(tokens), first_at - started, sum(step_ns), tuple(step_ns))


def _to_host(token: torch.Tensor) -> tuple[int, ...]:
    """Copy [batch, 1] to the host, which waits for the device."""
    return tuple(token.flatten().tolist())


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
