"""What to do about a stage: each action with its modules, its kernels, the arithmetic, and the most that it could bring.

Without counters a kernel's traffic is not known. What is known: how long it ran, on how many blocks, in which module, and
what that module must move and compute. An action's ceiling is the time that could go, not a forecast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from attrs import evolve, frozen

from analysis.domain.columns import Records
from analysis.domain.figures import bytes_, count, counted, decimal, difference, duration, flop, part_of, ratio, share
from analysis.domain.names import shortened
from analysis.efficiency.records import RankWait
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_classes import is_communication
from analysis.sums.kernel_modules import KernelModuleRow, module_patterns
from analysis.verdict.components import MATRIX, MOVERS, ComponentUse, component_uses, must_move_bytes
from analysis.verdict.facts import Facts
from analysis.verdict.records import Action, Budget, TermKey

__all__ = ["FIRST", "ExpertLoop", "actions_of", "expert_loop", "ranked", "replays_graphs", "saves_at_most"]

FIRST: Final = 3
"""Actions of a stage that are shown."""
_NAMED: Final = 2
_BRIEF: Final = 40
"""Characters of a name where an action is said in a few words."""
_KERNELS: Final[tuple[TermKey, ...]] = ("kernels",)
_FEW_LAUNCHES: Final = 8
"""Launches per unit up to which a step is replayed already, or has nothing to replay."""
_LARGE_BYTES: Final = 128_000_000
"""A launch that passes over more than this leaves the L2 cache of any GPU of today: where a module's must-move is unknown."""
_WAITS_PER_VISIT: Final = 4
"""Synchronises each time that a module runs, from which on its experts are taken to be looped over."""
_ATTENTION: Final = frozenset({"attention", "softmax"})
"""Categories of kernels by which a module is taken to do attention."""
_SMALL_BLOCKS: Final = 132
"""Blocks that fill no GPU of today, where the number of SMs is not recorded."""

_ELEMENTS: Final = re.compile(r"elementwise_kernel<(?:\(int\))?(\d+), (?:\(int\))?(\d+)[,>]")
"""PyTorch's ``elementwise_kernel<threads, elements per thread>``."""
_FOUR_BYTES: Final = re.compile(r"fp32|32-bit|int32")
_EIGHT_BYTES: Final = re.compile(r"fp64|64-bit|int64")


def actions_of(facts: Facts, budget: Budget) -> tuple[Action, ...]:
    """All actions of a stage, those that could bring most first."""
    found: list[Action | None] = [
        _launches(facts, budget),
        _synchronises(facts, budget),
        _ranks(facts, budget),
        _graph_gaps(facts, budget),
        _hidden_kernels(facts, budget),
    ]
    materialised: set[int] = set()
    pairs = set(zip(facts.rows.values("module"), facts.rows.values("category"), strict=True))
    attends = {module for module, category in pairs if category in _ATTENTION}
    for module, rows in _by_module(row for row in facts.rows if row.module in attends).items():
        large = [row for row in rows if _is_materialised(facts, row)]
        materialised |= {id(row) for row in large}
        found.append(_materialised(facts, budget, module, large))
    others = {category for category in set(facts.rows.values("category"))
              if category not in MATRIX and category != "attention" and not is_communication(category)}  # fmt: skip
    rest = [row for row in facts.rows if row.category in others and id(row) not in materialised]
    small = [row for row in rest if _is_small(facts, row)]
    found.append(_small_kernels(facts, budget, small))
    tiny = {id(row) for row in small}
    for module, rows in _by_module(row for row in rest if id(row) not in tiny).items():
        found.append(_data_movement(facts, budget, module, rows))
    found += [_below_roofline(facts, budget, one) for one in component_uses(facts)]
    known = [one for one in found if one is not None and one.ceiling_ns > 0]
    return tuple(_in_order(known))


def saves_at_most(action: Action) -> str:
    """An action's ceiling as a sentence."""
    each = "in all" if action.per == "capture" else f"per {action.per}"
    amount = f"{duration(action.ceiling_per_unit_ns)} {each}"
    if action.kind == "hidden kernels":
        return f"This saves nothing by itself: it shows what makes up {amount}."
    return f"This saves at most {amount}."


