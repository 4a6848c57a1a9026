"""Which kernels of one side do the work of which on the other: by module, operator family and order of launch.

A library's kernel name is not identity: tile, stages, cluster, raster order and split-K change with shapes, versions and
what an autotuner measured. So kernels are paired, inside one module of one stage, in four passes, each over what the passes
before left over:

1. the same name and launch shape;
2. the same name, whatever its shape (a concatenation over a growing cache has a new grid in every step);
3. the same operator family (`family_of`): the same work by another kernel – or, where one side needs a fraction of the other's
   launches, several launches of the family that became one (three projections in one product), or the reverse;
4. what lies between the same neighbours in the order of launch, where that is recorded: these kernels became those.

What is left is new or vanished, and a row of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Final

from attrs import evolve, frozen

from analysis.compare.records import KernelMatch, MatchKind
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_classes import OTHER

__all__ = ["ALL_MODULES", "KernelTime", "align", "family_of", "identity_of", "same_modules"]

ALL_MODULES: Final = "(all modules)"
"""Module of all kernels where one of the sides does not say which module launched which."""

_FRACTION: Final = 1.5
"""From this ratio of launches on, kernels of one family are not one for one."""
_ALIKE: Final = 0.02
"""Launches per unit that differ by less are as many: a warm-up, a token more."""

_DETAIL: Final = re.compile(
    r", (?:tile \d+×\d+|split-K|vectorised ×\d+|unrolled|strided|(?:ring|tree|nvls|collnet|pat|LL128|LL|SIMPLE)\b)",
    re.IGNORECASE,
)
"""What of a kernel's name in words says how, not what."""

_TILES: Final = re.compile(
    r"""
    _(?:knob|tilesize|warpsize|warpgroupsize|stages?|cga|ldg|tensor|instr|align|split_?k|kernel|bz|hz|v|h|f2f)_?\d*(?:x\d+)*(?=_|$)
    | _\d+x\d+(?:x\d+)*(?:_\d+)?(?=_|$)   # a tile, a cluster, a warp tile; with the number of stages behind it
    | _sm\d{2,3}(?=_|$) | ^sm\d{2,3}_ | ^(?:ampere|hopper|volta|turing|ada|blackwell|maxwell)_ | (?<=cutlass)_?\d{2,3}(?=_|$)
    | _\d+d(?:\d+d?)*c?(?:\d+\w*)?(?=_|$)   # Triton's specialisation: _0d1d2d3c
    | (?<=\w)_\d+(?=$)                    # a compiler's running number
    """,
    re.VERBOSE,
)
_SPLIT_K: Final = re.compile(r"_?split_?k(?:_?\d+)?(?:_?parallel|_?serial)?", re.IGNORECASE)


def identity_of(short_name: str) -> str:
    """A kernel's name without what a library or compiler chose for speed: tile, stages, cluster, raster, split-K, number.

    ``nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT`` → ``nvjet_tst_TNT``.
    """
    name = _SPLIT_K.sub("", short_name)
    before = None
    while before != name:  # what was between two tiles may have been one itself
        before, name = name, _TILES.sub("", name)
    return name or short_name


@frozen
class KernelTime:
    """Launches of one kernel by one module, per unit of the stage's work."""

    module: str
    name: str
    short_name: str
    category: str
    words: str
    """Its name in words; empty: not known."""
    shape: Hashable
    calls: float
    ns: float
    place: int | None = None
    """Place in the order in which the module's kernels first ran; None: not recorded."""
    bytes_per_call: float | None = None
    """From and to DRAM; None: not measured."""


def family_of(kernel: KernelTime) -> str:
    """What a kernel does, in words, without how: ``matrix product, bf16``; of an unknown one its name's identity."""
    if kernel.category == OTHER or not kernel.words:
        return identity_of(kernel.short_name or kernel.name)
    return _DETAIL.sub("", kernel.words)


def same_modules(base: Iterable[str], new: Iterable[str]) -> Mapping[str, str]:
    """New side's module → what the base calls it; modules that only one side has keep their names.

    Wrappers add segments (``_orig_mod`` of torch.compile, ``module`` of parallel wrappers), one side may have folded a layer's
    number that the other has once, and a model may be called from one level up or down.
    """
    known = list(dict.fromkeys(base))
    pairs = {module: module for module in new if module in set(known)}
    left = [module for module in dict.fromkeys(new) if module not in pairs]
    free = [module for module in known if module not in pairs.values()]
    for key in (_without_wrappers, _folded):
        by_key: dict[str, list[str]] = {}
        for module in free:
            by_key.setdefault(key(module), []).append(module)
        for module in list(left):
            if len(candidates := by_key.get(key(module), [])) == 1 and candidates[0] in free:
                pairs[module] = candidates[0]
                left.remove(module)
                free.remove(candidates[0])
    for module in left:
        ends = [
            other
            for other in free
            if _folded(module).endswith(f".{_folded(other)}") or _folded(other).endswith(f".{_folded(module)}")
        ]
        if len(ends) == 1:
            pairs[module] = ends[0]
            free.remove(ends[0])
        else:
            pairs[module] = module
    return pairs


