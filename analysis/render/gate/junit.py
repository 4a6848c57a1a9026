"""``gate.junit.xml``: each limit as a test case, as CI systems show them.

The dialect that Jenkins, GitLab, Azure Pipelines and the actions for GitHub read: a failed limit is a ``failure``, one that
cannot be judged is ``skipped`` or, where the policy makes that a failure, an ``error``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree

from analysis.gate.records import Check, GateResult
from analysis.render.spec.text import visible

__all__ = ["render"]

_SUITES: Final = "dsocr-analyze gate"
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write."""


def render(result: GateResult) -> bytes:
    """The whole file, UTF-8."""
    by_table: dict[str, list[Check]] = {}
    for check in result.checks:
        by_table.setdefault(check.table, []).append(check)
    root = ElementTree.Element("testsuites", {"name": _SUITES, **_counts(result.checks, result)})
    for table, checks in by_table.items():
        suite = ElementTree.SubElement(root, "testsuite", {"name": table, **_counts(checks, result)})
        for check in checks:
            suite.append(_case(check, result))
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _counts(checks: Sequence[Check], result: GateResult) -> dict[str, str]:
    undecided = sum(check.outcome == "cannot judge" for check in checks)
    strict = result.on_cannot_judge == "fail"
    return {
        "tests": str(len(checks)),
        "failures": str(sum(check.outcome == "failed" for check in checks)),
        "errors": str(undecided if strict else 0),
        "skipped": str(0 if strict else undecided),
    }


def _case(check: Check, result: GateResult) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", {"classname": f"gate.{check.table}", "name": _text(f"{check.subject}: {check.limit}"), "time": "0"}
    )
    if check.outcome == "failed":
        ElementTree.SubElement(case, "failure", {"message": _text(check.because), "type": "limit"}).text = _numbers(
            check
        )
    elif check.outcome == "cannot judge":
        tag = "error" if result.on_cannot_judge == "fail" else "skipped"
        ElementTree.SubElement(case, tag, {"message": _text(check.because)})
    else:
        ElementTree.SubElement(case, "system-out").text = _text(check.because)
    return case


def _numbers(check: Check) -> str:
    return _text(f"base {check.base} {check.unit}, new {check.new} {check.unit}, limit: {check.limit}")


def _text(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", visible(text))