def _in_order(actions: Iterable[Action]) -> list[Action]:
    """By what they could bring; what fuses the rest of a module's data movement comes after its known cause."""
    found = list(actions)
    causes = {(one.stage, one.modules): one.ceiling_ns for one in found if one.kind == "materialised"}

    def weight(one: Action) -> int:
        if one.kind != "data movement":
            return one.ceiling_ns
        return min(one.ceiling_ns, causes.get((one.stage, one.modules), one.ceiling_ns))

    return sorted(found, key=lambda one: (-weight(one), one.kind == "data movement", one.stage, one.sentence))


def ranked(actions: Iterable[Action]) -> dict[int, Action]:
    """Actions of all stages with their rank over the run, by the identity of the action given."""
    ordered = _in_order(actions)
    return {id(one): evolve(one, rank=place + 1) for place, one in enumerate(ordered)}


# --- the host ------------------------------------------------------------------------------------------------------


def replays_graphs(facts: Facts) -> bool:
    """Whether most launches of the stage are of CUDA graphs, or it has next to none: nothing is left to replay."""
    stage = facts.stage
    if stage.of_steps:  # what is around the graph, sampling and preparation, is launched one by one
        return 2 * stage.graph_launches >= stage.instances or facts.times.launches <= _FEW_LAUNCHES
    return 2 * stage.graph_launches >= stage.launches or facts.times.launches <= _FEW_LAUNCHES


def _launches(facts: Facts, budget: Budget) -> Action | None:
    """Launching and what Python does between launches: one cause, so one action."""
    keys: tuple[TermKey, ...] = ("launching", "python", "other_calls")
    saved = budget.time_of(*keys)
    if not saved:
        return None
    launches = facts.times.launches
    each = _each(facts)
    by_module = sorted(_calls_by_module(facts.rows).items(), key=lambda item: -item[1])
    most = [item for item in by_module if item[0] != UNATTRIBUTED][:_NAMED]
    total = sum(calls for _, calls in by_module)
    where = ""
    if most and total and sum(calls for _, calls in most) / total >= 0.3:
        names = " and ".join(name for name, _ in most)
        verb = "make" if len(most) > 1 else "makes"
        where = f"; {names} {verb} {count(sum(calls for _, calls in most))} of {count(total)} kernel launches in the capture"
    if replays_graphs(facts) and facts.is_decode and not facts.of_steps:
        graphs = facts.stage.graph_launches > 0
        between = "graph launches" if graphs else "launches"
        what = f"Shorten what the host does between {between} ({_launched(facts)}): sampling, input preparation, the EOS check"
        short = f"shorten the host's work between {'replays' if graphs else 'launches'}"
    elif facts.of_steps and not replays_graphs(facts):
        what = (
            f"Let the engine replay its steps ({_launched(facts)}) from CUDA graphs (vLLM: without --enforce-eager, and with "
            "steps of this size in its capture sizes; SGLang: without --disable-cuda-graph), or compile what launches "
            f"most{where}"
        )
        short = "let the engine replay steps from CUDA graphs"
    elif facts.of_steps:
        what = f"Shorten what the host does around the launches ({_launched(facts)}): scheduling, input preparation, sampling"
        short = "shorten the host's work around the launches"
    elif facts.is_decode:
        what = (
            f"Replay decode's {_launched(facts)} from a CUDA graph with a static KV cache (dsocr-profile run --decode "
            f"cuda-graph), or compile it{where}"
        )
        short = "replay it from a CUDA graph"
        waits = facts.stage.synchronises * launches / facts.stage.launches if facts.stage.launches else 0.0
        if waits > 0.95:
            calls = (
                f"the synchronise of each {facts.times.per}"
                if round(waits) == 1
                else f"the {count(round(waits))} synchronises {each}"
            )
            what = f"Keep {calls} out of the step, for a CUDA graph can hold none; then {what[0].lower()}{what[1:]}"
    elif facts.is_whole_capture:
        what = f"Compile what launches most, replay what repeats from a CUDA graph, or batch more work into each launch{where}"
        short = "compile, or replay what repeats as a CUDA graph"
    elif budget.time_of("python") > budget.time_of("launching", "other_calls"):
        what = f"Run less Python between the {_launched(facts)}: compile the modules, fuse, or batch {facts.one_input}s{where}"
        short = "run less Python between launches (compile)"
    else:
        what = (
            f"Bring more work with each of the {_launched(facts)} (compile, fuse, or batch {facts.one_input}s){where}"
        )
        short = "bring more work with each launch (compile, batch)"
    parts = [f"{duration(budget.time_of(key))} {word}" for key, word in
             zip(keys, ("launching", "in Python and the framework", "in other CUDA calls"), strict=True)
             if budget.time_of(key)]  # fmt: skip
    base = "without the profiler" if budget.time_base == "unprofiled" else "of the profiled time"
    return _action(
        facts, budget, "launches", keys, what, short, tuple(name for name, _ in most), (),
        f"the GPU idles while the host is: {', '.join(parts)} {each}, {base}", saved,
    )  # fmt: skip


