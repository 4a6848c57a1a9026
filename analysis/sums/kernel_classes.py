"""Kernel and operator names → category, library, human name and tensor-core use, by ordered rules in a data file.

The rules (``kernel_rules.toml``) are substrings, not regular expressions: a name is the profiled program's own word and
may be 100 kB of template arguments, and no rule, ours or a user's, can then take more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from analysis.domain.errors import RequestError
from analysis.domain.many_records import records_of
from analysis.domain.names import shortened
from analysis.domain.reading import LARGEST_SETTINGS, read_bounded, toml_of

__all__ = [
    "OTHER",
    "Category",
    "KernelClass",
    "Operation",
    "Rule",
    "Rules",
    "classify",
    "classify_all",
    "is_communication",
    "load_rules",
]

OTHER: Final = "other"
_SHOWN: Final = 100
"""Characters of a value that an error repeats."""

# A kernel is told by the begin of its name (the template and its first arguments) or, where a wrapper hides it, by the
# end; what lies between are argument types.
_HEAD: Final = 4096
_TAIL: Final = 512
_HUMAN_NAME_LENGTH: Final = 80


@frozen
class KernelClass:
    """What a kernel's name tells."""

    category: str
    library: str | None
    human_name: str
    tensor_core: bool | None
    """None: the name does not tell."""


@frozen
class Rule:
    """One rule; every condition that it states must hold. All texts in lower case."""

    category: str
    human: str
    library: str | None = None
    tensor_core: bool | None = None
    prefix: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()

    def begins(self, name: str, short: str) -> bool:
        """Whether a name meets the conditions on its begin and on the whole."""
        if self.prefix and not (name.startswith(self.prefix) or short.startswith(self.prefix)):
            return False
        return not self.equal or name in self.equal or short in self.equal

    def allows(self, parts: frozenset[str]) -> bool:
        """Whether a name with these texts in it meets the conditions on what is inside."""
        if self.any and parts.isdisjoint(self.any):
            return False
        return parts.issuperset(self.all) and parts.isdisjoint(self.none)


@frozen
class Category:
    """What counts as a category."""

    name: str
    meaning: str
    communication: bool = False
    """Between devices."""


@frozen
class Operation:
    """What ``{operation}`` in a human name stands for."""

    name: str
    any: tuple[str, ...]
    none: tuple[str, ...] = ()


# Which of a thousand texts a name contains is found by its groups of three bytes, of many names at once: of 114,744 names
# in a tenth of the time that asking for each text takes.
_GROUP: Final = 3
_CODES: Final = 1 << 21
"""Codes of groups: seven bits of each byte. That others than ASCII share codes costs a look, no more."""
_AT_ONCE: Final = 1 << 17
"""Bytes of names that are looked through at once: what is made of them then stays in a core's cache, which takes 50 ms less of
200 than 4 MB at once."""
_SEEN: Final = 10_000
"""Combinations of texts and begins that are remembered."""


