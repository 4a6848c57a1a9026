"""How a record of settings declares its options, so that a command line can be made from it."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, TypeVar

from attrs import field, fields, frozen

from analysis.domain.redaction import redacted

__all__ = ["Option", "Panel", "option", "options_of", "variable_names"]

Panel: TypeAlias = Literal["The run", "The model", "The capture", "A server", "The profiler"]

T = TypeVar("T")

_KEY: Final = "dsocr option"


@frozen
class Option:
    """How one setting is asked for on a command line."""

    name: str
    """Of the field."""
    flag: str
    """Such as ``--decode``; may be given several times where the type is a tuple."""
    type: Any
    """As annotated: int, str, bool, a Literal, one of them or None, or a tuple of texts."""
    default: Any
    help: str
    panel: Panel
    """The group of options that it is shown in."""
    metavar: str | None = None
    """What to write there, where the type does not say it: ``NAME``."""


@frozen
class _Declaration:
    flag: str | None
    help: str
    panel: Panel
    metavar: str | None


def option(
    default: T,
    help: str,
    panel: Panel,
    *,
    flag: str | None = None,
    metavar: str | None = None,
    validator: Callable[[Any, Any, Any], None] | None = None,
) -> T:
    """Declare a setting.

    Args:
        default: what it is where nobody asks for it.
        help: one sentence for ``--help``.
        panel: the group that it is shown in.
        flag: on the command line; None: the field's name with dashes.
        metavar: what to write there; None: what the type says.
        validator: attrs' validator; its message is shown with the flag in place of the field's name.
    """
    made: T = field(default=default, validator=validator, metadata={_KEY: _Declaration(flag, help, panel, metavar)})
    return made


def options_of(record: type[Any]) -> tuple[Option, ...]:
    """List the options that a record of settings declares, in order.

    Args:
        record: `Settings`, or a record made like it; every field must have been declared with `option`.
    """
    kinds = typing.get_type_hints(record)
    declared = []
    for attribute in fields(record):
        declaration: _Declaration = attribute.metadata[_KEY]
        flag = declaration.flag or "--" + attribute.name.replace("_", "-")
        declared.append(
            Option(
                attribute.name,
                flag,
                kinds[attribute.name],
                attribute.default,
                declaration.help,
                declaration.panel,
                declaration.metavar,
            )
        )
    return tuple(declared)


def variable_names(record: Any, attribute: Any, names: tuple[str, ...]) -> None:
    """Attrs validator: names of variables, and not their values too, which a plan would keep."""
    for name in names:
        if "=" in name or redacted(name) != name:
            raise ValueError(
                f"'{attribute.name}' must be the name of a variable alone, such as HF_TOKEN: its value is taken from your "
                "environment"
            )
