"""The options that commands share, each written once, and how a command gets them: as one `AnalysisOptions`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import typer
from attrs import NOTHING, fields_dict, resolve_types

from analysis.api.options import AnalysisOptions, option_name

__all__ = [
    "OF_A_COMPARISON",
    "OF_A_REPORT",
    "OF_A_TABLE",
    "SHARED",
    "StageChoice",
    "TableFormat",
    "TraceFile",
    "with_options",
]

StageChoice: TypeAlias = Literal["prefill", "mixed", "decode", "empty", "step"]
TableFormat: TypeAlias = Literal["text", "markdown", "md", "csv", "json"]
"""``text``: aligned for people; ``md`` is short for ``markdown``; the others hold numbers unrounded."""

TraceFile = Annotated[
    # readable=False: whether it can be read is for the reader to say, in one line.
    Path,
    typer.Argument(
        metavar="TRACE",
        readable=False,
        help="What `nsys export --type sqlite` wrote, also as .xz, .gz or .zst, a run folder, or a .nsys-rep, which nsys then "
        "exports.",
    ),
]


_DESCRIBED: Final[dict[str, dict[str, Any]]] = {
    "manifest": {"readable": False, "help": "run.json of the run, if it lies neither beside nor in the trace."},
    "cross_thread": {
        "help": "Attribute launches outside all ranges of their thread to those open on another thread of the process "
        "at that time."
    },
    "accept_lossy": {"help": "Go on with a capture that its own evidence calls unfit (else: exit 4)."},
    "rank": {"help": "Of a trace that holds several ranks (processes or GPUs): only this one, counted from 0."},
    "skip_first": {"help": "Leave the first N instances of each stage out of verdict and medians."},
    "model": {"help": "For a trace without manifest: count FLOPs and bytes by this preset's closed form."},
    "config": {
        "metavar": "FILE",
        "readable": False,
        "help": "The model's config.json (Hugging Face): count FLOPs and bytes of stages, and of an engine's steps, by it.",
    },
    "input_mode": {"help": "With --model: how its images were cut; default: the preset's own (gundam at full size)."},
    "tiles": {"help": "With --model: local views per image; default: 0."},
    "prompt_tokens": {"help": "With --model or --config: positions of each prefill."},
    "peak_tflops": {"help": "Dense peak of the model's dtype, 10^12 FLOP/s."},
    "peak_gbps": {"help": "Memory bandwidth, 10^9 bytes/s."},
    "vocabulary": {
        "metavar": "NAME|FILE",
        "help": "What range names mean: dsocr, vllm, sglang, tensorrt-llm, plain, or a TOML file of your own "
        "(docs/annotate.md); default: what most ranges match.",
    },
    "kernel_rules": {"readable": False, "help": "Rules of your own, tried before ours."},
}

SHARED: Final[dict[str, Any]] = {name: typer.Option(option_name(name), **said) for name, said in _DESCRIBED.items()}
"""Field of `AnalysisOptions` → its option."""

OF_A_TABLE: Final = ("manifest", "cross_thread", "accept_lossy", "rank", "vocabulary")
"""What a command takes that only adds up."""
OF_A_REPORT: Final = tuple(SHARED)
"""What a command takes that judges."""
_OF_ONE_RUN: Final = (
    "manifest", "model", "config", "input_mode", "tiles", "prompt_tokens", "peak_tflops", "peak_gbps",
)  # fmt: skip
"""What says something of one trace, or only of costs, which no comparison reads."""
OF_A_COMPARISON: Final = tuple(name for name in OF_A_REPORT if name not in _OF_ONE_RUN)
"""What a command takes that holds runs against each other."""


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the named fields of `AnalysisOptions` as options; it takes them as one record, ``options``.

    typer reads a command's parameters from its signature, so the record's place in it is taken by its fields.

    Args:
        names: fields, in the order in which --help lists them.
    """
    declared = fields_dict(resolve_types(AnalysisOptions))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(**values: Any) -> None:
            options = AnalysisOptions(**{name: values.pop(name) for name in names})
            command(options=options, **values)

        own = inspect.signature(command, eval_str=True)
        shared = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=declared[name].default if declared[name].default is not NOTHING else inspect.Parameter.empty,
                annotation=Annotated[declared[name].type, SHARED[name]],
            )
            for name in names
        ]
        others = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in own.parameters.values()
            if parameter.name != "options"
        ]
        spread = own.replace(parameters=[*others, *shared])
        call.__signature__ = spread  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in spread.parameters.values()} | {
            "return": None
        }
        return call

    return decorate
