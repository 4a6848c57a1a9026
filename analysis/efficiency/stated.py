"""What the user states of a trace, against what the trace shows.

A cost that is computed from stated sizes is as wrong as they are, and looks as exact as any other. So everything that
the trace can contradict is compared, and what it cannot is named:

- positions of a prefill: the manifest, the payload of the range, the context of the first decode step after it, and
  the positions that the image alone takes;
- model: its decoder layers and towers among the module ranges;
- input mode and tiles: PyTorch's LayerNorm kernel runs one block per row, so that the grids of a prefill's LayerNorm
  kernels are the patches of its views (SAM) and their features (CLIP);
- the whole: no device does more arithmetic, or moves more bytes, than its peaks allow in the time that was measured.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from attrs import frozen

from analysis.domain.entities import KernelSummary
from analysis.domain.errors import RequestError
from analysis.domain.manifest import PromptTokens
from analysis.efficiency.config_costs import ConfigRequest, StepCost
from analysis.efficiency.cost import ClipShape, VisionShape, find_preset, view_sides
from analysis.efficiency.hardware import Peak
from analysis.efficiency.metrics import sum_needs
from analysis.efficiency.utilisation import CostRequest, KnownCosts
from analysis.sums.records import InstanceSummary, StepPoint

__all__ = ["TraceEvidence", "check_config", "check_needs", "check_stated"]

_LAYER: Final = re.compile(r"layers\.(\d+)")
_ANY_LAYER: Final = re.compile(r"(?:^|\.)(?:layers?|h)\.(\d+)(?:\.|$)")
"""A decoder layer's number in a module path, whatever the model calls them."""
_LAYER_NORM: Final = "vectorized_layer_norm_kernel"
"""PyTorch's LayerNorm, one block per row (aten/src/ATen/native/cuda/layer_norm_kernel.cu)."""
_BOOST: Final = 1.15
"""How far above a sheet's peak a device can come: sheets count at the boost clock, cards run up to their highest."""
_LARGEST_CACHE: Final = 256 << 20
"""Bytes that need not come from memory again: no GPU's L2 cache is larger."""


@frozen
class TraceEvidence:
    """What of a trace can contradict stated sizes."""

    instances: Sequence[InstanceSummary]
    steps: Sequence[StepPoint]
    kernels: Sequence[KernelSummary]
    """By launch shape."""
    modules: Collection[str]
    """Names of its module ranges; empty: it has none."""
    prompts: Sequence[PromptTokens] = ()
    """As the run's manifest says; empty: there is none."""


def check_stated(request: CostRequest, evidence: TraceEvidence) -> tuple[str, ...]:
    """Refuse stated sizes that a trace contradicts.

    Args:
        request: what the user states.
        evidence: of the trace.

    Returns:
        What the trace has no evidence of, in words.

    Raises:
        RequestError: they contradict each other, or the trace does; one line with both figures.
    """
    sides = view_sides(request.preset, request.chosen_mode, request.tiles)
    vision = find_preset(request.preset).vision
    if vision is not None:
        least = vision.least_image_tokens(request.chosen_mode, request.tiles)
        if request.prompt_tokens < least:
            raise RequestError(
                f"--prompt-tokens {request.prompt_tokens}: an image of {_views(request)} alone takes {least} positions"
            )
    _check_manifest(request, evidence.prompts)
    unchecked = []
    if not _check_positions(request.prompt_tokens, evidence) and not evidence.prompts:
        unchecked.append("prompt tokens (no range of this trace says how many there were)")
    if not _check_modules(request, evidence):
        unchecked.append("the model (this trace has no module ranges)")
    if not _check_views(request, vision, sides, evidence) and not evidence.prompts:
        unchecked.append("input mode and tiles (no LayerNorm kernels of PyTorch in prefill)")
    return tuple(unchecked)


