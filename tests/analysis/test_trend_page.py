"""The trend as a page and in a terminal: what it draws, what it links, and that names stay words."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from attrs import evolve
from rich.console import Console
from typer.testing import CliRunner

from analysis.cli.app import app
from analysis.domain.convert import from_json
from analysis.domain.trend import ClassTime, LevelChange, Link, StageTrend, Trend, TrendPoint, TrendRun, WorkTrend
from analysis.render.spec.trend import change_lines, sentence, stage_sentence
from analysis.render.trend.page import page, write_page
from analysis.render.trend.pictures import CLASS_COLOURS, class_colours, class_picture, time_picture
from analysis.render.trend.terminal import blocks, print_trend
from history.location import locate
from history.store import Store
from history.trend import trend_of
from report_builder import HOSTILE
from trend_builder import record_history


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    record_history(Store(locate(str(path))), runs=40)
    return path


@pytest.fixture(scope="module")
def made(file: Path) -> Trend:
    return trend_of(Store(locate(str(file))))


def hostile(name: str) -> Trend:
    """A trend in which everything that others named has this name."""
    start, link = datetime(2026, 1, 1, tzinfo=UTC), Link(name, f"/{name}")
    runs = tuple(TrendRun(name, start + timedelta(days=day), (name,) if day else (), (link,), name) for day in range(7))
    points = tuple(TrendPoint(run, 1e6, (1e6, 2e6), None, None, (ClassTime(name, 5e5),)) for run in range(7))
    change = LevelChange(3, 1e6, 2e6, 1.0, 0.9, 1.1, 3, 4)
    return Trend(name, (WorkTrend(name, name, runs, (StageTrend(name, name, points, (change,)),)),), 2)


# --- the page ---------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_that_reaches_for_nothing_and_runs_no_script(made: Trend, tmp_path: Path) -> None:
    text = write_page(made, tmp_path / "trend.html").read_text()
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "script-src" not in text
    sources = re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", text)
    assert all(not source.startswith(("http:", "https:", "//")) for source in sources)


def test_each_stage_has_its_picture_levels_marks_and_changes(made: Trend, tmp_path: Path) -> None:
    text = page(made, tmp_path)
    assert text.count('<svg xmlns="http://www.w3.org/2000/svg" class="pic"') == 2 * 2 * 2
    assert "▼ −87.5 %" in text
    assert "decode eager → cuda-graph" in text
    assert "driver 580.159.04 → 590.10" in text
    assert "between +3.8 % and +5.4 %" in text


def test_the_first_sentence_is_the_latest_change(made: Trend) -> None:
    said = sentence(made)
    assert said.startswith("Latest change of level, 2026-10-31: decode of deepseek-ocr, random weights, NVIDIA H100")
    assert said.endswith("with driver 580.159.04 → 590.10.")


def test_where_there_is_none_it_says_how_many_runs_were_looked_at(made: Trend) -> None:
    _, h200 = made.works
    assert sentence(evolve(made, works=(h200,))) == "No change of level in 2 runs of 1 workload."
    assert "fewer than 6 runs tell no level" in stage_sentence(h200, h200.stages[0])
    assert "No recorded run has unprofiled times" in sentence(evolve(made, works=()))
    assert "No recorded run has unprofiled times" in page(evolve(made, works=()), Path("/tmp"))


def test_two_devices_are_never_in_one_picture(made: Trend) -> None:
    assert [work.title.rpartition(", ")[2] for work in made.works] == ["NVIDIA H100 80GB HBM3", "NVIDIA H200"]
    h100, h200 = made.works
    assert not {run.run_id for run in h100.runs} & {run.run_id for run in h200.runs}
    for work, runs in ((h100, 40), (h200, 2)):
        drawn = ElementTree.fromstring(time_picture(work, work.stages[1], {}))
        medians = [shape for shape in drawn.iter() if shape.tag.endswith("circle")]
        assert len(medians) == runs
        hints = [title.text or "" for shape in medians for title in shape]
        assert {hint.split(", run ")[1].split(":")[0] for hint in hints} == {run.run_id[:8] for run in work.runs}


def test_every_raw_sample_is_a_dot(made: Trend) -> None:
    work = made.works[0]
    drawn = ElementTree.fromstring(time_picture(work, work.stages[0], {}))
    (dots,) = [shape for shape in drawn.iter() if "faint-dots" in shape.get("class", "")]
    assert dots.get("d", "").count("M") == sum(len(point.samples_ns) for point in work.stages[0].points)


def test_a_longer_time_is_higher_and_a_stack_is_as_high_as_its_parts(made: Trend) -> None:
    work = made.works[0]
    stage = work.stages[1]
    drawn = ElementTree.fromstring(time_picture(work, stage, {}))
    heights = [float(shape.get("cy", "")) for shape in drawn.iter() if shape.tag.endswith("circle")]
    medians = [point.median_ns for point in stage.points]
    by_height = sorted(range(40), key=lambda place: (heights[place], -medians[place]))
    assert by_height == sorted(range(40), key=lambda place: -medians[place])
    stacks = class_picture(work, stage)
    assert stacks is not None
    assert "other classes" in stacks


def test_colours_of_classes_are_those_of_all_stages(made: Trend) -> None:
    colours = class_colours(made.works[0])
    assert len(set(colours.values())) == len(colours) == len(CLASS_COLOURS) - 1
    assert CLASS_COLOURS[-1] not in colours.values()
    few = evolve(hostile("a"))
    assert class_colours(few.works[0]) == {"a": CLASS_COLOURS[0]}


def test_a_report_that_tells_no_classes_has_no_stack(made: Trend, tmp_path: Path) -> None:
    work = made.works[0]
    stage = evolve(work.stages[0], points=tuple(evolve(point, classes=()) for point in work.stages[0].points))
    assert class_picture(work, stage) is None
    text = page(evolve(made, works=(evolve(work, stages=(stage,)),)), tmp_path)
    assert "GPU time by kernel class: n/a" in text


@pytest.mark.parametrize("runs", [1, 2, 500])
def test_few_and_many_runs_are_drawn(runs: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    line = tuple(TrendRun(f"run-{place}", start + timedelta(hours=place), (), ()) for place in range(runs))
    points = tuple(TrendPoint(place, 1e6 + place, (1e6 + place,), None, None, ()) for place in range(runs))
    work = WorkTrend("model", "bf16", line, (StageTrend("decode", "token", points, ()),))
    ElementTree.fromstring(time_picture(work, work.stages[0], {}))
    assert "nan" not in time_picture(work, work.stages[0], {})


def test_files_that_exist_are_linked_from_where_the_page_lies(made: Trend, tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    run = evolve(made.works[0].runs[0], links=(Link("report.html", str(folder / "report.html")),))
    work = evolve(made.works[1], runs=(run, *made.works[1].runs[1:]))
    text = page(evolve(made, works=(work,)), tmp_path / "pages")
    assert '<a href="../a%20run/report.html">report.html</a>' in text
    gone = evolve(made, works=(evolve(work, runs=tuple(evolve(run, links=()) for run in work.runs)),))
    assert "its files are gone; the numbers stay" in page(gone, tmp_path)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_others_stay_words(name: str, tmp_path: Path) -> None:
    trend = hostile(name)
    text = page(trend, tmp_path)
    assert "<script" not in text
    assert "<img" not in text
    assert "javascript:" not in text
    assert "\x1b" not in text
    for href in re.findall(r'href="([^"]*)"', text):
        assert not re.match(r"(?i)\s*(javascript|vbscript|data:text)", href)
    to = io.StringIO()
    print_trend(trend, Console(file=to, width=100))
    assert "\x1b]" not in to.getvalue()
    assert "\u202e" not in to.getvalue()


# --- the terminal and the command -------------------------------------------------------------------------------


def test_blocks_follow_the_times() -> None:
    assert blocks([1.0, 2.0, 4.0]) == "▁▅█"
    assert blocks([3.0, 3.0]) == "▄▄"
    assert len(blocks([1.0, 2.0] * 100)) == 60


def test_of_many_runs_the_last_are_blocks_and_the_span_is_theirs(made: Trend) -> None:
    work = made.works[0]
    run, point = work.runs[0], work.stages[0].points[0]
    points = tuple(evolve(point, median_ns=1e9 if place < 40 else 1e6 * (1 + place)) for place in range(100))
    stage = StageTrend("decode", "token", tuple(evolve(point, run=0) for point in points), ())
    to = io.StringIO()
    print_trend(evolve(made, works=(evolve(work, runs=(run,), stages=(stage,)),)), Console(file=to, width=160))
    assert "the last 60: 41.0 ms to 100 ms" in to.getvalue()


def test_the_terminal_tells_levels_changes_and_settings(made: Trend) -> None:
    to = io.StringIO()
    print_trend(made, Console(file=to, width=160))
    text = " ".join(to.getvalue().split())
    for words in (
        "deepseek-ocr, random weights, NVIDIA H200",
        "2.812 → 2.936 ms per token (+4.4 %, between +3.8 % and +5.4 %), with driver 580.159.04 → 590.10.",
        "2026-10-11 03:00 00000014: decode eager → cuda-graph",
        "its one change of level on 2026-10-31: 86.10 → 88.87 ms per image",
    ):
        assert words in text
    narrow = io.StringIO()
    print_trend(made, Console(file=narrow, width=80))
    assert max(map(len, narrow.getvalue().splitlines())) <= 80


def test_the_command_prints_and_writes_a_page(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "trend.html"
    command = ["trend", "--store", str(file), "--stage", "decode", "--device", "h200", "--out", str(out)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert "18.1 ms per token in the latest of 2 runs" in done.output.replace("\n", " ")
    text = out.read_text()
    assert "NVIDIA H200" in text
    assert "H100" not in text
    assert "Prefill" not in text


def test_a_stage_that_no_run_has_is_not_called_a_failure_of_runs(file: Path, tmp_path: Path) -> None:
    page = tmp_path / "trend.html"
    done = CliRunner().invoke(
        app, ["trend", "--store", str(file), "--stage", "nope", "--out", str(page)], env={"COLUMNS": "200"}
    )
    assert "in no line: failed, without unprofiled times of the stages asked for, or" in done.output
    assert "in no line: failed, without unprofiled times of the stages asked for, or" in page.read_text()


def test_programs_get_it_as_json(file: Path, made: Trend) -> None:
    done = CliRunner().invoke(app, ["trend", "--store", str(file), "--json"], catch_exceptions=False)
    assert from_json(Trend, done.stdout) == made


def test_changes_are_listed_newest_first(made: Trend) -> None:
    dates = [row.run.started_at for row in change_lines(made.works[0])]
    assert dates == sorted(dates, reverse=True)
    assert len(dates) == 3
