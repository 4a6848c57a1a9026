"""Vocabularies: what the names of a program's ranges mean, as small TOML files.

A vocabulary is a list of rules, tried in order: a regular expression that must match a range's whole name, what such a range
is (image, stage, step, module), and named groups that carry counts, a step's kind or a module's path. Ours, those of serving
engines and plain ``prefill``/``decode`` come with the program; a user's own file has the same form (docs/annotate.md).

Names are matched once per distinct domain and name, never per range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.domain.annotations import STAGES
from analysis.domain.errors import RequestError
from analysis.domain.names import shortened
from analysis.domain.reading import read_bounded, toml_of
from analysis.trace.distinct import distinct
from analysis.trace.records import RangeRows

__all__ = [
    "BUILT_IN",
    "OWN_VOCABULARY",
    "STEP_KINDS",
    "Choice",
    "Composition",
    "Meaning",
    "Reading",
    "Rule",
    "Vocabulary",
    "choose",
    "load_vocabulary",
]

STEP_KINDS: Final = ("prefill", "mixed", "decode", "empty", "step")
"""Kinds of an engine's steps, in the order in which they are shown; ``step``: its name does not tell its composition."""

RuleLevel: TypeAlias = Literal["image", "stage", "step", "module"]

BUILT_IN: Final = ("dsocr", "vllm", "sglang", "tensorrt-llm", "plain")
"""Names of the vocabularies that come with the program, in the order in which equal evidence decides."""
OWN_VOCABULARY: Final = "dsocr"
"""Ours."""
_BY_COUNTS: Final = "by counts"
_FOLDER: Final = Path(__file__).with_name("vocabularies")

_SHOWN: Final = 100
"""Characters of a value that an error repeats."""
_LARGEST_FILE: Final = 64 * 1024
_MOST_RULES: Final = 100
_LONGEST_PATTERN: Final = 2000
_LONGEST_NAME: Final = 4096
"""Characters of a range's name that are looked at: names are the profiled program's own words, and may be 100 kB long."""
_MOST_DIGITS: Final = 15
"""A count with more digits is none: it would not fit into 64 bits when it is summed."""

_COUNTS: Final = (
    "requests", "tokens", "prefill_requests", "prefill_tokens", "decode_requests", "decode_tokens", "prefill_sk",
    "prefill_sqsq", "prefill_sqsk", "decode_sk", "decode_sqsq", "decode_sqsk",
)  # fmt: skip
_GROUPS: Final = frozenset({*_COUNTS, "module", "kind"})
_LEVELS: Final = ("image", "stage", "step", "module")
_VOCABULARY_KEYS: Final = frozenset({"name", "title", "own_domains", "kinds", "ranges"})
_RULE_KEYS: Final = frozenset(
    {"name", "domain", "unless_domain", "unless_name", "beside_stages", "level", "kind", "continues"}
)


@frozen
class Composition:
    """What one step of an engine works on, as its name tells; None: it does not."""

    requests: int | None = None
    """In the step, whatever they are in."""
    tokens: int | None = None
    """New positions that the step computes."""
    prefill_requests: int | None = None
    prefill_tokens: int | None = None
    decode_requests: int | None = None
    decode_tokens: int | None = None
    prefill_sk: int | None = None
    """Sum of context lengths over the requests in prefill; the next ones sum new tokens², and new tokens × context."""
    prefill_sqsq: int | None = None
    prefill_sqsk: int | None = None
    decode_sk: int | None = None
    decode_sqsq: int | None = None
    decode_sqsk: int | None = None


@frozen
class Meaning:
    """What a range of one domain and name is."""

    level: RuleLevel | None
    kind: str | None = None
    """Of a stage or of a step that stands for itself."""
    composition: Composition | None = None
    """Of a step that stands for itself: it is an instance of the stage ``kind``."""
    module: str | None = None
    """Path of the module."""
    continues: bool = False
    """Where it lies in no step, what it launches belongs to the step before it on its thread."""


@frozen
class Rule:
    """One rule; every condition that it states must hold."""

    name: re.Pattern[str]
    domain: re.Pattern[str] | None = None
    """None: any."""
    unless_domain: str | None = None
    """The rule is void if the trace has a range in this domain."""
    unless_name: str | None = None
    """The rule is void if the trace has a range whose name begins so."""
    beside_stages: bool = False
    """Only in domains in which a stage was found."""
    level: RuleLevel | None = None
    kind: str | None = None
    continues: bool = False


