"""Everything that a user may state about a trace, in one record: for each command, and for `analysis.load`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from attrs import Attribute, field, frozen

from analysis.domain.errors import RequestError

if TYPE_CHECKING:
    from analysis.report import ReportOptions

__all__ = ["AnalysisOptions", "InputMode", "option_name"]

InputMode: TypeAlias = Literal["tiny", "small", "base", "large", "gundam"]
_INPUT_MODES: Final[tuple[InputMode, ...]] = get_args(InputMode)


def option_name(field_name: str) -> str:
    """Name of a field on the command line: ``peak_tflops`` is ``--peak-tflops``."""
    return f"--{field_name.replace('_', '-')}"


def _positive(instance: Any, attribute: Attribute[Any], value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise RequestError(f"{option_name(attribute.name)} must be a positive number, not {value:g}")


def _not_negative(instance: Any, attribute: Attribute[Any], value: int | None) -> None:
    if value is not None and value < 0:
        raise RequestError(f"{option_name(attribute.name)} must be 0 or more, not {value}")


def _known_mode(instance: Any, attribute: Attribute[Any], value: str | None) -> None:
    if value is not None and value not in _INPUT_MODES:
        raise RequestError(
            f"{option_name(attribute.name)}: unknown mode {value!r}; choose from {', '.join(_INPUT_MODES)}"
        )


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)


@frozen(kw_only=True)
class AnalysisOptions:
    """What the user states about a trace. Every command takes its options from these fields.

    Raises:
        RequestError: a value is out of its bounds, or one is given that means nothing without another.
    """

    manifest: Path | None = field(default=None, converter=_path)
    """``run.json`` of the run, if it lies neither beside nor in the trace."""
    cross_thread: bool = False
    """Attribute launches outside all ranges of their thread to those open on another thread of the process."""
    accept_lossy: bool = False
    """Go on with a capture that its own evidence calls unfit."""
    rank: int | None = field(default=None, validator=_not_negative)
    """Of a trace that holds several: only this one, counted from 0; None: all."""
    skip_first: int = field(default=0, validator=_not_negative)
    """Leave the first so many instances of each stage out of verdict and medians."""
    model: str | None = None
    """Preset by whose closed form FLOPs and bytes are counted, for a trace without manifest."""
    config: Path | None = field(default=None, converter=_path)
    """A model's ``config.json`` (Hugging Face), by which FLOPs and bytes of each stage and of an engine's steps are counted."""
    input_mode: InputMode | None = field(default=None, validator=_known_mode)
    """With ``model``: how its images were cut; None: the preset's own default (``gundam`` at full size)."""
    tiles: int | None = field(default=None, validator=_not_negative)
    """With ``model``: local views per image; None: 0."""
    prompt_tokens: int | None = field(default=None, validator=_positive)
    """With ``model`` or ``config``: positions of each prefill, image and text tokens together."""
    peak_tflops: float | None = field(default=None, validator=_positive)
    """Dense peak of the model's dtype, 10^12 FLOP/s."""
    peak_gbps: float | None = field(default=None, validator=_positive)
    """Peak memory bandwidth, 10^9 bytes/s."""
    kernel_rules: Path | None = field(default=None, converter=_path)
    """Rules that classify kernels by name, tried before ours."""
    vocabulary: str | None = None
    """What range names mean: ``dsocr``, ``vllm``, ``sglang``, ``tensorrt-llm``, ``plain``, or a TOML file; None: the one that
    most ranges match."""

    def __attrs_post_init__(self) -> None:
        needs_model = {"input_mode": self.input_mode, "tiles": self.tiles}
        if self.config is None:
            needs_model["prompt_tokens"] = self.prompt_tokens
        if self.model is not None and self.config is not None:
            raise RequestError("--model and --config both say what the model is; give one of them")
        stated = [option_name(name) for name, value in needs_model.items() if value is not None]
        if self.model is None and stated:
            needed = "--model or --config" if stated == ["--prompt-tokens"] else "--model"
            raise RequestError(
                f"{', '.join(stated)}: of no use without {needed}, whose costs it would change; name a model"
            )
        if self.model is not None and self.prompt_tokens is None:
            raise RequestError("--model needs --prompt-tokens, the positions of each prefill (image and text tokens)")

    def report_options(self) -> ReportOptions:
        """What `analysis.report.assemble` takes."""
        from analysis.efficiency.config_costs import ConfigRequest
        from analysis.efficiency.decoder_config import read_decoder_config
        from analysis.efficiency.utilisation import CostRequest, PeakOverrides
        from analysis.report import ReportOptions

        cost: CostRequest | ConfigRequest | None = None
        if self.config is not None:
            cost = ConfigRequest(read_decoder_config(self.config), self.prompt_tokens)
        if self.model is not None and self.prompt_tokens is not None:
            cost = CostRequest(self.model, self.input_mode, self.tiles or 0, self.prompt_tokens)
        return ReportOptions(
            cross_thread=self.cross_thread,
            peaks=PeakOverrides(self.peak_tflops, self.peak_gbps),
            cost=cost,
            kernel_rules=self.kernel_rules,
            skip_first=self.skip_first,
        )
