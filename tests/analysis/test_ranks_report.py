"""The combined report of several ranks: from files to workers to a folder, whichever way the ranks came."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from jsonschema import Draft202012Validator
from rich.console import Console

from analysis.api import workers
from analysis.api.options import AnalysisOptions
from analysis.api.ranks import Ranks, rank_files, read_ranks, together
from analysis.api.workers import local_workers
from analysis.domain.errors import DsocrError, RequestError, TraceError
from analysis.efficiency.utilisation import CostRequest, costs_of
from analysis.ranks.names import name_of_run, rank_numbers, runs_among
from analysis.ranks.pairing import pair
from analysis.ranks.side_by_side import devices_told, side_by_side
from analysis.render.json_schema import schema_of
from analysis.render.ranks import contents
from analysis.render.ranks.page import page
from analysis.render.ranks.terminal import print_ranks
from analysis.render.ranks.writing import as_plain, write_combined
from analysis.report import judged_again
from merged_trace import merge_exports
from report_builder import plain_report
from trace_builder import TraceBuilder

ROOT = Path(__file__).parents[2]
RANKS = ("tensor-parallel_2xh200_rank0", "tensor-parallel_2xh200_rank1")
CLOCKS_APART = 24_933_500

RealTrace = Callable[[str], Path]


def analyse(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "analysis.cli", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def read(files: list[Path], **options: Any) -> Ranks:
    with local_workers(1) as workers:
        return together(read_ranks(files, AnalysisOptions(**options), workers), one_clock=False)


@pytest.fixture(scope="module")
def files(real_trace: RealTrace) -> list[Path]:
    return [real_trace(name) for name in RANKS]


@pytest.fixture(scope="module")
def ranks(files: list[Path]) -> Ranks:
    return read(files)


@pytest.fixture(scope="module")
def folder(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by the command, with processes of its own where the machine has the cores."""
    out = tmp_path_factory.mktemp("out") / "report"
    done = analyse(*files, "--out", out, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    (out / "printed.txt").write_text(done.stdout)
    return out


# --- what it says ---------------------------------------------------------------------------------------------------


def test_the_first_sentence_names_the_straggler_its_cost_and_its_cause(ranks: Ranks) -> None:
    assert ranks.combined.sentence == (
        "Start with rank 1: it is last at 989 collectives and makes rank 0 wait 1.06 s (54.8 % of its 1.92 s in stages), "
        "because its host is in Python and the framework."
    )
    told = " ".join(ranks.combined.then)
    assert "Rank 1's GPU idles 988 ms longer than that of rank 0" in told
    assert "from image[0]/prefill to image[0]/decode/decode_step#28" in told
    assert "rank 0 is last at 1,123 collectives and makes rank 1 wait 362 ms" in told
    assert "At the start of the capture rank 1 waits 25.1 ms for rank 0, which counts for no rank" in told
    assert [(row.late, row.cost_ns) for row in ranks.combined.ranks] == [(1123, 362_012_331), (989, 1_055_576_706)]
    assert "(30 of 67 steps): 1.0506 s of the 1.0556 s" in told
    assert "ranks 0 and 1 wait for each other's hosts in turn" in told


def test_ranks_have_the_exact_numbers_of_their_traces(ranks: Ranks, expected: Callable[[str], dict[str, Any]]) -> None:
    wanted = expected(RANKS[0])
    row = ranks.combined.ranks[0]
    assert (row.kernels, row.kernel_sum_ns) == (wanted["totals"]["kernels"], wanted["totals"]["kernel_ns"])
    assert row.busy_ns == wanted["totals"]["gpu_union_ns"]
    for stage in ("prefill", "decode"):
        mine = next(one for one in ranks.combined.stages if (one.rank, one.stage) == (0, stage))
        assert mine.kernels == wanted["stages"][stage]["kernel"]["count"]
        assert mine.profiled_ns == wanted["stages"][stage]["cpu_range_ns"]
        assert (
            mine.busy_ns
            == wanted["stages"][stage]["busy_per_instance_ns"] + (wanted["stages"][stage]["memset"]["total_ns"])
        )
        assert mine.waiting_ns is not None
        assert mine.transfer_ns is not None


def test_the_run_is_of_two_gpus_that_share_a_model(ranks: Ranks) -> None:
    combined = ranks.combined
    assert combined.devices == "2 × NVIDIA H200"
    for rank, report in enumerate(ranks.reports):
        assert {instance.rank for instance in report.instances} | {step.rank for step in report.steps} == {rank}
    assert (combined.work, combined.model_ranks) == ("one model over all ranks", (2, 2))
    assert combined.tokens == 66  # 2 prefills and 64 steps, once for both ranks
    assert combined.wall_ns is not None
    assert combined.tokens_per_s == pytest.approx(66 / combined.wall_ns * 1e9)
    start = min(one.start_ns for one in ranks.reports[0].instances)
    end = max(one.finished_ns for one in ranks.reports[0].instances)
    other = ranks.reports[1].instances
    start = min(start, min(one.start_ns for one in other) - CLOCKS_APART)
    assert combined.wall_ns == max(end, max(one.finished_ns for one in other) - CLOCKS_APART) - start


def test_the_verdict_of_the_rank_that_waits_names_the_other_and_its_cause(ranks: Ranks) -> None:
    decode = next(verdict for verdict in ranks.reports[0].verdicts if verdict.stage == "decode")
    assert "the GPU waits 16.4 ms (55 %) in collectives for rank 1, because its GPU idles" in decode.sentence
    assert "in Python and the framework" in decode.sentence
    assert "look at the other rank" not in f"{decode.action}{decode.sentence}".lower()
    assert any("is waiting, no communication" in line for line in decode.evidence)
    assert decode.budget is not None
    terms = {term.key: term for term in decode.budget.terms}
    assert terms["ranks"].label == "collectives: waiting for rank 1"
    assert sum(term.per_unit_ns for term in decode.budget.terms) == decode.budget.time_ns
    late = next(verdict for verdict in ranks.reports[1].verdicts if verdict.stage == "decode")
    assert late.bound == "host-bound in Python"


def test_each_gpu_is_charged_its_share_of_the_model(ranks: Ranks) -> None:
    """The cost of some model, as if it were this run's: half of it is one of two ranks'."""
    made = ranks.parts[0].assembled
    costs = costs_of(None, CostRequest("deepseek-ocr", None, 6, 916), made.report.instances)
    whole, half = (judged_again(evolve(made, costs=costs), (), count) for count in (1, ranks.combined.model_ranks[0]))
    rows = list(zip(whole.utilisation, half.utilisation, strict=True))
    assert any(row.mbu is not None for row, _ in rows)
    for row, share in rows:
        assert row.flop is not None
        assert share.flop == pytest.approx(row.flop / 2, abs=200)
        if row.mfu is not None and row.mbu is not None:
            assert share.mfu == pytest.approx(row.mfu / 2)
            assert share.mbu == pytest.approx(row.mbu / 2)
    mfu = whole.report.mfu_per_stage["decode"]
    assert mfu is not None
    assert half.report.mfu_per_stage["decode"] == pytest.approx(mfu / 2)


def test_ranks_that_never_meet_have_a_model_each(tmp_path: Path) -> None:
    paths = []
    for rank in (0, 1):
        built = TraceBuilder().thread(10 + rank, 10 + rank).gpu()
        for start in (0, 1000):
            built.range("prefill", start, start + 100, domain="dsocr").launch(
                start + 5, start + 9, ("gemm", start + 10, start + 90)
            )
        paths.append(built.write(tmp_path / f"rank{rank}.sqlite"))
    combined = read(paths).combined
    assert (combined.work, combined.model_ranks) == ("a model on each rank", (1, 1))
    assert combined.straggler is None
    assert combined.tokens == 4
    assert combined.wall_ns is None
    assert "not paired" in (combined.unknown_because or "")
    assert combined.sentence.endswith("who waits for whom is not known: the collectives of the traces are not paired.")
    assert all(row.waiting_ns is None for row in combined.ranks)


def test_collectives_that_are_not_paired_tell_neither_who_is_late_nor_whose_the_model_is(tmp_path: Path) -> None:
    paths = []
    for rank in (0, 1):
        built = TraceBuilder().thread(10 + rank, 10 + rank).gpu().range("prefill", 0, 900, domain="dsocr")
        for call in range(rank + 1):
            at = 10 + 100 * call
            built.launch(at, at + 5, ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)", at + 10, at + 50))
        paths.append(built.write(tmp_path / f"rank{rank}.sqlite"))
    sizes = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 8, "torch_dtype": "bfloat16",
        "hidden_act": "silu", "max_position_embeddings": 64,
    }  # fmt: skip
    config = tmp_path / "config.json"
    config.write_text(json.dumps(sizes))
    ranks = read(paths, config=config, prompt_tokens=4)
    for report in ranks.reports:
        assert {row.flop for row in report.utilisation} == {None}
        assert all("one rank of several" in (row.unknown_because or "") for row in report.utilisation)
    combined = ranks.combined
    assert combined.pairing.how == "not paired"
    facts = {fact.label: fact.text for fact in contents.subject(combined)}
    assert "not known, because the collectives are not paired" in facts["work"]
    tiles = {tile.label: tile.note for tile in contents.tiles(combined)}
    assert tiles["Late rank"] == tiles["Longest wait"] == "collectives are not paired"


