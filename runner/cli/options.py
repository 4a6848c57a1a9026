"""Options that several commands have, and those that are made from a record of settings."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.domain.errors import RequestError
from runner.collectors.nsys.presets import preset_names
from runner.plan.options import Option, options_of
from runner.plan.settings import Settings

__all__ = ["AsJson", "Model", "NoHistory", "Nsys", "Out", "RunId", "StoreAt", "from_options", "with_settings"]

Out = Annotated[Path, typer.Option("--out", help="Folder that gets one folder per run.", rich_help_panel="The run")]
Nsys = Annotated[
    str | None,
    typer.Option("--nsys", metavar="PATH", help="The nsys to use (default: $NSYS, else the newest usable one)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")]
RunId = Annotated[
    str,
    typer.Argument(
        help="A run of --out by its id, its beginning or `latest`; or the path of a run's folder, such as ./FOLDER.",
        metavar="RUN",
    ),
]
NoHistory = Annotated[
    bool,
    typer.Option("--no-history", help="Do not record the run in the history.", rich_help_panel="The run"),
]
StoreAt = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Where the history is (default: $DSOCR_STORE, else history.sqlite in --out).",
        metavar="FILE|URL",
        rich_help_panel="The run",
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        help="Preset (dsocr-profile models), ./folder of a checkpoint, or cached Hugging Face id.",
        metavar="PRESET|FOLDER|ID",
        autocompletion=lambda incomplete: _beginning(model_names)(incomplete),
    ),
]


def with_settings(record: type[Any] = Settings) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a record, in place of its parameter ``settings`` that takes the whole record.

    Args:
        record: `Settings`, or a record made like it.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = options_of(record)

        @functools.wraps(command)
        def with_options(**given: Any) -> None:
            command(settings=from_options(record, {option.name: given.pop(option.name) for option in options}), **given)

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own if parameter.name != "settings"
        ]
        parameters += [_parameter(option) for option in options]
        # typer reads both; the annotations are in the signature as objects already.
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_options

    return decorate


def from_options(record: type[Any], given: Mapping[str, Any]) -> Any:
    """Make a record of settings from what typer parsed.

    Raises:
        RequestError: a value is out of its range; the option is named as the user knows it.
    """
    flags = {option.name: option.flag for option in options_of(record)}
    try:
        return record(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    except ValueError as error:
        # attrs' validators begin with the field's name in quotes.
        message = re.sub(r"^'(\w+)'", lambda match: flags.get(match[1], match[0]), str(error.args[0]))
        raise RequestError(message) from error


def model_names() -> tuple[str, ...]:
    """Names of the model presets, for shells that complete words."""
    from runner.child.models.registry import PRESETS

    return tuple(PRESETS)


def _beginning(names: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """What a shell offers for the beginning of a word."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _parameter(option: Option) -> inspect.Parameter:
    """Make the parameter of a command from which typer makes the option."""
    kind, default = option.type, option.default
    if typing.get_origin(kind) is tuple:
        kind, default = list[str], list(default)
    metavar, complete = option.metavar, None
    if option.name == "preset":
        metavar, complete = "|".join(preset_names()), _beginning(preset_names)
    info = typer.Option(
        option.flag, help=option.help, rich_help_panel=option.panel, metavar=metavar, autocompletion=complete
    )
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )
