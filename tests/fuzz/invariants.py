"""What must hold of any report, computed apart from the product: from the database's own values and by plain sums."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

__all__ = ["TraceFacts", "facts_of", "figures_of", "read_strictly", "wrong_in_report", "wrong_in_table", "wrong_values"]

_COUNTS: Final = {
    "CUPTI_ACTIVITY_KIND_KERNEL": ("kernels", "kernel_sum_ns"),
    "CUPTI_ACTIVITY_KIND_MEMCPY": ("memcpys", "memcpy_ns"),
    "CUPTI_ACTIVITY_KIND_MEMSET": ("memsets", "memset_ns"),
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE": ("graphs", "graph_ns"),
}
_TIMED: Final = (*_COUNTS, "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS")
_MOMENTS: Final = frozenset({"start_ns", "end_ns", "gpu_end_ns", "next_ns", "finished_ns", "time_ns"})
"""Readings of a clock, which may have any sign; `time_ns` of a metric's samples is a list of them."""
_AMOUNTS: Final = frozenset(
    {
        "calls",
        "instances",
        "kernels",
        "launches",
        "memcpys",
        "memsets",
        "graphs",
        "operations",
        "steps",
        "tokens",
        "units",
        "waves",
    }
)
_LONGEST: Final = 2**62
_TOLERANCE: Final = 1e-6


@frozen
class TraceFacts:
    """What the file says, read value by value with Python's own sqlite3."""

    rows: dict[str, int] = field(factory=dict)
    """Table of operations → rows."""
    sums: dict[str, int] = field(factory=dict)
    """Table of operations → Σ (end − start) of the rows that are possible."""
    first: int = 0
    last: int = 0
    """Over all operations, calls and ranges."""
    impossible: int = 0
    """Rows of operations and calls whose start or end cannot be true."""
    unreadable: str | None = None
    """Why SQLite itself could not read them."""

    @property
    def span_ns(self) -> int:
        return self.last - self.first


def facts_of(path: Path) -> TraceFacts:
    """Read start and end of every event of a trace."""
    rows: dict[str, int] = {}
    sums: dict[str, int] = {}
    moments: list[int] = []
    impossible = 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.text_factory = bytes
            known = [row[0].decode("utf-8", "replace") for row in database.execute("SELECT name FROM sqlite_master")]
            for table in _TIMED:
                if table not in known:
                    continue
                kept = []
                for start, end in database.execute(f'SELECT start, "end" FROM "{table}"'):
                    possible = type(start) is int and type(end) is int and 0 <= end - start < _LONGEST
                    if possible:
                        kept.append((start, end))
                    elif table != "NVTX_EVENTS":  # whose end may be NULL, and which has marks
                        impossible += 1
                if table in _COUNTS:
                    rows[table] = database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
                    sums[table] = sum(end - start for start, end in kept)
                moments += [moment for pair in kept for moment in pair]
    except sqlite3.Error as error:
        return TraceFacts(unreadable=str(error))
    return TraceFacts(rows, sums, min(moments, default=0), max(moments, default=0), impossible)


def read_strictly(text: str) -> Any:
    """JSON as the standard has it: no NaN, no infinity, no key twice.

    Raises:
        ValueError: it is not that.
    """

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=once)


