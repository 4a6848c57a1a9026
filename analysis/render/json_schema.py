"""JSON Schemas of the analysis' JSON files, made from the records that are written into them."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Literal, Union, get_args, get_origin

from attrs import Attribute, fields, has, resolve_types

from analysis.compare.records import Diff
from analysis.domain.contracts import LLMProfileReportSummary
from analysis.domain.entities import LLMProfileReport
from analysis.domain.sweep import Sweep
from analysis.gate.records import GateResult
from analysis.ranks.records import RanksReport
from analysis.render.json import (
    DIFF_SCHEMA_VERSION,
    GATE_SCHEMA_VERSION,
    RANKS_SCHEMA_VERSION,
    REVIEW_SCHEMA_VERSION,
    SCHEMA_VERSION,
)
from analysis.report import Report
from analysis.review import Review
from analysis.verdict.ranking import Ranking

__all__ = ["schema_of"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: Final[dict[Any, dict[str, Any]]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    types.NoneType: {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
    Any: {},
}


def schema_of(document: Literal["report", "summary", "review", "ranks", "diff", "gate", "sweep"]) -> dict[str, Any]:
    """The schema of a JSON file as this release writes it; ``ranks``: of the ``report.json`` of several ranks.

    Every field of a record is required: what is unknown is null. Fields that a later release adds are allowed.
    """
    made = _Schemas()
    if document == "sweep":  # the runner's record, with a version of its own
        record = made.record(Sweep)
        return {
            "$schema": _DIALECT,
            "title": "sweep.json of dsocr-profile",
            **record,
            "$defs": dict(sorted(made.definitions.items())),
        }
    number = {
        "review": REVIEW_SCHEMA_VERSION,
        "ranks": RANKS_SCHEMA_VERSION,
        "diff": DIFF_SCHEMA_VERSION,
        "gate": GATE_SCHEMA_VERSION,
    }.get(document, SCHEMA_VERSION)
    version: dict[str, Any] = {"schema_version": {"const": number, "description": "Of this schema."}}
    if document not in ("review", "diff", "gate"):  # the records of the last two have a headline of their own
        version["headline"] = {"type": "string", "description": "Where to start and what it brings, in one sentence."}
    if document == "summary":
        body = made.record(LLMProfileReportSummary)
        body["properties"]["ranking"] = made.record(Ranking)
        body["required"].append("ranking")
    elif document == "review":
        body = made.record(Review)
    elif document == "ranks":
        body = made.record(RanksReport)
    elif document == "diff":
        body = made.record(Diff)
    elif document == "gate":
        body = made.record(GateResult)
    else:
        body = made.record(LLMProfileReport)
        body["properties"]["detail"] = made.record(Report, without=("report",))
    return {
        "$schema": _DIALECT,
        "title": f"{document}.json of dsocr-analyze, version {number}",
        **body,
        "properties": version | body["properties"],
        "required": [*version, *body["required"]],
        "$defs": dict(sorted(made.definitions.items())),
    }


class _Schemas:
    """Schemas of records, each once."""

    def __init__(self) -> None:
        self.definitions: dict[str, dict[str, Any]] = {}

    def record(self, kind: type, without: Iterable[str] = ()) -> dict[str, Any]:
        """Of a record itself, not of a reference to it."""
        described = _descriptions(kind)
        listed = [attribute for attribute in fields(resolve_types(kind)) if attribute.name not in without]
        properties = {field.name: self._field(field, described) for field in listed}
        return {
            "type": "object",
            "description": inspect.getdoc(kind) or "",
            "properties": properties,
            "required": list(properties),
        }

    def _field(self, attribute: Attribute[Any], described: dict[str, str]) -> dict[str, Any]:
        schema = self._type(attribute.type)
        text = described.get(attribute.name)
        return schema if text is None else {**schema, "description": text}

    def _type(self, kind: Any) -> dict[str, Any]:
        if kind in _SCALARS:
            return dict(_SCALARS[kind])
        origin, parts = get_origin(kind), get_args(kind)
        if origin is Literal:
            return {"enum": list(parts)}
        if origin in (Union, types.UnionType):
            return self._union(parts)
        if origin is tuple and parts[-1] is ...:
            return {"type": "array", "items": self._type(parts[0])}
        if origin is tuple:
            return {
                "type": "array",
                "prefixItems": [self._type(part) for part in parts],
                "minItems": len(parts),
                "maxItems": len(parts),
            }
        if origin is dict:
            return {"type": "object", "additionalProperties": self._type(parts[1])}
        if isinstance(kind, type) and has(kind):
            return self._reference(kind)
        raise TypeError(f"no JSON Schema is known for {kind!r}")

    def _union(self, parts: tuple[Any, ...]) -> dict[str, Any]:
        schemas = [self._type(part) for part in parts]
        if all(set(schema) == {"type"} for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        return {"anyOf": schemas}

    def _reference(self, kind: type) -> dict[str, Any]:
        if kind.__name__ not in self.definitions:
            self.definitions[kind.__name__] = {}  # a record may hold itself
            self.definitions[kind.__name__] = self.record(kind)
        return {"$ref": f"#/$defs/{kind.__name__}"}


def _descriptions(kind: type) -> dict[str, str]:
    """The docstrings that stand below a record's fields; Python itself does not keep them."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    described = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            described[statement.target.id] = inspect.cleandoc(following.value.value)
    return described
