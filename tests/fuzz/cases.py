"""From a seed and a number to one damaged input, the command that gets it, and what may come of it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from fuzz.bases import Bases
from fuzz.damage import damage_database, damage_packed
from fuzz.documents import damage_csv, damage_json, damage_toml
from fuzz.rows import change_rows, change_unused
from fuzz.schemas import change_schema

__all__ = ["KINDS", "Case", "Claim", "kind_of", "make_case", "random_of"]

Claim: TypeAlias = Literal["anything", "impossible", "harmless", "broken"]
"""What is known of the damage, and so of what may come of it beside what holds always:

- anything: it may be refused, reported or read;
- impossible: a value that is used cannot be true: refused, or a finding that the undamaged file does not have;
- harmless: nothing that is used changed: the same figures as of the undamaged file;
- broken: the file is not whole: refused, or the same figures.
"""

Program: TypeAlias = Literal["dsocr-analyze", "dsocr-profile"]


@frozen
class Case:
    """One run of a command on damaged input."""

    seed: str
    number: int
    kind: str
    what: str
    """The damage, in words."""
    claim: Claim
    folder: Path
    program: Program
    argv: tuple[str, ...]
    """Paths in it are relative to `folder`, where the command runs."""
    damaged: tuple[str, ...]
    """Names of the damaged files: an error names one of them."""
    base: str
    """The undamaged trace or document."""
    writes_to: str | None = None
    """Folder of the results; None: the command writes none."""
    changes_input: bool = False
    """A history is brought to today's schema as it is opened."""
    trace: str | None = None
    """The SQLite file whose figures are in the report, where it can be opened."""
    preset: str | None = None
    """File that stands for a preset of `dsocr-profile`."""

    undamaged: tuple[tuple[str, Path], ...] = field(default=(), repr=False)
    """Name in the folder → file, of the same command without the damage."""

    @property
    def replay(self) -> str:
        """How to run it alone."""
        return f"make fuzz SEED={self.seed} CASE={self.number}"


def random_of(seed: str, number: int) -> random.Random:
    """The same numbers for the same case on every machine and Python: `random` seeds itself by SHA-512 of a string."""
    return random.Random(f"{seed}/{number}")


Maker: TypeAlias = Callable[[random.Random, Bases, Path], dict[str, object]]

_FORMATS: Final = ("markdown", "html", "parquet", "csv", "perfetto")
_TABLES: Final = (
    "stage", "instance", "step", "module", "range", "kernel", "kernel-module", "range-kernel", "range-projection",
)  # fmt: skip


def _command(draw: random.Random, name: str, claim: Claim) -> tuple[tuple[str, ...], str | None]:
    """A command on a trace; where findings or figures decide, one that has them."""
    if claim == "harmless":
        command = draw.choice(("report", "report", "table", "kernels", "check"))
    elif claim == "impossible":
        command = draw.choice(("report", "report", "check"))
    else:
        command = draw.choice(("report", "report", "check", "kernels", "show", "table", "diff", "ranks"))
    if command == "report":
        formats = ["json", *draw.sample(_FORMATS, draw.choice((0, 0, 1, len(_FORMATS))))]
        return ("report", name, "--out", "out", *(word for one in formats for word in ("--format", one))), "out"
    if command == "check":
        return ("check", name, "--json"), None
    if command == "kernels":
        shapes = ("--shapes",) if draw.random() < 0.3 else ()
        return ("kernels", name, "--format", "json", "--top", "100000", *shapes), None
    if command == "table":
        return ("table", name, "--by", draw.choice(_TABLES), "--format", "json"), None
    if command == "diff":
        return ("diff", name, name, "--out", "out", "--format", "json"), "out"
    if command == "ranks":
        return ("report", name, name, "--out", "out", "--format", "json"), "out"
    return ("show", name, "--explain"), None


def _of_trace(
    draw: random.Random,
    bases: Bases,
    folder: Path,
    change: Callable[[random.Random, Path], tuple[str, Claim]],
    only: tuple[str, ...] = (),
) -> dict[str, object]:
    base = draw.choice(only or tuple(bases.traces))
    name = f"{base}.sqlite"
    shutil.copyfile(bases.traces[base], folder / name)
    what, claim = change(draw, folder / name)
    argv, writes_to = _command(draw, name, claim)
    return {
        "what": f"{base}: {what}", "claim": claim, "argv": argv, "writes_to": writes_to, "damaged": (name,),
        "base": base, "trace": name, "undamaged": ((name, bases.traces[base]),),
    }  # fmt: skip