def _launched(facts: Facts) -> str:
    number = facts.times.launches
    shown = count(round(number)) if number >= 10 or abs(number - round(number)) < 0.005 else decimal(number, 1)
    word = "launch" if shown == "1" else "launches"
    return f"{shown} {word} {_each(facts)}"


def _calls_by_module(rows: Records[KernelModuleRow]) -> dict[str, int]:
    calls: dict[str, int] = {}
    for module, times in zip(rows.values("module"), rows.values("calls"), strict=True):
        calls[module] = calls.get(module, 0) + times
    return calls


@frozen
class ExpertLoop:
    """Modules that ask the device which rows go to which expert, one expert after the other."""

    module: str
    """Path pattern."""
    paths: int
    synchronises: int
    """In these modules, over the capture."""
    copies: int
    """Small device-to-host copies there."""
    all_synchronises: int
    """Of the capture, inside modules or not."""


def expert_loop(facts: Facts) -> ExpertLoop | None:
    """Recognise experts looped over in Python: modules that route (top-k) and wait several times a run, copying a count each."""
    waits = [one for one in facts.module_waits if one.where != UNATTRIBUTED]
    pattern = module_patterns(one.where for one in waits)
    routing = {row.module for row in facts.rows if row.category in ("top-k/sort", "expert routing")}
    every = sum(one.calls for one in facts.module_waits if one.kind == "synchronise")
    best: ExpertLoop | None = None
    for module in dict.fromkeys(pattern.values()):
        mine = [one for one in waits if pattern[one.where] == module]
        paths = len({one.where for one in mine})
        calls = sum(one.calls for one in mine if one.kind == "synchronise")
        routes = any(one == module or one.startswith(f"{module}.") or module.startswith(f"{one}.") for one in routing)
        visits = paths * max(1, facts.stage.instances)
        copies = sum(one.calls for one in mine if one.kind != "synchronise")
        if (
            routes
            and 2 * copies >= calls >= _WAITS_PER_VISIT * visits
            and 2 * calls > every
            and (best is None or calls > best.synchronises)
        ):
            best = ExpertLoop(module, paths, calls, copies, every)
    return best


def _synchronises(facts: Facts, budget: Budget) -> Action | None:
    saved = budget.time_of("synchronises")
    gaps, stage = facts.gaps, facts.stage
    if not saved or gaps is None:
        return None
    base = (
        "scaled to the idle time without the profiler" if budget.time_base == "unprofiled" else "of the profiled time"
    )
    drained = part_of(gaps.draining_ns, gaps.synchronising_ns + gaps.draining_ns)
    arithmetic = (
        f"{count(stage.synchronises)} synchronises and {count(stage.small_d2h_copies)} small device-to-host copies in all; the GPU "
        f"idles inside and behind them {duration(saved)} {_each(facts)} ({base}), {drained.share} of that from their return to "
        "the next operation"
    )
    loop = expert_loop(facts)
    if loop is not None:
        return _expert_loop(facts, budget, loop)
    named = ", ".join(f"{count(one.calls)} × {one.call}" for one in facts.waits if one.kind == "synchronise")
    what = "Remove the synchronises, or keep work queued behind them so that the GPU does not run dry" + (
        f" ({named})" if named else ""
    )
    if not stage.synchronises and not stage.small_d2h_copies:
        return None  # there is nothing to remove
    removed = (
        counted(stage.synchronises, "synchronise")
        if stage.synchronises
        else f"{counted(stage.small_d2h_copies, 'small device-to-host copy', 'small device-to-host copies')}"
    )
    short = f"remove its {removed}"
    return _action(
        facts, budget, "synchronises", ("synchronises",), what, short, _waiting_modules(facts), (), arithmetic, saved
    )


