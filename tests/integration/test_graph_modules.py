"""Kernels per module in a step replayed from a CUDA graph are those of an eager step on the same static cache.

Needs a GPU and an nsys that fits its driver. ``DSOCR_GRAPH_MODELS=deepseek-ocr,llama-1b`` proves it for other models
than the tiny ones, ``DSOCR_GRAPH_TRACES=folder`` keeps their runs.
"""

from __future__ import annotations

import json
import lzma
import os
import sqlite3
import subprocess
import sys
from bisect import bisect_right
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path

import pytest
import torch
from PIL import Image

from launch_kit import ROOT, environment, real_nsys

pytestmark = pytest.mark.integration

MODELS = os.environ.get("DSOCR_GRAPH_MODELS", "deepseek-ocr-tiny,llama-tiny").split(",")
NEW_TOKENS = 6
PROCESS = ~0xFFFFFF

Step = Counter[str]
"""Kernels by the innermost module range around their launch; '' where there is none."""


class Ranges:
    """Push/pop ranges of one domain, asked for the innermost one that is open at a moment on a thread."""

    def __init__(self, database: sqlite3.Connection, domain: str) -> None:
        rows = database.execute(
            """
            SELECT n.globalTid, n.start, n.end, coalesce(n.text, s.value)
            FROM NVTX_EVENTS n LEFT JOIN StringIds s ON s.id = n.textId
            WHERE n.eventType = 59 AND n.end IS NOT NULL AND EXISTS (
                SELECT 1 FROM NVTX_EVENTS d LEFT JOIN StringIds t ON t.id = d.textId
                WHERE d.eventType = 75 AND d.domainId = n.domainId AND (d.globalTid & ?) = (n.globalTid & ?)
                    AND coalesce(d.text, t.value) = ?)
            ORDER BY n.globalTid, n.start, n.end DESC
            """,
            (PROCESS, PROCESS, domain),
        )
        self.by_thread: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
        for thread, start, end, name in rows:
            self.by_thread[thread].append((start, end, name))

    def innermost(self, thread: int, moment: int) -> str:
        """Its name, '' where none is open. Ranges nest, so the latest one that began and has not ended is it."""
        rows = self.by_thread.get(thread, [])
        for start, end, name in reversed(rows[: bisect_right(rows, (moment, sys.maxsize, ""))]):
            if start <= moment <= end:
                return name
        return ""


def launches(database: sqlite3.Connection) -> list[tuple[int, int, int, int | None]]:
    """(thread, start, correlation id, graph node or None) of every kernel's launch call, in order."""
    return database.execute(
        """
        SELECT r.globalTid, r.start, k.correlationId, k.graphNodeId
        FROM CUPTI_ACTIVITY_KIND_KERNEL k JOIN CUPTI_ACTIVITY_KIND_RUNTIME r
            ON r.correlationId = k.correlationId AND (r.globalTid & ?) = k.globalPid
        ORDER BY r.start
        """,
        (PROCESS,),
    ).fetchall()


def recorded_at(database: sqlite3.Connection) -> dict[tuple[int, int], tuple[int, int]]:
    """(process, graph node) → (thread, start) of the moment at which the node was recorded, through its clones."""
    made: dict[tuple[int, int], tuple[int, int]] = {}
    original: dict[tuple[int, int], int] = {}
    for thread, start, node, cloned_from in database.execute(
        "SELECT globalTid, start, graphNodeId, originalGraphNodeId FROM CUDA_GRAPH_NODE_EVENTS ORDER BY start"
    ):
        key = (thread & PROCESS, node)
        made.setdefault(key, (thread, start))
        if cloned_from is not None:
            original[key] = cloned_from
    found = {}
    for process, node in made:
        first = node
        while (process, first) in original:
            first = original[process, first]
        found[process, node] = made.get((process, first), made[process, node])
    return found


def eager_steps(trace: Path) -> list[Step]:
    """Of a run that launches every kernel: one count per decode step."""
    with closing(sqlite3.connect(trace)) as database:
        steps, modules = Ranges(database, "dsocr"), Ranges(database, "dsocr.module")
        counts: dict[tuple[int, int], Step] = {
            (thread, start): Counter()
            for thread, rows in steps.by_thread.items()
            for start, _, name in rows
            if name == "decode_step"
        }
        for thread, moment, _, _ in launches(database):
            rows = steps.by_thread.get(thread, [])
            for start, end, name in reversed(rows[: bisect_right(rows, (moment, sys.maxsize, ""))]):
                if name == "decode_step" and start <= moment <= end:
                    counts[thread, start][modules.innermost(thread, moment)] += 1
                    break
    return list(counts.values())


def replayed_steps(trace: Path) -> list[Step]:
    """Of a run that replays a graph: one count per replay inside a decode step, by where its nodes were recorded."""
    with closing(sqlite3.connect(trace)) as database:
        stages, modules = Ranges(database, "dsocr"), Ranges(database, "dsocr.module")
        recorded = recorded_at(database)
        counts: dict[int, Step] = defaultdict(Counter)
        for thread, moment, correlation, node in launches(database):
            if node is None or stages.innermost(thread, moment) != "decode_step":
                continue
            at = recorded[thread & PROCESS, node]
            assert stages.innermost(*at) == "graph_record"
            counts[correlation][modules.innermost(*at)] += 1
    return list(counts.values())


