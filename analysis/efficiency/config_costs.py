"""What the stages and steps of a trace need, by a model's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

from attrs import evolve, frozen

from analysis.attribution.vocabulary import Composition
from analysis.domain.errors import RequestError
from analysis.domain.manifest import ComponentCost, StageCost
from analysis.efficiency.decoder_config import ConfiguredDecoder
from analysis.efficiency.step_cost import Requests, attention_is_exact, step_cost
from analysis.sums.records import InstanceSummary

__all__ = ["ConfigRequest", "StepCost", "StepCosts", "requests_of", "stage_costs", "step_costs"]


@frozen
class ConfigRequest:
    """A configuration to compute a trace's cost from."""

    decoder: ConfiguredDecoder
    prompt_tokens: int | None = None
    """Of each prefill, where no range says."""

    @property
    def model_name(self) -> str:
        """What the user stated, for headings."""
        return f"{self.decoder.model_type} by {PurePath(self.decoder.source).name}"

    @property
    def dtype(self) -> str:
        """Whose peak to compare with."""
        return self.decoder.arithmetic


@frozen
class StepCost:
    """What one step of an engine needs, all its requests together."""

    components: tuple[ComponentCost, ...]
    """None for a step without tokens."""


@frozen
class StepCosts:
    """What an engine's steps need."""

    by_path: Mapping[str, StepCost]
    """Path of the step's instance → cost; empty: not known."""
    missing: str | None = None
    """Why there is none."""
    bound: str | None = None
    """Where attention's part is a lower bound: why, as a clause."""


_NO_SUMS: Final = "the names of its steps carry no sums over contexts (vLLM: detailed_trace_annotation)"
_WINDOWED: Final = "sliding windows cut what the sums in its steps' names add up"


def step_costs(decoder: ConfiguredDecoder, instances: Sequence[InstanceSummary]) -> StepCosts:
    """Costs of an engine's steps, by what their names say that they are made of."""
    costs: dict[str, StepCost] = {}
    known: dict[Composition, StepCost] = {}
    bound = None
    for instance in instances:
        composition = instance.composition
        groups = None if composition is None else requests_of(composition)
        if composition is None or groups is None:
            return StepCosts({}, f"{instance.path} does not say how many requests and tokens it works on")
        if composition not in known:
            known[composition] = StepCost(step_cost(decoder, groups))
        costs[instance.path] = known[composition]
        if not attention_is_exact(decoder, groups) and bound is None:
            summed = all(group.context is not None for group in groups if group.tokens)
            bound = _WINDOWED if summed else _NO_SUMS
    return StepCosts(costs, bound=bound)


def requests_of(composition: Composition) -> tuple[Requests, ...] | None:
    """The requests that a step is made of; None: its name does not tell."""
    groups = []
    for decode, requests, tokens, context, squares, products in (
        (
            False,
            composition.prefill_requests,
            composition.prefill_tokens,
            composition.prefill_sk,
            composition.prefill_sqsq,
            composition.prefill_sqsk,
        ),
        (
            True,
            composition.decode_requests,
            # A request in decode has one new token, unless more are said to be verified at once.
            composition.decode_requests if composition.decode_tokens is None else composition.decode_tokens,
            composition.decode_sk,
            composition.decode_sqsq,
            composition.decode_sqsk,
        ),
    ):
        if requests is None or tokens is None or bool(requests) != bool(tokens) or tokens < requests:
            return None
        sums = (context, squares, products)
        if None in sums or not _consistent(requests, tokens, *(number or 0 for number in sums)):
            context = squares = products = None
        groups.append(Requests(decode, requests, tokens, context, squares, products))
    return tuple(groups)


def _consistent(requests: int, tokens: int, context: int, squares: int, products: int) -> bool:
    """Whether sums can be of such requests: each has at least its new tokens as context."""
    return context >= tokens and squares * max(1, requests) >= tokens**2 and products >= squares >= tokens


def stage_costs(request: ConfigRequest, instances: Sequence[InstanceSummary]) -> tuple[StageCost, ...]:
    """Costs of prefills and decodes of one sequence each.

    Raises:
        RequestError: nothing says how many tokens a prefill has.
    """
    said = {
        instance.image_index or 0: instance.payload
        for instance in instances
        if instance.stage == "prefill" and instance.payload is not None and instance.payload > 0
    }
    costs = []
    for image in sorted({instance.image_index or 0 for instance in instances}):
        prompt = said.get(image) if request.prompt_tokens is None else request.prompt_tokens
        if prompt is None:
            raise RequestError(
                "--config needs --prompt-tokens, the positions of each prefill: no range of this trace says how many tokens "
                "its steps work on"
            )
        steps = max(
            (
                instance.steps
                for instance in instances
                if (instance.image_index or 0, instance.stage) == (image, "decode")
            ),
            default=0,
        )
        prefill = step_cost(request.decoder, [Requests.prompt(prompt)])
        costs.append(StageCost("prefill", image, prompt, 0, 0, prefill, "closed form"))
        if steps:
            each = [step_cost(request.decoder, [Requests.token(prompt + 1 + step)]) for step in range(steps)]
            costs.append(StageCost("decode", image, steps, prompt + 1, prompt + steps, _summed(each), "closed form"))
    return tuple(costs)


def _summed(each: Sequence[tuple[ComponentCost, ...]]) -> tuple[ComponentCost, ...]:
    """Component by component."""
    summed: dict[str, ComponentCost] = {}
    for part in (part for parts in each for part in parts):
        before = summed.get(part.component)
        summed[part.component] = part if before is None else evolve(
            before,
            flop=before.flop + part.flop,
            flop_full=before.flop_full + part.flop_full,
            weight_bytes=before.weight_bytes + part.weight_bytes,
            kv_read_bytes=before.kv_read_bytes + part.kv_read_bytes,
            kv_write_bytes=before.kv_write_bytes + part.kv_write_bytes,
        )  # fmt: skip
    return tuple(summed.values())