def test_devices_are_counted() -> None:
    assert devices_told(["NVIDIA H100"] * 3 + [None]) == "3 × NVIDIA H100, 1 × unknown GPU"


# --- files ----------------------------------------------------------------------------------------------------------


def test_the_folder_holds_all_ranks_and_each(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "report.md", "report.json", "waiting.svg", "printed.txt", "rank0", "rank1",
    }  # fmt: skip
    for rank in ("rank0", "rank1"):
        assert {"report.html", "report.md", "report.json", "kernels.parquet"} <= {
            path.name for path in (folder / rank).iterdir()
        }
    text = (folder / "report.html").read_text()
    for link in ("rank0/report.html", "rank1/report.html"):
        assert f'href="{link}"' in text
        assert (folder / link).is_file()
    assert "(rank0/report.md)" in (folder / "report.md").read_text()


def test_every_format_says_the_same_first_sentence(folder: Path, ranks: Ranks) -> None:
    sentence = ranks.combined.sentence
    plain = json.loads((folder / "report.json").read_text())
    assert plain["sentence"] == sentence
    assert plain["devices"] == "2 × NVIDIA H200"
    assert sentence in (folder / "report.html").read_text()
    assert sentence in (folder / "report.md").read_text().replace("\\", "")
    printed = (folder / "printed.txt").read_text()
    assert " ".join(printed.split()).startswith(sentence)
    assert max(map(len, printed.splitlines()[:40])) <= 80
    assert "2 × NVIDIA H200" in printed


