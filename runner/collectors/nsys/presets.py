"""Profiler presets: ``nsys_configs/*.toml``, each a set of nsys options by nsys' own names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, cast, get_args

from attrs import field, frozen, validators

from analysis.domain.errors import CaptureError, RequestError
from analysis.domain.manifest import DecodeMode
from analysis.domain.names import shortened
from analysis.domain.reading import toml_of
from runner.collectors.nsys.tool import NsysTool
from runner.plan.settings import AnnotationLevel

__all__ = ["Preset", "ResolvedOptions", "load_preset", "preset_names", "resolve_options", "resolve_with"]

_FOLDER: Final = "runner.nsys_configs"
_GRAPH_TRACE: Final = "cuda-graph-trace"
_SHOWN: Final = 200
"""Characters of what a validator says: it repeats the value."""
_UNKNOWN: Final = ("drop", "refuse")


@frozen
class Preset:
    """What to collect."""

    name: str
    description: str
    annotations: AnnotationLevel = field(validator=validators.in_(get_args(AnnotationLevel)))
    """How much the profiled program marks with ranges."""
    unknown: str = field(validator=validators.in_(_UNKNOWN))
    """What to do with an option that the nsys at hand does not know."""
    options: dict[str, str]
    """nsys' long option names → values, in order."""
    renamed: dict[str, str] = field(factory=dict)
    """Option → its name in older versions."""
    refuse: tuple[str, ...] = ()
    """Options without which the preset makes no sense, whatever ``unknown`` says."""
    needs_gpu: bool = False


@frozen
class ResolvedOptions:
    """A preset's options, as one nsys understands them."""

    options: dict[str, str]
    warnings: tuple[str, ...] = ()


def preset_names() -> tuple[str, ...]:
    """Names of all presets, ``default`` first."""
    names = sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(names, key=lambda name: (name != "default", name)))


def load_preset(name: str) -> Preset:
    """Read a preset.

    Raises:
        RequestError: there is none of that name (the nearest ones are named), or its file is not valid.
    """
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise RequestError(f"preset {name!r} is unknown; did you mean {', '.join(near)}?")
    return parse_preset(name, (_folder() / f"{name}.toml").read_bytes())


def parse_preset(name: str, text: str | bytes) -> Preset:
    """Read a preset from TOML text.

    Raises:
        RequestError: not TOML, an unknown or missing key, or a value of the wrong type.
    """
    source = f"preset {name}"
    table = toml_of(text, source)
    _only(table, {"description", "annotations", "unknown", "options", "renamed", "refuse"}, source)
    refuse = table.get("refuse", {})
    _only(refuse, {"options", "needs_gpu"}, f"{source}, [refuse]")
    options = _texts(table.get("options"), f"{source}, [options]")
    renamed = _texts(table.get("renamed", {}), f"{source}, [renamed]")
    needed = refuse.get("options", [])
    for option in (*renamed, *needed):
        if option not in options:
            raise RequestError(f"{source}: {option} is named in [renamed] or [refuse] but not in [options]")
    try:
        return Preset(
            name=name,
            description=str(table["description"]),
            annotations=cast(AnnotationLevel, table["annotations"]),
            unknown=table["unknown"],
            options=options,
            renamed=renamed,
            refuse=tuple(needed),
            needs_gpu=bool(refuse.get("needs_gpu", False)),
        )
    except KeyError as error:
        raise RequestError(f"{source}: {error.args[0]} is missing") from error
    except ValueError as error:
        raise RequestError(f"{source}: {shortened(str(error.args[0]), _SHOWN)}") from error


def resolve_options(
    preset: Preset, tool: NsysTool, *, device: str, decode_mode: DecodeMode = "eager"
) -> ResolvedOptions:
    """Turn a preset into options that ``tool`` knows, for a run on ``device``.

    With a GPU, collection starts and stops with cudaProfilerStart and cudaProfilerStop around the measured passes, and
    the program goes on afterwards. Without one nothing would ever start it, so the whole program is collected.

    Where the preset does not say how CUDA graphs are traced, they are traced node by node if decode is replayed from
    one, since all of its kernels are inside, and as a whole otherwise.

    Raises:
        RequestError: the preset needs a GPU and the device is none.
        CaptureError: this nsys lacks an option or a traced interface that the preset insists on.
    """
    on_gpu = device.startswith("cuda")
    if preset.needs_gpu and not on_gpu:
        raise RequestError(f"preset {preset.name} needs a GPU, and the device is {device}")
    graphs = "node" if decode_mode == "cuda-graph" else "graph"
    capture = {"capture-range": "cudaProfilerApi", "capture-range-end": "stop"} if on_gpu else {}
    return resolve_with(preset, tool, capture, graphs=graphs)


def resolve_with(
    preset: Preset, tool: NsysTool, more: Mapping[str, str], *, graphs: str, optional: Mapping[str, str] | None = None
) -> ResolvedOptions:
    """Turn a preset and further options into options that ``tool`` knows.

    Args:
        preset: what to collect.
        tool: the nsys.
        more: long name → value, set over the preset's; this nsys must know them.
        graphs: how CUDA graphs are traced where the preset does not say.
        optional: as ``more``, but left out, with a warning, where this nsys does not know them.

    Raises:
        CaptureError: this nsys lacks an option or a traced interface that the preset or ``more`` insists on.
    """
    wanted = {**preset.options, _GRAPH_TRACE: preset.options.get(_GRAPH_TRACE, graphs), **(optional or {}), **more}
    essential = {*preset.refuse, *more}
    options: dict[str, str] = {}
    warnings: list[str] = []
    for name, value in wanted.items():
        names = (name, preset.renamed.get(name))
        known = next((candidate for candidate in names if candidate in tool.profile_options), None)
        if known is None:
            _refuse_or_warn(f"--{name}", preset, tool, essential=name in essential, warnings=warnings)
            continue
        if name == "trace":
            value = _known_traces(value, preset, tool, warnings)
        options[known] = value
    return ResolvedOptions(options, tuple(warnings))


def _folder() -> Traversable:
    try:
        return resources.files(_FOLDER)
    except ModuleNotFoundError:  # run from a source tree that is not installed: the folder lies beside the package
        return Path(__file__).parents[3] / "nsys_configs"


def _known_traces(value: str, preset: Preset, tool: NsysTool, warnings: list[str]) -> str:
    known = tool.trace_values()
    traced = []
    for interface in value.split(","):
        if known and interface not in known:
            _refuse_or_warn(
                f"--trace={interface}", preset, tool, essential=interface in ("cuda", "nvtx"), warnings=warnings
            )
        else:
            traced.append(interface)
    return ",".join(traced)


def _refuse_or_warn(what: str, preset: Preset, tool: NsysTool, *, essential: bool, warnings: list[str]) -> None:
    if essential or preset.unknown == "refuse":
        raise CaptureError(
            f"preset {preset.name} needs {what}, which nsys {tool.version} ({tool.path}) does not know; "
            "use a newer nsys (--nsys PATH) or another preset"
        )
    warnings.append(f"nsys {tool.version} does not know {what}: left out")


def _only(table: Mapping[str, Any], allowed: set[str], source: str) -> None:
    for key in table:
        if key not in allowed:
            raise RequestError(f"{source}: unknown key {key}")


def _texts(table: object, source: str) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise RequestError(f"{source}: must be a table of texts")
    return dict(table)
