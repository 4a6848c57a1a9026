"""Read a file that a user or another program wrote: a regular file of a stated size, as text, JSON or TOML of bounded depth.

What a path names may be anything: a device without an end, a FIFO that nobody writes to, a gigabyte of brackets. Each is told in
one line and takes neither time nor memory. Numbers are those that a record can hold: whole ones of 64 bits, finite fractions; a
key stands once in its object.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from io import BufferedReader
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from analysis.domain.errors import RequestError

__all__ = ["DEEPEST", "LARGEST_RESULT", "LARGEST_SETTINGS", "json_of", "open_regular", "read_bounded", "toml_of"]

LARGEST_SETTINGS: Final = 1 << 20
"""Bytes of a file that a person writes: a policy, rules, a vocabulary, a request, a model's config.json."""
LARGEST_RESULT: Final = 1 << 26
"""Bytes of a file that one of our programs wrote: a report (which bounds its rows), a manifest, a sweep. The largest seen has 9 MB.
Of small objects alone, 64 MiB of text become 1.7 GB of memory."""
DEEPEST: Final = 64
"""Objects and lists inside one another; our own files have at most 12."""

_LONG_NUMBER: Final = re.compile(rb"\d{19}|[eE]\+?\d{3}")
"""Only where a file has such digits can a number be too large: others are read at full speed."""
_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""One that has no end goes to the end of the text, which is so read once."""
_NO_BRACKETS: Final = bytes(sorted(set(range(256)) - set(b"[]{}")))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""One deeper, and as a signed byte one less."""
_INT64: Final = 2**63
_INT64_CHARACTERS: Final = len(str(-(2**63)))
_SHOWN_LETTERS: Final = 80
"""Of a key that is at fault."""


def read_bounded(path: Path, most: int, *, follow: str = "") -> bytes:
    """Read a whole file.

    Args:
        path: as the user knows it.
        most: bytes that a file of its kind may have.
        follow: what to do about a file that cannot be read, for the end of the line.

    Raises:
        RequestError: not there, no regular file, not readable, or larger.
    """
    with open_regular(path, most, follow=follow) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise RequestError(f"{path}: cannot be read ({error.strerror}){_end(follow)}") from error
    if len(content) > most:  # it grew meanwhile
        raise RequestError(_too_large(path, most, follow))
    return content


def open_regular(path: Path, most: int, *, follow: str = "") -> BufferedReader:
    """Open a file for reading; arguments and errors are those of `read_bounded`."""
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller's to close
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror}){_end(follow)}") from error
    except ValueError as error:  # a NUL in the path
        raise RequestError(f"{str(path)!r}: cannot be read ({error}){_end(follow)}") from error
    known = os.fstat(file.fileno())
    regular = stat.S_ISREG(known.st_mode)
    if regular and known.st_size <= most:
        return file
    file.close()
    raise RequestError(_too_large(path, most, follow) if regular else f"{path}: is no regular file{_end(follow)}")


def _too_large(path: Path, most: int, follow: str) -> str:
    return f"{path}: larger than {most:,} bytes, which no such file is{_end(follow)}"


def _end(follow: str) -> str:
    return f"; {follow}" if follow else ""


def _without_waiting(path: str, flags: int) -> int:
    """Open a FIFO without waiting for its writer, and a terminal without taking it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def json_of(content: bytes | str, source: str) -> Any:
    """Read JSON text, UTF-8 if bytes.

    Args:
        content: of a file.
        source: what to call it in an error, such as the file's path.

    Raises:
        RequestError: not JSON, deeper than `DEEPEST`, a number that is not finite or too large, a key twice in one object.
    """
    encoded = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    try:
        if _is_deep(encoded):
            raise ValueError(f"more than {DEEPEST} objects and lists inside one another")
        large = _LONG_NUMBER.search(encoded) is not None
        return json.loads(
            content,
            parse_int=_whole if large else None,
            parse_float=_finite if large else None,
            parse_constant=_refuse_constant,
            object_pairs_hook=_each_key_once,
        )
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{source}: not valid JSON ({_one_line(error)})") from error


def toml_of(content: bytes | str, source: str) -> dict[str, Any]:
    """Read TOML text, UTF-8 if bytes; see `json_of`."""
    import tomllib

    encoded = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    try:
        if _is_deep(encoded):
            raise ValueError(f"more than {DEEPEST} tables and lists inside one another")
        text = encoded.decode("utf-8")
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            raise
        except ValueError as error:  # Python converts no digits beyond its own limit
            raise ValueError("a whole number of more than 64 bits") from error
        _require_plain(table)
    except UnicodeDecodeError as error:
        raise RequestError(f"{source}: is not UTF-8 text; write it anew as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{source}: not valid TOML ({_one_line(error)})") from error
    return table


def _is_deep(content: bytes) -> bool:
    """Whether brackets nest deeper than `DEEPEST`; those without a partner are the parser's to tell."""
    # Strings hold brackets too, of names of kernels: it is certain without them.
    return _depth(content) > DEEPEST and _depth(_STRINGS.sub(b"", content)) > DEEPEST


def _depth(content: bytes) -> int:
    steps = memoryview(content.translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0)


def _require_plain(table: dict[str, Any]) -> None:
    """Dotted keys nest without brackets, and TOML has numbers of any size, ``inf`` and ``nan``.

    Raises:
        ValueError: too deep, or a number too large or not finite.
    """
    level: list[tuple[str, Any]] = [("", table)]
    for _ in range(DEEPEST):
        below: list[tuple[str, Any]] = []
        for path, value in level:
            if isinstance(value, dict):
                start = path if not path or path.endswith(": ") else f"{path}."
                below += ((f"{start}{key}", held) for key, held in value.items())
            elif isinstance(value, list):
                below += (
                    (f"[[{path}]] {place}: " if isinstance(held, dict) else f"{path}, item {place},", held)
                    for place, held in enumerate(value, 1)
                )
            elif type(value) is int and not -_INT64 <= value < _INT64:
                raise ValueError(f"{_short(path)} is a whole number of more than 64 bits")
            elif type(value) is float and not math.isfinite(value):
                raise ValueError(f"{_short(path)} is {value}, which is no finite number")
        if not below:
            return
        level = below
    raise ValueError(f"more than {DEEPEST} tables and lists inside one another")


def _short(path: str) -> str:
    return path if len(path) <= _SHOWN_LETTERS else f"…{path[-_SHOWN_LETTERS:]}"


def _whole(text: str) -> int:
    if len(text) > _INT64_CHARACTERS:
        raise ValueError(f"the whole number {text[:40]}… has more than 64 bits")
    value = int(text)
    if not -_INT64 <= value < _INT64:
        raise ValueError(f"the whole number {text[:40]} has more than 64 bits")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no finite number")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    by_key = dict(pairs)
    if len(by_key) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {json.dumps(twice)} is given twice in one object")
    return by_key


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
