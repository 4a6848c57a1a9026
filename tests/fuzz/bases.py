"""What is damaged: small traces, cut from real ones or built, and one valid file of every kind that the commands read."""

from __future__ import annotations

import lzma
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from attrs import frozen

from trace_builder import TraceBuilder
from whole_trace import whole

__all__ = ["Bases", "make_bases"]

_ROOT: Final = Path(__file__).parents[2]
_DATA: Final = _ROOT / "tests" / "data"
_EXAMPLES: Final = _ROOT / "reports" / "examples"
_MANIFEST: Final = _DATA / "runs" / "deepseek-ocr_h200.json"

_POLICY: Final = """\
on_cannot_judge = "pass"

[[stage]]
stage = "decode"
max_increase = "3 %"

[[launches]]
stage = "decode"
max_increase = 0

[[module]]
name = "layers.*.mlp"
max = "1 s"
optional = true
"""

_RULES: Final = """\
[[rule]]
category = "attention"
names = ["fmha*", "*flash*"]
"""

_CONFIG: Final = """\
{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_size": 64,
  "intermediate_size": 96,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 4,
  "head_dim": 16,
  "vocab_size": 512,
  "tie_word_embeddings": true,
  "torch_dtype": "bfloat16",
  "rope_scaling": {"factor": 32.0, "rope_type": "llama3"},
  "max_position_embeddings": 131072
}
"""

_REQUEST: Final = """\
{
  "model_path": "deepseek-ocr-tiny",
  "input_dir": "/nowhere/pages",
  "repeats": 1,
  "use_flash_attn": true,
  "device": "cpu",
  "max_new_tokens": 8
}
"""

_BANDS: Final = """\
{"bands_version": 1, "bands": {"decode": {"ns": 5e6, "source": "ten rounds", "measured": true}}}
"""


@frozen
class Bases:
    """Files to damage; never changed themselves."""

    traces: dict[str, Path]
    """Name → a SQLite export that every command takes."""
    documents: dict[str, Path]
    """Name → a valid file: ``run.json``, ``report.json``, ``gate.toml`` and so on."""


def make_bases(folder: Path) -> Bases:
    """Write all of them into a folder."""
    (traces := folder / "traces").mkdir(parents=True, exist_ok=True)
    (documents := folder / "documents").mkdir(exist_ok=True)
    return Bases(_traces(traces), _documents(documents))


def _traces(folder: Path) -> dict[str, Path]:
    traces = {
        "whole": whole().write(folder / "whole.sqlite"),
        "ranks": _two_ranks().write(folder / "ranks.sqlite"),
        "engine": _engine().write(folder / "engine.sqlite"),
        "graph": _graph().write(folder / "graph.sqlite"),
    }
    for name, (source, before_ms, after_ms) in {
        "eager": ("deepseek-ocr_h100_small", 20, 12),
        "replay": ("deepseek-ocr_h100_recorded-graph", 15, 10),
        "torch": ("deepseek-ocr_h200_torch", 25, 12),
    }.items():
        traces[name] = _cut(_DATA / f"{source}.sqlite.xz", folder / f"{name}.sqlite", before_ms, after_ms)
    return traces


def _two_ranks() -> TraceBuilder:
    """Two processes on two devices, which pass through the same stages."""
    built = TraceBuilder().session(4_000_000).gpu(device=0)
    for rank, pid in enumerate((11, 12)):
        built.thread(pid, pid)
        if rank:
            built.gpu(device=1)
        late = 1_000 * rank
        built.range("image[0]", 0, 900_000, domain="dsocr").range("prefill", 0, 400_000, domain="dsocr", payload=64)
        built.range("decode", 400_000, 900_000, domain="dsocr")
        for step in range(3):
            begun = 400_000 + 150_000 * step
            built.range("decode_step", begun, begun + 140_000, domain="dsocr", payload=64 + step)
            built.range("layers.0.mlp", begun + 1_000, begun + 90_000, domain="dsocr.module")
            for number in range(6):
                at = begun + 2_000 + 9_000 * number
                gpu = (f"gemm_{number}", at + 6_000 + late, at + 12_000 + late)
                built.launch(at, at + 4_000, gpu, device=rank)
        built.launch(10_000, 14_000, ("flash_fwd", 30_000 + late, 350_000 + late), device=rank)
        built.call(360_000, 390_000)
    return built


def _engine() -> TraceBuilder:
    """Steps as vLLM names them: prefill, mixed and decode."""
    built = TraceBuilder().session(4_000_000).gpu()
    at = 10_000
    for name in (
        "execute_context_2(64)_generation_0(0)",
        "execute_context_1(32)_generation_2(2)",
        *["execute_context_0(0)_generation_3(3)"] * 5,
    ):
        built.range(name, at, at + 90_000)
        for number in range(8):
            begun = at + 1_000 + 10_000 * number
            built.launch(begun, begun + 4_000, (f"kernel_{number % 3}", begun + 8_000, begun + 16_000))
        built.range("gpu_model_runner: sample", at + 91_000, at + 99_000)
        built.copy(at + 92_000, at + 94_000, (at + 95_000, at + 96_000), kind="DtoH", size=64)
        at += 110_000
    return built