def _rows(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    return _of_trace(draw, bases, folder, change_rows)


def _unused(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    return _of_trace(draw, bases, folder, change_unused)


def _schema(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    return _of_trace(draw, bases, folder, change_schema)


def _bytes(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    return _of_trace(draw, bases, folder, damage_database)


def _packed(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    base = draw.choice(("whole", "ranks", "engine", "graph"))
    ending = draw.choice(("xz", "gz", "zst"))
    name = f"{base}.sqlite.{ending}"
    what, claim = damage_packed(draw, bases.traces[base], folder / name)
    argv, writes_to = _command(draw, name, claim)
    return {
        "what": f"{base}: {what}", "claim": claim, "argv": argv, "writes_to": writes_to, "damaged": (name,),
        "base": base, "undamaged": ((f"{base}.sqlite", bases.traces[base]),),
    }  # fmt: skip


_JSON_COMMANDS: Final[dict[str, tuple[str, tuple[str, ...], str | None]]] = {
    "run.json": ("whole", ("report", "whole.sqlite", "--manifest", "run.json", "--accept-lossy", *["--out", "out"],
                           "--format", "json"), "out"),
    "report.json": ("", ("diff", "before.json", "report.json", "--out", "out", "--format", "json"), "out"),
    "sweep.json": ("", ("sweep", "sweep.json", "--out", "out"), "out"),
    "bands.json": ("", ("diff", "before.json", "report.json", "--band", "bands.json", *["--out", "out"],
                        "--format", "json"), "out"),
    "config.json": ("engine", ("report", "engine.sqlite", "--config", "config.json", *["--out", "out"],
                               "--format", "json"), "out"),
}  # fmt: skip
_OTHERS: Final = {
    "gate": ("gate", "before.json", "report.json", "--policy", "gate.toml", "--out", "out"),
    "rules": ("report", "eager.sqlite", "--kernel-rules", "kernel_rules.toml", "--out", "out", "--format", "json"),
    "vocabulary": ("report", "engine.sqlite", "--vocabulary", "vocabulary.toml", "--out", "out", "--format", "json"),
    "review": ("review", "eager.sqlite", "--counters", "census.csv", "--out", "out"),
}


def _put(bases: Bases, folder: Path, argv: tuple[str, ...], leave_out: str) -> tuple[tuple[str, Path], ...]:
    """Copy the files that a command names, all but the damaged one; what they are undamaged."""
    named: list[tuple[str, Path]] = []
    for word in argv:
        whole = bases.documents.get(word) or bases.traces.get(word.removesuffix(".sqlite"))
        if whole is not None and word not in dict(named):
            named.append((word, whole))
            if word != leave_out:
                shutil.copyfile(whole, folder / word)
    return tuple(named)


def _json(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    name = draw.choice(tuple(_JSON_COMMANDS))
    _, argv, writes_to = _JSON_COMMANDS[name]
    if name == "report.json" and draw.random() < 0.4:
        argv = _OTHERS["gate"]
    what, claim = damage_json(draw, bases.documents[name], folder / name)
    undamaged = _put(bases, folder, argv, name)
    return {
        "what": f"{name}: {what}", "claim": claim, "argv": argv, "writes_to": writes_to, "damaged": (name,),
        "base": name, "undamaged": undamaged,
    }  # fmt: skip


def _toml(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    name, argv = draw.choice(
        (
            ("gate.toml", _OTHERS["gate"]),
            ("kernel_rules.toml", _OTHERS["rules"]),
            ("vocabulary.toml", _OTHERS["vocabulary"]),
        )
    )
    what, claim = damage_toml(draw, bases.documents[name], folder / name)
    undamaged = _put(bases, folder, argv, name)
    return {
        "what": f"{name}: {what}", "claim": claim, "argv": argv, "writes_to": "out", "damaged": (name,), "base": name,
        "undamaged": undamaged,
    }  # fmt: skip


def _counters(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    argv = _OTHERS["review"]
    name = "census.csv"
    if draw.random() < 0.25:
        name = "census.csv.xz"
        argv = tuple(name if word == "census.csv" else word for word in argv)
        what, claim = damage_packed(draw, bases.documents["census.csv"], folder / name)
    else:
        what, claim = damage_csv(draw, bases.documents[name], folder / name)
    undamaged = _put(bases, folder, argv, name)
    return {
        "what": f"{name}: {what}", "claim": claim, "argv": argv, "writes_to": "out", "damaged": (name,),
        "base": "census.csv", "undamaged": (("census.csv", bases.documents["census.csv"]), *undamaged),
    }  # fmt: skip


def _store(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    name = "history.sqlite"
    shutil.copyfile(bases.documents[name], folder / name)
    what, _ = damage_database(draw, folder / name)
    return {
        "what": f"history: {what}", "claim": "anything", "damaged": (name,), "base": name, "changes_input": True,
        "argv": ("trend", "--store", name, *(("--json",) if draw.random() < 0.7 else ())),
    }  # fmt: skip


def _schemas(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    del bases, folder
    name = draw.choice(("report", "summary", "review", "ranks", "diff", "gate", "sweep", "Report", "", "\N{SNOWMAN}"))
    return {"what": f"schema {name!r}", "claim": "anything", "damaged": (), "base": "", "argv": ("schema", name)}


def _runner(draw: random.Random, bases: Bases, folder: Path) -> dict[str, object]:
    """Only what starts no program: the request names no pages, a dry run prints commands, the others read."""
    way = draw.choice(("submit", "status", "import", "preset"))
    if way == "submit":
        what, claim = damage_json(draw, bases.documents["request.json"], folder / "request.json")
        return {
            "what": f"request.json: {what}", "claim": "anything", "damaged": (), "base": "request.json",
            "program": "dsocr-profile", "argv": ("submit", "request.json", "--out", "runs"), "writes_to": "runs",
        }  # fmt: skip
    if way == "preset":
        what, claim = damage_toml(draw, bases.documents["preset.toml"], folder / "preset.toml")
        return {
            "what": f"preset.toml: {what}", "claim": "anything", "damaged": (), "base": "preset.toml",
            "program": "dsocr-profile", "preset": "preset.toml",
            "argv": ("run", "deepseek-ocr-tiny", "--dry-run", "--no-history", "--preset", "default", "--out", "runs"),
        }  # fmt: skip
    (run := folder / "runs" / "26fb91c7").mkdir(parents=True)
    what, claim = damage_json(draw, bases.documents["recorded.json"], run / "run.json")
    if way == "status":
        argv: tuple[str, ...] = ("status", *draw.choice((("--all",), ("26fb",), ("26fb", "--json"))), "--out", "runs")
    else:
        shutil.copyfile(bases.documents["before.json"], run / "report.json")
        argv = ("history", "import", "runs", "--store", "history.sqlite")
    del claim
    return {
        "what": f"{way} of run.json: {what}", "claim": "anything", "damaged": ("run.json", "runs"),
        "base": "recorded.json", "program": "dsocr-profile", "argv": argv, "changes_input": way == "import",
    }  # fmt: skip


KINDS: Final[dict[str, tuple[int, Maker]]] = {
    "rows": (38, _rows),
    "harmless": (8, _unused),
    "schema": (12, _schema),
    "bytes": (10, _bytes),
    "packed": (4, _packed),
    "json": (12, _json),
    "toml": (6, _toml),
    "counters": (4, _counters),
    "history": (2, _store),
    "schema command": (1, _schemas),
    "runner": (3, _runner),
}
"""Kind → its share of all cases, and what makes one."""


def kind_of(seed: str, number: int) -> str:
    """Which kind a case is, without making it."""
    weights = [share for share, _ in KINDS.values()]
    return random_of(seed, number).choices(tuple(KINDS), weights)[0]


def make_case(seed: str, number: int, bases: Bases, folder: Path) -> Case:
    """Make a case's files.

    Args:
        seed: of the campaign.
        number: of the case.
        bases: what is damaged.
        folder: empty; its files go there.
    """
    draw = random_of(seed, number)
    kind = draw.choices(tuple(KINDS), [share for share, _ in KINDS.values()])[0]
    made = KINDS[kind][1](draw, bases, folder)
    return Case(**{"seed": seed, "number": number, "kind": kind, "folder": folder, "program": "dsocr-analyze", **made})  # type: ignore[arg-type]