def _without_wrappers(module: str) -> str:
    return ".".join(part for part in module.split(".") if part not in ("_orig_mod", "module"))


def _folded(module: str) -> str:
    return re.sub(r"\d+", "*", _without_wrappers(module))


def align(stage: str, base: Sequence[KernelTime], new: Sequence[KernelTime]) -> tuple[KernelMatch, ...]:
    """Pair the kernels of one stage, modules named alike on both sides.

    Every kernel of either side is in exactly one row, so rows add up to both sides' GPU time in kernels.

    Args:
        stage: whose they are.
        base: its kernels, modules as `same_modules` names them.
        new: those of the new side.

    Returns:
        By size of the difference, largest first.
    """
    matches: list[KernelMatch] = []
    for module in dict.fromkeys(kernel.module for kernel in (*base, *new)):
        mine = [kernel for kernel in base if kernel.module == module]
        theirs = [kernel for kernel in new if kernel.module == module]
        matches += _in_module(stage, module, mine, theirs)
    return tuple(sorted(matches, key=lambda match: (-abs(match.difference_ns), match.module, match.family)))


_Kernels = list[KernelTime]


@frozen
class _Pair:
    base: tuple[KernelTime, ...]
    new: tuple[KernelTime, ...]
    kind: MatchKind


def _in_module(stage: str, module: str, base: _Kernels, new: _Kernels) -> list[KernelMatch]:
    pairs: list[_Pair] = []
    keys: tuple[Callable[[KernelTime], Hashable], ...] = (
        lambda kernel: (kernel.name, kernel.shape),
        lambda kernel: kernel.name,
    )
    by_shape, base, new = _by_key(base, new, keys[0], equal_calls=True)
    by_name, base, new = _by_key(base, new, keys[1], equal_calls=False)
    pairs += [_Pair(mine, theirs, "same") for mine, theirs in (*by_shape, *by_name)]
    by_family, base, new = _by_key(base, new, family_of, equal_calls=False)
    pairs += [_Pair(mine, theirs, _kind(mine, theirs)) for mine, theirs in by_family]
    between, base, new = _by_place(pairs, base, new)
    pairs += between
    pairs += [_Pair((kernel,), (), "vanished") for kernel in base] + [_Pair((), (kernel,), "new") for kernel in new]
    merged: dict[tuple[str, MatchKind], _Pair] = {}
    for pair in pairs:  # shapes of one kernel are one row
        names = tuple(sorted({kernel.name for kernel in pair.base}) or sorted({kernel.name for kernel in pair.new}))
        key = ("\n".join(names), pair.kind)
        known = merged.get(key)
        merged[key] = pair if known is None else _Pair((*known.base, *pair.base), (*known.new, *pair.new), pair.kind)
    return [_match(stage, module, pair) for pair in merged.values()]


def _by_key(
    base: _Kernels, new: _Kernels, key: Callable[[KernelTime], Hashable], *, equal_calls: bool
) -> tuple[list[tuple[tuple[KernelTime, ...], tuple[KernelTime, ...]]], _Kernels, _Kernels]:
    """Pairs of all kernels with the same key, and what no kernel of the other side has the key of."""
    groups: dict[Hashable, tuple[_Kernels, _Kernels]] = {}
    for kernel in base:
        groups.setdefault(key(kernel), ([], []))[0].append(kernel)
    for kernel in new:
        groups.setdefault(key(kernel), ([], []))[1].append(kernel)
    paired = []
    for mine, theirs in groups.values():
        if mine and theirs and (not equal_calls or _as_many(mine, theirs)):
            paired.append((tuple(mine), tuple(theirs)))
    taken = {id(kernel) for mine, theirs in paired for kernel in (*mine, *theirs)}
    return paired, [k for k in base if id(k) not in taken], [k for k in new if id(k) not in taken]


def _as_many(base: Iterable[KernelTime], new: Iterable[KernelTime]) -> bool:
    mine, theirs = sum(kernel.calls for kernel in base), sum(kernel.calls for kernel in new)
    return abs(mine - theirs) <= _ALIKE * max(mine, theirs)


def _kind(base: Sequence[KernelTime], new: Sequence[KernelTime]) -> MatchKind:
    if {kernel.name for kernel in base} == {kernel.name for kernel in new}:
        return "same"
    mine, theirs = sum(kernel.calls for kernel in base), sum(kernel.calls for kernel in new)
    if mine >= _FRACTION * theirs:
        return "fused"
    return "split" if theirs >= _FRACTION * mine else "same work, another kernel"