def _walk(value: Any, at: str = "$") -> Iterator[tuple[str, str, Any]]:
    """Path, key and value of every scalar."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _walk(below, f"{at}.{key}")
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _walk(below, f"{at}[{number}]")
    else:
        yield at, at.rpartition(".")[2].partition("[")[0], value


def wrong_values(plain: Any, *, differences: bool = False) -> list[str]:
    """What no single value may be, by its name: shares outside of 0–1, durations below 0, numbers that are none.

    Args:
        plain: a result, read.
        differences: times in it may be below 0, as those of a comparison are.
    """
    wrong = []
    for at, key, value in _walk(plain):
        if type(value) not in (int, float):
            continue
        if not math.isfinite(value):
            wrong.append(f"{at} is {value}")
        elif key == "share" or key.endswith(("_share", "_occupancy")):
            if not (-1 if differences else 0) - _TOLERANCE <= value <= 1 + _TOLERANCE:
                wrong.append(f"{at} is a share of {value}")
        elif key.endswith("_ns") and key not in _MOMENTS:
            if not differences and value < 0:
                wrong.append(f"{at} is a time of {value} ns")
            if abs(value) >= 2**63:
                wrong.append(f"{at} is a time of {value} ns, longer than a trace can be")
        elif (key in _AMOUNTS or key.endswith(("_bytes", "_flop", "_per_s"))) and not differences and value < 0:
            wrong.append(f"{at} is {value}, less than nothing")
        elif key in ("mfu", "mbu", "mfu_full_attention") and not differences and not 0 <= value <= 1.5:
            wrong.append(f"{at} is {value}")
    return wrong


def wrong_in_report(plain: Any, facts: TraceFacts | None) -> list[str]:
    """What does not add up in a report of one trace.

    Args:
        plain: report.json, read.
        facts: of its trace; None: they cannot be known.
    """
    detail = plain["detail"]
    wrong = [*wrong_values(plain), *_sums(detail), *_instances(detail), *_verdicts(detail)]
    timeline = detail.get("timeline")
    if timeline is not None and any(not 0 <= busy <= timeline["slice_ns"] for busy in timeline["busy_ns"]):
        wrong.append("a slice of the timeline is busier than it is long")
    if facts is not None:
        wrong += _against_the_trace(detail, facts)
    return wrong


def _total(rows: list[dict[str, Any]], key: str) -> int:
    return int(sum(row[key] or 0 for row in rows))


def _sums(detail: dict[str, Any]) -> list[str]:
    wrong = []
    keys = [key for pair in _COUNTS.values() for key in pair]
    for row in (*detail["stage_rows"], *(row for rows in detail["module_rows"].values() for row in rows)):
        every = sum(row[sum_key] for _, sum_key in _COUNTS.values())
        if row["busy_ns"] > every:
            wrong.append(f"{row['name']!r} is busy for {row['busy_ns']} ns with operations of {every} ns")
        if row["busy_ns"] > row["projected_ns"]:
            wrong.append(f"{row['name']!r} is busy for longer than from its first to its last operation")
    for key in keys:
        whole = _total(detail["stage_rows"], key)
        if (modules := detail["module_rows"].get("all")) is not None and _total(modules, key) != whole:
            wrong.append(f"{key} of all modules is {_total(modules, key)}, of all stages {whole}")
        for row in detail["stage_rows"]:
            below = detail["module_rows"].get(row["name"])
            if below and _total(below, key) != row[key]:
                wrong.append(f"{key} of {row['name']!r} is {row[key]}, of its modules {_total(below, key)}")
    for row in detail["stage_rows"]:
        own = [kernel for kernel in detail["kernels"] if kernel["stage"] == row["name"]]
        if own and (_total(own, "calls"), _total(own, "total_ns")) != (row["kernels"], row["kernel_sum_ns"]):
            wrong.append(f"the kernels of {row['name']!r} do not add up to its row")
    for key in ("kernels", "memcpys", "memsets", "graphs"):
        if _total(detail["stage_rows"], key) != detail["capture"][key]:
            wrong.append(f"{key}: {detail['capture'][key]} in the capture, {_total(detail['stage_rows'], key)} in rows")
    for kernel in (*detail["kernels"], *detail["kernel_shapes"]):
        if not kernel["min_ns"] <= kernel["median_ns"] <= kernel["max_ns"] <= kernel["total_ns"]:
            wrong.append(f"times of the kernel {kernel['short_name']!r} are out of order")
    operations = sum(detail["capture"][key] for key in ("kernels", "memcpys", "memsets", "graphs"))
    if _total(detail["streams"], "operations") != operations:
        wrong.append("the streams do not hold all operations")
    wrong += [
        f"stream {row['stream']} is busier than its sum" for row in detail["streams"] if row["busy_ns"] > row["sum_ns"]
    ]
    return wrong


def _instances(detail: dict[str, Any]) -> list[str]:
    wrong = []
    for row in detail["instances"]:
        if row["end_ns"] - row["start_ns"] != row["profiled_host_ns"]:
            wrong.append(f"{row['path']!r} does not last from its start to its end")
        if row["busy_ns"] > row["projected_ns"]:
            wrong.append(f"{row['path']!r} is busier than long")
    for stage in detail["stages"]:
        # One inside another of its name counts once, as where all rows of ranges are there twice.
        own = [
            row
            for row in detail["instances"]
            if row["stage"] == stage["stage"] and stage["stage"] not in row["path"].split("/")[:-1]
        ]
        if (
            own
            and not stage["of_steps"]
            and not detail["skip_first"]
            and _total(own, "profiled_host_ns") != stage["profiled_host_ns"]
        ):
            wrong.append(f"the instances of {stage['stage']!r} do not add up to it")
        gaps = stage["gaps"]
        if gaps is None:
            continue
        parts = ("synchronising_ns", "launching_ns", "other_api_ns", "outside_api_ns", "draining_ns", "in_graph_ns")
        if sum(gaps[part] for part in parts) != gaps["total_ns"]:
            wrong.append(f"the idle time of {stage['stage']!r} is not the sum of its kinds")
        if gaps["largest_ns"] > gaps["total_ns"] or gaps["total_ns"] > max(
            stage["profiled_host_ns"], stage["profiled_ns"]
        ):
            wrong.append(f"the idle time of {stage['stage']!r} is longer than it")
    return wrong


def _verdicts(detail: dict[str, Any]) -> list[str]:
    wrong = []
    stages = {stage["stage"] for stage in detail["stages"]}
    for verdict in detail["verdicts"]:
        if verdict["stage"] not in stages:
            wrong.append(f"a verdict of {verdict['stage']!r}, which is no stage")
            continue
        budget = verdict["budget"]
        if budget is None:
            continue
        best = [action["ceiling_per_unit_ns"] for action in verdict["actions"]]
        if any(saved is not None and saved > budget["time_ns"] * (1 + _TOLERANCE) + 1 for saved in best):
            wrong.append(f"{verdict['stage']!r}: {verdict['ceiling']} of {budget['time_ns']} ns")
    ranking = detail["ranking"]
    if ranking["best_ns"] is not None and ranking["time_ns"] is not None and ranking["best_ns"] > ranking["time_ns"]:
        wrong.append("at best it takes longer than now")
    for gain in ranking["gains"]:
        if gain["saves_ns"] > ranking["time_ns"] + 1 or gain["best_ns"] > ranking["time_ns"] + 1:
            wrong.append(f"{gain['sentence']}: of {ranking['time_ns']} ns")
    return wrong


def _against_the_trace(detail: dict[str, Any], facts: TraceFacts) -> list[str]:
    wrong = []
    for table, (count, total) in _COUNTS.items():
        rows, ns = _total(detail["stage_rows"], count), _total(detail["stage_rows"], total)
        there, sum_ns = facts.rows.get(table, 0), facts.sums.get(table, 0)
        if rows > there or (rows != there and not facts.impossible):
            wrong.append(f"{rows} {count} of {there} rows")
        # Rows that are not possible may be left out, or count as 0 ns; never more than what is possible.
        if ns > sum_ns or (ns != sum_ns and not facts.impossible):
            wrong.append(f"{total} is {ns}, in the trace {sum_ns}")
    if facts.impossible:
        return wrong
    span = facts.span_ns
    for row in (*detail["instances"], *detail["steps"]):
        if row["profiled_host_ns"] > span or row["busy_ns"] > span:
            wrong.append(f"{row.get('path') or row.get('instance')!r} lasts longer than the capture")
        if not facts.first <= row["start_ns"] <= facts.last:
            wrong.append(f"{row.get('path') or row.get('instance')!r} begins outside of the capture")
    wrong += [
        f"stream {row['stream']} is busy for longer than the capture"
        for row in detail["streams"]
        if row["busy_ns"] > span
    ]
    return wrong


def wrong_in_table(rows: list[dict[str, Any]], facts: TraceFacts) -> list[str]:
    """What the rows of `table` and `kernels` hold otherwise than the trace.

    Args:
        rows: as printed; those by stage, instance, step, module or kernel hold each operation once.
        facts: of the trace.
    """
    wrong = []
    known = [key for pair in _COUNTS.values() for key in pair]
    if rows and all(key in row for row in rows for key in known):
        every = {
            **{count: facts.rows.get(table, 0) for table, (count, _) in _COUNTS.items()},
            **{total: facts.sums.get(table, 0) for table, (_, total) in _COUNTS.items()},
        }
        held = {key: _total(rows, key) for key in known}
    elif rows and all({"calls", "total_ns", "max_ns", "short_name"} <= row.keys() for row in rows):
        table = "CUPTI_ACTIVITY_KIND_KERNEL"
        every = {"calls": facts.rows.get(table, 0), "total_ns": facts.sums.get(table, 0)}
        held = {key: _total(rows, key) for key in every}
        wrong += [
            f"{row['short_name']!r} takes longer than all its calls" for row in rows if row["max_ns"] > row["total_ns"]
        ]
    else:
        return []
    wrong += [
        f"{key} of all rows is {held[key]}, in the trace {there}"
        for key, there in every.items()
        if held[key] > there or (held[key] != there and not facts.impossible)
    ]
    return wrong


_OF_A_FILE: Final = ("trace_path", "trace_bytes", "generated_at", "schema_version", "product")


def figures_of(plain: Any) -> Any:
    """A result without what depends on the file's place and size, in an order of its own: rows of equal times may change
    their order with those of the trace."""
    if isinstance(plain, dict):
        return {key: figures_of(value) for key, value in plain.items() if key not in _OF_A_FILE}
    if isinstance(plain, list):
        below = [figures_of(value) for value in plain]
        return sorted(below, key=lambda value: json.dumps(value, sort_keys=True))
    return plain