def test_the_json_is_as_its_schema_says(folder: Path) -> None:
    schema = schema_of("ranks")
    Draft202012Validator(schema).validate(json.loads((folder / "report.json").read_text()))
    assert json.loads((ROOT / "docs" / "schemas" / "ranks.schema.json").read_text()) == schema


def test_one_file_of_both_ranks_is_the_same_report(files: list[Path], ranks: Ranks, tmp_path: Path) -> None:
    both = merge_exports(files[0], files[1], tmp_path / "both.sqlite", shift_ns=-CLOCKS_APART)
    done = analyse(both, "--out", tmp_path / "out", "--format", "json", "--explain")
    assert done.returncode == 0, done.stderr
    assert "rank 1:\n" in done.stdout  # whose arithmetic follows
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    wanted = json.loads(json.dumps(as_plain(ranks.combined)))
    for key in ("sentence", "devices", "work", "tokens", "wall_ns", "stages", "lateness", "straggler"):
        assert found[key] == wanted[key], key
    for mine, theirs in zip(found["ranks"], wanted["ranks"], strict=True):
        assert {key: value for key, value in mine.items() if "trace" not in key and "clock" not in key} == {
            key: value for key, value in theirs.items() if "trace" not in key and "clock" not in key
        }
    assert (tmp_path / "out" / "rank1" / "report.json").is_file()


