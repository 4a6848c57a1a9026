"""What is wrong with the outcome of a case; nothing: it came out as it must."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from fuzz.cases import Case
from fuzz.invariants import (
    TraceFacts,
    facts_of,
    figures_of,
    read_strictly,
    wrong_in_report,
    wrong_in_table,
    wrong_values,
)
from fuzz.running import Limits, Outcome

__all__ = ["Failure", "codes_of", "judge"]


@frozen
class Failure:
    """One thing that must not be."""

    kind: str
    """traceback, crash, hang, memory, exit code, words, half-written, left behind, input changed, nonsense, silent,
    other figures, warning, program started."""
    place: str
    """Where a traceback ends, or what the words are about: equal ones are one fault."""
    detail: str


_CODES: Final = {
    "report": {0, 2, 3, 4},
    "check": {0, 2, 3, 4},
    "show": {0, 2, 3, 4},
    "kernels": {0, 1, 2, 3, 4},
    "table": {0, 1, 2, 3, 4},
    "diff": {0, 2, 3, 4},
    "gate": {0, 2, 3, 4, 20, 21},
    "review": {0, 2, 3, 4},
    "sweep": {0, 2},
    "trend": {0, 2, 16},
    "schema": {0, 2},
    "submit": {2, 5, 6},
    "status": {0, 2},
    "history": {0, 2, 16},
    "run": {0, 2},
}
"""Command → exit codes that its page names."""

_LAST_FRAME: Final = re.compile(r'File "([^"]*/(?:analysis|history|runner)/[^"]+)", line (\d+), in (\S+)')
_REMEDY: Final = re.compile(
    r"export|copy|copied|choose|name |give|write|--\w|unpack|nsys|wait|delete|see |again|use |must |expected|missing|unknown|valid|"
    r"holds|there (is|are)|cannot be read|at least|at most|known|one of|larger than|true or false|UTF-8|"
    r"not (TOML|JSON)|profile ",
    re.IGNORECASE,
)
"""Words by which a line tells what to do, or what the file must be."""


def codes_of(case: Case) -> set[int]:
    """Exit codes with which the case's command may end."""
    return _CODES[case.argv[0]]


def judge(
    case: Case, outcome: Outcome, undamaged: Callable[[Case], tuple[Outcome, Path]], limits: Limits
) -> list[Failure]:
    """Everything that is wrong with an outcome.

    Args:
        case: that was run.
        outcome: of it.
        undamaged: runs the same command on the undamaged files, and says where; the outcome is kept.
        limits: under which it ran.
    """
    failures = _of_the_process(case, outcome, limits)
    if failures:
        return failures
    failures += _of_files(case, outcome)
    if outcome.code in (0, 20, 21):
        failures += _of_results(case, outcome, undamaged)
    else:
        failures += _of_an_error(case, outcome)
    return failures


def _of_the_process(case: Case, outcome: Outcome, limits: Limits) -> list[Failure]:
    """How it ended: what rules out that anything else can be said."""
    if "Traceback (most recent call last)" in outcome.stderr:
        last = outcome.stderr.strip().splitlines()[-1]
        frames = _LAST_FRAME.findall(outcome.stderr)
        name = "/".join(Path(frames[-1][0]).parts[-3:]) if frames else "?"
        place = f"{name}:{frames[-1][1]} {frames[-1][2]}: {last.partition(':')[0]}" if frames else last[:80]
        return [Failure("traceback", place, last[:300])]
    if outcome.ended is not None:
        kind = "memory" if outcome.ended == "memory" else "hang"
        return [
            Failure(kind, f"{case.argv[0]}: {case.kind}", f"{outcome.wall_s:.0f} s, {outcome.peak_bytes >> 20} MiB")
        ]
    if outcome.peak_bytes > limits.memory_bytes:
        return [Failure("memory", f"{case.argv[0]}: {case.kind}", f"{outcome.peak_bytes >> 20} MiB")]
    if outcome.code < 0:
        return [Failure("crash", f"signal {-outcome.code} in {case.argv[0]}", outcome.stderr[-300:])]
    if "FUZZ: a program was started" in outcome.stderr:
        return [Failure("program started", case.argv[0], outcome.stderr[:300])]
    if outcome.code not in codes_of(case):
        return [Failure("exit code", f"{case.argv[0]} ends with {outcome.code}", outcome.stderr[-300:])]
    return []