def _expert_loop(facts: Facts, budget: Budget, loop: ExpertLoop) -> Action:
    """Grouped experts wait for no counts, and launch a few kernels where the loop launches some for each expert."""
    what = (
        f"Replace the loop over experts in {loop.module} by grouped matrix products (one launch for all experts): "
        f"{count(loop.synchronises)} of the capture's {count(loop.all_synchronises)} synchronises and {count(loop.copies)} "
        f"small device-to-host copies sit in these {count(loop.paths)} modules, each asking the device how many rows an expert has"
    )
    calls = _calls_by_module(facts.rows)
    mine, every = calls.get(loop.module, 0), sum(calls.values())
    waiting, host = budget.time_of("synchronises"), budget.time_of("launching", "python", "other_calls")
    with_launches = host * mine / every if every else 0.0
    shown = difference(waiting + with_launches, waiting)
    of_launches = (
        f"{count(mine)} of {count(every)} kernel launches = {share(mine / every)}"
        if every
        else "no kernel launch is known"
    )
    base = "scaled to the time without the profiler" if budget.time_base == "unprofiled" else "of the profiled time"
    arithmetic = (
        f"idle in and behind synchronises {shown.part} + {shown.rest} of the {duration(host)} idle in launching, Python and other "
        f"calls, for {of_launches} are its own = {shown.whole} {_each(facts)}, {base}"
    )
    short = f"replace the loop over experts in {_brief([loop.module])} by grouped matrix products"
    terms: tuple[TermKey, ...] = ("synchronises", "launching", "python", "other_calls")
    return _action(
        facts, budget, "expert loop", terms, what, short, (loop.module,), (), arithmetic, waiting + with_launches
    )


def _waiting_modules(facts: Facts) -> tuple[str, ...]:
    """Modules of this stage that hold waits, those with most first."""
    here = {row.module for row in facts.rows}
    pattern = module_patterns(one.where for one in facts.module_waits)
    held = (pattern[one.where] for one in facts.module_waits if one.where != UNATTRIBUTED)
    return tuple(dict.fromkeys(name for name in held if name in here))[:_NAMED]


# --- other ranks, hidden kernels -----------------------------------------------------------------------------------


def _ranks(facts: Facts, budget: Budget) -> Action | None:
    saved = budget.time_of("ranks")
    sums = facts.communication
    if not saved:
        return None
    if facts.rank_wait is not None:
        return _late_rank(facts, budget, facts.rank_wait, saved)
    beyond = part_of(sums.beyond_median_ns, sums.total_ns)
    longest = sums.kernels[0]
    what = (
        "Analyse the traces of all ranks together (dsocr-analyze rank*.sqlite), which names the late rank and what makes it "
        "late; then overlap or fuse the collectives. One rank's trace cannot tell a late rank from a busy link"
    )
    arithmetic = (
        f"{longest.human_name or longest.short_name}: {count(longest.calls)} calls, median {duration(longest.median_ns)}, fastest "
        f"{duration(longest.min_ns)}, slowest {duration(longest.max_ns)}; beyond the medians {beyond.part} of {beyond.whole} = "
        f"{beyond.share} of communication"
    )
    kernels = tuple(one.human_name or one.short_name for one in sums.kernels)
    modules = tuple(dict.fromkeys(row.module for row in facts.rows if is_communication(row.category)))
    short = "find out what makes the other rank late"
    return _action(facts, budget, "ranks", ("ranks",), what, short, modules, kernels, arithmetic, saved)