def _codes(raw: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The code of the group that begins at each byte but the last two, [bytes - 2]."""
    low = (raw & 0x7F).astype(np.int32)
    codes = low[2:] << 7
    codes |= low[1:-1]
    codes <<= 7
    codes |= low[:-2]
    return codes


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@frozen
class Rules:
    """Rules in the order in which they are tried."""

    rules: tuple[Rule, ...]
    operations: tuple[Operation, ...]
    categories: tuple[Category, ...]
    groups: _Groups = field(init=False, eq=False, repr=False)
    """The texts that the rules ask for inside a name."""

    @groups.default
    def _texts_by_group(self) -> _Groups:
        return _Groups.of({text for rule in self.rules for text in (*rule.any, *rule.all, *rule.none)})

    by_text: Mapping[str, tuple[int, ...]] = field(init=False, eq=False, repr=False)
    """Text → places of the rules that hold only for names that contain it, or another text of theirs."""
    by_begin: Mapping[str, tuple[int, ...]] = field(init=False, eq=False, repr=False)
    """First three characters → places of the rules that ask for such a begin, and for no text inside a name; those that
    ask for a shorter one are under the empty text."""

    @by_text.default
    def _rules_by_text(self) -> Mapping[str, tuple[int, ...]]:
        by_text: dict[str, list[int]] = {}
        for place, rule in enumerate(self.rules):
            for text in rule.any or rule.all[:1]:
                by_text.setdefault(text, []).append(place)
        return {text: tuple(places) for text, places in by_text.items()}

    @by_begin.default
    def _rules_by_begin(self) -> Mapping[str, tuple[int, ...]]:
        by_begin: dict[str, list[int]] = {}
        for place, rule in enumerate(self.rules):
            if not (rule.any or rule.all):
                begins = rule.prefix or rule.equal
                for begin in {text[:_GROUP] if len(text) >= _GROUP else "" for text in begins} or {""}:
                    by_begin.setdefault(begin, []).append(place)
        return {begin: tuple(places) for begin, places in by_begin.items()}

    may_hold: dict[tuple[frozenset[str], str, str], tuple[Rule, ...]] = field(
        init=False, factory=dict, eq=False, repr=False
    )
    """What `_candidates` found, by what it looked at."""

    def first_that_holds(self, name: str, short: str, parts: frozenset[str]) -> Rule | None:
        """The first rule whose conditions a name meets.

        Args:
            name: capped, lower case.
            short: likewise.
            parts: the rules' texts in both.
        """
        seen = (parts, name[:_GROUP], short[:_GROUP])
        rules = self.may_hold.get(seen)
        if rules is None:
            if len(self.may_hold) >= _SEEN:
                self.may_hold.clear()
            rules = self.may_hold[seen] = self._candidates(*seen)
        for rule in rules:
            if rule.begins(name, short):
                return rule
        return None

    def _candidates(self, parts: frozenset[str], *begins: str) -> tuple[Rule, ...]:
        """The rules, in their order, that a name with these texts in it and one of these begins may meet."""
        places = {place for text in parts for place in self.by_text.get(text, ())}
        for begin in {*begins, ""}:
            places.update(self.by_begin.get(begin, ()))
        return tuple(rule for place in sorted(places) if (rule := self.rules[place]).allows(parts))

    def texts_in(self, names: Sequence[str]) -> list[frozenset[str]]:
        """The texts of the rules' conditions that each name contains, [names]."""
        texts: list[frozenset[str]] = []
        size, first = 0, 0
        for at, name in enumerate(names):
            size += len(name)
            if size >= _AT_ONCE or at == len(names) - 1:
                texts += self.groups.texts_in(names[first : at + 1])
                size, first = 0, at + 1
        return texts


@frozen(eq=False)
class _Groups:
    """Texts by the group that they begin with."""

    number: NDArray[np.int16]
    """Code of a group → its place in ``texts``, from 1; 0: no text begins so. [codes]"""
    texts: tuple[tuple[str, ...], ...]
    short: tuple[str, ...]
    """Of fewer bytes than a group: every name is asked for them."""

    @classmethod
    def of(cls, texts: set[str]) -> _Groups:
        by_code: dict[int, tuple[str, ...]] = {}
        for text in sorted(texts):
            if len(raw := _bytes(text)) >= _GROUP:
                code = int(_codes(np.frombuffer(raw[:_GROUP], np.uint8))[0])
                by_code[code] = (*by_code.get(code, ()), text)
        number = np.zeros(_CODES, dtype=np.int16)
        number[list(by_code)] = np.arange(1, len(by_code) + 1)
        return cls(number, tuple(by_code.values()), tuple(text for text in sorted(texts) if len(_bytes(text)) < _GROUP))

    def texts_in(self, names: Sequence[str]) -> list[frozenset[str]]:
        joined = "".join(names)
        if joined.isascii():  # as almost always: as many bytes as characters
            ends = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)))
            text = np.frombuffer(joined.encode("ascii"), np.uint8)
        else:
            raws = [_bytes(name) for name in names]
            ends = np.cumsum([len(raw) for raw in raws])
            text = np.frombuffer(b"".join(raws), np.uint8)
        groups = self.number[_codes(text)] if text.size >= _GROUP else np.empty(0, np.int16)
        at = np.flatnonzero(groups)
        # A group across the border of two names is one more look, at the name in which it begins.
        pairs = np.searchsorted(ends, at, side="right") * (len(self.texts) + 1) + groups[at]
        pairs.sort(kind="stable")  # in order but for the groups of one name
        name_of, group = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], len(self.texts) + 1)
        first = np.searchsorted(name_of, np.arange(len(names) + 1)).tolist()
        numbers = (group - 1).tolist()
        asked = [tuple(numbers[begin:end]) for begin, end in pairwise(first)]
        # A text that none of the names contains is not looked for in each; one across a border is one more look.
        there = {place: [text for text in self.texts[place] if text in joined] for place in set(numbers)}
        short = [text for text in self.short if text in joined]
        candidates = {key: (*(text for place in key for text in there[place]), *short) for key in set(asked)}
        sets: dict[tuple[str, ...], frozenset[str]] = {}  # most names hold one of few sets of texts
        in_names = []
        for key, name in zip(asked, names, strict=True):
            inside = tuple([text for text in candidates[key] if text in name])
            if inside not in sets:
                sets[inside] = frozenset(inside)
            in_names.append(sets[inside])
        return in_names


