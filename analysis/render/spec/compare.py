"""Tables of a comparison: sides, settings, latencies, contributions, and which kernels became which.

Base, new and difference of a table are written together (`analysis.domain.figures.ledger`), so that rows and columns add up
as they are shown; `analysis.render.compare.contents` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from analysis.compare.records import (
    Answer,
    Comparison,
    Contribution,
    Interval,
    KernelMatch,
    Level,
    MatchKind,
    SettingChange,
    StageDifference,
)
from analysis.domain.figures import change, decimal, difference, duration, ratio
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import (
    BYTES,
    COUNT,
    DURATION,
    NAME,
    RATIO,
    SIGNED_DURATION,
    TEXT,
    YES_NO,
    Column,
    Specification,
    Style,
    factor,
)
from analysis.render.spec.text import shortened, visible

__all__ = [
    "ANSWERS",
    "BASE",
    "DIFFERENCE",
    "DIFF_CONTRIBUTIONS",
    "DIFF_KERNELS",
    "DIFF_SETTINGS",
    "DIFF_SIDES",
    "DIFF_STAGES",
    "LEVELS",
    "NEW",
    "UNEXPLAINED",
    "AnswerLook",
    "Outcome",
    "answer_in_words",
    "band_in_words",
    "explained_in_words",
    "interval_in_words",
    "kernels_in_words",
    "match_in_words",
    "part_in_words",
]

BASE: Final = "Base"
NEW: Final = "New"
DIFFERENCE: Final = "Difference"
"""Headings of the columns that are written together."""


@frozen
class AnswerLook:
    """How an answer looks: a word, a sign beside it, and a colour, of which each alone would do."""

    word: str
    sign: str
    kind: str
    """Class of the page's style."""


ANSWERS: Final[dict[Answer, AnswerLook]] = {
    "regression": AnswerLook("regression", "▲", "slower"),
    "improvement": AnswerLook("improvement", "▼", "faster"),
    "equal": AnswerLook("equal", "=", "equal"),
    "cannot judge": AnswerLook("cannot judge", "?", "unsure"),
}
"""Answer → its look. The sign points where the time went."""

LEVELS: Final[dict[Level, str]] = {
    "stage": "In short",
    "module": "By module",
    "class": "By kernel class",
    "kernel": "By kernel",
    "host": "By what the host did",
}
"""Level of contributions → its title."""


def answer_in_words(answer: Answer) -> str:
    """Sign and word of an answer."""
    look = ANSWERS[answer]
    return f"{look.sign} {look.word}"


def interval_in_words(interval: Interval | None) -> str | None:
    """Both ends of an interval, with their signs and in one unit: ``−4.51 … −4.10 ms``."""
    if interval is None:
        return None
    ends = difference(interval.high_ns, interval.low_ns)
    low, high = (_signed(text) for text in (ends.part, ends.whole))
    return f"{low.rpartition(' ')[0]} … {high}"


def _signed(text: str) -> str:
    if text.startswith("-"):
        return f"−{text[1:]}"
    return f"+{text}" if any(digit in text for digit in "123456789") else text


def band_in_words(interval: Interval | None) -> str | None:
    """By how much unchanged runs differ: ``±50.0 µs``; of an assumed band ``±50.0 µs (assumed)``."""
    if interval is None or interval.band_ns is None:
        return None
    return f"±{duration(interval.band_ns)}{'' if interval.band_measured else ' (assumed)'}"


UNEXPLAINED: Final = "not"
"""Instead of a share that says nothing."""


def explained_in_words(share: float) -> str:
    """How much of a difference is explained: ``97.2 %``; `UNEXPLAINED` where the rest is larger than the whole difference.

    Args:
        share: of the difference; what it lacks to 1, or has beyond it, is the rest.
    """
    return ratio(share) if 0 <= share <= 2 else UNEXPLAINED


def match_in_words(kind: MatchKind, base: int, new: int) -> str:
    """What became of kernels: ``these 7 became this one``.

    Args:
        kind: of the match.
        base: kernels on the base.
        new: kernels on the new side.
    """
    if kind not in ("fused", "split"):
        return kind
    before = "this one" if base == 1 else f"these {base}"
    after = "this one" if new == 1 else f"these {new}"
    return f"{before} became {after}"


_ONE_NAME: Final = 72
"""Characters of one of several names."""


def kernels_in_words(names: Sequence[str]) -> str:
    """Names of kernels, side by side; of several each is cut, for the data files hold them whole."""
    if len(names) == 1:
        return names[0]
    return " + ".join(name if len(name) <= _ONE_NAME else f"{name[: _ONE_NAME - 2]} …" for name in names)


_PART_NAME: Final = 60
"""Characters of a part's name."""