def captured(folder: Path, model: str, decode: str) -> Path:
    """Run the model and give its trace."""
    page, out = folder / "page.png", folder / f"{model}-{decode}"
    if not page.exists():
        Image.linear_gradient("L").resize((640, 640)).convert("RGB").save(page)
    argv = [sys.executable, "-m", "runner.cli", "run", model, "--device", "cuda:0", "--collector", "nsys"]
    argv += ["--decode", decode, "--images", str(page), "--out", str(out), "--repeats", "2", "--ignore-eos"]
    argv += ["--max-new-tokens", str(NEW_TOKENS)]
    done = subprocess.run(
        argv, env=environment(DSOCR_LOCK_DIR=str(folder)), cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    (run,) = (path for path in out.iterdir() if path.is_dir() and not path.is_symlink())
    return run / "trace.sqlite"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("model", MODELS)
def test_a_replayed_step_has_the_kernels_of_an_eager_one_module_by_module(model: str, tmp_path: Path) -> None:
    if real_nsys() is None:
        pytest.skip("no usable nsys on this machine: `make nsys`")
    folder = Path(os.environ.get("DSOCR_GRAPH_TRACES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    eager, replayed = (
        eager_steps(captured(folder, model, "static")),
        replayed_steps(captured(folder, model, "cuda-graph")),
    )
    assert len(eager) == len(replayed) == NEW_TOKENS - 1
    # The same kernels in every step of a kind; the first token of all was made by the prefill.
    assert all(step == eager[0] for step in eager)
    assert all(step == replayed[0] for step in replayed)
    in_modules = [{name: count for name, count in step.items() if name} for step in (eager[0], replayed[0])]
    assert in_modules[0] == in_modules[1]
    assert "lm_head" in in_modules[0]
    # Outside of all modules: positions, the mask, the choice of the token; the graph also copies it into its place.
    assert abs(eager[0][""] - replayed[0][""]) <= 1, (eager[0][""], replayed[0][""])


def test_eager_steps_of_a_real_trace_are_counted(tmp_path: Path) -> None:
    """The counting above, on a trace that is there without a GPU."""
    name = "deepseek-ocr_h100_small"
    trace = tmp_path / "trace.sqlite"
    trace.write_bytes(lzma.decompress((ROOT / f"tests/data/{name}.sqlite.xz").read_bytes()))
    expected = json.loads((ROOT / f"tests/data/expected/{name}.json").read_text())
    steps = eager_steps(trace)
    assert sum(sum(step.values()) for step in steps) == expected["stages"]["decode"]["kernel"]["count"]
    assert all(step == steps[0] for step in steps)
    with closing(sqlite3.connect(trace)) as database:
        modules = Ranges(database, "dsocr.module")
        found = Counter(modules.innermost(thread, moment) for thread, moment, _, _ in launches(database))
    wanted = {module: kernels["count"] for module, kernels in expected["innermost_module_kernels"].items()}
    assert found == Counter(wanted) - Counter({"(none)": wanted["(none)"]}) + Counter({"": wanted["(none)"]})


def test_replayed_steps_are_counted_where_their_nodes_were_recorded(tmp_path: Path) -> None:
    """A node is cloned when its graph is made executable; the clone has a row that names no origin, too."""
    thread, trace = 7 << 24 | 1, tmp_path / "trace.sqlite"
    with closing(sqlite3.connect(trace)) as database:
        database.executescript(
            """
            CREATE TABLE StringIds (id INTEGER, value TEXT);
            CREATE TABLE NVTX_EVENTS (start, end, eventType, text, globalTid, textId, domainId);
            CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId);
            CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start, end, globalPid, correlationId, graphNodeId);
            CREATE TABLE CUDA_GRAPH_NODE_EVENTS (start, end, globalTid, graphNodeId, originalGraphNodeId);
            """
        )
        ranges = [(0, 100, "graph_record", 1), (10, 50, "layers.0", 2), (20, 30, "layers.0.mlp", 2)]
        ranges += [(200, 210, "decode_step", 1), (220, 230, "decode_step", 1)]
        database.executemany(
            "INSERT INTO NVTX_EVENTS VALUES (0, NULL, 75, ?, ?, NULL, ?)",
            [("dsocr", thread, 1), ("dsocr.module", thread, 2)],
        )
        for start, end, name, domain in ranges:
            database.execute(
                "INSERT INTO NVTX_EVENTS VALUES (?, ?, 59, ?, ?, NULL, ?)", (start, end, name, thread, domain)
            )
        for index, recorded in enumerate((25, 40, 60)):
            rows = [(recorded, index, None), (90, 100 + index, None), (90, 100 + index, index)]
            database.executemany(
                "INSERT INTO CUDA_GRAPH_NODE_EVENTS VALUES (?1, ?1, ?4, ?2, ?3)", [(*row, thread) for row in rows]
            )
        for correlation, launched in ((1, 95), (2, 205), (3, 225)):  # the first replay belongs to the recording
            database.execute(
                "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?1, ?1, ?2, ?3)", (launched, thread, correlation)
            )
            for node in (100, 101, 102):
                database.execute(
                    "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (?1, ?1, ?2, ?3, ?4)",
                    (launched + 50, thread & PROCESS, correlation, node),
                )
        database.commit()
    assert replayed_steps(trace) == [Counter({"layers.0.mlp": 1, "layers.0": 1, "": 1})] * 2
