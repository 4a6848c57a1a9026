"""How many tokens each stage of a trace worked on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analysis.domain.manifest import RunManifest
from analysis.sums.records import InstanceSummary

__all__ = ["MOST_TOKENS", "tokens_by_stage"]

MOST_TOKENS: Final = 2**40
"""Of a prompt or a context: a hundred thousand times what any model takes."""


def tokens_by_stage(
    manifest: RunManifest | None, instances: Sequence[InstanceSummary], stated: int | None = None
) -> dict[str, int | None]:
    """Prompt tokens of all prefills and emitted tokens of all decodes in the trace; None: nothing says.

    Of an engine's steps: the tokens that the steps of each kind worked on.

    Args:
        manifest: of the run.
        instances: of the stages.
        stated: prompt tokens of each prefill, as the user says, where neither trace nor manifest does.
    """
    if any(instance.composition is not None for instance in instances):
        return _of_steps(instances)
    prompts = manifest.prompts if manifest else ()
    prompt = {prompt.image_index: prompt.prompt_tokens for prompt in prompts}
    batch = manifest.batch_size if manifest else 1
    prefills = [instance for instance in instances if instance.stage == "prefill"]
    known = [_prompt_tokens(instance, prompt, stated) for instance in prefills]
    steps = sum(instance.steps for instance in instances if instance.stage == "decode")
    return {
        "prefill": batch * sum(count or 0 for count in known) if known and None not in known else None,
        "decode": batch * steps or None,
    }


def _of_steps(instances: Sequence[InstanceSummary]) -> dict[str, int | None]:
    counted: dict[str, int | None] = {}
    for instance in instances:
        tokens = instance.composition.tokens if instance.composition is not None else None
        before = counted.get(instance.stage, 0)
        counted[instance.stage] = None if before is None or tokens is None else before + tokens
    return counted


def _prompt_tokens(instance: InstanceSummary, prompt: dict[int, int], stated: int | None) -> int | None:
    if instance.payload is not None and 0 < instance.payload <= MOST_TOKENS:
        return instance.payload
    return stated if instance.image_index is None else prompt.get(instance.image_index, stated)