def test_one_rank_of_a_file_of_several(files: list[Path], tmp_path: Path) -> None:
    both = merge_exports(files[0], files[1], tmp_path / "both.sqlite", shift_ns=-CLOCKS_APART)
    apart = json.loads(analyse("table", files[1], "--by", "stage", "--format", "json").stdout)
    assert json.loads(analyse("table", both, "--by", "stage", "--format", "json", "--rank", 1).stdout) == apart
    done = analyse("table", both, "--rank", 2)
    assert done.returncode == 2
    assert "there is no rank 2: the trace holds ranks 0 to 1" in done.stderr


def test_an_error_in_one_file_names_it_and_writes_nothing(files: list[Path], tmp_path: Path) -> None:
    damaged = tmp_path / "rank7.sqlite"
    damaged.write_bytes(files[0].read_bytes()[:100_000])
    done = analyse(files[0], damaged, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "rank7.sqlite" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_option_that_one_file_refuses_names_it(files: list[Path]) -> None:
    with pytest.raises(DsocrError, match=rf"{RANKS[0]}.*--skip-first 2 leaves nothing"):
        read(files, skip_first=2)


def test_files_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("run_rank10.sqlite", "run_rank2.sqlite", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in rank_files([tmp_path])] == ["run_rank2.sqlite", "run_rank10.sqlite"]
    (tmp_path / "trace.sqlite").touch()
    assert rank_files([tmp_path]) == (tmp_path,)  # a run folder
    with pytest.raises(TraceError, match="is named twice"):
        rank_files([tmp_path / "run_rank2.sqlite"] * 2)


def test_a_folder_of_several_runs_asks_for_one(tmp_path: Path) -> None:
    for name in ("eager-rank0", "eager-rank1", "graph-rank0", "graph-rank1"):
        (tmp_path / f"{name}.sqlite").touch()
    with pytest.raises(RequestError) as refused:
        rank_files([tmp_path])
    assert str(refused.value) == (
        f"{tmp_path}: holds traces of 2 runs by their names: eager (2), graph (2); name the traces of one, such as "
        f"{tmp_path}/eager-rank0.sqlite {tmp_path}/eager-rank1.sqlite"
    )
    named = [tmp_path / "graph-rank1.sqlite", tmp_path / "eager-rank0.sqlite"]
    assert set(rank_files(named)) == set(named)  # who names files means them


@pytest.mark.parametrize(
    ("names", "runs"),
    [
        (["a_rank0", "a_rank1"], ["a"]),
        (["rank0", "rank1"], [""]),
        (["report_1", "report_2"], ["report"]),
        (["node0-rank0", "node0-rank1", "node1-rank2"], ["node"]),
        (["node0-rank0", "node1-rank0"], ["node0", "node1"]),
        (["prefill", "decode"], ["prefill", "decode"]),
        (["115572", "1000000", "source"], ["", "source"]),
    ],
)
def test_names_tell_which_runs_files_are_of(names: list[str], runs: list[str]) -> None:
    assert list(runs_among([f"{name}.sqlite" for name in names])) == runs


def test_ranks_have_the_numbers_of_their_files(files: list[Path], tmp_path: Path) -> None:
    assert rank_numbers(["x_rank12.sqlite.xz", "x_rank3.sqlite.xz"]) == (12, 3)
    assert rank_numbers(["x_0.sqlite", "x_1.sqlite"]) == (0, 1)
    assert rank_numbers(["both_rank0.sqlite"] * 2) == (0, 1)
    moved = [tmp_path / f"run_rank{number}.sqlite" for number in (4, 5)]
    for path, file in zip(moved, files, strict=True):
        path.symlink_to(file)
    combined = read(list(rank_files(moved))).combined
    assert [(row.rank, row.folder, row.cost_ns) for row in combined.ranks] == [
        (4, "rank4", 362_012_331),
        (5, "rank5", 1_055_576_706),
    ]
    assert {row.rank for row in combined.stages} == {4, 5}
    assert combined.sentence.startswith("Start with rank 5: it is last at 989 collectives and makes rank 4 wait 1.06 s")
    assert "rank 4 waits" in page(combined)
    assert "rank 0" not in page(combined)


def test_traces_of_several_runs_are_said_to_be(ranks: Ranks) -> None:
    manifest = plain_report().manifest
    assert manifest is not None
    sources = [part.source for part in ranks.parts]
    pairs = pair([source.collectives for source in sources], one_clock=False)
    for runs, told in ((("a", "b"), ["The traces are of several runs (rank 0 of a, rank 1 of b)"]), (("a", "a"), [])):
        reports = [
            evolve(report, manifest=evolve(manifest, run_id=run))
            for run, report in zip(runs, ranks.reports, strict=True)
        ]
        cautions = side_by_side(sources, reports, pairs, (2, 2)).cautions
        assert [text.partition(":")[0] for text in cautions if "several runs" in text] == told


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["llama_rank0", "llama_rank1"], "llama"),
        (["rank0", "rank1"], ""),
        (["a.0", "a.10"], "a"),
        (["x", "x"], "x"),
        (["one", "two"], ""),
    ],
)
def test_a_run_is_called_what_its_traces_have_in_common(names: list[str], wanted: str) -> None:
    assert name_of_run(names) == wanted


