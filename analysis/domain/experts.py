"""Mixtures of experts: how many experts' weights a forward pass touches, for the counter and the closed form alike."""

from __future__ import annotations

__all__ = ["expected_experts"]


def expected_experts(experts: int, experts_per_token: int, tokens: int) -> float:
    """How many of a layer's experts ``tokens`` tokens touch: a mean.

    Args:
        experts: of the layer, E.
        experts_per_token: that a token is sent to, k.
        tokens: of one forward pass, n; each draws its experts evenly and independently of the others.

    Returns:
        E · (1 − (1 − k/E)ⁿ).
    """
    return experts * (1 - (1 - experts_per_token / experts) ** tokens)
