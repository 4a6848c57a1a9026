"""Several traces as one object: the ranks' DataFrames with a column that says whose each row is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import analysis
from analysis import RankProfiles
from analysis.api.profile import TABLES, Profile
from analysis.domain.errors import TraceError
from merged_trace import merge_exports

RANKS = ("tensor-parallel_2xh200_rank0", "tensor-parallel_2xh200_rank1")


@pytest.fixture(scope="module")
def files(real_trace: Callable[[str], Path]) -> list[Path]:
    return [real_trace(name) for name in RANKS]


@pytest.fixture(scope="module")
def ranks(files: list[Path]) -> RankProfiles:
    return analysis.load(files)


def test_every_table_of_a_profile_is_there_for_all_ranks(ranks: RankProfiles) -> None:
    for name in TABLES:
        theirs, ours = getattr(Profile, name), getattr(RankProfiles, name)
        assert inspect.signature(theirs) == inspect.signature(ours), name
        joined = getattr(ranks, name)()
        each = {rank: getattr(ranks[rank], name)() for rank in ranks}
        assert joined.columns[0] == "rank", name
        assert set(joined.columns) - {"rank", "place"} == set(each[0].columns) - {"rank"}, name
        assert ("place" in joined) == (name == "actions")
        assert len(joined) == sum(map(len, each.values())), name
        assert joined["rank"].tolist() == [rank for rank, rows in each.items() for _ in range(len(rows))], name
        assert set(joined.attrs["definitions"]) == set(joined.columns), name


def test_sums_are_those_of_each_rank(ranks: RankProfiles) -> None:
    busy = ranks.kernels("decode").groupby("rank")["total_ns"].sum()
    assert busy.to_dict() == {rank: int(ranks[rank].kernels("decode")["total_ns"].sum()) for rank in (0, 1)}
    launches = ranks.launches()
    assert isinstance(launches["stage"].dtype, pd.CategoricalDtype)
    assert launches.groupby("rank").size().to_dict() == {rank: len(ranks[rank].launches()) for rank in ranks}
    last = launches.iloc[-1]
    assert last["stage"] == ranks[1].launches().iloc[-1]["stage"]


def test_the_ranks_together_say_who_is_late(ranks: RankProfiles) -> None:
    assert ranks.report().sentence.startswith("Start with rank 1: it is last at 989 collectives")
    assert ranks.ranks()["cost_ns"].tolist() == [362_012_331, 1_055_576_706]
    assert set(ranks.rank_stages()["rank"]) == {0, 1}
    worst = ranks.lateness().iloc[0]
    assert (worst["late"], worst["waiting"]) == (1, 0)
    assert len(ranks.rank_steps()) == len(ranks.report().places)
    assert len(ranks) == 2
    assert repr(ranks) == "<RankProfiles of ranks 0, 1 on 2 × NVIDIA H200>"
    # Judged with the other rank's trace known, as the command does.
    assert "rank 1" in " ".join(ranks[0].verdicts()["sentence"])


def test_one_trace_of_several_ranks_and_numbers_of_the_files(files: list[Path], tmp_path: Path) -> None:
    one = merge_exports(files[0], files[1], tmp_path / "both.sqlite")
    both = analysis.load([one])
    assert list(both) == [0, 1]
    assert both.report().pairing.one_clock
    moved = [tmp_path / "x_rank4.sqlite", tmp_path / "x_rank5.sqlite"]
    for path, file in zip(moved, files, strict=True):
        path.symlink_to(file)
    assert set(analysis.load(moved).stages()["rank"]) == {4, 5}
    assert isinstance(analysis.load(files[0]), Profile)


def test_a_file_that_fails_is_named(files: list[Path], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"nothing")
    with pytest.raises(TraceError, match=r"damaged\.sqlite"):
        analysis.load([files[0], damaged])
