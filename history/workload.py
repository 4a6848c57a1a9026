"""What a run worked on: which runs may be set against each other, and what else differs between them.

Two runs did the same work if model, weights' kind, precision, device, ranks, batch, inputs and the number of tokens asked for
are the same. Inputs are the same if their images have the same content (by hash, in the same order, wherever the files lie),
were shown in the same mode and tiles and became the same number of tokens, under the same text prompt. What a run cannot tell
makes its work unknown, and unknown is equal to nothing.

How the work was done – decode mode, implementations, versions, commit – is no part of it: that is what one changes to become
faster, and `changes` names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from attrs import asdict, frozen

from history.records import RunRow

__all__ = ["Workload", "changes", "workload_of"]

_OF_THE_WORK: Final = frozenset(
    {"prompt", "ignore_eos", "input_mode", "dtype", "dpi", "random_weights", "tensor_parallel"}
)
"""Options that are told by the work itself."""
_OF_THE_CAPTURE: Final = frozenset(
    {
        "timeout_s",
        "grace_s",
        "keep_env",
        "keep_report",
        "nsys",
        "nsys_args",
        "measure_peak",
        "measure_energy",
        "preset",
        "store",
        "history",
    }
)
"""Options of how a run is watched, ended and recorded, on which nothing depends that is timed without the profiler."""
_OF_THE_MODEL: Final = frozenset({"attn_implementation", "experts_implementation"})
"""Options of which the model tells what became of them."""
_OF_THE_PROFILER: Final = frozenset({"nsys", "nvtx", "driver_cuda"})
"""Versions that unprofiled times do not depend on, or that another one tells."""
_CPU: Final = "cpu"


@frozen
class Workload:
    """What a run worked on. Runs of equal workloads may be compared, and only those."""

    model: str
    model_path: str
    weights: str
    """``random`` or ``checkpoint``."""
    dtype: str
    device: str
    """The GPU's name, or ``cpu``."""
    ranks: int
    batch_size: int
    inputs: int
    """How many there are."""
    inputs_hash: str
    prompt: str | None
    """Text; None: the model's own."""
    max_new_tokens: int
    ignore_eos: bool
    """Whether it always generates so many."""

    @property
    def key(self) -> str:
        """A name for it, the same on every machine: 12 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def workload_of(run: RunRow) -> Workload | None:
    """What a run worked on; None: it does not tell all of it (another program's run, or it ended before its model was loaded)."""
    device = _CPU if run.device == _CPU else run.gpu_name
    if (
        run.model is None
        or run.model_path is None
        or run.weights is None
        or run.dtype is None
        or device is None
        or run.batch_size is None
        or run.inputs is None
        or run.inputs_hash is None
        or run.max_new_tokens is None
    ):
        return None
    options = run.options or {}
    prompt = options.get("prompt")
    return Workload(
        model=run.model,
        model_path=run.model_path,
        weights=run.weights,
        dtype=run.dtype,
        device=device,
        ranks=run.ranks or 1,
        batch_size=run.batch_size,
        inputs=run.inputs,
        inputs_hash=run.inputs_hash,
        prompt=prompt if isinstance(prompt, str) else None,
        max_new_tokens=run.max_new_tokens,
        ignore_eos=bool(options.get("ignore_eos", False)),
    )


def changes(before: RunRow, after: RunRow) -> tuple[str, ...]:
    """What differs in how two runs did the same work, in words, such as ``decode eager → cuda-graph``.

    What only the profiler sees – preset, collector, its version – is left out, for unprofiled times do not depend on it. So is
    what one of the two did not record.
    """
    told = [
        _change("decode", before.decode_mode, after.decode_mode),
        _change("attention", before.attn_implementation, after.attn_implementation),
        _change("experts", before.experts_implementation, after.experts_implementation),
    ]
    told += _differing(before.options or {}, after.options or {}, _OF_THE_WORK | _OF_THE_CAPTURE | _OF_THE_MODEL)
    told += _differing(before.versions or {}, after.versions or {}, _OF_THE_PROFILER)
    told.append(_change("commit", _short(before.git_commit), _short(after.git_commit)))
    return tuple(text for text in told if text)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any], covered: frozenset[str]) -> list[str]:
    names = [name for name in after if name in before and name not in covered and not name.startswith("overhead_")]
    return [_change(name.replace("_", " "), before[name], after[name]) for name in names]


def _change(name: str, before: object, after: object) -> str:
    if before == after:
        return ""
    return f"{name} {'default' if before is None else before} → {'default' if after is None else after}"


def _short(commit: str | None) -> str | None:
    if commit is None:
        return None
    revision, plus, rest = commit.partition("+")
    return f"{revision[:9]}{plus}{rest}"
