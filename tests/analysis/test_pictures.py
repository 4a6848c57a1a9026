"""Pictures show the report's numbers, and stage cards say them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import duration
from analysis.render.html import page as html
from analysis.render.html.stage_cards import stage_cards
from analysis.render.pictures import budget_picture, category_picture, histogram_picture, step_picture
from analysis.render.pictures.busy import busy_picture
from analysis.render.pictures.metrics import metrics_picture
from analysis.render.pictures.roofline import stage_roofline_picture
from analysis.render.pictures.svg import alone
from analysis.report import Report, assemble
from analysis.trace.reader import Trace
from report_builder import hostile_report, plain_report

SVG = "{http://www.w3.org/2000/svg}"
Picture = Callable[[Report], str | None]
PICTURES: tuple[Picture, ...] = (
    budget_picture, category_picture, histogram_picture, step_picture, busy_picture, metrics_picture,
    stage_roofline_picture,
)  # fmt: skip


@pytest.fixture(scope="module")
def real_report(real_attribution: Callable[[str], tuple[Trace, Attribution]]) -> Report:
    trace, attribution = real_attribution("deepseek-ocr_h100_64tok")
    return assemble(trace, attribution, None)


def drawn(picture: str | None) -> ET.Element:
    assert picture is not None
    return ET.fromstring(picture)


def hints(picture: str | None) -> list[str]:
    return [title.text or "" for title in drawn(picture).iter(f"{SVG}title")][1:]


@pytest.mark.parametrize("make", PICTURES, ids=lambda make: make.__name__)
def test_a_picture_is_well_formed_named_and_holds_no_script(make: Picture, tmp_path: Path) -> None:
    for report in (plain_report(), hostile_report()):
        picture = make(report)
        root = drawn(picture)
        assert root.get("role") == "img"
        assert root.get("aria-label") == root.findtext(f"{SVG}title")
        assert not [one for one in root.iter() if one.tag.endswith(("script", "foreignObject", "a", "image"))]
        assert not [name for one in root.iter() for name in one.attrib if name.startswith("on") or "href" in name]
        width = float(str(root.get("width")))
        for rect in root.iter(f"{SVG}rect"):
            assert float(str(rect.get("x"))) >= 0
            assert float(str(rect.get("x"))) + float(str(rect.get("width"))) <= width + 1
        ET.fromstring(alone(str(picture)))


@pytest.mark.parametrize("make", PICTURES, ids=lambda make: make.__name__)
def test_nothing_is_drawn_of_nothing(make: Picture) -> None:
    empty = evolve(
        plain_report(), stages=(), instances=(), steps=(), categories=(), utilisation=(), metrics=(), timeline=None
    )
    assert make(empty) is None


def test_steps_are_drawn_one_by_one(real_report: Report) -> None:
    picture = step_picture(real_report)
    paths = [path.get("d", "") for path in drawn(picture).iter(f"{SVG}path")]
    assert [path.count("h0") for path in paths] == [len(real_report.steps)] * 2
    counted = sum(
        int(hint.split(": ")[1].split()[0].replace(",", "")) for hint in hints(histogram_picture(real_report))
    )
    assert counted == len(real_report.steps)


def test_many_steps_are_averaged_and_it_says_so() -> None:
    report = plain_report()
    step = report.steps[0]
    many = evolve(report, steps=tuple(evolve(step, index=index, context=index) for index in range(5000)))
    picture = step_picture(many)
    assert picture is not None
    assert "each point the mean of 9" in picture
    assert len(picture) < 40_000


def test_the_busy_share_is_that_of_the_slices(real_report: Report) -> None:
    timeline = real_report.timeline
    assert timeline is not None
    told = hints(busy_picture(real_report))
    assert len(told) == len(real_report.instances) + 1
    for instance, hint in zip(real_report.instances, told, strict=False):
        assert hint.startswith(f"{instance.path}: {duration(instance.end_ns - instance.start_ns)}")


def test_small_categories_are_added_up(real_report: Report) -> None:
    picture = category_picture(real_report, 600, 4)
    assert picture is not None
    left = re.search(r"(\d+) smaller categories: ([\d.]+) % of prefill and ([\d.]+) % of decode", picture)
    assert left is not None
    shares = {(row.stage, row.category): row.share for row in real_report.categories}
    weight = {name: sum(shares.get((stage, name), 0) for stage in ("prefill", "decode")) for _, name in shares}
    rest = sorted(weight, key=lambda name: -weight[name])[4:]
    known = [name for name in rest if weight[name]]
    assert int(left[1]) == len(known)
    for stage, text in zip(("prefill", "decode"), left.groups()[1:], strict=True):
        assert float(text) == pytest.approx(100 * sum(shares.get((stage, name), 0) for name in rest), abs=0.06)


def test_a_card_says_what_the_verdict_says(real_report: Report) -> None:
    cards = stage_cards(real_report)
    assert [card.stage for card in cards] == ["Prefill", "Decode"]
    for card, verdict in zip(cards, real_report.verdicts, strict=True):
        assert verdict.budget is not None
        assert card.time == duration(verdict.budget.time_ns)
        assert (card.action, card.ceiling) == (verdict.action, verdict.ceiling)
        assert sum(term.part for term in card.terms) == pytest.approx(1)
        assert sum(int(term.per_cent.split()[0]) for term in card.terms) == 100
        assert [term.time for term in card.terms] == [
            duration(term.per_unit_ns) for term in verdict.budget.terms if term.per_unit_ns
        ]
        assert card.of_unit.endswith("%)")


def test_a_card_of_the_whole_capture_names_no_part_of_it(
    real_attribution: Callable[[str], tuple[Trace, Attribution]],
) -> None:
    trace, attribution = real_attribution("llama_h100_cuda-graph")
    report = assemble(trace, attribution, None)
    for card, verdict in zip(stage_cards(report), report.verdicts, strict=True):
        assert card.bound == verdict.bound
        assert card.terms or verdict.budget is None


def test_an_unfit_capture_says_so_before_anything_else(
    real_attribution: Callable[[str], tuple[Trace, Attribution]],
) -> None:
    trace, attribution = real_attribution("deepseek-ocr_h100_lossy")
    report = assemble(trace, attribution, None)
    text = html.page(report)
    unfit = [finding for finding in report.findings if finding.severity == "unfit"]
    assert unfit
    assert text.count('class="finding unfit"') == len(unfit)
    assert text.index('class="finding unfit"') < text.index('id="headline"') < text.index('class="finding warning"')
    assert text.count('class="finding ') == len(report.findings)
    assert "every check passed" not in text