def part_in_words(row: Contribution) -> str:
    """A part of a difference as people read it: a module, a kernel class, or what the host did while the GPU idled."""
    return shortened(visible(row.name), _PART_NAME)


_CALLS: Final = Style("calls", lambda value: decimal(value, 2).removesuffix(".00"))
"""Calls per unit, which are whole or not."""
_EXPLAINED: Final = Style("ratio", explained_in_words)
_FIGURES: Final = Style("text", str)
"""Figures that are written already."""


@frozen
class Outcome:
    """One stage of one of several new sides."""

    label: str
    """Of the new side."""
    stage: StageDifference
    anchor: str
    """Where the page tells more; empty: nowhere."""

    @staticmethod
    def all_of(comparisons: Sequence[Comparison]) -> tuple[Outcome, ...]:
        """A row for each stage of each new side."""
        return tuple(
            Outcome(given.new.label, stage, f"c{number}")
            for number, given in enumerate(comparisons)
            for stage in given.stages
        )


_S = Column[SettingChange]
_D = Column[StageDifference]
_C = Column[Contribution]
_K = Column[KernelMatch]
_O = Column[Outcome]


def _relative(row: StageDifference) -> str | None:
    return None if row.base_ns is None or row.new_ns is None else change(row.base_ns, row.new_ns).relative


def _one_side(row: StageDifference) -> str | None:
    """Why a stage's difference is not known."""
    if row.base_ns is None:
        return "the base does not have this stage"
    return "the new side does not have this stage" if row.new_ns is None else None


def _unexplained(_: object) -> str:
    return "there is no difference to explain, or no repetitions without the profiler to check it by"


def _no_interval(row: StageDifference) -> str | None:
    return "a side has no unprofiled repetitions" if row.interval is None else None


_INTERVAL: Final = (
    "Interval of the difference of the medians: a bootstrap over the unprofiled repetitions, or the extremes of few."
)
_BAND: Final = GLOSSARY["aa_band"]
_ANSWER: Final = GLOSSARY["answer"]