@frozen
class _Subject:
    """A name as the rules see it: capped, lower case."""

    name: str
    short: str

    @property
    def text(self) -> str:
        return f"{self.name}\n{self.short}"


def load_rules(extra: Path | None = None) -> Rules:
    """Load the built-in rules, a user's own before them.

    Args:
        extra: a TOML file with ``[[rule]]``, ``[[operation]]`` and ``[[category]]`` tables as in ``kernel_rules.toml``.

    Raises:
        RequestError: the file cannot be read, or a rule in it is not one; names the file and the rule.
    """
    built_in = _built_in()
    if extra is None:
        return built_in
    own = _parse(extra)
    return Rules(
        rules=own.rules + built_in.rules,
        operations=own.operations + built_in.operations,
        categories=own.categories + built_in.categories,
    )


def classify(name: str, short_name: str, rules: Rules | None = None) -> KernelClass:
    """Classify one kernel or CPU operator by its name.

    Args:
        name: demangled name with template arguments; mangled or empty names are taken as they are.
        short_name: the name without templates and arguments; may be empty.
        rules: from `load_rules`; the built-in ones if None.

    Returns:
        The class; category ``other`` if no rule holds, with the short name as its human name.
    """
    return classify_all([name], [short_name], rules)[0]


def classify_all(names: Sequence[str], short_names: Sequence[str], rules: Rules | None = None) -> list[KernelClass]:
    """Classify many kernels, each distinct pair of names once.

    Args:
        names: demangled names, [n].
        short_names: short names, [n].
        rules: from `load_rules`; the built-in ones if None.

    Returns:
        One class per kernel, [n], in the order of ``names``.

    Raises:
        ValueError: the sequences differ in length.
    """
    rules = rules or _built_in()
    pairs = list(zip(names, short_names, strict=True))
    distinct = list(dict.fromkeys(pairs))
    heads = [_head(*pair) for pair in distinct]
    parts = rules.texts_in([f"{name}\n{short}" for name, short in heads])
    if not pairs:
        return []
    told = [_told_by(*each, rules) for each in zip(distinct, heads, parts, strict=True)]
    category, library, human_name, tensor_core = zip(*told, strict=True)
    classes = records_of(
        KernelClass,
        {"category": category, "library": library, "human_name": human_name, "tensor_core": tensor_core},
        len(told),
    )
    if len(distinct) == len(pairs):
        return list(classes)
    known = dict(zip(distinct, classes, strict=True))
    return [known[pair] for pair in pairs]


def _told_by(
    pair: tuple[str, str], head: tuple[str, str], inside: frozenset[str], rules: Rules
) -> tuple[str, str | None, str, bool | None]:
    """The fields of `KernelClass`."""
    rule = rules.first_that_holds(*head, inside)
    if rule is not None:
        return rule.category, rule.library, _human_name(rule, _Subject(*head), rules), rule.tensor_core
    name, short_name = pair
    return OTHER, None, (short_name or name or "(no name)")[:_HUMAN_NAME_LENGTH], None


def is_communication(category: str) -> bool:
    """Whether one of the built-in categories is communication between devices."""
    return category in _communication()


@cache
def _communication() -> frozenset[str]:
    return frozenset(category.name for category in _built_in().categories if category.communication)


def _head(name: str, short_name: str) -> tuple[str, str]:
    """Name and short name as the rules see them."""
    head = name if len(name) <= _HEAD + _TAIL else f"{name[:_HEAD]}\n{name[-_TAIL:]}"
    return head.lower().removeprefix("void "), short_name[:_HEAD].lower().removeprefix("void ")


# --- human names -----------------------------------------------------------------------------------------------------

_DTYPES: Final[Mapping[str, str]] = {
    "c10::bfloat16": "bf16",
    "__nv_bfloat16": "bf16",
    "nv_bfloat16": "bf16",
    "cutlass::bfloat16_t": "bf16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "c10::half": "fp16",
    "__half": "fp16",
    "cutlass::half_t": "fp16",
    "half": "fp16",
    "f16": "fp16",
    "c10::float8_e4m3fn": "fp8",
    "c10::float8_e5m2": "fp8",
    "e4m3": "fp8",
    "tf32": "tf32",
    "float": "fp32",
    "f32": "fp32",
    "double": "fp64",
    "unsigned char": "uint8",
    "signed char": "int8",
    "bool": "bool",
    "long": "int64",
    "int": "int32",
    "short": "int16",
}