def _late_rank(facts: Facts, budget: Budget, waited: RankWait, saved: int) -> Action:
    """The other ranks' traces are known: name the one that is waited for, and what makes it late."""
    late = "the other rank" if waited.late_rank is None else f"rank {waited.late_rank}"
    what = f"Make {late} faster: this rank waits for it in collectives"
    if waited.cause:
        what += f", because {waited.cause}"
    waiting = part_of(waited.waiting_ns, waited.judged_ns)
    arithmetic = (
        f"of {waiting.whole} in collectives {waiting.part} = {waiting.share} is waiting, {duration(waited.late_ns)} of it for "
        f"{late}; the rest is what the same calls take on the rank that comes last"
    )
    kernels = tuple(one.human_name or one.short_name for one in facts.communication.kernels)
    modules = tuple(dict.fromkeys(row.module for row in facts.rows if is_communication(row.category)))
    short = f"make {late} faster, for which it waits"
    return _action(facts, budget, "ranks", ("ranks",), what, short, modules, kernels, arithmetic, saved)


def _graph_gaps(facts: Facts, budget: Budget) -> Action | None:
    """Time from node to node of a replay: fewer nodes have fewer gaps."""
    saved, stage = budget.time_of("in_graph"), facts.stage
    if not saved or not stage.graph_launches:
        return None
    nodes = stage.gpu.kernels / stage.graph_launches
    what = (
        f"Fuse kernels before the CUDA graph is recorded: a replay brings {count(round(nodes))} of them, and the GPU idles from "
        "one to the next"
    )
    arithmetic = f"the GPU idles {duration(saved)} {_each(facts)} between nodes of a replay, which tracing node by node lengthens"
    short = "fuse kernels before its CUDA graph is recorded"
    return _action(facts, budget, "graph gaps", ("in_graph",), what, short, (), (), arithmetic, saved)


def _hidden_kernels(facts: Facts, budget: Budget) -> Action | None:
    """CUDA graphs that were traced as a whole: their kernels must be seen first."""
    gpu = facts.stage.gpu
    whole = gpu.kernel_sum_ns + gpu.memcpy_ns + gpu.memset_ns + gpu.graph_ns
    if 2 * gpu.graph_ns < whole or not whole:
        return None
    what = "Capture once with --preset cuda-graph-nodes (nsys: --cuda-graph-trace=node) to see the kernels inside the graphs"
    hidden = part_of(gpu.graph_ns, whole)
    arithmetic = f"{count(gpu.graphs)} CUDA graphs take {hidden.part} of {hidden.whole} GPU time = {hidden.share}"
    short = "see the kernels inside its CUDA graphs"
    return _action(
        facts, budget, "hidden kernels", _KERNELS, what, short, (), (), arithmetic, budget.time_of("kernels")
    )


# --- kernels -------------------------------------------------------------------------------------------------------


def _by_module(rows: Iterable[KernelModuleRow]) -> dict[str, list[KernelModuleRow]]:
    found: dict[str, list[KernelModuleRow]] = {}
    for row in rows:
        found.setdefault(row.module, []).append(row)
    return found


def written_bytes(row: KernelModuleRow) -> int | None:
    """Bytes that one launch writes at least: an element per thread, or as many as the kernel's name says; None: no grid."""
    if row.grid is None or row.block is None:
        return None
    found = _ELEMENTS.search(row.name)
    threads = row.block[0] * row.block[1] * row.block[2]
    per_block = int(found[1]) * int(found[2]) if found is not None else threads
    words = row.human_name or row.name
    size = 8 if _EIGHT_BYTES.search(words) else 4 if _FOUR_BYTES.search(words) else 2
    return row.grid[0] * row.grid[1] * row.grid[2] * per_block * size


def _is_materialised(facts: Facts, row: KernelModuleRow) -> bool:
    """Whether each launch of a module that does attention moves more than the module must move in the whole unit."""
    if row.category not in MOVERS:
        return False
    written = written_bytes(row)
    must = must_move_bytes(facts, row.module)
    return written is not None and written > (must if must is not None else _LARGE_BYTES)


