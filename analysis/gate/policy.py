"""``gate.toml``: limits in tables by what they limit, amounts with their units."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

from analysis.domain.errors import RequestError
from analysis.domain.names import shortened
from analysis.domain.reading import LARGEST_SETTINGS, read_bounded, toml_of
from analysis.gate.records import TABLES, Amount, Limit, Policy, TableName, Undecided, UnitName

__all__ = ["read_policy"]

_OWN_KEYS: Final = ("policy_version", "on_cannot_judge", "bands")
_PATTERNS: Final[dict[str, tuple[str, ...]]] = {
    "stage": ("stage",),
    **dict.fromkeys(("module", "class", "kernel"), ("stage", "name")),
    "memory": (),
}
_AMOUNTS: Final = ("max", "min", "max_increase", "max_decrease", "ignore_below")
_DIFFERENCES: Final = ("max_increase", "max_decrease")

_UNITS: Final[dict[UnitName, dict[str, float]]] = {
    "ns": {"ns": 1, "µs": 1e3, "us": 1e3, "μs": 1e3, "ms": 1e6, "s": 1e9},
    "bytes": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "count": {"": 1},
    "share": {"": 1},
}
_EXAMPLES: Final[dict[UnitName, str]] = {"ns": '"1.2 ms"', "bytes": '"40 GB"', "count": "250", "share": '"12 %"'}
_SHOWN: Final = 80
"""Characters of a value that an error repeats."""
_NUMBER: Final = re.compile(r"\s*\+?(\d+(?:\.\d*)?|\.\d+)\s*([^\d\s]*)\s*")


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        RequestError: it cannot be read, is no TOML, has an unknown key (the nearest known one is named), an amount that does
            not fit its table, or no limit.
    """
    content = toml_of(read_bounded(path, LARGEST_SETTINGS), str(path))
    _require_known(content, (*_OWN_KEYS, *TABLES), str(path))
    version = content.get("policy_version", 1)
    if version != 1:
        raise RequestError(
            f"{path}: policy_version is {shortened(repr(version), _SHOWN)}, and this release reads 1; write 1"
        )
    undecided = content.get("on_cannot_judge", "report")
    if undecided not in get_args(Undecided):
        raise RequestError(
            f'{path}: on_cannot_judge is {shortened(repr(undecided), _SHOWN)}; write "report", "fail" or "pass"'
        )
    limits = tuple(
        _limit(entry, table, number, f"{path}: [[{table}]] {number}")
        for table in TABLES
        for number, entry in enumerate(_entries(content.get(table, []), table, path), start=1)
    )
    if not limits:
        raise RequestError(f"{path}: has no limit; write a table such as [[stage]] with max_increase in it")
    bands = content.get("bands", {})
    if not isinstance(bands, dict):
        raise RequestError(f'{path}: bands is a table, such as [bands] with decode = "2 %" in it')
    return Policy(
        str(path),
        limits,
        undecided,
        {stage: _amount(value, "ns", f"{path}: bands.{stage}") for stage, value in bands.items()},
    )


def _entries(value: Any, table: str, path: Path) -> list[Any]:
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return value
    raise RequestError(f"{path}: {table} is a list of tables; write [[{table}]]")


def _limit(entry: Mapping[str, Any], table: TableName, number: int, where: str) -> Limit:
    patterns = _PATTERNS.get(table, ("stage",))
    _require_known(entry, (*patterns, *_AMOUNTS, "optional"), where)
    for key in patterns:
        if not isinstance(entry.get(key, "*"), str) or not entry.get(key, "*"):
            raise RequestError(f'{where}: {key} must be a pattern in quotes, such as "layers.*"')
    if not isinstance(entry.get("optional", False), bool):
        raise RequestError(f"{where}: optional must be true or false")
    amounts = {key: _amount(entry[key], TABLES[table], f"{where}: {key}") for key in _AMOUNTS if key in entry}
    if not amounts.keys() - {"ignore_below"}:
        raise RequestError(f"{where}: limits nothing; write max, min, max_increase or max_decrease")
    for key, amount in amounts.items():
        # A share is itself written in per cent: "12 %" as a bound is 0.12, as a difference 12 % of the base.
        if amount.relative and key not in _DIFFERENCES:
            if TABLES[table] != "share":
                raise RequestError(
                    f"{where}: {key} = {amount.text} is no {_what(table)}; write {_EXAMPLES[TABLES[table]]}"
                )
            amounts[key] = Amount(amount.value, False, amount.text)
        elif TABLES[table] == "share" and not amount.relative and amount.value > 1:
            raise RequestError(f'{where}: {key} = {amount.text} is more than all of the peak; write "{amount.text} %"')
    named = {key: entry[key] for key in patterns if key in entry}
    return Limit(table, number, **named, **amounts, optional=entry.get("optional", False))  # type: ignore[arg-type]


def _what(table: TableName) -> str:
    return {"ns": "time", "bytes": "size", "count": "number", "share": "share"}[TABLES[table]]


def _amount(value: Any, unit: UnitName, where: str) -> Amount:
    """Read ``"3 %"``, ``"1.2 ms"``, ``250``."""
    text = str(value)
    match = _NUMBER.fullmatch(text) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
    if match and not math.isfinite(float(match[1]) * max(_UNITS[unit].values())):
        match = None
    suffix = match[2] if match else ""
    if match and suffix == "%":
        return Amount(float(match[1]) / 100, True, text)
    if match and suffix in _UNITS[unit]:
        return Amount(float(match[1]) * _UNITS[unit][suffix], False, text)
    if match and float(match[1]) == 0 and not suffix:
        return Amount(0.0, False, text)
    raise RequestError(
        f'{where} = {shortened(repr(value), _SHOWN)} is not understood; write {_EXAMPLES[unit]} or "3 %"'
    )


def _require_known(given: Iterable[str], known: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.4)
            said = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise RequestError(f"{where}: unknown key {shortened(repr(key), _SHOWN)}{said}")