def _of_files(case: Case, outcome: Outcome) -> list[Failure]:
    failures = []
    if outcome.orphans:
        failures.append(Failure("left behind", f"a process of {case.argv[0]}", ""))
    # Where the launcher keeps its locks is the run's, not the case's: a folder alone is nothing that was left.
    if left := [name for name in outcome.left if "." in name or case.program == "dsocr-analyze"]:
        failures.append(Failure("left behind", f"{case.argv[0]}: {Path(left[0]).suffix}", ", ".join(left[:5])))
    if outcome.changed and not case.changes_input:
        failures.append(Failure("input changed", case.argv[0], ", ".join(outcome.changed)))
    allowed: tuple[str, ...] = (f"{case.writes_to}/",) if case.writes_to is not None else ()
    if case.changes_input:
        allowed += ("history.sqlite",)
    if case.preset is not None:
        allowed += ("presets/",)
    strange = [name for name in outcome.made if not name.startswith(allowed) or name.endswith(".tmp")]
    if strange:
        failures.append(
            Failure(
                "left behind", f"{case.argv[0]} beside its input: {Path(strange[0]).suffix}", ", ".join(strange[:5])
            )
        )
    written = [name for name in outcome.made if case.writes_to and name.startswith(f"{case.writes_to}/")]
    if outcome.code not in (0, 20, 21) and written:
        failures.append(Failure("half-written", case.argv[0], f"exit {outcome.code} and {', '.join(written[:5])}"))
    return failures


def _of_an_error(case: Case, outcome: Outcome) -> list[Failure]:
    """One line, with the file's name, and what to do."""
    failures = []
    said = [line for line in outcome.stderr.split("\n") if line]
    errors = [line for line in said if re.match(r"(dsocr-analyze: )?error: .", line)]
    many = 1 if case.program == "dsocr-analyze" else None  # the launcher tells what it chose, a line each
    if len(errors) != 1 or (many is not None and len(said) != many):
        return [Failure("words", f"{case.argv[0]}: {len(said)} lines", outcome.stderr[:500])]
    line = errors[0]
    if not line.isprintable():
        failures.append(Failure("words", f"{case.argv[0]}: control characters", repr(line[:300])))
    if len(line) > 2_000:
        failures.append(
            Failure("words", f"{case.argv[0]}: a line of very many characters", f"{len(line):,}: {line[:200]}")
        )
    # The launcher tells what is left out a line each, before the one that counts them.
    told = outcome.stderr if case.program == "dsocr-profile" else line
    if outcome.code in (2, 3, 4) and case.damaged and not any(name in told for name in case.damaged):
        failures.append(Failure("words", f"{case.argv[0]} does not name the file: {_shape(line)}", line[:300]))
    if outcome.code in (2, 3, 4) and not _REMEDY.search(told.partition(": ")[2]):
        failures.append(Failure("words", f"{case.argv[0]} does not say what to do: {_shape(line)}", line[:300]))
    return failures


def _shape(line: str) -> str:
    return re.sub(r"\d+", "#", line.partition("error: ")[2])[:70]


# --- results ---------------------------------------------------------------------------------------------------------


def _of_results(case: Case, outcome: Outcome, undamaged: Callable[[Case], tuple[Outcome, Path]]) -> list[Failure]:
    failures = []
    if re.search(r"\w*Warning: ", outcome.stderr):
        failures.append(
            Failure("warning", _shape(f"error: {outcome.stderr.strip().splitlines()[0]}"), outcome.stderr[:300])
        )
    try:
        results = _results(case, outcome, case.folder)
    except ValueError as error:
        return [*failures, Failure("nonsense", f"{case.argv[0]}: not valid JSON", str(error)[:300])]
    facts = facts_of(case.folder / case.trace) if case.trace is not None else None
    compared = case.argv[0] in ("diff", "gate")
    for name, plain in results.items():
        wrong = wrong_values(plain, differences=compared)
        if name == "report.json" and "capture" in plain.get("detail", {}):
            wrong = wrong_in_report(plain, facts if facts is not None and facts.unreadable is None else None)
        if (
            name == "standard output"
            and case.argv[0] in ("table", "kernels")
            and facts is not None
            and facts.unreadable is None
        ):
            wrong += _wrong_in_rows(case, plain, facts)
        failures += [
            Failure("nonsense", f"{case.argv[0]}: {re.sub(r'[0-9]+', '#', text)[:90]}", text) for text in wrong[:3]
        ]
    if facts is not None:
        failures += _noticed(case, results, facts, undamaged)
    if case.claim in ("impossible", "harmless", "broken") and case.undamaged:
        failures += _against_the_undamaged(case, outcome, results, undamaged)
    elif case.claim == "impossible":
        failures.append(Failure("silent", f"{case.argv[0]} takes {case.kind}", case.what))
    return failures


