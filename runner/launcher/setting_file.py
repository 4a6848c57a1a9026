"""What a run is to be, from a file: what an earlier run left, a request, or options of ``run`` by their names."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen, validators

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json_file, from_plain
from analysis.domain.errors import RequestError
from analysis.domain.reading import LARGEST_SETTINGS, json_of, read_bounded
from runner.plan.options import options_of
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings

__all__ = ["RunSetting", "read_setting"]

_PLAN: Final = "plan.json"
_UNLESS_ASKED: Final = LLMProfileRequest(model_path="any", input_dir="/any")


@frozen
class RunSetting:
    """What the command line of ``run`` can say."""

    model: str | None = None
    """Preset, folder or id; None: the default one."""
    images: str | None = None
    """File or folder; None: generated pages."""
    thorough: bool = False
    repeats: int = field(default=_UNLESS_ASKED.repeats, validator=validators.ge(1))
    max_new_tokens: int = field(default=_UNLESS_ASKED.max_new_tokens, validator=validators.ge(1))
    device: str = "auto"
    settings: Settings = field(factory=Settings)


def read_setting(path: Path) -> RunSetting:
    """Read a setting.

    Args:
        path: a run folder, its plan.json or run.json; an LLMProfileRequest; or an object of options of ``run``, such as
            ``{"model": "deepseek-ocr", "decode": "cuda-graph", "max-new-tokens": 32}``. Relative ``images`` lie beside it.

    Raises:
        RequestError: it is none of them, or names an option that does not exist (the nearest one is named).
    """
    if path.is_dir():
        path = path / _PLAN
    document = _object(path)
    if "run_id" in document and "manifest_version" in document:
        path = path.with_name(_PLAN)
        if not path.is_file():
            raise RequestError(f"{path}: is not there; a run's settings are in the plan.json beside its run.json")
        document = _object(path)
    if "run_id" in document:
        plan = from_json_file(RunPlan, path)
        return _of_request(plan.request, plan.settings)
    if "model_path" in document:
        return _of_request(from_json_file(LLMProfileRequest, path), Settings())
    return _of_options(document, path)


def _of_request(request: LLMProfileRequest, settings: Settings) -> RunSetting:
    return RunSetting(
        model=request.model_path,
        images=request.input_dir,
        repeats=request.repeats,
        max_new_tokens=request.max_new_tokens,
        device=request.device,
        settings=settings,
    )


def _of_options(document: Mapping[str, Any], path: Path) -> RunSetting:
    own = ("model", "images", "thorough", "repeats", "max_new_tokens", "device")
    fields: dict[str, str] = {}
    for option in options_of(Settings):
        fields[option.name] = option.name
        fields[_plain(option.flag)] = option.name
    of_run: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for key, value in document.items():
        name = _plain(key)
        if name in own:
            of_run[name] = value
        elif name in fields:
            settings[fields[name]] = value
        else:
            near = get_close_matches(name, [*own, *fields], n=1, cutoff=0.4)
            said = f"; did you mean {near[0].replace('_', '-')}?" if near else "; `dsocr-profile run --help` lists them"
            raise RequestError(f"{path}: no option of run is called {key!r}{said}")
    if isinstance(of_run.get("images"), str):
        of_run["images"] = str(path.parent.absolute() / of_run["images"])
    return from_plain(RunSetting, {**of_run, "settings": settings}, source=str(path))


def _plain(key: str) -> str:
    return key.removeprefix("--").replace("-", "_")


def _object(path: Path) -> dict[str, Any]:
    document = json_of(read_bounded(path, LARGEST_SETTINGS), str(path))
    if not isinstance(document, dict):
        raise RequestError(f"{path}: is no object of settings")
    return document
