"""What a sweep says: front, limits predicted and measured, sentences, and all its files."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
from attrs import evolve
from jsonschema import Draft202012Validator
from rich.console import Console
from typer.testing import CliRunner

from analysis.cli.app import app
from analysis.domain.convert import from_json_file, to_json
from analysis.domain.energy import energy_of, stage_energy, unknown_energy
from analysis.domain.errors import RequestError
from analysis.domain.sweep import Sweep, SweepPoint
from analysis.render.json_schema import schema_of
from analysis.render.spec.energy import ENERGY, energy_lines, energy_note
from analysis.render.spec.sweep import SWEEP_POINTS
from analysis.render.sweep import contents, pictures
from analysis.render.sweep.page import page
from analysis.render.sweep.terminal import print_sweep
from analysis.sweep.answers import answers_of, pareto_front
from analysis.sweep.crossover import crossovers, forecast
from analysis.sweep.series import series_of
from sweep_builder import BYTES_PER_S, FLOP_PER_S, made_point, made_sweep

ROOT = Path(__file__).parents[2]
COPIES = (
    "A batch is copies of one page: in a mixture of experts all copies go to the same experts, while different pages may "
    "read more weights and take longer; FLOP, bytes, MFU, MBU and predictions are those of the copies."
)


def of_points(*points: SweepPoint) -> Sweep:
    return evolve(made_sweep(batches=(1,)), points=points, planned=tuple(point.setting for point in points))


def timed(batch: int, tpot_ms: float, tokens_per_s: float) -> SweepPoint:
    point = made_point(batch)
    assert point.decode is not None
    return evolve(point, tokens_per_s=tokens_per_s, decode=evolve(point.decode, pass_ns=(tpot_ms * 1e6,)))


# --- the front and the sentences ---------------------------------------------------------------------------------------


def test_the_front_holds_what_nothing_surpasses() -> None:
    points = (timed(1, 5, 200), timed(2, 6, 190), timed(4, 6, 700), timed(8, 9, 700), timed(16, 20, 800))
    assert [point.setting.batch_size for point in pareto_front(points)] == [1, 4, 16]
    assert pareto_front((timed(1, 0, 200), timed(1, 5, 0))) == ()  # of 0 there is no place on a logarithmic axis
    out = evolve(points[4], status="out of memory")
    assert [point.setting.batch_size for point in pareto_front((*points[:4], out))] == [1, 4]


def test_the_first_sentence_names_the_best_and_what_to_take_for_latency() -> None:
    sweep = of_points(timed(1, 5, 200), timed(4, 8, 500), timed(16, 20, 800))
    assert answers_of(sweep).sentence == (
        "Most throughput: 800 tokens/s at batch 16, 20.0 ms a token; for 8.00 ms a token take batch 4 (500 tokens/s); the "
        "shortest is 5.00 ms, batch 1. Decode is launch-bound at every batch from 1 to 16."
    )


def test_a_point_that_is_hardly_faster_is_not_offered_for_latency() -> None:
    sweep = of_points(timed(1, 5, 200), timed(4, 5.2, 500), timed(16, 6, 800))
    assert answers_of(sweep).sentence.startswith(
        "Most throughput: 800 tokens/s at batch 16, 6.00 ms a token; the shortest is 5.00 ms, batch 1."
    )


def test_noise_is_told_where_passes_differ() -> None:
    quiet, noisy = timed(1, 5, 200), timed(2, 6, 300)
    assert noisy.decode is not None
    noisy = evolve(noisy, decode=evolve(noisy.decode, pass_ns=(5e6, 5e6, 6e6, 8e6, 90e6)))
    told = [line for line in answers_of(of_points(quiet, noisy)).then if line.startswith("Noise")]
    assert told == [
        "Noise: the middle half of one point's passes spreads over up to 50.0 % (decode, batch 2); smaller differences between "
        "points may be none."
    ]
    assert not any(line.startswith("Noise") for line in answers_of(of_points(quiet)).then)
    assert SWEEP_POINTS["tpot_spread"].value(noisy) == 0.5
    assert SWEEP_POINTS["tpot_spread"].value(quiet) is None


def test_labels_name_only_what_differs() -> None:
    one = made_sweep(modes=("base",), decode_modes=("eager",))
    assert [series.label for series in series_of(one)] == [""]
    both = made_sweep(modes=("base", "gundam"), decode_modes=("eager",))
    assert [series.label for series in series_of(both)] == ["base", "gundam"]
    assert [point.setting.batch_size for point in series_of(both)[0].points] == [1, 2, 4, 8, 16, 32, 64]


def test_one_sentence_for_all_series_of_which_the_same_is_true() -> None:
    answers = answers_of(made_sweep(batches=(1, 2, 4, 8), modes=("base",)))
    assert answers.then == (
        "Prefill: launch-bound up to batch 4, compute-bound from 8 on.",
        "Decode, eager: launch-bound at every batch from 1 to 8.",
        "Decode, CUDA graph: memory-bound at every batch from 1 to 8.",
        "A CUDA graph gives 4.3 × to 6.0 × as many tokens per second as eager decode.",
        COPIES,
    )


def test_a_batch_is_said_to_be_copies_wherever_there_is_one(tmp_path: Path) -> None:
    sweep = made_sweep(batches=(1, 2))
    (tmp_path / "sweep.json").write_text(to_json(sweep))
    shown = CliRunner().invoke(app, ["sweep", str(tmp_path)], env={"COLUMNS": "400"})
    assert COPIES in shown.output
    assert COPIES in (tmp_path / "sweep.md").read_text()
    assert COPIES in (tmp_path / "sweep.html").read_text()
    assert not any("copies" in line for line in answers_of(made_sweep(batches=(1,))).then)
    of_text = answers_of(evolve(sweep, page=None)).then
    assert any(line.startswith("A batch is copies of one prompt:") for line in of_text)


def test_what_was_not_measured_is_told_with_its_reason() -> None:
    sweep = made_sweep()
    failed = evolve(made_point(128), status="failed", prefill=None, decode=None, memory=None, reason="a kernel failed")
    skipped = evolve(failed, status="skipped", reason="the budget of 60 s is spent")
    sweep = evolve(
        sweep, points=(*sweep.points, failed, evolve(skipped, setting=evolve(skipped.setting, batch_size=256)))
    )
    told = answers_of(
        evolve(sweep, planned=(*sweep.planned, made_point(512).setting), unfinished_because="interrupted")
    ).then
    assert "6 points did not fit into memory, the smallest at batch 32, gundam, eager." in told
    assert "1 point failed: a kernel failed." in told
    assert "1 point skipped: the budget of 60 s is spent." in told


def test_planned_points_without_a_result_are_told() -> None:
    sweep = made_sweep(batches=(1, 2))
    sweep = evolve(sweep, points=sweep.points[:3], status="unfinished", unfinished_because="interrupted")
    assert answers_of(sweep).then[-1] == "5 planned points without a result yet (interrupted)."
    assert "goes on with it" in page(answers_of(sweep))


def test_a_sweep_in_which_nothing_was_measured_says_so() -> None:
    point = SweepPoint(made_point(1).setting, "out of memory", reason="tried to allocate 7 GiB")
    answers = answers_of(of_points(point))
    assert answers.sentence == "No point was measured (out of memory: tried to allocate 7 GiB)."
    assert "tried to allocate 7 GiB" in page(answers)
    assert pictures.pareto_picture(answers) is None
    assert pictures.memory_picture(answers) is None


def test_without_decode_pages_are_what_counts() -> None:
    answers = answers_of(made_sweep(batches=(1, 2, 4), modes=("base",), decode_modes=("eager",), tokens=1))
    assert answers.sentence.startswith("Most throughput: ")
    assert "pages/min at batch 4" in answers.sentence
    assert "tokens/s" not in answers.sentence
    text = page(answers)
    assert "Time of a batch of pages" in text
    assert "heat_tpot" not in text
    assert " 1 new token " in f"{contents.ran(answers.sweep)[0]} "


# --- where the limit changes -------------------------------------------------------------------------------------------


def simple_series(*batches: int) -> Sweep:
    """Decode of a model whose step moves 1 ms of bytes and a tenth of a millisecond more for each sequence, and computes
    2 µs a sequence; the GPU takes twice its roof, the host 10 ms."""
    points = []
    for batch in batches:
        point = evolve(made_point(1), setting=evolve(made_point(1).setting, batch_size=batch))
        assert point.decode is not None
        roof = 1e6 + 1e5 * batch
        busy = 2 * roof
        time = max(10e6, busy)
        figures = evolve(
            point.decode,
            pass_ns=(time,),
            flop=round(2e-6 * batch * FLOP_PER_S),
            weight_bytes=round(1e-3 * BYTES_PER_S),
            kv_bytes=round(1e-4 * batch * BYTES_PER_S),
            busy_ns=busy,
            busy_share=busy / time,
            bound="memory-bound" if busy >= 10e6 else "launch-bound",
        )
        points.append(evolve(point, decode=figures))
    return of_points(*points)


def test_the_end_of_the_host_bound_range_is_predicted_from_the_first_point_alone() -> None:
    sweep = simple_series(1, 2, 4, 8, 16, 32, 64)
    (series,) = series_of(sweep)
    change, ridge = crossovers(sweep, series, "decode")
    assert change.change == "host-bound → memory-bound"
    # Twice (1 ms + 0.1 ms × b) is 10 ms at batch 40; 2.2 ms − 1.1 ms + (1 ms + 0.1 ms × b) is at batch 79.
    assert change.predicted == 40
    assert change.predicted_latest in (79, 80)  # bytes are whole
    assert (change.measured_before, change.measured_from) == (32, 64)
    assert "10.0 ms" in change.arithmetic
    # 1 ms + 0.1 ms × b of bytes stay above 2 µs × b of operations.
    assert (ridge.change, ridge.predicted) == ("memory-bound → compute-bound", None)
    only_first = simple_series(1)
    (alone,) = series_of(only_first)
    assert crossovers(only_first, alone, "decode")[0].predicted == 40


def test_a_forecast_is_the_longer_of_host_and_gpu() -> None:
    sweep = simple_series(1, 4)
    model, told = forecast(sweep, series_of(sweep)[0], "decode")
    assert model is not None
    assert "From batch 1" in told
    assert model(1).unit_ns == 10e6
    assert model(1).gpu_ns == pytest.approx(2.2e6)
    assert model(3).memory_ns == pytest.approx(1.3e6, rel=1e-6)  # between two counted batches
    assert model(100).gpu_ns == pytest.approx(22e6, rel=1e-6)  # beyond the last: weights stay
    assert (model(39).limit, model(40).limit) == ("host-bound", "memory-bound")
    assert model(40).gpu_least_ns == pytest.approx(6.1e6, rel=1e-6)
    assert model(40).compute_ns == pytest.approx(80e3, rel=1e-4)


def test_compute_takes_over_where_work_outgrows_bytes() -> None:
    sweep = made_sweep(modes=("base",), decode_modes=("cuda-graph",))
    (series,) = series_of(sweep)
    (change,) = crossovers(sweep, series, "prefill")
    assert change.change == "host-bound → compute-bound"
    assert change.measured_before is not None
    assert change.measured_from is not None
    assert change.predicted is not None
    assert change.measured_before < change.predicted <= change.measured_from


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda sweep: evolve(sweep, peak_bytes_per_s=None), "peaks are not known"),
        (
            lambda sweep: of_points(
                *(
                    evolve(point, decode=evolve(point.decode, busy_ns=None, window_unknown_because="no CUPTI"))
                    for point in sweep.points
                )
            ),
            "no CUPTI",
        ),
        (
            lambda sweep: of_points(
                *(
                    evolve(point, decode=evolve(point.decode, flop=None, utilisation_unknown_because="no meta device"))
                    for point in sweep.points
                )
            ),
            "no meta device",
        ),
    ],
)
def test_what_cannot_be_predicted_says_why(break_it: Callable[[Sweep], Sweep], reason: str) -> None:
    sweep = break_it(simple_series(1, 64))
    (series,) = series_of(sweep)
    (change,) = crossovers(sweep, series, "decode")
    assert change.predicted is None
    assert reason in (change.unknown_because or "")
    assert (change.measured_before, change.measured_from) == ((None, None) if reason == "no CUPTI" else (1, 64))
    assert reason in page(answers_of(sweep))


def test_a_stage_whose_pace_the_gpu_sets_has_no_host_bound_range_to_leave() -> None:
    sweep = made_sweep(modes=("base",), decode_modes=("cuda-graph",), batches=(1, 2))
    (series,) = series_of(sweep)
    assert [change.change for change in crossovers(sweep, series, "decode")] == ["memory-bound → compute-bound"]


# --- what is shown -----------------------------------------------------------------------------------------------------


def test_the_best_of_a_map_is_the_best_of_its_points() -> None:
    sweep = made_sweep()
    maps = {heat.key: heat for heat in contents.heat_maps(answers_of(sweep))}
    best = max(point.tokens_per_s or 0 for point in sweep.points)
    hottest = [cell for _, cells in maps["tokens"].rows for cell in cells if cell.heat == 1]
    assert [cell.text for cell in hottest] == [f"{best:,.0f}"]
    fastest = min(point.decode.median_ns for point in sweep.points if point.decode)
    coolest = [cell for _, cells in maps["tpot"].rows for cell in cells if cell.heat == 1]
    assert len(coolest) == 1
    assert coolest[0].text == f"{fastest / 1e6:.2f} ms"
    missing = [cell for _, cells in maps["tpot"].rows for cell in cells if cell.heat is None]
    assert {cell.text for cell in missing} == {"out of memory"}


def test_the_two_tables_of_the_page_hold_every_column_of_a_point() -> None:
    answers = answers_of(made_sweep(energy=True))
    times, stages = contents.times_of_points(answers), contents.stages_of_points(answers)
    labels = {column.label for table in (times, stages) for column in table.columns}
    same_in_all = {"New tokens"}
    assert labels == {column.label for column in SWEEP_POINTS.for_reader("html")} - same_in_all
    settings = ["Batch", "Input", "Prompt", "Decode"]
    assert [column.label for column in times.columns][:4] == [column.label for column in stages.columns][:4] == settings
    assert len(times.rows) == len(stages.rows) == len(answers.sweep.points)


def test_points_that_did_not_fit_are_in_every_output(tmp_path: Path) -> None:
    sweep = made_sweep()
    missing = sum(point.status == "out of memory" for point in sweep.points)
    assert missing
    answers = answers_of(sweep)
    assert (pictures.memory_picture(answers) or "").count(">out of memory<") == missing
    record = tmp_path / "sweep.json"
    record.write_text(to_json(sweep))
    assert CliRunner().invoke(app, ["sweep", str(tmp_path)]).exit_code == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "sweep.csv").read_text())))
    assert sum(row["status"] == "out of memory" for row in rows) == missing
    assert "out of memory" in (tmp_path / "sweep.md").read_text()
    console = Console(width=200, record=True, file=io.StringIO())
    print_sweep(answers, console)
    assert console.export_text().count("out of memory") == missing


def test_the_pictures_are_well_formed_and_stand_alone() -> None:
    answers = answers_of(made_sweep(energy=True))
    drawn = [
        pictures.pareto_picture(answers),
        pictures.utilisation_picture(answers),
        pictures.context_picture(answers),
        pictures.forecast_picture(answers, "prefill"),
        pictures.forecast_picture(answers, "decode"),
        pictures.memory_picture(answers),
    ]
    for picture in drawn:
        assert picture is not None
        root = ElementTree.fromstring(picture)
        width, height = (float(root.attrib[name]) for name in ("width", "height"))
        for element in root.iter():
            for name, limit in (("x", width), ("cx", width), ("y", height), ("cy", height)):
                if name in element.attrib:
                    assert -1 <= float(element.attrib[name]) <= limit + 1, element.attrib


def test_one_point_is_a_sweep_too() -> None:
    answers = answers_of(made_sweep(batches=(4,), modes=("base",), decode_modes=("eager",)))
    assert "all points" in page(answers)
    assert pictures.context_picture(answers) is None
    assert pictures.forecast_picture(answers, "decode") is None


def test_the_page_runs_no_script_and_shows_names_as_text() -> None:
    sweep = made_sweep(batches=(1, 2))
    hostile = evolve(sweep, model="<script>alert(1)</script>", argv=("x", '"><img src=x onerror=alert(1)>'))
    text = page(answers_of(hostile))
    assert "<script" not in text
    assert "<img" not in text
    assert "script-src" not in text
    assert "default-src 'none'" in text


def test_the_command_writes_all_files_and_leaves_the_record_alone(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    record = folder / "sweep.json"
    record.write_text(to_json(made_sweep(energy=True)))
    before = record.stat()
    done = CliRunner().invoke(app, ["sweep", str(folder)])
    assert done.exit_code == 0, done.output
    assert record.stat() == before
    assert {path.name for path in folder.iterdir()} == {
        "sweep.json", "sweep.html", "sweep.md", "sweep.csv", "sweep.parquet",
        "sweep-throughput.svg", "sweep-limits.svg", "sweep-utilisation.svg", "sweep-memory.svg",
    }  # fmt: skip
    assert tuple(pq.read_table(folder / "sweep.parquet").column_names) == SWEEP_POINTS.keys
    out = tmp_path / "elsewhere"
    assert CliRunner().invoke(app, ["sweep", str(record), "--out", str(out)]).exit_code == 0
    assert from_json_file(Sweep, out / "sweep.json") == made_sweep(energy=True)


def test_what_is_no_sweep_is_said_in_one_line(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["sweep", str(tmp_path)])
    assert isinstance(missing.exception, RequestError)
    assert "there is no such file" in str(missing.exception)
    (tmp_path / "sweep.json").write_text('{"version": 1}')
    other = CliRunner().invoke(app, ["sweep", str(tmp_path)])
    assert isinstance(other.exception, RequestError)
    assert len(str(other.exception).splitlines()) == 1


def test_the_schema_is_that_of_the_record() -> None:
    schema = schema_of("sweep")
    assert json.loads((ROOT / "docs/schemas/sweep.schema.json").read_text()) == schema
    Draft202012Validator(schema).validate(json.loads(to_json(made_sweep(energy=True))))


# --- energy ------------------------------------------------------------------------------------------------------------


def test_the_energy_table_has_the_stages_and_the_page() -> None:
    stages = (
        stage_energy("prefill", loop_s=2.0, loop_joules=800.0, pages=40, new_tokens=10, idle_w=100.0),
        stage_energy("decode", loop_s=2.0, loop_joules=500.0, pages=20, new_tokens=10, idle_w=100.0),
    )
    energy = energy_of(
        stages, idle_w=100.0, idle_s=1.2, new_tokens=10, source="energy counter", sampling_s=0.1, how="a counter"
    )
    lines = energy_lines(energy)
    assert [line.stage for line in lines] == ["prefill", "decode", "page"]
    assert [line.joules_per_page for line in lines] == [20.0, 25.0, 45.0]
    assert [line.joules_per_token for line in lines] == [2.0, 2.5, 4.5]
    assert [line.joules_per_page_above_idle for line in lines] == [15.0, 15.0, 30.0]
    assert ENERGY["mean_w"].style(lines[0].mean_w) == "400"
    assert energy_note(energy) == (
        "Idle, model loaded: 100.0 W over 1.20 s. Measured by a counter. New readings about every 100 ms."
    )
    assert energy_note(unknown_energy("the model runs on the CPU")) == "Energy n/a: the model runs on the CPU."
    assert energy_lines(unknown_energy("x")) == ()


def test_joules_stand_in_the_page_where_they_were_measured_and_nowhere_else() -> None:
    assert "Joules per page" in page(answers_of(made_sweep(batches=(1,), energy=True)))
    assert "Joules per page" not in page(answers_of(made_sweep(batches=(1,))))
    not_measured = made_sweep(batches=(1,))
    points = tuple(evolve(point, energy=unknown_energy("NVML does not answer")) for point in not_measured.points)
    text = page(answers_of(evolve(not_measured, points=points)))
    assert len(re.findall("Energy n/a: NVML does not answer", text)) == 1
