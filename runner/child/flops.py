"""Count what a model needs on the meta device, at the real input shapes: no memory, no arithmetic, any size.

FLOPs are counted by ``torch.utils.flop_counter.FlopCounterMode``, with formulas for the operators that it lacks, module
by module; weights are counted as operators touch them. Conventions are those of `analysis.efficiency.cost`, whose closed form
agrees.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, Final

import torch
from attrs import field, frozen
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from analysis.domain.errors import ModelError
from analysis.domain.experts import expected_experts
from analysis.domain.manifest import ComponentCost, StageCost
from runner.child.models.family import Family, ModelInputs

__all__ = ["Components", "count_costs", "meta_network"]

_ROUTERS: Final = frozenset({"gate", "router"})
_MLPS: Final = frozenset({"mlp", "feed_forward", "ffn", "block_sparse_moe", "moe"})

# What a model can raise that does not run on the meta device: data-dependent shapes, operators without a meta kernel,
# a forward pass or a cache of another form. Each becomes the reason why nothing is counted.
_CANNOT_COUNT: Final = (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, LookupError)


def meta_network(family: Family, config: Any, *, attn_implementation: str | None = None) -> Any:
    """Build a model without memory, as `count_costs` takes it.

    Args:
        family: of the model.
        config: its transformers configuration; it is copied.
        attn_implementation: ``eager`` or ``sdpa`` (fused attention needs the same FLOPs); None: transformers' default.

    Raises:
        ModelError: the model cannot be built on the meta device.
    """
    config = copy.deepcopy(config)
    # A run may have chosen experts whose shapes depend on data, or attention that needs a GPU; the needs are the same.
    # Unset, transformers takes grouped products and SDPA wherever a model can.
    config._experts_implementation = None
    config._attn_implementation = attn_implementation
    network_class = family.network_class(config)
    make = getattr(network_class, "_from_config", None) or network_class.from_config
    try:
        with torch.device("meta"):
            network = make(config, dtype=torch.bfloat16)
    except _CANNOT_COUNT as error:
        raise ModelError(f"the model cannot be built on the meta device ({_one_line(error)})") from error
    return network.eval()


def count_costs(
    family: Family,
    network: Any,
    inputs: Sequence[ModelInputs],
    *,
    max_new_tokens: int,
    dtype_bytes: int,
    batch_size: int = 1,
) -> tuple[StageCost, ...]:
    """Count what every image needs in prefill and in decode.

    Args:
        family: tells the vision modules apart.
        network: from `meta_network`.
        inputs: one per image, batch 1; only shapes matter. ``prompt.expected_new_tokens`` takes precedence over
            ``max_new_tokens``.
        max_new_tokens: tokens generated per image, the first one (prefill's) included.
        dtype_bytes: size of a weight and of a cached value in the run.
        batch_size: copies of a prompt that run at once.

    Returns:
        Per image a prefill, and a decode if there is a second token; sums over the batch.

    Raises:
        ModelError: the model does not run on the meta device; says why.
    """
    meter = _Meter(network, Components(family, network), dtype_bytes, batch_size)
    known: dict[tuple[object, ...], tuple[StageCost, ...]] = {}
    costs: list[StageCost] = []
    try:
        with _placeholders_trusted(network):
            for image in inputs:
                new_tokens = image.prompt.expected_new_tokens or max_new_tokens
                shapes = tuple((name, tuple(tensor.shape)) for name, tensor in sorted(image.tensors.items()))
                key = (shapes, repr(sorted(image.options.items())), new_tokens)
                if key not in known:
                    known[key] = meter.image(image, new_tokens)
                costs += [_of_image(cost, image.prompt.image_index) for cost in known[key]]
    except _CANNOT_COUNT as error:
        raise ModelError(f"the model does not run on the meta device ({_one_line(error)})") from error
    return tuple(costs)


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
        module_path = plain.rpartition(".")[0]
        module = self._modules[module_path]
        if rows:
            return "embedding"
        if module is self._table:
            # Where the head is tied to the table, what reads all of it is the head.
            return "lm_head" if self._tied else "embedding"
        component = self.of_module(module_path)
        if component in ("attention_projections", "attention_scores", "dense_mlp") and _is_norm(module):
            return "other"
        # What an attention module holds itself is no score.
        return "attention_projections" if component == "attention_scores" else component

    def experts(self, name: str) -> tuple[int, int] | None:
        """(experts, experts per token) of a parameter that holds routed experts one after the other, or None.

        Raises:
            AttributeError: the configuration does not say how many experts a token is sent to.
        """
        module_path, _, leaf = name.partition("#")[0].rpartition(".")
        if self.of_module(module_path) != "routed_experts":
            return None
        parameter = getattr(self._modules[module_path], leaf)
        for key in ("num_experts_per_tok", "moe_top_k", "top_k_experts", "moe_k", "num_selected_experts"):
            per_token = getattr(self._config, key, None)
            if isinstance(per_token, int):
                return int(parameter.shape[0]), per_token
        raise AttributeError("its configuration does not say how many experts a token is sent to")

    def causal_share(self, path: str, tokens: int) -> tuple[int, int] | None:
        """Of a prompt's query-key pairs those that an attention module's mask lets through: (those, all), or None.

        None where all count: vision towers, which see both ways, and modules that are no attention.
        """
        if self.of_module(path) != "attention_scores":
            return None
        module = self._modules[path]
        if getattr(module, "is_causal", True) is False:
            return None
        return _visible_pairs(tokens, self._window(module)), tokens**2

    def _window(self, module: torch.nn.Module) -> int | None:
        kinds, index = getattr(self._config, "layer_types", None), getattr(module, "layer_idx", None)
        if kinds is None or index is None or kinds[index] != "sliding_attention":
            return None
        window = getattr(self._config, "sliding_window", None)
        return window if isinstance(window, int) else None


def _visible_pairs(tokens: int, window: int | None) -> int:
    """Pairs under a causal mask, each query seeing at most ``window`` keys."""
    within = tokens if window is None else min(tokens, window)
    return within * (within + 1) // 2 + (tokens - within) * within


def _is_norm(module: torch.nn.Module) -> bool:
    return "Norm" in type(module).__name__


@frozen(eq=False)
class _Meter:
    """Counts one forward pass after the other."""

    network: Any
    components: Components
    dtype_bytes: int
    batch_size: int
    _steps: dict[int, Counter[tuple[str, str]]] = field(factory=dict)
    """What a decode step needs, by its context."""

    def image(self, inputs: ModelInputs, new_tokens: int) -> tuple[StageCost, ...]:
        """Prefill and decode of one image."""
        prompt = inputs.tensors["input_ids"].shape[1]
        on_meta = {name: self._like(tensor) for name, tensor in inputs.tensors.items()}
        needs, cache = self._forward({**on_meta, **inputs.options}, None, prompt)
        cached = _cached_elements(cache)
        needs["attention_scores", "kv_write_bytes"] = cached * self.dtype_bytes * self.batch_size
        costs = [StageCost("prefill", 0, prompt, 0, 0, _records(needs))]
        steps = new_tokens - 1
        if steps > 0:
            first, last = prompt + 1, prompt + steps
            summed = _sum_piecewise_linear(lambda context: self._step(cache, prompt, context), first, last)
            costs.append(StageCost("decode", 0, steps, first, last, _records(summed)))
        return tuple(costs)

    def _step(self, cache: Any, prompt: int, context: int) -> Counter[tuple[str, str]]:
        if context not in self._steps:
            grown = _grown(cache, context - 1 - prompt)
            ids = torch.empty((1, 1), dtype=torch.long, device="meta")
            before = _cached_elements(grown)
            needs, grown = self._forward({"input_ids": ids}, grown, 1)
            after = _cached_elements(grown)
            scale = self.dtype_bytes * self.batch_size
            needs["attention_scores", "kv_read_bytes"] = after * scale
            # A sliding window that is full drops as much as it takes: what one token adds is then its share.
            added = after - before or after // context
            needs["attention_scores", "kv_write_bytes"] = added * scale
            self._steps[context] = needs
        return self._steps[context]

    def _forward(self, arguments: dict[str, Any], cache: Any, tokens: int) -> tuple[Counter[tuple[str, str]], Any]:
        """Run one forward pass; what it needs by (component, field), KV cache left to the caller."""
        touched = _TouchedWeights(self.network)
        counter = FlopCounterMode(display=False, custom_mapping=_formulas())
        with torch.no_grad(), torch.device("meta"), touched, counter:
            output = self.network(**arguments, past_key_values=cache, use_cache=True, logits_to_keep=1)
        needs: Counter[tuple[str, str]] = Counter()
        flops = {name: sum(by_operator.values()) for name, by_operator in counter.get_flop_counts().items()}
        for path, flop in _own_flops(flops, type(self.network).__name__).items():
            component = self.components.of_module(path)
            exact = self.components.causal_share(path, tokens) if cache is None else None
            needs[component, "flop_full"] += flop * self.batch_size
            needs[component, "flop"] += (flop if exact is None else flop * exact[0] // exact[1]) * self.batch_size
        for name, elements in touched.elements(self.batch_size).items():
            component = self.components.of_weight(name)
            experts = self.components.experts(name)
            if experts is not None:
                count, per_token = experts
                # The batch is copies of one prompt (`runner.child.passes.repeated`): each token's copies go to the same experts.
                elements = round(elements * expected_experts(count, per_token, tokens) / count)
            needs[component, "weight_bytes"] += elements * self.dtype_bytes
        return needs, output.past_key_values

    def _like(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = torch.bfloat16 if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=dtype, device="meta")


class _TouchedWeights(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own, untyped
    """Notes which parameters operators read: all of one, or some rows of an embedding."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {id(parameter): name for name, parameter in network.named_parameters()}
        self._sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
        self._whole: set[str] = set()
        self._rows: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.embedding.default and id(args[0]) in self._names:
            self._rows[self._names[id(args[0])]] += args[1].numel() * args[0].shape[1]
        else:
            for argument in torch.utils._pytree.tree_leaves((args, kwargs)):
                if isinstance(argument, torch.Tensor) and id(argument) in self._names:
                    self._whole.add(self._names[id(argument)])
        return func(*args, **kwargs)

    def elements(self, batch_size: int) -> dict[str, int]:
        """Elements read by parameter name; rows of an embedding also by ``name#rows`` where it is read whole too.

        A table tied to the head is looked up by row and multiplied whole: two readings.
        """
        elements = {name: self._sizes[name] for name in self._whole}
        for name, rows in self._rows.items():
            if name not in self._whole:
                elements[name] = rows * batch_size
            elif rows * batch_size < self._sizes[name]:
                elements[f"{name}#rows"] = rows * batch_size
        return elements


def _own_flops(flops: dict[str, int], root: str) -> dict[str, int]:
    """FLOPs of each module less those of the modules inside it; paths as in ``named_modules``."""
    totals = {
        name.removeprefix(root).removeprefix("."): flop for name, flop in flops.items() if name.split(".")[0] == root
    }
    own = dict(totals)
    for path, flop in totals.items():
        while path:
            path = path.rpartition(".")[0]
            if path in totals:
                own[path] -= flop
                break
    return {path: flop for path, flop in own.items() if flop}


def _sum_piecewise_linear(
    at: Callable[[int], Counter[tuple[str, str]]], first: int, last: int
) -> Counter[tuple[str, str]]:
    """Sum ``at(first) + … + at(last)`` of a function that is linear but for a few bends (a window that fills up).

    Evaluated at the ends and the middle; where the middle is off the line, each half on its own.
    """
    low, high = at(first), at(last)
    count = last - first + 1
    middle = (first + last) // 2
    centre = at(middle)
    straight = all(
        (centre[key] - low[key]) * (last - first) == (high[key] - low[key]) * (middle - first)
        for key in low.keys() | high.keys() | centre.keys()
    )
    if straight:
        return Counter({key: count * (low[key] + high[key]) // 2 for key in low.keys() | high.keys()})
    if count == 2:
        return low + high
    return _sum_piecewise_linear(at, first, middle) + _sum_piecewise_linear(at, middle + 1, last)


def _cached_elements(cache: Any) -> int:
    """Elements of all keys and values that a transformers cache holds."""
    if cache is None or not hasattr(cache, "layers"):
        raise TypeError(f"its cache is a {type(cache).__name__}, not one of keys and values per layer")
    total = 0
    for layer in cache.layers:
        if not isinstance(getattr(layer, "keys", None), torch.Tensor):
            raise TypeError(f"a {type(layer).__name__} holds no keys and values")
        total += layer.keys.numel() + layer.values.numel()
    return total


def _grown(cache: Any, tokens: int) -> Any:
    """A copy of a cache with ``tokens`` more in it."""
    grown = copy.deepcopy(cache)
    if tokens:
        for index, layer in enumerate(grown.layers):
            shapes = ((*states.shape[:-2], tokens, states.shape[-1]) for states in (layer.keys, layer.values))
            grown.update(*(torch.empty(shape, dtype=layer.keys.dtype, device="meta") for shape in shapes), index)
    return grown


@contextmanager
def _placeholders_trusted(network: torch.nn.Module) -> Iterator[None]:
    """Skip a model's check that image tokens and features are as many: it reads ids, and meta tensors have none."""

    def mask(
        input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, *features: Any, **more_features: Any
    ) -> torch.Tensor:
        return torch.zeros((*inputs_embeds.shape[:-1], 1), dtype=torch.bool, device=inputs_embeds.device)

    patched = [module for module in network.modules() if hasattr(type(module), "get_placeholder_mask")]
    for module in patched:
        module.__dict__["get_placeholder_mask"] = mask
    try:
        yield
    finally:
        for module in patched:
            del module.__dict__["get_placeholder_mask"]


def _formulas() -> dict[Any, Callable[..., int]]:
    """FLOP formulas for operators that PyTorch's counter does not know, by operator; shapes in, multiply-add = 2."""
    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., int]] = {}
    for name in ("_grouped_mm", "_scaled_grouped_mm"):
        if hasattr(aten, name):
            formulas[getattr(aten, name)] = _grouped_product_flop
    if hasattr(torch.ops.transformers, "grouped_mm_fallback"):
        formulas[torch.ops.transformers.grouped_mm_fallback] = _grouped_product_flop
    for name in (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_fused_attention_overrideable",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    ):
        if hasattr(aten, name):
            formulas[getattr(aten, name)] = _attention_flop
    return formulas


def _grouped_product_flop(rows: Sequence[int], weights: Sequence[int], *_: Any, **__: Any) -> int:
    """[S, K] rows, sorted by group, times [E, K, N]: every row meets one group's matrix."""
    if len(rows) == 2 and len(weights) == 3:
        return 2 * rows[0] * rows[1] * weights[2]
    # [E, M, K] × [E, K, N], or the columns of [K, N] split by group.
    return 2 * prod(rows) * weights[-1]


def _attention_flop(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """[batch, heads, queries, head size]; fewer key heads than query heads cost the same (they are shared)."""
    batch, heads, queries, head_size = query
    return 2 * batch * heads * queries * key[-2] * (head_size + value[-1])


def _records(needs: Counter[tuple[str, str]]) -> tuple[ComponentCost, ...]:
    by_component: dict[str, dict[str, int]] = defaultdict(dict)
    for (component, kind), amount in needs.items():
        by_component[component][kind] = amount
    return tuple(
        ComponentCost(
            component=component,
            flop=amounts.get("flop", 0),
            flop_full=amounts.get("flop_full", 0),
            weight_bytes=amounts.get("weight_bytes", 0),
            kv_read_bytes=amounts.get("kv_read_bytes", 0),
            kv_write_bytes=amounts.get("kv_write_bytes", 0),
        )
        for component, amounts in by_component.items()
    )


def _of_image(cost: StageCost, image_index: int) -> StageCost:
    return StageCost(
        cost.stage, image_index, cost.tokens, cost.context_first, cost.context_last, cost.components, cost.source
    )


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
