"""Everything that can be asked of a run beyond its request, each option declared once.

A field of `Settings` is an option of ``dsocr-profile run`` and ``submit``, a part of ``plan.json`` and an entry of
``run.json``. All three are made from the declaration here: a new option is a new field, and the code that acts on it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen, validators

from analysis.domain.entities import Dtype
from analysis.domain.manifest import Collector, DecodeMode
from runner.plan.options import Panel, option, variable_names

__all__ = ["FINISH_S", "AnnotationLevel", "CollectorChoice", "InputMode", "Settings"]

FINISH_S: Final = 600.0
"""How long a profiler may take to write its report after the program's end, where nobody asks for another time."""

AnnotationLevel: TypeAlias = Literal["stages", "modules", "operators"]
InputMode: TypeAlias = Literal["tiny", "small", "base", "large", "gundam", "native", "text"]
"""``native``: the model's own processor chooses sizes; ``text``: it reads no images."""
CollectorChoice: TypeAlias = Literal["auto", Collector]

_RUN: Final[Panel] = "The run"
_MODEL: Final[Panel] = "The model"
_PROFILER: Final[Panel] = "The profiler"


@frozen
class Settings:
    """What is asked of a run beyond its request, as it was asked: ``None`` and ``auto`` are resolved by the plan."""

    # -- the run ----------------------------------------------------------------------------------------------------
    batch_size: int = option(1, "Copies of each prompt at once.", _RUN, validator=validators.ge(1))
    warmup_passes: int = option(
        1, "Passes before anything is measured.", _RUN, flag="--warmup", validator=validators.ge(0)
    )
    capture_passes: int = option(1, "Passes inside the capture.", _RUN, validator=validators.ge(1))
    ignore_eos: bool = option(False, "Always generate --max-new-tokens, so that all runs have equal length.", _RUN)
    seed: int = option(0, "Seed of random weights.", _RUN)
    decode_mode: DecodeMode = option(
        "eager",
        "Launch every kernel, on a cache that grows or on a static one, or replay a CUDA graph of the latter.",
        _RUN,
        flag="--decode",
    )
    measure_energy: bool = option(
        False,
        "Measure joules per page and per output token of each stage, in loops of 2 s outside the profiler.",
        _RUN,
        flag="--energy",
    )
    timeout_s: float | None = option(
        None,
        "Seconds for the whole run, waiting for the device included; what was captured by then is still exported.",
        _RUN,
        flag="--timeout",
        metavar="SECONDS",
        validator=validators.optional(validators.gt(0)),
    )
    grace_s: float = option(
        10.0,
        "Seconds that the program may take to end after SIGTERM.",
        _RUN,
        flag="--grace",
        metavar="SECONDS",
        validator=validators.gt(0),
    )
    finish_s: float = option(
        FINISH_S,
        "Seconds that nsys may take to write its report after the program's end; one that does nothing gets 60.",
        _RUN,
        flag="--finish",
        metavar="SECONDS",
        validator=validators.gt(0),
    )

    dpi: int = option(
        150,
        "Dots per inch at which pages of PDF files are rendered.",
        _RUN,
        validator=validators.and_(validators.ge(36), validators.le(1200)),
    )

    # -- the model --------------------------------------------------------------------------------------------------
    input_mode: InputMode | None = option(None, "How a page is shown to the model (default: the model's own).", _MODEL)
    prompt: str | None = option(None, "Text prompt (default: the model's own).", _MODEL, metavar="TEXT")
    dtype: Dtype | None = option(None, "Of weights and activations (default: bf16 on a GPU, fp32 on a CPU).", _MODEL)
    attn_implementation: str | None = option(
        None, "Attention implementation (default: sdpa).", _MODEL, flag="--attn", metavar="sdpa|eager|…"
    )
    experts_implementation: str | None = option(
        None,
        "Experts implementation (default: the model's own).",
        _MODEL,
        flag="--experts",
        metavar="grouped_mm|eager|…",
    )
    trust_remote_code: bool = option(False, "Run code that comes with a checkpoint.", _MODEL)
    random_weights: bool = option(
        False, "Make the weights up: a folder with config.json is enough. Times stay, texts mean nothing.", _MODEL
    )
    tensor_parallel: int = option(
        1,
        "Processes, each with a GPU of its own, that share every layer of the model.",
        _MODEL,
        validator=validators.ge(1),
    )
    measure_peak: bool = option(
        False, "Measure what a matrix product and a copy reach on the device; always done on a CPU.", _MODEL
    )

    # -- the profiler -----------------------------------------------------------------------------------------------
    collector: CollectorChoice = option("auto", "What records the run.", _PROFILER)
    preset: str = option("default", "What nsys collects; docs/capture.md describes them.", _PROFILER, metavar="NAME")
    annotation_level: AnnotationLevel | None = option(
        None, "How much is marked with ranges (default: what the preset wants).", _PROFILER, flag="--annotations"
    )
    nsys: str | None = option(
        None, "The nsys to use (default: $NSYS, else the newest usable one).", _PROFILER, metavar="PATH"
    )
    nsys_args: tuple[str, ...] = option(
        (), "Passed to nsys as it is; may be repeated.", _PROFILER, flag="--nsys-arg", metavar="--OPTION=VALUE"
    )
    keep_env: tuple[str, ...] = option(
        (), "Name of an environment variable that the program needs; may be repeated.", _PROFILER, metavar="NAME",
        validator=variable_names,
    )  # fmt: skip
    keep_report: bool = option(
        False, "Keep the .nsys-rep even if nsys stored other processes' environments in it.", _PROFILER
    )