def check_needs(
    costs: KnownCosts,
    instances: Sequence[InstanceSummary],
    peak: Peak | None,
    dtype: str,
    options: str = "--model, --input-mode, --tiles and --prompt-tokens",
) -> str | None:
    """Refuse stated costs that the device cannot have met in the time that was measured.

    Args:
        costs: from what was stated.
        instances: of the trace, with the time in which their GPU work was under way.
        peak: of the device.
        dtype: of the model.
        options: by which it was stated.

    Returns:
        Why nothing could be compared, or None.

    Raises:
        RequestError: a stage needs more arithmetic or bytes than the peaks allow; one line with both figures.
    """
    if any(instance.rank is not None for instance in instances):
        return "least time (several processes share the work of a stage)"
    if peak is not None and peak.how == "override":
        return "least time (the peak is stated as well)"
    rate = None if peak is None else peak.flop_per_s.get(dtype)
    bandwidth = None if peak is None else peak.bytes_per_s
    compared = False
    for instance in instances:
        cost = costs.of(instance)
        if cost is None or not instance.busy_ns:
            continue
        counts_steps = instance.stage == "decode" and not isinstance(cost, StepCost)
        need, passes = sum_needs([cost]), instance.steps if counts_steps else 1
        seconds = instance.busy_ns / 1e9
        for amount, unit, most in (
            (need.flop, "FLOP", rate),
            (max(0, need.bytes - passes * _LARGEST_CACHE), "bytes from memory", bandwidth),
        ):
            if most is None:
                continue
            compared = True
            if amount > _BOOST * most * seconds:
                raise RequestError(
                    f"the stated model cannot have run here: {instance.path} would need {amount:.3g} {unit}, at least "
                    f"{amount / most * 1e3:.3g} ms on this device, and its GPU work took {seconds * 1e3:.3g} ms; "
                    f"check {options}"
                )
    return None if compared else "least time (no peak of this device, or no GPU time, is known)"


def check_config(request: ConfigRequest, evidence: TraceEvidence) -> tuple[str, ...]:
    """Refuse a configuration that a trace contradicts.

    Returns:
        What the trace has no evidence of, in words.

    Raises:
        RequestError: its layers or positions are others; one line with both figures.
    """
    unchecked = []
    layers = {int(match[1]) for name in evidence.modules if (match := _ANY_LAYER.search(name))}
    if layers and len(layers) != request.decoder.layer_count:
        raise RequestError(
            f"{request.decoder.source}: it has {request.decoder.layer_count} layers, this trace's module ranges name "
            f"{len(layers)}"
        )
    if not layers:
        unchecked.append("the model (this trace has no module ranges)")
    if request.prompt_tokens is not None and not _check_positions(request.prompt_tokens, evidence):
        unchecked.append("prompt tokens (no range of this trace says how many there were)")
    return tuple(unchecked)


def _views(request: CostRequest) -> str:
    tiles = f" and {request.tiles} tiles" if request.tiles else ""
    return f"input mode {request.chosen_mode!r}{tiles}"


def _check_manifest(request: CostRequest, prompts: Sequence[PromptTokens]) -> None:
    for prompt in prompts:
        for option, stated, known in (
            ("--prompt-tokens", request.prompt_tokens, prompt.prompt_tokens),
            ("--input-mode", request.chosen_mode, prompt.mode),
            ("--tiles", request.tiles, prompt.tiles),
        ):
            if stated != known:
                raise RequestError(
                    f"{option} {stated}: by the run's manifest image[{prompt.image_index}] has {known}; leave --model "
                    "out, the manifest says what was run"
                )


def _check_positions(stated: int, evidence: TraceEvidence) -> bool:
    """Whether every prefill's positions could be compared."""
    seen: dict[str, tuple[int, str]] = {}
    prompts: dict[int | None, int] = {}
    image_of = {instance.path: instance.image_index for instance in evidence.instances}
    for instance in evidence.instances:
        if instance.stage == "prefill" and instance.payload is not None and instance.payload > 0:
            seen[instance.path] = instance.payload, f"{instance.path} ran {instance.payload}, by its range's payload"
            prompts[instance.image_index] = instance.payload
    for step in evidence.steps:
        if step.index == 0 and step.context is not None and step.context > 0:
            if step.context == prompts.get(image_of.get(step.instance)):
                continue  # the program passes the token's position, counted from 0; its prefill says how many there are
            before = f"the first step of {step.instance} attends over {step.context}, its own token included"
            if step.context == stated:
                before += (
                    f" (so --prompt-tokens {stated - 1}; if its payload is the token's position, counted from 0, give the "
                    "prefill's range its number of tokens as payload)"
                )
            seen.setdefault(step.instance, (step.context - 1, before))
    for tokens, words in seen.values():
        if tokens != stated:
            raise RequestError(f"--prompt-tokens {stated}: {words}")
    prefills = [instance for instance in evidence.instances if instance.stage == "prefill"]
    return bool(seen) and len(seen) >= len(prefills)


