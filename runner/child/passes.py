"""Passes over the input set: pages to tensors once, then one generation per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from attrs import evolve

from analysis.domain.annotations import GRAPH_RECORD, image_name
from analysis.domain.entities import InputSet
from analysis.domain.errors import InputImagesError, ModelError
from analysis.domain.manifest import ControlPass
from runner.child.annotate import Annotator
from runner.child.generate import Decoder, DynamicDecoder, GraphDecoder, StaticDecoder, generate
from runner.child.models.family import LoadedModel, ModelInputs
from runner.child.models.loading import available_memory_bytes
from runner.inputs.inputs import open_image
from runner.plan.plan import RunPlan

__all__ = [
    "distinct_shapes",
    "make_decoder",
    "prepare_inputs",
    "record_annotated",
    "repeated",
    "run_pass",
    "with_generated_lengths",
    "with_prompt_tokens",
]

_INPUTS_SHARE: Final = 0.5
"""Of the free memory of the host that prepared inputs may take."""


def prepare_inputs(plan: RunPlan, model: LoadedModel, images: InputSet) -> list[ModelInputs]:
    """Read, scale and tokenise every image of the set, on the host, outside all measurement.

    Returns:
        One per image, in the set's order; batch 1, pixels in the model's dtype.

    Raises:
        InputImagesError: an image cannot be read, or all of them together do not fit into memory.
        ModelError: the model has no such input mode.
    """
    mode = plan.settings.input_mode or model.default_mode
    takes_images = model.family.input_modes != ("text",)
    free_bytes = available_memory_bytes()
    prepared: list[ModelInputs] = []
    taken_bytes = 0
    for index, image in enumerate(images.images):
        page = open_image(image) if takes_images else None
        inputs = model.family.inputs(page, index, mode, model.tokens, plan.settings.prompt, model.network.config)
        prepared.append(inputs.cast(model.dtype))
        taken_bytes += prepared[-1].bytes
        if taken_bytes > free_bytes * _INPUTS_SHARE:
            raise InputImagesError(
                f"{Path(images.root_dir)}: the first {index + 1} of {images.count} images already take "
                f"{taken_bytes / 2**30:.1f} GiB as tensors, of {free_bytes / 2**30:.1f} GiB free; profile fewer at once"
            )
    return prepared


def with_prompt_tokens(inputs: ModelInputs, tokens: int, filler: Sequence[int]) -> ModelInputs:
    """The same prompt, with as many positions as asked for: text behind it makes it longer.

    Args:
        inputs: batch 1; ``input_ids`` int64 [1, prompt_tokens].
        tokens: positions in all.
        filler: ids of some text, which is repeated.

    Raises:
        ModelError: the image alone takes as many positions, or other inputs of this model are as long as its prompt.
    """
    prompt, ids = inputs.prompt, inputs.tensors["input_ids"]
    missing = tokens - prompt.prompt_tokens
    if missing < 0 and prompt.image_tokens:
        raise ModelError(
            f"--prompt-tokens {tokens}: image and prompt take {prompt.prompt_tokens:,} positions in input mode "
            f"{prompt.mode}; ask for as many at least"
        )
    alike = [name for name, tensor in inputs.tensors.items() if name != "input_ids" and tensor.shape == ids.shape]
    if alike:
        raise ModelError(
            f"--prompt-tokens {tokens}: {', '.join(alike)} of this model says something of every position, so its prompt "
            "cannot be made longer"
        )
    more = [filler[index % len(filler)] for index in range(max(0, missing))]
    ids = torch.cat([ids[:, :tokens], ids.new_tensor([more])], dim=1)
    counts = evolve(prompt, text_tokens=tokens - prompt.image_tokens, prompt_tokens=tokens)
    return ModelInputs({**inputs.tensors, "input_ids": ids}, counts, inputs.options)


def repeated(inputs: ModelInputs, size: int) -> ModelInputs:
    """Repeat a prompt along the batch, on its device."""
    if size == 1:
        return inputs
    tensors = {name: tensor.repeat(size, *[1] * (tensor.ndim - 1)) for name, tensor in inputs.tensors.items()}
    # Per-image lists, such as the number of tiles, are as long as the batch.
    options = {name: value * size if isinstance(value, list) else value for name, value in inputs.options.items()}
    return ModelInputs(tensors, inputs.prompt, options)


def distinct_shapes(inputs: Sequence[ModelInputs]) -> list[ModelInputs]:
    """The first prompt of each combination of tensor shapes: what a warm-up must have seen."""
    seen: dict[tuple[tuple[str, torch.Size], ...], ModelInputs] = {}
    for prompt in inputs:
        seen.setdefault(tuple((name, tensor.shape) for name, tensor in prompt.tensors.items()), prompt)
    return list(seen.values())


def make_decoder(plan: RunPlan, model: LoadedModel, inputs: Sequence[ModelInputs]) -> Decoder:
    """The decoder of the plan's mode; a CUDA graph is recorded here, outside all measurement and annotation.

    Raises:
        ModelError: the model has no static cache, or its steps cannot be recorded as a CUDA graph.
    """
    if plan.settings.decode_mode == "eager":
        return DynamicDecoder(model.network)
    longest = max(image.prompt.prompt_tokens for image in inputs)
    positions = longest + plan.request.max_new_tokens
    if plan.settings.decode_mode == "static":
        return StaticDecoder(model.network, positions)
    decoder = GraphDecoder(model.network, positions)
    decoder.warm_up(repeated(inputs[0].on(model.device), plan.settings.batch_size))
    decoder.record()
    return decoder


def record_annotated(decoder: Decoder, annotator: Annotator) -> None:
    """Record a CUDA graph's step anew, inside the collection and with module ranges on.

    A collector that knows the nodes of a graph also knows when each was recorded, and so which module it computes. The
    first replay, which copies the graph to the device, belongs to the recording: replays are measured from the second
    on, as without a profiler. Other decoders have nothing to record.

    Raises:
        ModelError: the step cannot be recorded under this profiler.
    """
    if isinstance(decoder, GraphDecoder):
        with annotator.range(GRAPH_RECORD):
            decoder.record()
            decoder.replay_once()


def run_pass(
    plan: RunPlan,
    model: LoadedModel,
    decoder: Decoder,
    inputs: Sequence[ModelInputs],
    annotator: Annotator,
    pass_index: int,
    on_page: Callable[[int], None] = lambda number: None,
    tokens_of: dict[int, tuple[int, ...]] | None = None,
) -> list[ControlPass]:
    """Run every prompt once.

    The copy to the device is inside the image's range and outside its stages.

    Args:
        plan: for tokens, batch and EOS.
        model: loaded.
        decoder: its decoding loop.
        inputs: one per prompt.
        annotator: writes the ranges.
        pass_index: from 0.
        on_page: told each page's number, from 1, before its range begins; must do next to nothing.
        tokens_of: gets the tokens of each prompt, by its image's index; of a batch those of the first sequence.

    Returns:
        One per prompt, in order.
    """
    done = []
    for number, image in enumerate(inputs, start=1):
        on_page(number)
        with annotator.range(image_name(image.prompt.image_index)):
            generation = generate(
                model,
                decoder,
                repeated(image.on(model.device), plan.settings.batch_size),
                max_new_tokens=plan.request.max_new_tokens,
                annotator=annotator,
                ignore_eos=plan.settings.ignore_eos,
            )
        if tokens_of is not None:
            tokens_of[image.prompt.image_index] = tuple(step[0] for step in generation.tokens)
        done.append(
            ControlPass(
                pass_index=pass_index,
                image_index=image.prompt.image_index,
                prefill_ns=generation.prefill_ns,
                decode_ns=generation.decode_ns,
                new_tokens=len(generation.tokens),
                step_ns=generation.step_ns,
            )
        )
    return done


def with_generated_lengths(inputs: Sequence[ModelInputs], passes: Sequence[ControlPass]) -> list[ModelInputs]:
    """The inputs with the number of tokens that each gave; None where passes disagree (sums in another order)."""
    lengths: dict[int, set[int]] = {}
    for generation in passes:
        lengths.setdefault(generation.image_index, set()).add(generation.new_tokens)
    with_lengths = []
    for inputs_of_image in inputs:
        counts = lengths.get(inputs_of_image.prompt.image_index, set())
        prompt = evolve(inputs_of_image.prompt, expected_new_tokens=min(counts) if len(counts) == 1 else None)
        with_lengths.append(ModelInputs(inputs_of_image.tensors, prompt, inputs_of_image.options))
    return with_lengths