def _materialised(facts: Facts, budget: Budget, module: str, rows: Sequence[KernelModuleRow]) -> Action | None:
    if not rows:
        return None
    time = sum(row.total_per_unit_ns or 0.0 for row in rows)
    calls = sum(row.calls for row in rows)
    blocks = sorted({row.grid[0] * row.grid[1] * row.grid[2] for row in rows if row.grid}, reverse=True)
    kinds = " and ".join(dict.fromkeys(_kind(row) for row in rows))
    must = must_move_bytes(facts, module)
    least = sum((written_bytes(row) or 0) * row.calls for row in rows) / calls
    where = "outside all modules" if module == UNATTRIBUTED else f"of {module}"
    brief = where if module == UNATTRIBUTED else f"of {_brief([module])}"
    against = f"; all weights of {module} are {bytes_(must)}" if must is not None else ""
    what = (
        f"Do not materialise what the attention {where} adds to its scores (such as a position bias): {count(calls)} launches "
        f"of {kinds} on grids of {_listed(blocks)} blocks write at least {bytes_(least)} each{against}. Compute it inside the "
        "attention kernel, or once"
    )
    arithmetic = _of_kernel_time(facts, sum(row.total_ns for row in rows), time)
    short = f"do not materialise the attention bias {brief}"
    return _action(facts, budget, "materialised", _KERNELS, what, short, (module,), _names(rows), arithmetic, time)


def _of_kernel_time(facts: Facts, part_ns: int, each_ns: float) -> str:
    shown = part_of(part_ns, sum(facts.rows.values("total_ns")))
    return (
        f"{shown.part} of {shown.whole} kernel time in the capture = {shown.share}; {duration(each_ns)} {_each(facts)}"
    )


def _of_launching(facts: Facts) -> str:
    """What fewer launches save of the host's time is no part of a kernel's."""
    return (
        "" if replays_graphs(facts) else "; GPU time alone: what the host needs to launch them counts with the launches"
    )


def _listed(numbers: Sequence[int]) -> str:
    shown = [count(one) for one in numbers[:3]]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _kind(row: KernelModuleRow) -> str:
    """The first words of what a kernel does: ``copy``, ``elementwise add``."""
    return (row.human_name or row.category).partition(",")[0].removeprefix("elementwise ")


def _is_small(facts: Facts, row: KernelModuleRow) -> bool:
    least = facts.sm_count or _SMALL_BLOCKS
    return row.grid is not None and row.grid[0] * row.grid[1] * row.grid[2] < least


def _small_kernels(facts: Facts, budget: Budget, rows: Sequence[KernelModuleRow]) -> Action | None:
    """Kernels too small for the device, that only move or reduce: together, because fusing takes them across modules."""
    calls = sum(row.calls for row in rows)
    time = sum(row.total_per_unit_ns or 0.0 for row in rows)
    if not time or not calls:
        return None
    total = sum(row.total_ns for row in rows)
    by_module = sorted(_times(rows, lambda row: row.module).items(), key=lambda item: -item[1])
    by_kind = sorted(_times(rows, lambda row: row.category).items(), key=lambda item: -item[1])
    modules = [name for name, _ in by_module if name != UNATTRIBUTED][: _NAMED + 1]
    kinds = " and ".join(name for name, _ in by_kind[:_NAMED])
    sms = f"the {facts.sm_count} SMs" if facts.sm_count else "the GPU"
    calls_each = sum(row.calls_per_unit or 0.0 for row in rows)
    in_modules = f" in {', '.join(modules)}" if modules else ""
    what = (
        f"Fuse the small kernels{in_modules}: {count(round(calls_each))} launches {_each(facts)}, mostly {kinds}, of "
        f"{duration(total / calls)} on fewer blocks than {sms}"
    )
    arithmetic = _of_kernel_time(facts, total, time) + _of_launching(facts)
    uses = component_uses(facts)
    near = [one for one in uses if one.floor_ns >= 0.7 * one.time_ns]
    if near:
        told = ", ".join(f"{one.label} at {ratio(one.floor_ns / one.time_ns)} of {_peak(one)}" for one in near)
        arithmetic += f"; near their peak already: {told}"
    short = f"fuse small kernels{f' in {_brief(modules)}' if modules else ''}"
    return _action(
        facts, budget, "small kernels", _KERNELS, what, short, tuple(modules), _names(rows), arithmetic, time
    )