def _check_modules(request: CostRequest, evidence: TraceEvidence) -> bool:
    """Whether there are module ranges to compare with."""
    shape = find_preset(request.preset)
    layers = {int(match[1]) for name in evidence.modules if (match := _LAYER.fullmatch(name))}
    towers = {name for name in evidence.modules if name.startswith("vision.")}
    if layers and len(layers) != shape.decoder.layers:
        raise RequestError(
            f"--model {request.preset}: it has {shape.decoder.layers} decoder layers, this trace's module ranges "
            f"name {len(layers)}"
        )
    expected = set() if shape.vision is None else {"vision.sam", _encoder_path(shape.vision), "vision.projector"}
    prefilled = any(instance.stage == "prefill" for instance in evidence.instances)
    if (towers or (layers and prefilled)) and towers != expected:
        raise RequestError(
            f"--model {request.preset}: its prefill runs {_and(sorted(expected)) or 'no vision modules'}, this trace's "
            f"module ranges name {_and(sorted(towers)) or 'none'}"
        )
    return bool(layers or towers)


def _encoder_path(vision: VisionShape) -> str:
    return "vision.clip" if isinstance(vision.encoder, ClipShape) else "vision.encoder"


def _check_views(
    request: CostRequest, vision: VisionShape | None, sides: Sequence[int], evidence: TraceEvidence
) -> bool:
    """Whether the prefill has LayerNorm kernels to compare with."""
    calls: dict[int, int] = {}
    for kernel in evidence.kernels:
        if kernel.stage == "prefill" and kernel.short_name == _LAYER_NORM and kernel.grid is not None:
            calls[kernel.grid[0]] = calls.get(kernel.grid[0], 0) + kernel.calls
    if not calls:
        return False
    towers = [] if vision is None else _rows(vision, sides)
    expected = sorted({rows for tower in towers for rows in tower})
    # A tower runs over all views alike: fewer calls for the tiles means that some pages had none.
    alike = all(len({calls.get(rows, 0) for rows in tower}) <= 1 for tower in towers)
    if expected != sorted(calls) or not alike:
        listed = ", ".join(f"{rows} ({calls[rows]} times)" for rows in sorted(calls))
        raise RequestError(
            f"--model {request.preset} with {_views(request)}: its towers normalise {_and(expected) or 'no'} rows at "
            f"once, this trace's prefill {listed}{_hint(vision, calls)}"
        )
    return True


def _rows(vision: VisionShape, sides: Sequence[int]) -> list[list[int]]:
    """Rows of each tower's LayerNorms: the global view's, then those of all tiles together."""
    groups = [(sides[0], 1), *([(sides[1], len(sides) - 1)] if len(sides) > 1 else [])]
    patches = [(side // vision.sam.patch) ** 2 * count for side, count in groups]
    if not isinstance(vision.encoder, ClipShape):
        return [patches]
    return [patches, [(vision.encoder.vectors(vision.cells(side)) + 1) * count for side, count in groups]]


def _hint(vision: VisionShape | None, calls: Mapping[int, int]) -> str:
    """The mode and the tiles that such rows are of, if this model has any."""
    if vision is None:
        return ""
    for mode, sizes in vision.modes.items():
        for tiles in (0, *range(2, sizes.max_tiles + 1)):
            rows = _rows(vision, [sizes.side, *[sizes.tile_side] * tiles])
            if {count for tower in rows for count in tower} == set(calls):
                return f", which is --input-mode {mode} --tiles {tiles}"
    return ""


def _and(words: Sequence[object]) -> str:
    shown = [str(word) for word in words]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