@frozen
class Vocabulary:
    """The rules of one program or engine."""

    name: str
    title: str
    """As people call it."""
    rules: tuple[Rule, ...]
    kinds: Mapping[str, str]
    """Word of a group ``kind`` → step kind."""
    own_domains: tuple[str, ...] = ()
    """A trace with one of these is read by this vocabulary, whatever else is in it."""

    @property
    def has_step_kinds(self) -> bool:
        """Whether steps stand for themselves and are told apart by kind, as a serving engine's are."""
        return any(rule.level == "step" and _stands_for_itself(rule) for rule in self.rules)


def _stands_for_itself(rule: Rule) -> bool:
    return rule.kind is not None or "kind" in rule.name.groupindex


# --- files --------------------------------------------------------------------------------------------------------


def load_vocabulary(stated: str | None) -> Vocabulary | None:
    """The vocabulary that the user named: one of `BUILT_IN`, or a file; None: none was named.

    Raises:
        RequestError: there is no such file, or it is no vocabulary; names the file and what is wrong in it.
    """
    if stated is None:
        return None
    return _built_in(stated) if stated in BUILT_IN else _parse(Path(stated))


@cache
def _built_in(name: str) -> Vocabulary:
    return _parse(_FOLDER / f"{name}.toml")


def _parse(path: Path) -> Vocabulary:
    content = read_bounded(
        path, _LARGEST_FILE, follow=f"--vocabulary names a TOML file or one of {', '.join(BUILT_IN)}"
    )
    return _vocabulary(path, toml_of(content, str(path)))


def _told(word: Any) -> str:
    return shortened(repr(word), _SHOWN)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _vocabulary(path: Path, table: Mapping[str, Any]) -> Vocabulary:
    _known_keys(f"{path}", table, _VOCABULARY_KEYS)
    kinds = table.get("kinds", {})
    if not isinstance(kinds, dict) or not all(kind in STEP_KINDS for kind in kinds.values()):
        raise RequestError(f"{path}: [kinds] must map words to step kinds ({', '.join(STEP_KINDS)})")
    rows = table.get("ranges")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise RequestError(f"{path}: has no [[ranges]], the rules of a vocabulary; write one for each form of name")
    if len(rows) > _MOST_RULES:
        raise RequestError(
            f"{path}: has {len(rows):,} [[ranges]], more than the {_MOST_RULES} that are allowed; write one for several names"
        )
    domains = table.get("own_domains", [])
    if not isinstance(domains, list) or not all(isinstance(domain, str) for domain in domains):
        raise RequestError(f"{path}: own_domains must be a list of texts")
    name = _text(f"{path}", table, "name") or path.stem
    return Vocabulary(
        name=name,
        title=_text(f"{path}", table, "title") or name,
        rules=tuple(_rule(f"{path}: [[ranges]] {number}", row, kinds) for number, row in enumerate(rows, 1)),
        kinds=kinds,
        own_domains=tuple(domains),
    )


def _rule(where: str, row: Mapping[str, Any], kinds: Mapping[str, str]) -> Rule:
    _known_keys(where, row, _RULE_KEYS)
    name, domain = _pattern(where, row, "name"), _pattern(where, row, "domain")
    if name is None:
        raise RequestError(f"{where}: has no name, the regular expression that range names must match")
    if domain is not None and domain.groupindex:
        raise RequestError(f"{where}: domain has named groups, which mean nothing there; write (?:…)")
    unknown = sorted(set(name.groupindex) - _GROUPS)
    if unknown:
        raise RequestError(f"{where}: unknown group {_told(unknown[0])}; choose from {', '.join(sorted(_GROUPS))}")
    level, kind = _text(where, row, "level"), _text(where, row, "kind")
    continues = _flag(where, row, "continues")
    if level is not None and level not in _LEVELS:
        raise RequestError(f"{where}: unknown level {_told(level)}; choose from {', '.join(_LEVELS)}")
    if level is None and not continues:
        raise RequestError(f"{where}: has neither level nor continues, so that it says nothing; write one of them")
    _check_kind(where, level, kind, name, kinds)
    return Rule(
        name=name,
        domain=domain,
        unless_domain=_text(where, row, "unless_domain"),
        unless_name=_text(where, row, "unless_name"),
        beside_stages=_flag(where, row, "beside_stages"),
        level=level,  # type: ignore[arg-type]
        kind=kind,
        continues=continues,
    )


