"""What each nsys of this machine says of itself, kept in the user's cache: each question starts it, half a second or more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import evolve, field, frozen

from analysis.domain.convert import from_json_file, to_json
from analysis.domain.errors import CaptureError, RequestError
from analysis.domain.files import WriteOptions, write_text

__all__ = ["Answers", "remember", "remembered"]

_MOST: Final = 16
"""Programs that are remembered; the oldest is forgotten first."""
_NAME: Final = "nsys-answers.json"


@frozen
class Answers:
    """One nsys' answers."""

    version: str
    profile_options: dict[str, str]
    export_options: dict[str, str]


@frozen
class _Cache:
    """The file: answers by the program's identity."""

    of: dict[str, Answers] = field(factory=dict)


def remembered(path: Path, environ: Mapping[str, str]) -> Answers | None:
    """What this very file answered before; None: nobody asked, or it is another file now."""
    file, key = _file(environ), _identity(path)
    return None if file is None or key is None else _read(file).of.get(key)


def remember(path: Path, environ: Mapping[str, str], answers: Answers) -> None:
    """Keep answers; where that is not possible they are asked for again next time."""
    file, key = _file(environ), _identity(path)
    if file is None or key is None:
        return
    others = {other: told for other, told in _read(file).of.items() if other != key}
    latest = dict(list(others.items())[1 - _MOST :])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, to_json(evolve(_Cache(), of={**latest, key: answers})), WriteOptions(error=CaptureError))
    except (OSError, CaptureError):
        return


def _file(environ: Mapping[str, str]) -> Path | None:
    home, cache = environ.get("HOME"), environ.get("XDG_CACHE_HOME")
    if not cache and not home:
        return None
    return (Path(cache) if cache else Path(str(home)) / ".cache") / "dsocr-profiler" / _NAME


def _identity(path: Path) -> str | None:
    """The program behind the path, by place, size and time of its last change.

    None: it cannot be looked at; or it is a script, such as CUDA's, which starts whichever nsys it finds at the time.
    """
    try:
        real = path.resolve()
        status = real.stat()
        with real.open("rb") as file:
            if file.read(2) == b"#!":
                return None
    except OSError:
        return None
    return f"{real} {status.st_size} {status.st_mtime_ns}"


def _read(file: Path) -> _Cache:
    try:
        return from_json_file(_Cache, file)
    except RequestError:
        return _Cache()  # none yet, or of another version
