"""Which component of a model a module's work and a weight's bytes belong to."""

from __future__ import annotations

from typing import Any, Final

import torch

from runner.child.models.family import Family

__all__ = ["Components", "expected_experts"]

_ROUTERS: Final = frozenset({"gate", "router"})
_MLPS: Final = frozenset({"mlp", "feed_forward", "ffn", "block_sparse_moe", "moe"})


class Components:
    """Sorts paths (as in ``named_modules`` and ``named_parameters``) into the components of a cost."""

    def __init__(self, family: Family, network: Any) -> None:
        self._modules: dict[str, torch.nn.Module] = dict(network.named_modules())
        self._config = network.config.get_text_config()
        self._table = network.get_input_embeddings()
        head = network.get_output_embeddings()
        self._tied = head is not None and head.weight is self._table.weight
        paths = {id(module): path for path, module in self._modules.items()}
        self._vision = {
            paths[id(module)]: name.removeprefix("vision.")
            for name, module in family.modules(network).items()
            if name.startswith("vision.") and id(module) in paths
        }

    def of_module(self, path: str) -> str:
        """Component of the operators that a module runs itself."""
        segments = path.split(".")
        for length in range(len(segments), 0, -1):
            if (vision := self._vision.get(".".join(segments[:length]))) is not None:
                return vision
        if "lm_head" in segments or segments == ["output"]:
            return "lm_head"
        ancestors = [self._modules[".".join(segments[:length])] for length in range(1, len(segments) + 1)]
        if any("Attention" in type(module).__name__ for module in ancestors):
            return "attention_scores" if "Attention" in type(ancestors[-1]).__name__ else "attention_projections"
        if any(segment.startswith("shared_expert") for segment in segments):
            return "shared_experts"
        if "experts" in segments:
            return "routed_experts"
        if segments[-1] in _ROUTERS or "Router" in type(ancestors[-1]).__name__:
            return "router"
        if _MLPS & set(segments):
            return "dense_mlp"
        return "other"

    def of_weight(self, name: str) -> str:
        """Component of a parameter; ``name#rows`` are rows looked up in a table that is also multiplied whole."""
        plain, _, rows = name.partition("#")
        owner = plain.rpartition(".")[0]
        module = self._modules[owner]
        if rows:
            return "embedding"
        if module is self._table:
            # Where the head is tied to the table, what reads all of it is the head.
            return "lm_head" if self._tied else "embedding"
        component = self.of_module(owner)
        if component in ("attention_projections", "attention_scores", "dense_mlp") and _is_norm(module):
            return "other"
        # What an attention module holds itself is no score.
        return "attention_projections" if component == "attention_scores" else component

    def experts(self, name: str) -> tuple[int, int] | None:
        """(experts, experts per token) of a parameter that holds routed experts one after the other, or None.

        Raises:
            AttributeError: the configuration does not say how many experts a token is sent to.
        """
        owner, _, leaf = name.partition("#")[0].rpartition(".")
        if self.of_module(owner) != "routed_experts":
            return None
        parameter = getattr(self._modules[owner], leaf)
        for key in ("num_experts_per_tok", "moe_top_k", "top_k_experts", "moe_k", "num_selected_experts"):
            per_token = getattr(self._config, key, None)
            if isinstance(per_token, int):
                return int(parameter.shape[0]), per_token
        raise AttributeError("its configuration does not say how many experts a token is sent to")

    def causal_share(self, path: str, tokens: int) -> tuple[int, int] | None:
        """Of a prompt's query-key pairs those that an attention module's mask lets through: (kept, all), or None.

        None where all count: vision towers, which see both ways, and modules that are no attention.
        """
        if self.of_module(path) != "attention_scores":
            return None
        module = self._modules[path]
        if getattr(module, "is_causal", True) is False:
            return None
        return _kept_pairs(tokens, self._window(module)), tokens**2

    def _window(self, module: torch.nn.Module) -> int | None:
        kinds, index = getattr(self._config, "layer_types", None), getattr(module, "layer_idx", None)
        if kinds is None or index is None or kinds[index] != "sliding_attention":
            return None
        window = getattr(self._config, "sliding_window", None)
        return window if isinstance(window, int) else None


def expected_experts(experts: int, experts_per_token: int, tokens: int) -> float:
    """How many of a layer's experts ``tokens`` tokens touch, each drawing ``experts_per_token`` evenly: a mean.

    The same rule as `analysis.efficiency.cost.expected_experts`, which the runner must not import.
    """
    return experts * (1 - (1 - experts_per_token / experts) ** tokens)


def _kept_pairs(tokens: int, window: int | None) -> int:
    """Pairs under a causal mask, each query seeing at most ``window`` keys."""
    within = tokens if window is None else min(tokens, window)
    return within * (within + 1) // 2 + (tokens - within) * within


def _is_norm(module: torch.nn.Module) -> bool:
    return "Norm" in type(module).__name__