def _check_kind(
    where: str, level: str | None, kind: str | None, name: re.Pattern[str], kinds: Mapping[str, str]
) -> None:
    grouped = "kind" in name.groupindex
    if grouped and (kind is not None or not kinds):
        raise RequestError(f"{where}: a group kind needs a table [kinds] of its words, and no key kind")
    if level == "stage" and kind not in STAGES:
        raise RequestError(f"{where}: a stage needs kind = {' or '.join(map(repr, STAGES))}")
    if level == "step" and kind is not None and kind not in (*STEP_KINDS, _BY_COUNTS):
        raise RequestError(f"{where}: unknown kind {_told(kind)}; choose from {', '.join((*STEP_KINDS, _BY_COUNTS))}")
    if level not in ("stage", "step") and (kind is not None or grouped):
        raise RequestError(f"{where}: kind goes with level stage or step only; write one of them, or take it out")
    if kind == _BY_COUNTS and not _composition_groups(name):
        raise RequestError(
            f"{where}: kind = {_BY_COUNTS!r} needs groups in the name; write (?P<prefill_…>…) and (?P<decode_…>…)"
        )


def _composition_groups(name: re.Pattern[str]) -> bool:
    return {"prefill_requests", "decode_requests"} <= set(name.groupindex) or {
        "prefill_tokens",
        "decode_tokens",
    } <= set(name.groupindex)