def _by_place(pairs: Sequence[_Pair], base: _Kernels, new: _Kernels) -> tuple[list[_Pair], _Kernels, _Kernels]:
    """Pairs of what is left between the same neighbours in the order of launch; nothing where the order is not recorded.

    A kernel of many shapes, or that a module runs more than once, stands where it first ran.
    """
    if not base or not new or any(kernel.place is None for kernel in (*base, *new)):
        return [], base, new
    mine = _in_order([pair.base for pair in pairs], base)
    theirs = _in_order([pair.new for pair in pairs], new)
    # What is left over never equals anything of the other side, so it is always in what was replaced.
    matcher = SequenceMatcher(
        None, [anchor for anchor, _ in mine], [-2 if anchor < 0 else anchor for anchor, _ in theirs], autojunk=False
    )
    replaced: list[_Pair] = []
    for what, low, high, other_low, other_high in matcher.get_opcodes():
        if what == "replace":
            before = tuple(kernel for anchor, group in mine[low:high] if anchor < 0 for kernel in group)
            after = tuple(kernel for anchor, group in theirs[other_low:other_high] if anchor < 0 for kernel in group)
            if before and after:
                replaced.append(_Pair(before, after, _replaced(before, after)))
    taken = {id(kernel) for pair in replaced for kernel in (*pair.base, *pair.new)}
    return replaced, [k for k in base if id(k) not in taken], [k for k in new if id(k) not in taken]


def _in_order(paired: Sequence[Sequence[KernelTime]], left: _Kernels) -> list[tuple[int, Sequence[KernelTime]]]:
    """(Number of the pair, kernels) of one side in the order in which they first ran; -1: kernels of one name that are left."""
    by_name: dict[str, _Kernels] = {}
    for kernel in left:
        by_name.setdefault(kernel.name, []).append(kernel)
    groups = [
        *((number, kernels) for number, kernels in enumerate(paired)),
        *((-1, kernels) for kernels in by_name.values()),
    ]
    placed = [
        (min(kernel.place for kernel in kernels if kernel.place is not None), anchor, kernels)
        for anchor, kernels in groups
        if any(kernel.place is not None for kernel in kernels)
    ]
    return [(anchor, kernels) for _, anchor, kernels in sorted(placed, key=lambda group: group[:2])]


def _replaced(base: Sequence[KernelTime], new: Sequence[KernelTime]) -> MatchKind:
    mine, theirs = sum(kernel.calls for kernel in base), sum(kernel.calls for kernel in new)
    if mine >= _FRACTION * theirs:
        return "fused"
    return "split" if theirs >= _FRACTION * mine else "same work, another kernel"


def _match(stage: str, module: str, pair: _Pair) -> KernelMatch:
    base_ns, new_ns = sum(kernel.ns for kernel in pair.base), sum(kernel.ns for kernel in pair.new)
    families = dict.fromkeys(family_of(kernel) for kernel in sorted(pair.base or pair.new, key=lambda k: -k.ns))
    return KernelMatch(
        stage=stage,
        module=module,
        family=" + ".join(families),
        kind=pair.kind,
        base_names=_names(pair.base),
        new_names=_names(pair.new),
        base_calls=sum(kernel.calls for kernel in pair.base),
        new_calls=sum(kernel.calls for kernel in pair.new),
        base_ns=base_ns,
        new_ns=new_ns,
        difference_ns=new_ns - base_ns,
        base_bytes=_bytes(pair.base),
        new_bytes=_bytes(pair.new),
    )


def _names(kernels: Sequence[KernelTime]) -> tuple[str, ...]:
    """Distinct names, most time first."""
    times: dict[str, float] = {}
    for kernel in kernels:
        times[kernel.name] = times.get(kernel.name, 0.0) + kernel.ns
    return tuple(sorted(times, key=lambda name: (-times[name], name)))


def _bytes(kernels: Sequence[KernelTime]) -> float | None:
    """DRAM traffic per unit; None: a kernel among them was not measured, or there is none."""
    known = [kernel.bytes_per_call * kernel.calls for kernel in kernels if kernel.bytes_per_call is not None]
    return sum(known) if known and len(known) == len(kernels) else None


def modules_unknown(kernels: Sequence[KernelTime]) -> bool:
    """Whether hardly any of the kernel time is in a module."""
    total = sum(kernel.ns for kernel in kernels)
    return bool(total) and sum(kernel.ns for kernel in kernels if kernel.module == UNATTRIBUTED) > 0.9 * total


def without_modules(kernels: Iterable[KernelTime]) -> list[KernelTime]:
    """The same kernels, as if no module were known."""
    return [evolve(kernel, module=ALL_MODULES, place=None) for kernel in kernels]