_OVERLAPPING: Final = ("range", "range-kernel", "range-projection")
"""Tables whose rows may hold an operation several times."""


def _wrong_in_rows(case: Case, rows: Any, facts: TraceFacts) -> list[str]:
    by = case.argv[case.argv.index("--by") + 1] if "--by" in case.argv else None
    return [] if by in _OVERLAPPING else wrong_in_table(rows, facts)


def _results(case: Case, outcome: Outcome, folder: Path) -> dict[str, Any]:
    """What a command wrote as JSON: files, and standard output where that is JSON."""
    results = {}
    if case.writes_to is not None:
        for path in sorted((folder / case.writes_to).glob("*.json")):
            results[path.name] = read_strictly(path.read_text(encoding="utf-8"))
    if ("json" in case.argv and case.writes_to is None) or "--json" in case.argv or case.argv[0] == "schema":
        results["standard output"] = read_strictly(outcome.stdout)
    return results


def _findings(results: dict[str, Any]) -> list[Any] | None:
    """Of a report or a check; None: the command tells none."""
    report = results.get("report.json")
    if isinstance(report, dict) and "findings" in report.get("detail", {}):
        return list(report["detail"]["findings"])
    if isinstance(report, dict) and "cautions" in report:  # of several ranks: what their own reports warn of
        return [{"code": "", "severity": "warning", "title": told, "evidence": ""} for told in report["cautions"]]
    said = results.get("standard output")
    if isinstance(said, list) and all(isinstance(row, dict) and "severity" in row for row in said):
        return said
    return None


def _keys(findings: list[Any]) -> set[str]:
    return {json.dumps([row["code"], row["severity"], row["title"], row["evidence"]]) for row in findings}


def _noticed(
    case: Case, results: dict[str, Any], facts: TraceFacts, undamaged: Callable[[Case], tuple[Outcome, Path]]
) -> list[Failure]:
    """Times that cannot be are told, whatever the damage was meant to be; so is a file that SQLite cannot read."""
    findings = _findings(results)
    if findings is None or not (facts.impossible or facts.unreadable):
        return []
    if facts.unreadable:
        return [Failure("silent", f"{case.argv[0]} reads what SQLite does not", facts.unreadable)]
    base, folder = undamaged(case)
    before = _findings(_results(case, base, folder)) or []
    if _keys(findings) <= _keys(before):
        return [
            Failure("silent", f"{case.argv[0]}: {facts.impossible and 'impossible'} times without a finding", case.what)
        ]
    return []


def _against_the_undamaged(
    case: Case, outcome: Outcome, results: dict[str, Any], undamaged: Callable[[Case], tuple[Outcome, Path]]
) -> list[Failure]:
    base, folder = undamaged(case)
    before = _results(case, base, folder)
    if case.claim == "impossible":
        findings = _findings(results)
        if findings is None or _keys(findings) <= _keys(_findings(before) or []):
            what = re.sub(r"\d+ of \d+ rows of |\d+", "", case.what.partition(": ")[2])
            return [Failure("silent", f"{case.argv[0]} takes {what[:80]}", case.what)]
        return []
    if (outcome.code, _without_place(results, case.folder)) == (base.code, _without_place(before, folder)):
        return []
    if (
        case.claim == "broken"
        and _findings(results) is not None
        and not _keys(_findings(results) or []) <= _keys(_findings(before) or [])
    ):
        return []  # reported
    return [
        Failure("other figures", f"{case.argv[0]}: {case.what.partition(': ')[2][:60]}", _difference(before, results))
    ]


def _without_place(results: dict[str, Any], folder: Path) -> Any:
    text = json.dumps(figures_of(results)).replace(str(folder), ".")
    return json.loads(re.sub(r"(\.sqlite|\.csv)\.(xz|gz|zst)\b", r"\1", text))  # a packed file is called so


def _difference(one: Any, other: Any, at: str = "$") -> str:
    """Where two results differ first."""
    one, other = (figures_of(one), figures_of(other)) if at == "$" else (one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if one.get(key) != other.get(key):
                return _difference(one.get(key), other.get(key), f"{at}.{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return _difference(left, right, f"{at}[{number}]")
    return f"{at}: {str(one)[:120]} became {str(other)[:120]}"
