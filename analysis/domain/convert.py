"""The one cattrs converter: records to JSON and back, losslessly and strictly.

Reading refuses unknown keys, missing keys, wrong types (no ``"3"`` for 3, no 1 for true) and numbers that are not
finite, and names the place as a JSON path: ``$.model.dtype``.

The converter is cattrs' own for JSON, and the places of faults are `cattrs.transform_error`'s. Written by hand is what
cattrs does not do:

- scalars by exact type: it calls ``int``, ``float`` and ``bool`` on whatever comes, so that "3" would be 3;
- containers from their JSON form only: it takes a string for a list of characters, and a list for an object's keys;
- unions of scalars: it passes NaN, and leaves 1 an integer where ``float | None`` is wanted;
- tuples of fixed length as lists: it leaves them tuples, so that a record's plain form would not equal its JSON's;
- words of a fault: its own say "invalid value for type, expected int" and leave out what was found.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from attrs import has
from cattrs import (
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
    transform_error,
)
from cattrs.cols import is_mapping, list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn
from cattrs.preconf.json import JsonConverter, make_converter

from analysis.domain.errors import RequestError
from analysis.domain.measures import impossible_figures
from analysis.domain.names import json_visible
from analysis.domain.reading import LARGEST_RESULT, json_of, read_bounded

__all__ = ["from_json", "from_json_file", "from_plain", "json_text", "moment_of", "to_json", "to_plain"]

T = TypeVar("T")

_MOST_FAULTS: Final = 3
"""Impossible figures that an error names: a table may hold thousands."""
_AT_ONCE: Final = 100
"""Items of a list or an object that are read before their faults are told: each of millions takes a kilobyte."""
_MOST_FIELDS: Final = 1000
"""Of an object that is a record: what has more is none, and each unknown one would be told."""
_MOST_TOLD: Final = 20
_FAULT_OF_A_FIELD = re.compile(r"'?(\w+)'? (must .+)", re.DOTALL)
"""How attrs' validators and ours begin: with the name of the attribute."""


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, found {_describe(value)}")
        return value

    return structure


def _describe(value: Any) -> str:
    names = {dict: "an object", list: "a list", type(None): "null", str: "a string", bool: "a boolean"}
    shown = "".join(islice(_ENCODER.iterencode(value[:41] if isinstance(value, str) else value), 41))
    return f"{names.get(type(value), 'the number')} {shown if len(shown) <= 40 else shown[:37] + '…'}"


_ENCODER: Final = json.JSONEncoder(default=str)


def _number(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"expected a number, found {_describe(value)}")
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {value}")
    return float(value)


def _moment(value: Any, _: Any) -> datetime:
    if type(value) is not str:
        raise TypeError(f"expected an ISO 8601 date and time, found {_describe(value)}")
    try:
        return moment_of(value)
    except ValueError as error:
        raise ValueError(f"expected an ISO 8601 date and time, found {value!r}") from error


