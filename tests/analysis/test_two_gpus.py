"""A run of two H100 by our own launcher: decode replayed from a CUDA graph, rank 1 asleep for 2 ms at every eighth step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.api.ranks import Ranks, read_ranks, together
from analysis.api.workers import local_workers
from analysis.domain.errors import RequestError
from analysis.ranks.pairing import pair
from analysis.ranks.records import CAUSES

RANKS = ("tensor-parallel_2xh100_graph_rank0", "tensor-parallel_2xh100_graph_rank1")
LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY, PROMPT, STEPS, PAGES = 24, 4096, 14336, 32000, 4096, 64, 2
PLANTED_NS = 16 * 2_000_000
"""Sleeps of rank 1: 2 pages × 8 steps × 2 ms."""

RealTrace = Callable[[str], Path]


@pytest.fixture(scope="module")
def files(real_trace: RealTrace) -> list[Path]:
    return [real_trace(name) for name in RANKS]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "config.json"
    sizes = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "head_dim": 128,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": VOCABULARY, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "hidden_act": "silu", "max_position_embeddings": 8192,
    }  # fmt: skip
    path.write_text(json.dumps(sizes))
    return path


def read(files: list[Path], options: AnalysisOptions) -> Ranks:
    with local_workers(1) as workers:
        return together(read_ranks(files, options, workers), one_clock=False)


@pytest.fixture(scope="module")
def ranks(files: list[Path], config: Path) -> Ranks:
    return read(files, AnalysisOptions(config=config))


def test_every_collective_is_paired(ranks: Ranks) -> None:
    """Two all-reduces a layer, in each of two prefills and 128 replayed steps, and none is left out."""
    pairing = ranks.combined.pairing
    assert pairing.collectives == 2 * LAYERS * PAGES * (1 + STEPS) == 6240
    assert (pairing.left_out, pairing.because) == (0, None)
    assert [row.collectives for row in ranks.combined.ranks] == [6240, 6240]
    assert pairing.clocks[1].residual_ns == 358


def test_the_rank_that_sleeps_is_named_with_what_was_planted(ranks: Ranks) -> None:
    combined = ranks.combined
    assert combined.sentence == (
        "Start with rank 1: it is last at 3,793 collectives and makes rank 0 wait 38.9 ms (6.1 % of its 638 ms in stages), "
        "because its host is in Python and the framework."
    )
    assert (
        "17 of 130 steps make 35.6 ms of the 38.9 ms, most of them 8 steps apart: first image[0]/decode/decode_step#7."
        in (combined.then)
    )
    assert any(line.startswith("What to do about rank 1: see what its process does") for line in combined.then)
    worst = combined.straggler
    assert worst is not None
    assert (worst.rank, worst.waiting, worst.cause, worst.every, worst.peaks) == (1, 0, "python", 8, 17)
    assert worst.cause_ns == pytest.approx(PLANTED_NS, rel=0.1)


def test_steps_that_sleep_hold_the_planted_time_beyond_those_that_do_not(ranks: Ranks) -> None:
    """Python of rank 1 beyond that of rank 0 in the steps with a sleep, less as many times its median in the other steps."""
    pairs = pair([part.source.collectives for part in ranks.parts], one_clock=False)
    late, waits = pairs.ranks[1], pairs.ranks[0]
    python = CAUSES.index("python")
    assert late.before.columns[python] is late.before.outside_api_ns
    beyond = late.before.outside_api_ns[pairs.row[1]] - waits.before.outside_api_ns[pairs.row[0]]
    place = waits.place[pairs.row[0]]
    each = {
        name: int(beyond[place == code].sum())
        for code, name in enumerate(waits.places)
        if re.search(r"decode_step#\d+$", name)
    }
    sleeping = [ns for name, ns in each.items() if int(name.rpartition("#")[2]) % 8 == 7]
    others = [ns for name, ns in each.items() if int(name.rpartition("#")[2]) % 8 != 7]
    assert (len(sleeping), len(others)) == (16, 112)
    assert sum(sleeping) - 16 * float(np.median(others)) == pytest.approx(PLANTED_NS, rel=0.1)


def test_waiting_at_the_start_adds_up_and_makes_no_rank_late(ranks: Ranks) -> None:
    combined = ranks.combined
    start = [row for row in combined.lateness if row.at_start]
    assert [(row.late, row.waiting, row.collectives, row.cost_ns) for row in start] == [(0, 1, 1, 35_718_840)]
    assert [row.at_start_ns for row in combined.ranks] == [0, 35_718_840]
    for rank, row in enumerate(combined.ranks):
        kernels = ranks.parts[rank].source.collectives
        total = int((kernels.end_ns - kernels.start_ns).sum())
        assert (row.transfer_ns or 0) + (row.waiting_ns or 0) + (row.at_start_ns or 0) == total
        assert sum(place.waiting_ns[rank] for place in combined.places) == row.waiting_ns
        assert sum(place.at_start_ns[rank] for place in combined.places) == row.at_start_ns
        assert sum(stage.at_start_ns or 0 for stage in combined.stages if stage.rank == rank) == row.at_start_ns
    assert [row.cost_ns for row in combined.ranks] == [
        sum(row.cost_ns for row in combined.lateness if row.late == rank and not row.at_start) for rank in (0, 1)
    ]
    assert any("At the start of the capture rank 1 waits 35.7 ms for rank 0" in line for line in combined.then)
    assert combined.cautions == (
        "rank 1: the first captured prefill is far slower than later ones of the same work: 35.7 ms of it is waiting at the start "
        "of the capture",
    )


def test_the_budget_of_prefill_has_the_start_as_a_term_that_bounds_nothing(ranks: Ranks) -> None:
    verdict = next(verdict for verdict in ranks.reports[1].verdicts if verdict.stage == "prefill")
    assert verdict.budget is not None
    terms = {term.key: term for term in verdict.budget.terms}
    assert terms["start"].per_unit_ns == pytest.approx(35_718_840 / PAGES, rel=1e-3)
    assert terms["start"].ceiling_ns is None
    assert terms["ranks"].per_unit_ns == pytest.approx(1_478_902 / PAGES, rel=1e-2)
    assert sum(term.per_unit_ns for term in verdict.budget.terms) == verdict.budget.time_ns
    assert "start" not in [term.key for term in verdict.budget.label()]
    assert any("35.7 ms at the start of the capture left out" in line for line in verdict.evidence)


def test_the_ranks_flops_add_up_to_the_model_once(ranks: Ranks) -> None:
    """Both ranks are charged half of what a closed form written out here says of the whole model."""
    assert ranks.combined.model_ranks == (2, 2)
    per_token = LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INTERMEDIATE)
    prefill = 2 * PROMPT * per_token + 4 * LAYERS * HIDDEN * PROMPT * (PROMPT + 1) // 2 + 2 * HIDDEN * VOCABULARY
    decode = sum(
        2 * per_token + 4 * LAYERS * HIDDEN * (PROMPT + 1 + step) + 2 * HIDDEN * VOCABULARY for step in range(STEPS)
    )
    for stage, whole in (("prefill", PAGES * prefill), ("decode", PAGES * decode)):
        rows = [
            next(row for row in report.utilisation if (row.stage, row.time_base) == (stage, "profiled gpu busy"))
            for report in ranks.reports
        ]
        assert rows[0].flop == rows[1].flop
        assert sum(row.flop or 0 for row in rows) == pytest.approx(whole, rel=1e-5)
    shown = {(row.stage, row.rank): row.mfu for row in ranks.combined.stages}
    seconds = next(row.profiled_ns for row in ranks.combined.stages if (row.stage, row.rank) == ("prefill", 0)) / 1e9
    assert shown["prefill", 0] == pytest.approx(PAGES * prefill / 2 / seconds / 989e12, rel=1e-2)


def test_a_step_may_say_its_position_where_the_prefill_says_its_tokens(files: list[Path], config: Path) -> None:
    """This program's steps carry the position of their token, 4,096 at first; the prefill carries 4,096 tokens."""
    stated = read(files[:1], AnalysisOptions(config=config, prompt_tokens=PROMPT))
    assert stated.reports[0].utilisation
    with pytest.raises(RequestError, match="prefill ran 4096, by its range's payload"):
        read(files[:1], AnalysisOptions(config=config, prompt_tokens=PROMPT - 1))


def test_a_rank_alone_is_not_charged_the_whole_model(files: list[Path], config: Path) -> None:
    """Of two ranks each does half: charged all of it, a prefill would reach 108 % of the peak."""
    with opened(files[0], AnalysisOptions(config=config)) as trace:
        report = trace.report()
    assert {(row.mfu, row.mbu) for row in report.utilisation} == {(None, None)}
    assert all("one rank of several" in (row.unknown_because or "") for row in report.utilisation)
    assert report.report.mfu_model_level is None
    assert "one rank of several" in report.report.notes