def _data_movement(facts: Facts, budget: Budget, module: str, rows: Sequence[KernelModuleRow]) -> Action | None:
    """Kernels that fill the device and only move or reduce data, of one module."""
    time = sum(row.total_per_unit_ns or 0.0 for row in rows)
    if not time:
        return None
    by_kind = sorted(_times(rows, lambda row: row.category).items(), key=lambda item: -item[1])
    kinds = " and ".join(name for name, _ in by_kind[:_NAMED])
    calls_each = sum(row.calls_per_unit or 0.0 for row in rows)
    where = "outside all modules" if module == UNATTRIBUTED else f"of {module}"
    what = (
        f"Fuse the kernels {where} that only pass over data into those around them (compile): {count(round(calls_each))} launches "
        f"{_each(facts)}, mostly {kinds}"
    )
    arithmetic = _of_kernel_time(facts, sum(row.total_ns for row in rows), time) + _of_launching(facts)
    modules = () if module == UNATTRIBUTED else (module,)
    brief = "outside all modules" if module == UNATTRIBUTED else f"in {_brief([module])}"
    short = f"fuse data movement {brief}"
    return _action(facts, budget, "data movement", _KERNELS, what, short, modules, _names(rows), arithmetic, time)


def _below_roofline(facts: Facts, budget: Budget, use: ComponentUse) -> Action | None:
    saved = use.time_ns - use.floor_ns
    if saved <= 0:
        return None
    reached = share(use.floor_ns / use.time_ns)
    amount = f"{bytes_(use.bytes_moved)} that must move" if use.by_bytes else f"{flop(use.flop)} that must be computed"
    shown = difference(use.time_ns, use.floor_ns)
    what = (
        f"Bring the matrix kernels of {use.label} ({_listed_words(use.modules)}) nearer to {_peak(use)}, of which they reach "
        f"{reached}: another kernel or layout, or more rows per launch"
    )
    arithmetic = f"{shown.whole} − {shown.part} for {amount}, at peak = {shown.rest} {_each(facts)}"
    short = f"bring {use.label} nearer to {_peak(use)}"
    return _action(
        facts, budget, "below roofline", _KERNELS, what, short, use.modules, use.kernels[:_NAMED], arithmetic, saved
    )


def _listed_words(names: Sequence[str]) -> str:
    return ", ".join(names[: _NAMED + 1]) + (f" and {len(names) - _NAMED - 1} more" if len(names) > _NAMED + 1 else "")


def _peak(use: ComponentUse) -> str:
    return "peak bandwidth" if use.by_bytes else "peak FLOP/s"


def _brief(names: Sequence[str]) -> str:
    """The first names, short enough for one line."""
    return ", ".join(shortened(name, _BRIEF) for name in names[:_NAMED])


def _times(rows: Iterable[KernelModuleRow], key: Callable[[KernelModuleRow], str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[key(row)] = found.get(key(row), 0) + row.total_ns
    return found


def _names(rows: Sequence[KernelModuleRow]) -> tuple[str, ...]:
    ordered = sorted(rows, key=lambda row: -row.total_ns)
    return tuple(dict.fromkeys(row.human_name or row.short_name for row in ordered))[:FIRST]


# --- what they share -----------------------------------------------------------------------------------------------


def _action(
    facts: Facts,
    budget: Budget,
    kind: str,
    terms: tuple[TermKey, ...],
    what: str,
    short: str,
    modules: tuple[str, ...],
    kernels: tuple[str, ...],
    arithmetic: str,
    saved_ns: float,
) -> Action:
    """An action; it saves no more than the terms of the budget that it takes from."""
    most = budget.time_of(*terms)
    if saved_ns > most:
        saved_ns = most
        arithmetic += f"; no more than the {duration(most)} {_each(facts)} of its part of the budget"
    return Action(
        stage=facts.stage.stage,
        kind=kind,  # type: ignore[arg-type]
        sentence=f"{what}.",
        short=short,
        terms=terms,
        modules=modules,
        kernels=kernels,
        arithmetic=arithmetic,
        ceiling_per_unit_ns=saved_ns,
        per=facts.times.per,
        ceiling_ns=round(saved_ns * facts.units_of_a_pass),
    )


def _each(facts: Facts) -> str:
    return "in all" if facts.is_whole_capture else f"per {facts.times.per}"