def _known_keys(where: str, table: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise RequestError(f"{where}: unknown key {_told(unknown[0])}; choose from {', '.join(sorted(known))}")


def _text(where: str, table: Mapping[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise RequestError(f"{where}: {key} must be a text")
    return value


def _flag(where: str, table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise RequestError(f"{where}: {key} must be true or false")
    return value


def _pattern(where: str, table: Mapping[str, Any], key: str) -> re.Pattern[str] | None:
    text = _text(where, table, key)
    if text is None:
        return None
    if len(text) > _LONGEST_PATTERN:
        raise RequestError(f"{where}: {key} is longer than {_LONGEST_PATTERN:,} characters; write several rules")
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise RequestError(
            f"{where}: {key} is no regular expression ({_one_line(error)}); write one as Python has them"
        ) from error


# --- reading names ------------------------------------------------------------------------------------------------


@frozen(eq=False, slots=False)
class Reading:
    """The ranges of a trace as one vocabulary reads them."""

    vocabulary: Vocabulary
    meanings: tuple[Meaning, ...]
    """By code; the last one is that of no range."""
    code: NDArray[np.int32]
    """Index into ``meanings``, [ranges + 1]: -1 finds the last."""
    counts: NDArray[np.int64]
    """Ranges of each meaning, [meanings]."""

    def where(self, wanted: Sequence[bool]) -> NDArray[np.bool_]:
        """Ranges whose meaning is wanted, [ranges].

        Args:
            wanted: by code.
        """
        chosen: NDArray[np.bool_] = np.array(wanted, dtype=bool)[self.code[:-1]]
        return chosen

    @property
    def matched(self) -> int:
        """Ranges that are a stage or a step: the evidence for the vocabulary."""
        return sum(
            count
            for meaning, count in zip(self.meanings, self.counts.tolist(), strict=True)
            if meaning.level in ("stage", "step")
        )


@frozen(eq=False)
class Choice:
    """The vocabulary that a trace is read by, and why."""

    reading: Reading
    stated: bool
    """The user named it."""
    others: tuple[tuple[str, int], ...] = ()
    """Title and matching ranges of the other vocabularies with any."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Its rules."""
        return self.reading.vocabulary


_NOTHING: Final = Meaning(None)


def choose(ranges: RangeRows, stated: Vocabulary | None = None) -> Choice:
    """Read a trace's ranges by the vocabulary that most of them speak for; our own domains decide at once.

    Args:
        ranges: of the trace.
        stated: the one that the user named; None: by evidence.

    Returns:
        Where no range is a stage or a step by any vocabulary, the reading by our own.
    """
    pairs = _distinct_pairs(ranges)
    if stated is not None:
        return Choice(_read(stated, ranges, pairs), stated=True)
    own = _built_in(OWN_VOCABULARY)
    if not pairs.names or any(domain in ranges.domains for domain in own.own_domains):
        return Choice(_read(own, ranges, pairs), stated=False)
    readings = [_read(_built_in(name), ranges, pairs) for name in BUILT_IN if name != OWN_VOCABULARY]
    best = max(readings, key=lambda reading: reading.matched)  # the first of equal ones
    if not best.matched:
        return Choice(_read(own, ranges, pairs), stated=False)
    others = tuple(
        (reading.vocabulary.title, reading.matched) for reading in readings if reading is not best and reading.matched
    )
    return Choice(best, stated=False, others=others)


@frozen(eq=False)
class _Pairs:
    """Distinct domains and names of ranges."""

    domains: tuple[str, ...]
    names: tuple[str, ...]
    pair: NDArray[Any]
    """Of each range, [ranges]."""


def _distinct_pairs(ranges: RangeRows) -> _Pairs:
    if not len(ranges):
        return _Pairs((), (), np.zeros(0, dtype=np.int32))
    width = len(ranges.names)
    packed = ranges.domain.astype(np.int64) * width + ranges.name
    keys, pair = distinct(packed, len(ranges.domains) * width)
    at = [divmod(key, width) for key in keys.tolist()]
    return _Pairs(tuple(ranges.domains[domain] for domain, _ in at), tuple(ranges.names[name] for _, name in at), pair)


def _read(vocabulary: Vocabulary, ranges: RangeRows, pairs: _Pairs) -> Reading:
    meanings: list[Meaning | None] = [None] * len(pairs.names)
    stage_domains: set[str] = set()
    live = [rule for rule in vocabulary.rules if _is_live(rule, ranges, pairs)]
    for beside in (False, True):
        rules = [rule for rule in live if rule.beside_stages == beside]
        for number, (domain, name) in enumerate(zip(pairs.domains, pairs.names, strict=True)):
            if meanings[number] is None and (not beside or domain in stage_domains):
                meaning = meanings[number] = _meaning(vocabulary, rules, domain, name)
                if meaning is not None and meaning.level in ("stage", "step"):
                    stage_domains.add(domain)
    unique: dict[Meaning, int] = {}
    codes = np.array([unique.setdefault(meaning or _NOTHING, len(unique)) for meaning in meanings], dtype=np.int32)
    none = len(unique)
    code = np.append(codes[pairs.pair] if codes.size else np.zeros(0, dtype=np.int32), np.int32(none))
    return Reading(
        vocabulary=vocabulary,
        meanings=(*unique, _NOTHING),
        code=code.astype(np.int32),
        counts=np.bincount(code[:-1], minlength=none + 1).astype(np.int64),
    )


def _is_live(rule: Rule, ranges: RangeRows, pairs: _Pairs) -> bool:
    if rule.unless_domain is not None and rule.unless_domain in ranges.domains:
        return False
    return rule.unless_name is None or not any(name.startswith(rule.unless_name) for name in pairs.names)


def _meaning(vocabulary: Vocabulary, rules: Sequence[Rule], domain: str, name: str) -> Meaning | None:
    for rule in rules:
        if rule.domain is not None and rule.domain.fullmatch(domain) is None:
            continue
        matched = rule.name.fullmatch(name[:_LONGEST_NAME])
        if matched is not None:
            return _meant(vocabulary, rule, matched, name)
    return None


def _meant(vocabulary: Vocabulary, rule: Rule, matched: re.Match[str], name: str) -> Meaning:
    groups = matched.groupdict()
    if rule.level == "step" and _stands_for_itself(rule):
        counted = {key: _count(groups.get(key)) for key in _COUNTS}
        kind = rule.kind
        if "kind" in groups:
            kind = vocabulary.kinds.get(groups["kind"] or "", "step")
        elif kind == _BY_COUNTS:
            kind = _kind_by_counts(counted)
        return Meaning("step", kind, _composition(kind, counted), continues=rule.continues)
    module = (groups.get("module") or name) if rule.level == "module" else None
    return Meaning(rule.level, rule.kind, module=module, continues=rule.continues)


def _count(text: str | None) -> int | None:
    """A count of a name; what is no plain number, or too long a one, is none."""
    if text is None or len(text) > _MOST_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    return int(text)


def _kind_by_counts(counts: Mapping[str, int | None]) -> str:
    """Both parts: mixed; a chunk of a prompt beside running requests is prefill beside decode."""
    parts = []
    for part in STAGES:
        known = [counts[f"{part}_requests"], counts[f"{part}_tokens"]]
        if known == [None, None]:
            return "step"
        parts.append(any(known))
    return {(True, True): "mixed", (True, False): "prefill", (False, True): "decode"}.get((parts[0], parts[1]), "empty")


def _composition(kind: str | None, counts: Mapping[str, int | None]) -> Composition:
    """Fill in what follows: totals from parts, the one part of a pure step from its totals."""
    known = dict(counts)
    for what in ("requests", "tokens"):
        if known[what] is None and known[f"prefill_{what}"] is not None and known[f"decode_{what}"] is not None:
            known[what] = (known[f"prefill_{what}"] or 0) + (known[f"decode_{what}"] or 0)
        for part, other in (STAGES, STAGES[::-1]):
            if kind == part and known[f"{part}_{what}"] is None:
                known[f"{part}_{what}"] = known[what]
                known[f"{other}_{what}"] = known[f"{other}_{what}"] or 0
            elif kind == part and known[what] is None:
                known[what] = known[f"{part}_{what}"]
    return Composition(**known)