# Kineto leaves names mangled that it cannot demangle, such as CUTLASS's grouped products; there "f" is a bit of anything.
_MANGLED_DTYPES: Final[Mapping[str, str]] = {
    "10bfloat16_t": "bf16",
    "13__nv_bfloat16": "bf16",
    "8bfloat16": "bf16",
    "6half_t": "fp16",
    "6__half": "fp16",
    "4half": "fp16",
}


@cache
def _patterns() -> Mapping[str, re.Pattern[str]]:
    """Patterns for details of a human name: literals and bounded repeats only, so that each is linear."""
    names = "|".join(re.escape(name) for name in sorted(_DTYPES, key=len, reverse=True))
    return {
        "value": re.compile(r"\((?:unsigned )?(?:int|bool|long|char)\)(?=-?\d)"),
        "dtype": re.compile(rf"(?<![a-z0-9_:])(?:{names})(?![a-z0-9_:])"),
        # xmma, cutlass and NCCL write the type between underscores, xmma twice for A and B: "_bf16bf16_".
        "dtype_in_word": re.compile(r"_(bf16|f16|f32|tf32|e4m3)(?=\1|_|bf16|f16|f32|\b)"),
        "opaque": re.compile(r"opaquetype<(\d{1,2})>"),
        "vector": re.compile(r"vectorized_elementwise_kernel<(?:\(int\))?(\d{1,2})\b"),
        # nvjet_sm90_<types>_<tile m>x<tile n>_…; "tst" and "hsh" are the letters that bf16 and fp16 products carry.
        "nvjet": re.compile(r"nvjet_(?:sm\d{2,3}_)?([a-z]{3,6})_(\d{1,3})x(\d{1,3})_"),
        "nccl": re.compile(r"_(sum|prod|max|min|avg|premulsum)(?=_)"),
        "nccl_way": re.compile(r"_(ring|tree|nvls|collnet|pat)(?:_(ll128|ll|simple))?"),
    }


def _human_name(rule: Rule, subject: _Subject, rules: Rules) -> str:
    human = rule.human
    if "{operation}" in human:
        human = human.replace("{operation}", _operation(subject.text, rules.operations))
    if subject.name.startswith(("aten::", "mkldnn::", "transformers::")):
        return f"{human} ({subject.name[:40]})"
    return ", ".join([human, *_details(rule, subject)])


def _operation(text: str, operations: tuple[Operation, ...]) -> str:
    for operation in operations:
        if any(part in text for part in operation.any) and not any(part in text for part in operation.none):
            return operation.name
    return "operation"


def _details(rule: Rule, subject: _Subject) -> list[str]:
    patterns = _patterns()
    details = []
    if nvjet := patterns["nvjet"].match(subject.name):
        if dtype := {"tst": "bf16", "hsh": "fp16"}.get(nvjet[1]):
            details.append(dtype)
        details.append(f"tile {nvjet[2]}×{nvjet[3]}")
        details.extend(["split-K"] if "splitk" in subject.name else [])
        details.extend(["with bias"] if "_bias_" in subject.name else [])
        return details
    if rule.library == "NCCL":
        details.extend(match[1] for match in [patterns["nccl"].search(subject.name)] if match)
    # Which of two types a quantisation reads and which it writes, the order in the name does not tell.
    dtype = None if rule.category == "quantisation" else _dtype(subject.name, product="GEMM" in rule.category)
    if dtype:
        # The element type of ATen's direct copy is that of its target.
        casts = "direct_copy_kernel" in subject.name and "loadwithcast" in subject.name
        details.append(f"to {dtype}" if casts else dtype)
    if rule.library == "NCCL" and (way := patterns["nccl_way"].search(subject.name)):
        details.extend(part.upper() if part.startswith("ll") else part for part in way.groups() if part)
    if vector := patterns["vector"].search(subject.name):
        details.append(f"vectorised ×{vector[1]}")
    elif subject.name.startswith("at::native::unrolled_elementwise_kernel"):
        details.append("unrolled")
    elif subject.name.startswith("at::native::elementwise_kernel"):
        details.append("strided")
    return details


# A product's own type is its inputs'; its name also lists accumulator, indices and epilogue.
_LOW_PRECISION: Final = ("fp8", "bf16", "fp16", "tf32")