def _graph() -> TraceBuilder:
    """A recorded graph that is replayed node by node, and another that was traced as a whole."""
    built = TraceBuilder().session(2_000_000).gpu()
    built.range("image[0]", 0, 900_000, domain="dsocr").range("prefill", 0, 200_000, domain="dsocr", payload=16)
    for number in range(4):
        built.range(f"layers.{number}.mlp", 1_000 + 20_000 * number, 15_000 + 20_000 * number, domain="dsocr.module")
        built.node(number + 1, 5_000 + 20_000 * number).node(number + 101, 150_000 + number, original=number + 1)
        built.launch(6_000 + 20_000 * number, 8_000 + 20_000 * number, (f"gemm_{number}", 100_000 + 10_000 * number,
                                                                        108_000 + 10_000 * number))  # fmt: skip
    built.range("decode", 200_000, 900_000, domain="dsocr")
    for step in range(4):
        begun = 210_000 + 100_000 * step
        built.range("decode_step", begun, begun + 90_000, domain="dsocr", payload=17 + step)
        nodes = [(f"gemm_{n}", begun + 20_000 + 9_000 * n, begun + 27_000 + 9_000 * n, n + 101) for n in range(4)]
        built.replay(begun + 2_000, begun + 6_000, nodes).call(begun + 60_000, begun + 80_000)
    return built.graph(700_000, 705_000, (710_000, 760_000))


def _cut(packed: Path, target: Path, before_ms: int, after_ms: int) -> Path:
    """The end of a real trace's first prefill and the beginning of its decoding: calls, what they launched, ranges.

    Args:
        packed: the export, as .xz.
        target: the smaller one.
        before_ms: so much of the prefill stays.
        after_ms: so much of what follows it.
    """
    with lzma.open(packed) as source, target.open("wb") as plain:
        shutil.copyfileobj(source, plain)
    with closing(sqlite3.connect(target)) as database:
        (end,) = database.execute(
            "SELECT min(end) FROM NVTX_EVENTS LEFT JOIN StringIds ON id = textId WHERE coalesce(text, value) = 'prefill'"
        ).fetchone()
        window = (end - before_ms * 1_000_000, end + after_ms * 1_000_000)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        database.execute("DELETE FROM CUPTI_ACTIVITY_KIND_RUNTIME WHERE start < ? OR end > ?", window)
        for table in ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE", "SYNCHRONIZATION"):
            if f"CUPTI_ACTIVITY_KIND_{table}" in tables:
                database.execute(
                    f"DELETE FROM CUPTI_ACTIVITY_KIND_{table} WHERE correlationId NOT IN "
                    "(SELECT correlationId FROM CUPTI_ACTIVITY_KIND_RUNTIME)"
                )
        if "CUDA_GRAPH_NODE_EVENTS" in tables:
            database.execute(
                "DELETE FROM CUDA_GRAPH_NODE_EVENTS WHERE graphNodeId NOT IN (SELECT graphNodeId FROM "
                "CUPTI_ACTIVITY_KIND_KERNEL WHERE graphNodeId NOT NULL) AND graphNodeId NOT IN (SELECT "
                "originalGraphNodeId FROM CUDA_GRAPH_NODE_EVENTS WHERE originalGraphNodeId NOT NULL)"
            )
        database.execute("DELETE FROM NVTX_EVENTS WHERE eventType IN (59, 60) AND (end < ? OR start > ?)", window)
        database.execute("UPDATE NVTX_EVENTS SET start = max(start, ?) WHERE eventType IN (59, 60)", window[:1])
        database.execute("UPDATE NVTX_EVENTS SET end = min(end, ?) WHERE eventType IN (59, 60)", window[1:])
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE name LIKE 'ENUM_%'").fetchall():
            database.execute(f'DROP TABLE "{table}"')
        # The profiler's own counts are of the whole capture: with them the rest would be a lossy one.
        if "DIAGNOSTIC_EVENT" in tables:
            database.execute("DELETE FROM DIAGNOSTIC_EVENT WHERE text LIKE '%collected%'")
        used = " UNION ".join(
            f"SELECT {column} FROM {table} WHERE {column} NOT NULL"
            for table, column in (
                ("CUPTI_ACTIVITY_KIND_KERNEL", "demangledName"),
                ("CUPTI_ACTIVITY_KIND_KERNEL", "shortName"),
                ("CUPTI_ACTIVITY_KIND_RUNTIME", "nameId"),
                ("NVTX_EVENTS", "textId"),
                ("ThreadNames", "nameId"),
            )
        )
        database.execute(f"DELETE FROM StringIds WHERE id NOT IN ({used})")
        database.commit()
        database.execute("VACUUM")
    return target


def _documents(folder: Path) -> dict[str, Path]:
    documents = {}

    def put(name: str, content: str | bytes | Path) -> None:
        documents[name] = target = folder / name
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_bytes(content.encode() if isinstance(content, str) else content)

    put("run.json", _MANIFEST)
    put("recorded.json", _EXAMPLES / "deepseek-ocr_h100" / "run.json")
    put("before.json", _EXAMPLES / "deepseek-ocr_h100" / "report.json")
    put("report.json", _EXAMPLES / "deepseek-ocr_h100_cuda-graph" / "report.json")
    put("sweep.json", _EXAMPLES / "deepseek-ocr_h100_sweep" / "sweep.json")
    put("bands.json", _BANDS)
    put("config.json", _CONFIG)
    put("request.json", _REQUEST)
    put("gate.toml", _POLICY)
    put("kernel_rules.toml", (_ROOT / "analysis" / "sums" / "kernel_rules.toml").read_bytes())
    put("vocabulary.toml", (_ROOT / "analysis" / "attribution" / "vocabularies" / "vllm.toml").read_bytes())
    put("preset.toml", (_ROOT / "nsys_configs" / "default.toml").read_bytes())
    with lzma.open(_DATA / "ncu_h100_decode-step.csv.xz") as counters:
        put("census.csv", counters.read())
    put("history.sqlite", b"")
    with closing(sqlite3.connect(documents["history.sqlite"])) as database:
        with lzma.open(_DATA / "history_r0001.sql.xz", "rt", encoding="utf-8") as script:
            database.executescript(script.read())
        database.commit()
    return documents
