"""``gate.md``: what goes into a pull request. Failed limits first, passed ones folded away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analysis.domain.figures import signed_ratio
from analysis.gate.judging import written
from analysis.gate.records import Check, GateResult
from analysis.render.markdown_tables import code, escaped, head_lines, row_line
from analysis.render.spec.text import shortened, visible

__all__ = ["render"]

_MARKS: Final = {"passed": "✅", "failed": "❌", "cannot judge": "❔"}
_MOST: Final = 20
"""Rows of a table: a pull request shows little, ``gate.json`` has all."""
_NAME: Final = 80


def render(result: GateResult) -> str:
    """The whole file."""
    sides = f"{_named(result.base.label)} → {_named(result.new.label)}"
    model = f" of {_named(result.new.model)}" if result.new.model else ""
    device = f" on {_named(result.new.device)}" if result.new.device else ""
    lines = [
        f"### {_MARKS[result.outcome]} Performance gate: {result.outcome}",
        "",
        _sentence(result.headline),
        "",
        f"{sides}{model}{device}, by {_named(result.policy)}.",
    ]
    lines += _table("Exceeded", result.of("failed"), reasons=True)
    lines += _table("Cannot be judged", result.of("cannot judge"), reasons=True)
    passed = result.of("passed")
    if passed:
        lines += ["", f"<details><summary>{len(passed)} passed</summary>"]
        lines += _table("", passed, reasons=False)
        lines += ["", "</details>"]
    changed = [change for change in result.settings if change.forbids]
    if changed:
        lines += ["", "What the sides differ in, beside the code:", ""]
        lines += [
            f"- {escaped(visible(change.name))}: {' → '.join(_named(value) for value in change.values)}"
            for change in changed
        ]
    if result.notes:
        lines += ["", "<details><summary>What limits the comparison</summary>", ""]
        lines += [f"- {escaped(visible(note))}" for note in result.notes]
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _table(title: str, checks: Sequence[Check], *, reasons: bool) -> list[str]:
    if not checks:
        return []
    lines = ["", f"**{title}**"] if title else []
    lines += [
        "",
        *head_lines([("what", "left"), ("base", "right"), ("new", "right"), ("change", "right"), ("limit", "left")]),
    ]
    for check in checks[:_MOST]:
        per = f" per {check.per}" if check.per else ""
        lines.append(
            row_line(
                (
                    code(shortened(visible(check.subject), _NAME)),
                    written(check.base, check.unit),
                    f"{written(check.new, check.unit)}{per}",
                    _change(check),
                    escaped(check.limit),
                )
            )
        )
    if len(checks) > _MOST:
        lines += ["", f"And {len(checks) - _MOST} more."]
    if reasons:
        lines += [
            "",
            *(
                f"- {code(shortened(visible(check.subject), _NAME))}: {_sentence(check.because)}"
                for check in checks[:_MOST]
            ),
        ]
    return lines


def _change(check: Check) -> str:
    if check.ratio is None:
        return "n/a" if check.difference is None else "new"
    return signed_ratio(check.ratio - 1)


def _sentence(text: str) -> str:
    return escaped(visible(text))


def _named(text: str | None) -> str:
    return "not recorded" if text is None else code(shortened(visible(text), _NAME))