def _dtype(name: str, *, product: bool) -> str | None:
    """The element type that a name tells; for a cast, the one that it casts to."""
    patterns = _patterns()
    if name.startswith("_z"):
        return next((dtype for written, dtype in _MANGLED_DTYPES.items() if written in name), None)
    for target, dtype in (("bfloat16_copy_kernel", "to bf16"), ("float16_copy_kernel", "to fp16")):
        if target in name:
            return dtype
    # cuDNN's attention says f16 for any type of 16 bits; ATen's wide gather names its index type only.
    if "_sdpa_" in name or "vectorized_gather_kernel" in name:
        return None
    plain = name.replace("<unnamed>", "").replace("(anonymous namespace)", "")
    template = plain.find("<")
    arguments = patterns["value"].sub("", plain[template:]) if template >= 0 else ""
    if product:
        named = {_DTYPES[written] for written in patterns["dtype"].findall(arguments)}
        if low := [dtype for dtype in _LOW_PRECISION if dtype in named]:
            return low[0]
    if match := patterns["dtype_in_word"].search(name):
        return _DTYPES[match[1]]
    match = patterns["dtype"].search(arguments)
    opaque = patterns["opaque"].search(arguments)
    if opaque and (match is None or opaque.start() < match.start()):
        return f"{8 * int(opaque[1])}-bit"
    return _DTYPES[match[0]] if match else None


# --- the rule file ---------------------------------------------------------------------------------------------------


@cache
def _built_in() -> Rules:
    return _parse(Path(__file__).with_name("kernel_rules.toml"))


def _parse(path: Path) -> Rules:
    tables = toml_of(read_bounded(path, LARGEST_SETTINGS), str(path))
    if unknown := sorted(set(tables) - {"rule", "operation", "category"}):
        raise RequestError(
            f"{path}: unknown table {_told(unknown[0])}; expected [[rule]], [[operation]] and [[category]]"
        )
    return Rules(
        rules=tuple(_rule(path, number, table) for number, table in _tables(path, tables, "rule")),
        operations=tuple(_one_operation(path, number, table) for number, table in _tables(path, tables, "operation")),
        categories=tuple(_category(path, number, table) for number, table in _tables(path, tables, "category")),
    )


def _tables(path: Path, tables: Mapping[str, Any], kind: str) -> list[tuple[str, dict[str, Any]]]:
    entries = tables.get(kind, [])
    if not isinstance(entries, list) or not all(isinstance(table, dict) for table in entries):
        raise RequestError(f"{path}: {kind} must be written as [[{kind}]] tables")
    return [(f"[[{kind}]] number {number}", table) for number, table in enumerate(entries, start=1)]


_CONDITIONS: Final = ("prefix", "equal", "any", "all", "none")


def _rule(path: Path, place: str, table: dict[str, Any]) -> Rule:
    _refuse_unknown(path, place, table, {"category", "human", "library", "tensor_core", *_CONDITIONS})
    conditions = {key: _texts(path, place, table, key) for key in _CONDITIONS}
    if not any(conditions[key] for key in ("prefix", "equal", "any", "all")):
        raise RequestError(f"{path}: {place}: needs a condition; write prefix, equal, any or all")
    tensor_core = table.get("tensor_core")
    if not (tensor_core is None or isinstance(tensor_core, bool)):
        raise RequestError(f"{path}: {place}: tensor_core must be true or false")
    library = table.get("library")
    return Rule(
        category=_text(path, place, table, "category"),
        human=_text(path, place, table, "human"),
        library=None if library is None else _text(path, place, table, "library"),
        tensor_core=tensor_core,
        **conditions,
    )


def _one_operation(path: Path, place: str, table: dict[str, Any]) -> Operation:
    _refuse_unknown(path, place, table, {"name", "any", "none"})
    return Operation(
        name=_text(path, place, table, "name"),
        any=_texts(path, place, table, "any"),
        none=_texts(path, place, table, "none"),
    )


def _category(path: Path, place: str, table: dict[str, Any]) -> Category:
    _refuse_unknown(path, place, table, {"name", "meaning", "communication"})
    communication = table.get("communication", False)
    if not isinstance(communication, bool):
        raise RequestError(f"{path}: {place}: communication must be true or false")
    return Category(
        name=_text(path, place, table, "name"),
        meaning=_text(path, place, table, "meaning"),
        communication=communication,
    )


def _told(word: Any) -> str:
    return shortened(repr(word), _SHOWN)


def _refuse_unknown(path: Path, place: str, table: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(table) - known):
        raise RequestError(f"{path}: {place}: unknown key {_told(unknown[0])}; known are {', '.join(sorted(known))}")


def _text(path: Path, place: str, table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{path}: {place}: {key} must be a text that is not empty")
    return value


def _texts(path: Path, place: str, table: dict[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise RequestError(f"{path}: {place}: {key} must be a list of texts that are not empty")
    return tuple(text.lower() for text in value)
