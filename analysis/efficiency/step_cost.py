"""What one step of a configured decoder needs, in closed form, whatever requests it is made of.

The conventions are those of `analysis.efficiency.cost`. A step's requests are of two sorts: in prefill, with any number
of new tokens, and in decode, with one each. All products but attention's scores follow from the number of new tokens.
Attention follows from sums over the requests, which an engine may write into a range's name: of new tokens q, of
contexts k (new tokens included), of q² and of q·k. Where these are missing, or windows cut what they sum, what is given
is the least that requests of such numbers can need:

- without sums, the requests have no context but their own new tokens, evenly spread over them;
- with a window w and contexts of K together, a query that sees c positions sees min(c, w) ≥ c · min(1, w/K) of them.

``lm_head`` counts once per request of a step.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from analysis.domain.experts import expected_experts
from analysis.domain.manifest import ComponentCost
from analysis.efficiency.decoder_config import ConfiguredDecoder, Layer

__all__ = ["Requests", "attention_is_exact", "step_cost"]

_BYTE = 8


@frozen
class Requests:
    """Requests of one step that are all in prefill, or all in decode."""

    decode: bool
    requests: int
    tokens: int
    """New positions, Σ q."""
    context: int | None = None
    """Σ k; None, as the next two: not known."""
    squares: int | None = None
    """Σ q²."""
    products: int | None = None
    """Σ q·k."""

    @classmethod
    def prompt(cls, tokens: int) -> Requests:
        """One request, whole in prefill."""
        return cls(False, 1, tokens, tokens, tokens**2, tokens**2)

    @classmethod
    def token(cls, context: int) -> Requests:
        """One request in decode that attends over ``context`` tokens, its own included."""
        return cls(True, 1, 1, context, 1, context)

    def is_exact(self, window: int | None) -> bool:
        """Whether the pairs that attend are known, and no bound."""
        if not self.requests or not self.tokens:
            return True
        if self.context is None or self.squares is None or self.products is None:
            return False
        return window is None or self.requests == 1 or self.context <= window

    def pairs(self, window: int | None) -> int:
        """Query-key pairs that attend, each query to itself and to what lies before it; else the least there can be."""
        if not self.requests or not self.tokens:
            return 0
        if self.context is None or self.squares is None or self.products is None:
            each, more = divmod(self.tokens, self.requests)
            return (self.requests - more) * _seen(each, each, window) + more * _seen(each + 1, each + 1, window)
        whole = self.products - (self.squares - self.tokens) // 2
        if window is None or self.context <= window:
            return whole
        if self.requests == 1:
            return _seen(self.tokens, self.context, window)
        return max(self.tokens, whole * window // self.context)

    @property
    def pairs_full(self) -> int:
        """Pairs of the full rectangle."""
        return self.pairs(None) if self.products is None else self.products

    def cached(self, window: int | None) -> int:
        """Positions whose keys and values are read from the cache; else the least there can be."""
        if self.context is None:
            return self.tokens if self.decode else 0
        # As in the presets: a token in decode reads its own too, a prompt has its own at hand.
        before = self.context if self.decode else self.context - self.tokens
        if window is None or self.context <= window:
            return before
        if self.requests == 1:
            return min(before, window)
        return before * window // self.context


def _seen(tokens: int, context: int, window: int | None) -> int:
    """Σ min(c, window) over the last ``tokens`` of ``context`` positions."""
    if window is None:
        return tokens * context - tokens * (tokens - 1) // 2
    first = context - tokens + 1
    rising = max(0, min(context, window) - first + 1)
    return rising * (2 * first + rising - 1) // 2 + (tokens - rising) * window


def attention_is_exact(decoder: ConfiguredDecoder, groups: Sequence[Requests]) -> bool:
    """Whether attention's part of a step is exact; else it is a lower bound."""
    return all(group.is_exact(layer.window) for layer, _ in decoder.layers for group in groups)


def step_cost(decoder: ConfiguredDecoder, groups: Sequence[Requests]) -> tuple[ComponentCost, ...]:
    """What one forward pass over these requests needs.

    Args:
        decoder: as its configuration says.
        groups: the step's requests.

    Returns:
        Its components, named as those of the presets; none for a step without tokens.
    """
    tokens, emitted = sum(group.tokens for group in groups), sum(group.requests for group in groups)
    if not tokens:
        return ()
    parts: dict[str, list[float]] = {}

    def add(name: str, weights: float, rows: float, bits: float, count: int) -> None:
        flop, size = parts.setdefault(name, [0, 0])
        parts[name] = [flop + 2 * rows * weights * count, size + weights * bits / _BYTE * count]

    flop = flop_full = read = written = 0
    plain = decoder.bits
    for layer, count in decoder.layers:
        add("attention_projections", layer.projection_weights, tokens, layer.projection_bits, count)
        add("dense_mlp", layer.dense_weights, tokens, layer.mlp_bits, count)
        add("shared_experts", layer.shared_weights, tokens, layer.mlp_bits, count)
        add("router", layer.router_weights, tokens, plain, count)
        add("other", layer.other_weights, 0, plain, count)
        if layer.experts:
            routed = parts.setdefault("routed_experts", [0, 0])
            touched = expected_experts(layer.experts, layer.experts_per_token, tokens)
            size = layer.expert_weights * layer.mlp_bits + layer.expert_biases * plain
            routed[0] += 2 * tokens * layer.experts_per_token * layer.expert_weights * count
            routed[1] += touched * size / _BYTE * count
        for group in groups:
            width = _pair_width(layer, group)
            flop += 2 * width * group.pairs(layer.window) * count
            flop_full += 2 * width * group.pairs_full * count
            read += group.cached(layer.window) * layer.cached_values * count
        written += tokens * layer.cached_values * count
    add("lm_head", decoder.width * decoder.vocabulary, emitted, plain, 1)
    # Of a table that is also the head, nothing is read twice if all of it is read.
    rows = 0 if decoder.tied and tokens >= decoder.vocabulary else tokens
    add("embedding", rows * decoder.width, 0, plain, 1)
    add("other", decoder.final_weights, 0, plain, 1)
    scores = ComponentCost(
        "attention_scores", flop, flop_full, 0, read * plain // _BYTE, written * plain // _BYTE
    )  # fmt: skip
    products = [ComponentCost(name, round(need), round(need), round(size)) for name, (need, size) in parts.items()]
    return tuple(part for part in (scores, *products) if part.flop or part.weight_bytes)


def _pair_width(layer: Layer, group: Requests) -> int:
    return layer.cached_pair_width if group.decode else layer.pair_width