# --- a cluster ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_reads_the_same(files: list[Path], folder: Path, scheduler: str, tmp_path: Path) -> None:
    done = analyse(*files, "--out", tmp_path / "out", "--format", "json", "--scheduler", scheduler)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(
        (folder / "report.json").read_text()
    )
    assert (tmp_path / "out" / "rank1" / "report.json").is_file()


def test_an_error_on_a_cluster_names_the_file(files: list[Path], scheduler: str, tmp_path: Path) -> None:
    damaged = tmp_path / "rank7.sqlite"
    damaged.write_bytes(files[0].read_bytes()[:100_000])
    done = analyse(files[0], damaged, "--out", tmp_path / "out", "--scheduler", scheduler)
    assert done.returncode == 3
    assert "rank7.sqlite" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_has_lost_its_workers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "_LOOK_S", 0.5)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        leaving = threading.Timer(1.0, cluster.scale, (0,))
        leaving.start()
        with (
            workers.dask_workers(cluster.scheduler_address) as far,
            pytest.raises(TraceError, match="the cluster has no workers any more"),
        ):
            far.run(time.sleep, [300.0])
        leaving.join(60)


def test_a_scheduler_that_is_not_there_is_one_line(files: list[Path]) -> None:
    pytest.importorskip("distributed")
    done = analyse(*files, "--scheduler", "nonsense://127.0.0.1:1")
    assert done.returncode == 2
    assert "no Dask scheduler answers there" in done.stderr
    assert "Traceback" not in done.stderr


# --- hostile names --------------------------------------------------------------------------------------------------


def test_names_of_others_are_text(ranks: Ranks, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\x1b[31m|`"
    places = tuple(evolve(place, place=evil) for place in ranks.combined.places)
    combined = evolve(ranks.combined, places=places, sentence=evil, then=(evil,), cautions=(evil,), devices=evil)
    text = page(combined)
    assert "<script>" not in text
    assert "\x1b" not in text
    written = write_combined(combined, tmp_path, ("markdown", "html", "json"))
    assert "\x1b" not in (tmp_path / "report.md").read_text()
    assert "<script>" not in (tmp_path / "waiting.svg").read_text()
    assert len(written) == 4
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    print_ranks(combined, console)
    assert "\x1b" not in console.export_text()


def test_columns_of_clocks_are_left_out_where_there_is_one(ranks: Ranks) -> None:
    labels = [column.label for column in contents.ranks(ranks.combined, "html").columns]
    assert "Clock ahead" in labels
    one = evolve(ranks.combined, pairing=evolve(ranks.combined.pairing, one_clock=True))
    assert "Clock ahead" not in [column.label for column in contents.ranks(one, "html").columns]
