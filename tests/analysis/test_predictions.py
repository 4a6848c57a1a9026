"""What an earlier run predicted, and what came: how a prediction is scored, and where it is shown."""

import json
from pathlib import Path

import pytest
from attrs import evolve
from rich.console import Console

from analysis.domain.convert import from_json_file
from analysis.domain.figures import reached
from analysis.domain.manifest import RunManifest
from analysis.domain.predictions import WHOLE, Came, Outcome, Prediction, score
from analysis.efficiency.records import UnitTimes
from analysis.render.formats import FORMATS, render_all
from analysis.render.html.page import page
from analysis.render.spec.predictions import sentences
from analysis.render.terminal import headline, print_report
from analysis.report import Report
from analysis.verdict.predictions import scored_predictions
from analysis.verdict.ranking import Ranking, WorkPart
from report_builder import hostile_report, plain_report

EXAMPLES = Path(__file__).parents[2] / "reports" / "examples"
PREDICTED = Prediction(
    run_id="26fb91c7-1a2b-4cb5",
    made_at="2026-11-24T18:37:57+00:00",
    stage="decode",
    unit="token",
    cause="host-bound in Python",
    action="replay it from a CUDA graph",
    was_ns=22_565_807,
    best_ns=2_581_525,
    time_base="unprofiled",
    changed=("decode eager → cuda-graph",),
)


@pytest.fixture(scope="module")
def graph() -> RunManifest:
    return from_json_file(RunManifest, EXAMPLES / "deepseek-ocr_h100_cuda-graph" / "run.json")


# --- the score --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("came_ns", "outcome", "share", "words"),
    [
        (2_741_234, "partly", 0.992, "22.57 → 2.58 ms a token at best. 2.74 ms came: 99 % of the predicted gain"),
        (12_570_000, "partly", 0.500, "12.57 ms came: 50 % of the predicted gain"),
        (22_565_807, "partly", 0.0, "22.57 ms came: 0 % of the predicted gain"),
        (2_400_000, "better than at best", 1.009, "better than at best, so the bound was wrong or something else changed"),
        (23_000_000, "slower", -0.0217, "23.00 ms came: slower than before"),
    ],
)  # fmt: skip
def test_the_score_says_what_came(came_ns: int, outcome: Outcome, share: float, words: str) -> None:
    scored = score(PREDICTED, Came(came_ns, "token", "unprofiled"))
    assert scored.outcome == outcome
    assert scored.share == pytest.approx(share, abs=1e-3)
    assert words in scored.sentence
    assert "Run 26fb91c7 of 2026-11-24 said: replay it from a CUDA graph in decode" in scored.sentence
    assert "(changed since: decode eager → cuda-graph)" in scored.sentence


def test_where_nothing_was_changed_it_says_so() -> None:
    scored = score(evolve(PREDICTED, changed=()), Came(22_600_000, "token", "unprofiled"))
    assert "no recorded setting was changed since" in scored.sentence


def test_of_many_changes_the_first_are_named() -> None:
    many = tuple(f"thing {number} a → b" for number in range(5))
    assert (
        "thing 2 a → b and 2 settings more)"
        in score(evolve(PREDICTED, changed=many), Came(9e6, "token", "unprofiled")).sentence
    )


@pytest.mark.parametrize(
    ("prediction", "came", "why"),
    [
        (PREDICTED, None, "this run does not tell what decode takes"),
        (PREDICTED, Came(None, "token", "unprofiled"), "this run does not tell what decode takes"),
        (PREDICTED, Came(2.7e6, "step", "unprofiled"), "it was per token, and this run tells it per step"),
        (PREDICTED, Came(2.7e6, "token", "profiled"), "it was unprofiled, and this run's time is profiled"),
        (evolve(PREDICTED, not_comparable="its pages had 64 tokens"), Came(2.7e6, "token", "unprofiled"), "had 64 tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_has_no_score(prediction: Prediction, came: Came | None, why: str) -> None:
    scored = score(prediction, came)
    assert (scored.came_ns, scored.share, scored.outcome) == (None, None, "not comparable")
    assert why in scored.sentence


@pytest.mark.parametrize("came", [251e6, 250e6, 263e6, 263.4e6, 900e6, 1518e6, 1700e6])
def test_the_share_follows_from_the_times_as_written(came: float) -> None:
    shown = reached(1_518_224_824, 250_851_572, came)
    was, best, now = (float(text.replace(",", "").removesuffix(" ms")) for text in (shown.was, shown.best, shown.came))
    assert f"{100 * (was - now) / (was - best):.0f} %".replace("-0 %", "0 %") == shown.share


def test_a_real_graph_run_is_scored_against_the_eager_run(graph: RunManifest) -> None:
    """reports/examples: 1,518 → 251 ms a page at best was said, and 263 ms came."""
    detail = json.loads((EXAMPLES / "deepseek-ocr_h100_cuda-graph" / "report.json").read_text())["detail"]
    times = tuple(UnitTimes(**row) for row in detail["unit_times"])
    of = detail["ranking"]
    parts = tuple(WorkPart(**part) for part in of["parts"])
    ranking = Ranking(of["sentence"], of["unit"], of["time_base"], of["time_ns"], parts, (), of["best_ns"])
    page_ = evolve(PREDICTED, stage=WHOLE, unit="page", was_ns=1_518_224_824, best_ns=250_851_572)
    whole, decode = scored_predictions(evolve(graph, predictions=(page_, PREDICTED)), times, ranking)
    assert "1,518 → 251 ms a page at best. 263 ms came: 99 % of the predicted gain" in whole.sentence
    assert "22.57 → 2.58 ms a token at best. 2.80 ms came: 99 % of the predicted gain" in decode.sentence
    assert decode.outcome == "partly"
    assert scored_predictions(graph, times, ranking) == ()
    assert scored_predictions(None, times, ranking) == ()


# --- where it is shown ------------------------------------------------------------------------------------------


def in_every_output(report: Report, folder: Path) -> dict[str, str]:
    """Output → its text."""
    render_all(report, folder, tuple(FORMATS))
    console = Console(width=4000, record=True, file=(folder / "terminal").open("w"))
    console.print(headline(report))
    first = console.export_text()
    print_report(report, console)
    return {
        "first screen": first,
        "terminal": console.export_text(),
        "html": page(report),
        "markdown": (folder / "report.md").read_text(),
        "json": (folder / "report.json").read_text(),
    }


def test_prediction_and_outcome_stand_in_every_output(tmp_path: Path) -> None:
    report = plain_report()
    first, *others = sentences(report)
    assert "1,518 → 251 ms a page at best. 263 ms came: 99 % of the predicted gain" in first
    outputs = in_every_output(report, tmp_path)
    for name, text in outputs.items():
        assert "1,518 → 251 ms a page at best. 263 ms came" in text, name
    for name in ("terminal", "html", "markdown", "json"):
        assert "better than at best" in outputs[name], name
        assert "cannot be set against it" in outputs[name], name
    assert len(others) == 2


def test_without_an_earlier_run_nothing_is_shown(tmp_path: Path) -> None:
    for name, text in in_every_output(plain_report(predictions=()), tmp_path).items():
        assert "What was predicted" not in text, name
        assert " came: " not in text, name


def test_hostile_names_stay_words(tmp_path: Path) -> None:
    made = page(hostile_report())
    assert "<script>document.title" not in made
    assert "&lt;script&gt;document.title" in made