DIFF_STAGES: Final = Specification[StageDifference](
    key="diff_stages",
    title="Latencies",
    rows="A stage on both sides.",
    columns=(
        _D("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _D("per", "Per", "string", TEXT, "What its latency is of: one image, prompt, token or step.", priority=4),
        _D("unprofiled", "Unprofiled", "bool", YES_NO, "Whether the times are medians of unprofiled passes; else of profiled ones.",
           priority=6, shown=()),
        _D("base_ns", BASE, "float64", DURATION, GLOSSARY["base_latency"], nullable=True, priority=0,
           why=_one_side),
        _D("new_ns", NEW, "float64", DURATION, GLOSSARY["new_latency"], nullable=True, priority=0,
           why=_one_side),
        _D("difference_ns", DIFFERENCE, "float64", SIGNED_DURATION, GLOSSARY["latency_difference"], nullable=True,
           priority=1, why=_one_side),
        _D("ratio", "Ratio", "float64", factor(3), "New ÷ base.", nullable=True, shown=(), why=_one_side),
        _D("relative", "Relative", "string", _FIGURES, GLOSSARY["relative_difference"],
           value=_relative, nullable=True, data=False, priority=2, why=_one_side),
        _D("interval", "Interval", "string", _FIGURES, _INTERVAL, value=lambda row: interval_in_words(row.interval),
           nullable=True, data=False, priority=3, why=_no_interval),
        _D("low_ns", "Low", "float64", SIGNED_DURATION, f"{_INTERVAL} Its low end.",
           value=lambda row: row.interval and row.interval.low_ns, nullable=True, shown=(), why=_no_interval),
        _D("high_ns", "High", "float64", SIGNED_DURATION, f"{_INTERVAL} Its high end.",
           value=lambda row: row.interval and row.interval.high_ns, nullable=True, shown=(), why=_no_interval),
        _D("confidence", "Confidence", "float64", RATIO, "Of the interval.",
           value=lambda row: row.interval and row.interval.confidence, nullable=True, shown=(), why=_no_interval),
        _D("base_samples", "Repetitions, base", "int64", COUNT, "Unprofiled repetitions on the base.",
           value=lambda row: row.interval and row.interval.base_samples, nullable=True, shown=(), why=_no_interval),
        _D("new_samples", "Repetitions, new", "int64", COUNT, "Unprofiled repetitions on the new side.",
           value=lambda row: row.interval and row.interval.new_samples, nullable=True, shown=(), why=_no_interval),
        _D("band", "A/A band", "string", _FIGURES, _BAND, value=lambda row: band_in_words(row.interval),
           nullable=True, data=False, priority=5, why=_no_interval),
        _D("band_ns", "Band", "float64", DURATION, _BAND, value=lambda row: row.interval and row.interval.band_ns,
           nullable=True, shown=(), why=_no_interval),
        _D("band_from", "Band from", "string", TEXT, "What the band comes from.",
           value=lambda row: row.interval and row.interval.band_from, nullable=True, shown=(), why=_no_interval),
        _D("answer_shown", "Answer", "string", TEXT, _ANSWER, value=lambda row: answer_in_words(row.answer), data=False,
           priority=0),
        _D("answer", "Answer", "string", TEXT, _ANSWER, shown=()),
        _D("explained", "Explained", "float64", _EXPLAINED,
           GLOSSARY["explained"], nullable=True, priority=4, why=_unexplained),
        _D("because", "Because", "string", TEXT, "The answer's reason.", shown=()),
    ),
)  # fmt: skip

DIFF_SIDES: Final = Specification[Outcome](
    key="diff_sides",
    title="Every new side against the base",
    rows="A stage of a new side, against the same base.",
    columns=(
        _O("label", "New side", "string", NAME, "The new side.", priority=0),
        _O("stage", "Stage", "string", TEXT, GLOSSARY["stage"], value=lambda row: row.stage.stage, priority=0),
        _O("base_ns", BASE, "float64", DURATION, GLOSSARY["base_latency"], value=lambda row: row.stage.base_ns,
           nullable=True, priority=1, why=lambda row: _one_side(row.stage)),
        _O("new_ns", NEW, "float64", DURATION, GLOSSARY["new_latency"], value=lambda row: row.stage.new_ns,
           nullable=True, priority=0, why=lambda row: _one_side(row.stage)),
        _O("difference_ns", DIFFERENCE, "float64", SIGNED_DURATION, GLOSSARY["latency_difference"],
           value=lambda row: row.stage.difference_ns, nullable=True, priority=1, why=lambda row: _one_side(row.stage)),
        _O("relative", "Relative", "string", _FIGURES, GLOSSARY["relative_difference"],
           value=lambda row: _relative(row.stage), nullable=True, data=False, priority=2,
           why=lambda row: _one_side(row.stage)),
        _O("answer_shown", "Answer", "string", TEXT, _ANSWER, value=lambda row: answer_in_words(row.stage.answer), data=False,
           priority=0),
        _O("answer", "Answer", "string", TEXT, _ANSWER, value=lambda row: row.stage.answer, shown=()),
        _O("explained", "Explained", "float64", _EXPLAINED, GLOSSARY["explained"],
           value=lambda row: row.stage.explained, nullable=True, priority=3,
           why=_unexplained),
    ),
)  # fmt: skip


def _side(row: SettingChange, place: int) -> str:
    value = row.values[place]
    return "not recorded" if value is None else value


DIFF_SETTINGS: Final = Specification[SettingChange](
    key="diff_settings",
    title="Settings that differ",
    rows="A setting in which the sides differ.",
    columns=(
        _S("group", "Of", "string", TEXT, "What the setting belongs to.", priority=2),
        _S("name", "Setting", "string", TEXT, "The setting.", priority=0),
        _S("base", BASE, "string", TEXT, "On the base.", value=lambda row: _side(row, 0), priority=0),
        _S("new", NEW, "string", TEXT, "On the new side.", value=lambda row: _side(row, 1), priority=0),
        _S("forbids", "Forbids", "bool", YES_NO,
           "Whether a difference of latencies cannot be put down to the code because of it.", priority=1),
        _S("because", "Because", "string", TEXT, "Why it forbids that.", optional=True, priority=5),
    ),
)  # fmt: skip

_PER_UNIT: Final = "per token, image or prompt"


def _calls(row: Contribution | KernelMatch) -> str:
    """Calls of both sides, once where they are equal; empty: there are none to count."""
    if row.base_calls is None or row.new_calls is None:
        return ""
    before, after = _CALLS(row.base_calls), _CALLS(row.new_calls)
    return before if before == after else f"{before} → {after}"


def _no_calls(_: object) -> str:
    return "it is no time of calls that could be counted"


DIFF_CONTRIBUTIONS: Final = Specification[Contribution](
    key="diff_contributions",
    title="What the difference is made of",
    rows="A part of a stage's difference. Those of one stage and level add up to it.",
    columns=(
        _C("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _C("level", "Level", "string", TEXT, "How finely it is split: stage, module, kernel class, kernel, or what the host did.",
           priority=0),
        _C("name", "Part", "string", TEXT, "Module pattern, kernel class or kernel, whose GPU time it is; or what the host did "
           "while the GPU idled; or what they do not explain.", priority=0),
        _C("kind", "Kind", "string", TEXT,
           "GPU time: of its operations. Overlap: GPU time that ran beside other GPU time, taken off. Launches, waits, other "
           "calls, Python, in graph: the GPU idled meanwhile. Rest: what nothing above explains.", shown=()),
        _C("base_ns", BASE, "float64", DURATION, f"Time on the base {_PER_UNIT}.", adds=True, priority=1),
        _C("new_ns", NEW, "float64", DURATION, f"Time on the new side {_PER_UNIT}.", adds=True, priority=1),
        _C("difference_ns", DIFFERENCE, "float64", SIGNED_DURATION, GLOSSARY["part_difference"], adds=True, priority=0),
        _C("calls", "Calls", "string", _FIGURES, f"Operations or calls {_PER_UNIT}; of both sides, where they differ.",
           value=_calls, data=False, optional=True, priority=2),
        _C("base_calls", "Calls, base", "float64", _CALLS, f"Operations or calls on the base {_PER_UNIT}.",
           nullable=True, shown=(), why=_no_calls),
        _C("new_calls", "Calls, new", "float64", _CALLS, f"Operations or calls on the new side {_PER_UNIT}.",
           nullable=True, shown=(), why=_no_calls),
        _C("match", "Match", "string", TEXT, "Whether the same kernels do the work on both sides.", shown=(), priority=5),
        _C("note", "Note", "string", TEXT, "Which kernels became which, or how a modelled part was found.", shown=()),
    ),
)  # fmt: skip


def _names(row: KernelMatch) -> str:
    """Names on the base, and behind an arrow on the new side where they are others."""
    if row.base_names == row.new_names or not (row.base_names and row.new_names):
        return kernels_in_words(row.base_names or row.new_names)
    return f"{kernels_in_words(row.base_names)} → {kernels_in_words(row.new_names)}"


_COUNTED: Final = "no kernel review lies beside this run"

DIFF_KERNELS: Final = Specification[KernelMatch](
    key="diff_kernels",
    title="Kernels, and what does their work on the new side",
    rows="Kernels of one module, operator family and place on the base, and those that do their work on the new side.",
    columns=(
        _K("family", "Work", "string", TEXT, "What the kernels do, in words: what a library's other tile "
           "or version does as well.", priority=0),
        _K("kernels", "Kernels", "string", TEXT, "Names on the base; behind an arrow, those on the new side where they are others.",
           value=_names, data=False, below="family", shown=("html",)),
        _K("stage", "Stage", "string", TEXT, GLOSSARY["stage"], shown=()),
        _K("match", "Match", "string", TEXT,
           "Same: the same kernel. Same work, another kernel: a library chose another tile or version. These became this one: "
           "they were fused, or split. New, vanished: it has no counterpart.",
           value=lambda row: match_in_words(row.kind, len(row.base_names), len(row.new_names)), data=False, priority=0),
        _K("kind", "Match", "string", TEXT, "What became of them.", shown=()),
        _K("base_names", "Kernels on the base", "string", NAME, "Names on the base.",
           value=lambda row: "; ".join(row.base_names), shown=()),
        _K("new_names", "Kernels on the new side", "string", NAME, "Names on the new side.",
           value=lambda row: "; ".join(row.new_names), shown=()),
        _K("difference_ns", DIFFERENCE, "float64", SIGNED_DURATION, GLOSSARY["part_difference"], adds=True, priority=0),
        _K("base_ns", BASE, "float64", DURATION, f"Kernel time on the base {_PER_UNIT}.", adds=True, priority=1),
        _K("new_ns", NEW, "float64", DURATION, f"Kernel time on the new side {_PER_UNIT}.", adds=True, priority=1),
        _K("base_calls", "Calls, base", "float64", _CALLS, f"Calls on the base {_PER_UNIT}.", adds=True, shown=("html",)),
        _K("new_calls", "Calls, new", "float64", _CALLS, f"Calls on the new side {_PER_UNIT}.", adds=True, shown=("html",)),
        _K("calls", "Calls", "string", _FIGURES, f"Calls {_PER_UNIT}; of both sides, where they differ.", value=_calls,
           data=False, shown=("markdown", "terminal"), priority=2),
        _K("module", "Module", "string", NAME, GLOSSARY["module_folded"], priority=3),
        _K("kernels_in_words", "Kernels", "string", NAME, "Their names on the base, and behind an arrow on the new side.",
           value=_names, data=False, shown=("markdown",), priority=4),
        _K("base_bytes", "DRAM, base", "float64", BYTES, f"Bytes from and to DRAM on the base {_PER_UNIT}, by counters.",
           nullable=True, optional=True, shown=("html", "markdown"), priority=6, why=lambda row: _COUNTED),
        _K("new_bytes", "DRAM, new", "float64", BYTES, f"Bytes from and to DRAM on the new side {_PER_UNIT}, by counters.",
           nullable=True, optional=True, shown=("html", "markdown"), priority=6, why=lambda row: _COUNTED),
    ),
)  # fmt: skip