def moment_of(text: str) -> datetime:
    """Read a moment in ISO 8601; without a zone it is in UTC.

    Raises:
        ValueError: it is none, or lies in UTC outside of the years 1 to 9999, where nothing can keep it.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} lies outside of the years 1 to 9999 in UTC") from error
    return moment


def _literal(value: Any, kind: Any) -> Any:
    for allowed in get_args(kind):
        if type(value) is type(allowed) and value == allowed:
            return value
    raise ValueError(f"expected one of {', '.join(map(repr, get_args(kind)))}, found {_describe(value)}")


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _is_plain_union(kind: Any) -> bool:
    """A union of scalars only: ``int | float | str | None``."""
    return _is_union(kind) and all(member in (int, float, str, bool, type(None)) for member in get_args(kind))


def _plain_union(value: Any, kind: Any) -> Any:
    allowed = get_args(kind)
    if type(value) in allowed:
        return _number(value, float) if type(value) is float else value
    if type(value) is int and float in allowed:
        return float(value)
    names = " or ".join("null" if member is type(None) else member.__name__ for member in allowed)
    raise TypeError(f"expected {names}, found {_describe(value)}")


def _is_long_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[-1] is ...


def _is_short_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[-1] is not ...


def _long_tuple(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    as_list = list_structure_factory(types.GenericAlias(list, get_args(kind)[:1]), converter)  # type: ignore[arg-type]

    def structure(value: Any, _: Any) -> Any:
        items: list[Any] = []
        for first in range(0, len(value), _AT_ONCE):
            try:
                items += as_list(value[first : first + _AT_ONCE], list)
            except IterableValidationError as error:
                for note in (note for fault in error.exceptions for note in getattr(fault, "__notes__", ())):
                    if isinstance(note, IterableValidationNote) and isinstance(note.index, int):
                        note.index += first
                raise
        return tuple(items)

    return structure


def _mapping(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    as_dict = mapping_structure_factory(kind, converter)

    def structure(value: Any, kind: Any) -> Any:
        items: dict[Any, Any] = {}
        pairs = iter(value.items())
        while part := dict(islice(pairs, _AT_ONCE)):
            items |= as_dict(part, kind)
        return items

    return structure


def _short_tuple(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    kinds = get_args(kind)

    def structure(value: Any, _: Any) -> Any:
        if len(value) != len(kinds):
            raise ValueError(f"expected {len(kinds)} items, found {len(value)}")
        return tuple(converter.structure(item, kind) for item, kind in zip(value, kinds, strict=True))

    return structure


def _make() -> JsonConverter:
    converter = make_converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (int, str, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(datetime, _moment)
    converter.register_unstructure_hook_func(
        _is_short_tuple, lambda items: [converter.unstructure(item) for item in items]
    )
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook_func(_is_plain_union, _plain_union)

    def record(kind: Any) -> Callable[[Any, Any], Any]:
        inner = make_dict_structure_fn(
            kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
        )

        def structure(value: Any, kind: Any) -> Any:
            if type(value) is not dict:
                raise TypeError(f"expected an object, found {_describe(value)}")
            if len(value) > _MOST_FIELDS:
                raise TypeError(f"expected an object of at most {_MOST_FIELDS:,} fields, found {len(value):,}")
            return inner(value, kind)

        return structure

    converter.register_structure_hook_factory(has, record)
    converter.register_structure_hook_factory(is_mapping, _insist_on(dict, "an object", _mapping))
    converter.register_structure_hook_factory(_is_long_tuple, _insist_on(list, "a list", _long_tuple))
    converter.register_structure_hook_factory(_is_short_tuple, _insist_on(list, "a list", _short_tuple))
    return converter


def _insist_on(plain: type, name: str, usual: Callable[[Any, Converter], Any]) -> Callable[[Any, Converter], Any]:
    """Take a container only from its JSON form: cattrs alone would take a string for a list of characters."""

    def factory(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
        inner = usual(kind, converter)

        def structure(value: Any, kind: Any) -> Any:
            if type(value) is not plain:
                raise TypeError(f"expected {name}, found {_describe(value)}")
            return inner(value, kind)

        return structure

    return factory


_converter = _make()


def to_plain(record: Any) -> Any:
    """Turn a record into dicts, lists and scalars that JSON can hold."""
    return _converter.unstructure(record)


def to_json(record: Any, *, indent: int | None = 2) -> str:
    """Write a record as JSON text, UTF-8 characters as they are.

    Raises:
        ValueError: a number is not finite.
    """
    return json_text(to_plain(record), indent=indent, spaced=True)


def json_text(plain: Any, *, indent: int | None = None, spaced: bool = False) -> str:
    r"""Write plain values as JSON text: the one form of all JSON that is written to files.

    Letters stay as they are. What acts on a terminal or turns text around in an editor (control characters, bidi marks,
    halves of surrogate pairs) becomes ``\u202e``, which reads back as it was.

    Args:
        plain: what JSON can hold.
        indent: spaces; None: everything in one line.
        spaced: with a space after each colon and comma of that line.

    Raises:
        ValueError: a number is not finite.
    """
    separators = (",", ":") if indent is None and not spaced else None
    return json_visible(json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators))


def from_json(kind: type[T], text: str | bytes, *, source: str = "the JSON text") -> T:
    """Read a record from JSON text.

    Args:
        kind: the record's class.
        text: JSON, UTF-8 if bytes.
        source: what to call the text in an error, such as its file's path.

    Raises:
        RequestError: not JSON, or not of that shape; each fault with its JSON path.
    """
    return from_plain(kind, json_of(text, source), source=source)


def from_plain(kind: type[T], plain: Any, *, source: str = "the JSON text") -> T:
    """Read a record from what JSON text holds, as `from_json` does.

    Args:
        kind: the record's class.
        plain: dicts, lists and scalars.
        source: what to call it in an error, such as its file's path.

    Raises:
        RequestError: not of that shape, or a figure is not what its name says (`analysis.domain.measures`); each fault with its
            JSON path.
    """
    try:
        record = _converter.structure(plain, kind)
    except Exception as error:
        # cattrs passes on whatever a hook or an attrs validator raised, alone or in its exception groups.
        if not isinstance(error, (ClassValidationError, IterableValidationError, TypeError, ValueError)):
            raise
        faults = _faults(error)
        more = f"; and {len(faults) - _MOST_TOLD:,} more" if len(faults) > _MOST_TOLD else ""
        raise RequestError(f"{source}: {'; '.join(faults[:_MOST_TOLD])}{more}") from error
    if wrong := impossible_figures(record):
        raise RequestError(f"{source}: {'; '.join(f'$.{fault}' for fault in wrong[:_MOST_FAULTS])}")
    return record


def from_json_file(kind: type[T], path: Path) -> T:
    """Read a record from a JSON file.

    Raises:
        RequestError: the file cannot be read or does not hold such a record.
    """
    return from_json(kind, read_bounded(path, LARGEST_RESULT), source=str(path))


def _faults(error: BaseException) -> list[str]:
    """Every fault that cattrs found, as ``path: what is wrong``."""
    faults = []
    for line in transform_error(error, format_exception=_in_words):
        # cattrs writes " @ " and the path behind our words, which may hold such signs themselves.
        below, end = json.JSONDecoder().raw_decode(line)
        path = line[end:].removeprefix(" @ ")
        faults += [f"{path}{place}: {words}" for place, words in below]
    return faults


def _in_words(error: BaseException, kind: type | None) -> str:
    """JSON of [place below the path, what is wrong] pairs."""
    if isinstance(error, ForbiddenExtraKeysError):
        return json.dumps([[f".{name}", "unknown field"] for name in sorted(error.extra_fields)])
    if isinstance(error, KeyError):
        return json.dumps([["", "missing"]])
    # attrs' own validators add the attribute, the bound and the value to their message as further arguments.
    message = str(error.args[0]) if error.args else str(error)
    if named := _FAULT_OF_A_FIELD.match(message):
        return json.dumps([[f".{named[1]}", named[2]]])
    return json.dumps([["", message]])
