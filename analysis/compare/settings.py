"""Everything recorded in which two runs differ, and which of it forbids to put a difference of latencies down to the code."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final, get_args

from attrs import frozen

from analysis.compare.records import SettingChange, SettingGroup
from analysis.compare.sides import Side
from analysis.domain.figures import counted, rate, ratio
from analysis.domain.manifest import DeviceState, RunManifest

__all__ = ["setting_changes", "settings_of"]

CLOCK_LIMIT: Final = 0.03
"""Clocks that are further apart than this explain a difference by themselves."""
INPUT_LIMIT: Final = 0.03
"""Prompts whose medians are further apart are other work."""

_TOOL_VERSIONS: Final = ("nsys", "nvtx", "dsocr-profiler")
_DRIVER_VERSIONS: Final = ("driver", "driver_cuda")
_TOOL_OPTIONS: Final = (
    "nsys", "nsys_args", "keep_report", "timeout_s", "grace_s", "finish_s", "measure_peak", "measure_energy", "warmup_passes",
    "overhead_prefill", "overhead_decode",
)  # fmt: skip
"""Options of the run that say how it was measured, not what ran. ``keep_env`` is none of them: variables are handed on because
the program acts on them."""
_RESULTS: Final = ("overhead_prefill", "overhead_decode")
"""Older runs kept these results among their options."""


_ORDER: Final[tuple[SettingGroup, ...]] = get_args(SettingGroup)


@frozen
class _Setting:
    group: SettingGroup
    name: str
    value: str | None


def settings_of(side: Side) -> dict[tuple[SettingGroup, str], str | None]:
    """(Group, name) → value, of everything that a side records of how it was made; None: not recorded."""
    rows = [*_of_capture(side)]
    if side.manifest is not None:
        rows += _of_manifest(side.manifest)
    return {(row.group, row.name): row.value for row in rows}


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _of_capture(side: Side) -> list[_Setting]:
    report = side.report
    capture, model, meta = report.capture, report.report.model, report.report.meta
    rows = [
        _Setting("device", "device", ", ".join(dict.fromkeys(capture.device_names)) or None),
        _Setting("device", "ran on a CPU", _text(capture.on_cpu)),
        _Setting("tool", "profiler", capture.product or capture.collector),
        _Setting("tool", "vocabulary of ranges", capture.vocabulary_title),
        _Setting("tool", "launches attributed across threads", _text(capture.cross_thread)),
        _Setting("tool", "instances skipped", _text(report.skip_first)),
    ]
    if meta is not None:
        rows.append(_Setting("device", "compute capability", meta.compute_capability))
        rows.append(_Setting("versions", "commit", meta.git_commit))
        rows.append(_Setting("tool", "dsocr-profiler", meta.package_version))
    if model is not None:
        rows += [
            _Setting("model", "model", model.id),
            _Setting("model", "path", model.model_path),
            _Setting("model", "dtype", model.dtype),
            _Setting("model", "parameters", _text(model.parameters)),
            _Setting("model", "layers", _text(model.n_layers)),
            _Setting("model", "width", _text(model.d_model)),
            _Setting("model", "weights", model.weights),
            _Setting("model", "attention", model.attn_implementation),
            _Setting("model", "experts", model.experts_implementation),
            _Setting("model", "flash attention asked for", _text(model.use_flash_attn)),
            _Setting("device", "device of the model", model.device),
        ]
    elif capture.stated_model is not None:
        rows.append(_Setting("model", "model", capture.stated_model))
    return rows


def _of_manifest(manifest: RunManifest) -> list[_Setting]:
    rows = [
        _Setting("options", "decode", manifest.decode_mode),
        _Setting("inputs", "batch", _text(manifest.batch_size)),
        _Setting("inputs", "tokens to generate", _text(manifest.request.max_new_tokens)),
        _Setting("inputs", "pages", _pages(manifest)),
        _Setting("inputs", "their contents", _hashes(manifest)),
        _Setting("inputs", "prompt tokens", _prompts(manifest)),
        _Setting("tool", "unprofiled passes", _text(len({timed.pass_index for timed in manifest.control}))),
        _Setting("tool", "captured passes", _text(manifest.capture_passes)),
        _Setting("tool", "collector", manifest.collector),
        _Setting("tool", "ranges", manifest.annotation_level),
        _Setting("tool", "preset", manifest.preset),
    ]
    if manifest.measured_peak is not None:
        peak = manifest.measured_peak
        rows += [
            _Setting("device", f"measured peak, {peak.dtype}", rate(peak.flop_per_s, "FLOP/s")),
            _Setting("device", "measured bandwidth", rate(peak.bytes_per_s, "B/s")),
        ]
    for name, value in manifest.options.items():
        if name not in _RESULTS:
            rows.append(_Setting("tool" if name in _TOOL_OPTIONS else "options", name, _text(value)))
    for name, version in manifest.versions.items():
        group: SettingGroup = "tool" if name in _TOOL_VERSIONS else "driver" if name in _DRIVER_VERSIONS else "versions"
        rows.append(_Setting(group, name, version))
    for state in manifest.device_states:
        rows += [
            _Setting("clocks", f"{name} {state.when}", None if value is None else f"{value:g} {unit}")
            for name, unit, value in (
                ("SM clock", "MHz", state.sm_clock_mhz),
                ("memory clock", "MHz", state.memory_clock_mhz),
                ("temperature", "°C", state.temperature_c),
                ("power", "W", state.power_w),
            )
        ]
    return rows


def _pages(manifest: RunManifest) -> str | None:
    return None if manifest.input_set is None else counted(manifest.input_set.count, "page")


def _hashes(manifest: RunManifest) -> str | None:
    if manifest.input_set is None:
        return None
    hashes = [image.sha256 for image in manifest.input_set.images]
    return None if None in hashes else ", ".join(str(value)[:8] for value in hashes)


def _prompts(manifest: RunManifest) -> str | None:
    if not manifest.prompts:
        return None
    shapes: dict[str, int] = {}
    for prompt in manifest.prompts:
        tiles = f" ({prompt.mode}, {counted(prompt.tiles, 'tile')})" if prompt.image_tokens else ""
        key = f"{prompt.prompt_tokens}{tiles}"
        shapes[key] = shapes.get(key, 0) + 1
    return ", ".join(f"{number} × {shape}" for shape, number in shapes.items())


def setting_changes(base: Side, new: Side, *, unprofiled: bool) -> tuple[tuple[SettingChange, ...], tuple[str, ...]]:
    """What differs between two runs, and what a reader should know of it.

    Args:
        base: the one.
        new: the other.
        unprofiled: whether latencies are those of unprofiled passes, on which the profiler has no say.

    Returns:
        Changes, those that forbid a judgement first, and sentences for the comparison's notes.
    """
    before, after = settings_of(base), settings_of(new)
    notes = []
    without = [side.label for side in (base, new) if side.manifest is None]
    if without:
        notes.append(
            f"No run.json tells how {' and '.join(without)} {'was' if len(without) == 1 else 'were'} made: whether model, inputs, "
            "versions and clocks differ is not known."
        )
    # A side without a manifest differs in everything that one records: that is said once, and not as rows.
    names = before.keys() & after.keys() if without else {**before, **after}.keys()
    ordered = [key for key in {**before, **after} if key in names]
    changes = [
        SettingChange(group, name, values, bool(because), because)
        for group, name in ordered
        if (values := (before.get((group, name)), after.get((group, name))))[0] != values[1]
        for because in (_because(base, new, group, name, values, unprofiled=unprofiled),)
    ]
    if (text := _alike(base, new, changes)) is not None:
        notes.append(text)
    changes.sort(key=lambda change: (not change.forbids, _ORDER.index(change.group)))
    return tuple(changes), tuple(notes)


def _because(
    base: Side, new: Side, group: SettingGroup, name: str, values: tuple[str | None, str | None], *, unprofiled: bool
) -> str:
    """Why a setting forbids to put a difference down to the code; empty: it does not."""
    if None in values:  # what a side does not record may be the same
        return ""
    rule = _RULES.get((group, name))
    if rule is not None:
        return rule
    if group == "tool" and not unprofiled and name in ("profiler", "collector", "ranges", "preset", "nsys"):
        return "these latencies hold the profiler's cost, which another profiler or other ranges change"
    if (group, name) == ("inputs", "prompt tokens"):
        return _other_prompts(base.manifest, new.manifest)
    if (group, name) == ("inputs", "tokens to generate"):
        return _other_contexts(base.manifest, new.manifest)
    if group == "clocks" and "clock" in name:
        return _other_clocks(base.manifest, new.manifest, name)
    return ""


_RULES: Final[dict[tuple[SettingGroup, str], str]] = {
    ("device", "device"): "another device takes another time for the same code",
    ("device", "ran on a CPU"): "a CPU takes another time than a GPU for the same code",
    ("model", "model"): "another model does other work",
    ("model", "parameters"): "a model of another size does other work",
    ("model", "layers"): "a model with more layers does more work",
    ("model", "width"): "a wider model does more work",
    ("inputs", "batch"): "a step of another batch does other work",
}


def _tokens(manifest: RunManifest) -> list[int]:
    return [prompt.prompt_tokens for prompt in manifest.prompts]


def _other_prompts(base: RunManifest | None, new: RunManifest | None) -> str:
    if base is None or new is None or not base.prompts or not new.prompts:
        return ""
    shapes = [{(row.tiles, row.image_tokens, row.prompt_tokens) for row in side.prompts} for side in (base, new)]
    if shapes[0] == shapes[1]:
        return ""
    before, after = statistics.median(_tokens(base)), statistics.median(_tokens(new))
    apart = abs(after / before - 1) if before else 0.0
    if apart <= INPUT_LIMIT:
        return ""
    return f"the median prompt has {before:g} tokens on the base and {after:g} on the new side ({ratio(apart)} apart): other work"


def _other_contexts(base: RunManifest | None, new: RunManifest | None) -> str:
    """Attention reads a longer cache the more tokens are generated; matters where that moves the mean context."""
    if base is None or new is None or not base.prompts or not new.prompts:
        return ""
    contexts = [statistics.median(_tokens(manifest)) + manifest.request.max_new_tokens / 2 for manifest in (base, new)]
    apart = abs(contexts[1] / contexts[0] - 1)
    if apart <= 2 * CLOCK_LIMIT:
        return ""
    return f"the mean context of a step is {contexts[0]:,.0f} tokens on the base and {contexts[1]:,.0f} on the new side: other work"


def _other_clocks(base: RunManifest | None, new: RunManifest | None, name: str) -> str:
    """By the highest clock that was read: a device that idles when it is read has a low one whatever it ran at."""
    if base is None or new is None:
        return ""
    of: Callable[[DeviceState], int | None] = (
        (lambda state: state.sm_clock_mhz) if name.startswith("SM") else (lambda state: state.memory_clock_mhz)
    )
    before, after = _highest(base.device_states, of), _highest(new.device_states, of)
    if before is None or after is None or abs(after / before - 1) <= CLOCK_LIMIT:
        return ""
    return f"at most {before} MHz were read on the base and {after} MHz on the new side, more than {ratio(CLOCK_LIMIT)} apart"


def _highest(states: Sequence[DeviceState], of: Callable[[DeviceState], int | None]) -> int | None:
    return max((clock for state in states if (clock := of(state))), default=None)


def _alike(base: Side, new: Side, changes: Sequence[SettingChange]) -> str | None:
    """Say that other pages may be compared, where they may."""
    names = {change.name for change in changes if change.group == "inputs"}
    if not names & {"pages", "their contents"} or any(change.forbids for change in changes if change.group == "inputs"):
        return None
    if base.manifest is None or new.manifest is None or not base.manifest.prompts or not new.manifest.prompts:
        return "The pages differ, and how many tokens they become is not recorded: whether they are the same work is not known."
    return (
        f"The pages differ ({_prompts(base.manifest)} tokens against {_prompts(new.manifest)}), but they are alike in size: "
        "times per unit can be compared."
    )
