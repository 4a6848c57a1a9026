"""How a comparison looks: what the page, the Markdown and the terminal say of one record."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import get_args

import pytest
from attrs import evolve
from rich.console import Console

from analysis.compare.records import Answer, Comparison, Diff
from analysis.render.compare import contents, pictures
from analysis.render.compare.markdown import MOST_LINES, markdown
from analysis.render.compare.page import page
from analysis.render.compare.terminal import print_diff
from analysis.render.compare.writing import write_diff
from analysis.render.spec.compare import ANSWERS, DIFF_KERNELS, DIFF_STAGES, answer_in_words, match_in_words
from analysis.render.spec.shown import Table
from analysis.render.spec.text import visible
from compare_builder import HOSTILE, answered, comparison, diff, forbidden, hostile


class Reader(HTMLParser):
    """Texts, ids and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def printed(given: Diff, width: int = 80) -> str:
    out = StringIO()
    print_diff(given, Console(file=out, width=width))
    return out.getvalue()


def first_screen(given: Diff) -> str:
    """What stands before the sections of the stages, tags taken out."""
    text = page(given)
    head = text[text.index('id="first"') : text.index('id="c0-s0"')]
    return " ".join(re.sub(r"<[^>]+>", " ", head).replace("&nbsp;", " ").replace("\u00a0", " ").split())


def number(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("−", "-").partition(" ")[0])


def column(table: Table, label: str) -> list[str]:
    place = [heading.label for heading in table.columns].index(label)
    rows = [*table.rows, table.total] if table.total is not None else list(table.rows)
    return [row[place].text for row in rows]


# --- the first screen ----------------------------------------------------------------------------------------------


def test_the_first_screen_says_how_much_whether_it_is_real_why_and_what_next() -> None:
    said = first_screen(diff())
    assert comparison().headline in said
    assert "16.91 → 5.78 ms" in said
    assert "▼ Improvement −11.13 ms (−66 %)" in said
    assert "95 % interval −11.170 … −11.101 ms; unchanged runs differ by ±51.0 µs (20 A/A pairs)" in said
    assert "GPU idle: launching −7.31 ms" in said
    assert "look at what became slower all the same: GPU idle: inside CUDA graphs, +742 µs" in said


@pytest.mark.parametrize("answer", get_args(Answer))
def test_each_answer_has_a_word_a_sign_and_a_look_of_its_own(answer: Answer) -> None:
    assert set(ANSWERS) == set(get_args(Answer))
    for part in ("word", "sign", "kind"):
        assert len({getattr(look, part) for look in ANSWERS.values()}) == len(ANSWERS)
    text = page(diff_of(answered(answer)))
    look = ANSWERS[answer]
    assert re.search(rf'class="answer {look.kind}"><span aria-hidden="true">{re.escape(look.sign)}</span>', text)
    assert answer_in_words(answer) in markdown(diff_of(answered(answer)))
    assert answer_in_words(answer) in printed(diff_of(answered(answer)))


def diff_of(given: Comparison) -> Diff:
    return Diff(given.headline, (given,))


@pytest.mark.parametrize("write", [first_screen, markdown, printed])
def test_what_was_changed_is_said_beside_what_came_of_it(write: Callable[[Diff], str]) -> None:
    said = " ".join(write(diff()).split())
    assert "decode mode eager → cuda-graph; torch 2.13.0 → 2.13.1" in said
    assert "SM clock" not in contents.changed(comparison()), "nobody changed that"
    many = evolve(comparison(), settings=comparison().settings * 4)
    assert contents.changed(many).endswith("; 4 more")
    assert contents.changed(evolve(comparison(), settings=())) == ""


@pytest.mark.parametrize("write", [first_screen, markdown, printed])
def test_what_forbids_to_judge_is_said_first(write: Callable[[Diff], str]) -> None:
    said = " ".join(write(diff_of(forbidden())).split())
    assert "NVIDIA H100 80GB HBM3 against NVIDIA H200" in said
    assert "another device has other peaks" in said
    assert said.index("NVIDIA H200") < said.index("18.3 ms")
    assert "Run both sides again with the same device" in said


def test_the_next_step_follows_from_the_answer_and_the_largest_part() -> None:
    def step(given: Comparison) -> str:
        return contents.next_step(given, given.stages[1])

    assert step(answered("regression")) == (
        "Launch less: fuse what was split, or replay a CUDA graph (812 → 1,012 calls)."
    )
    assert step(answered("cannot judge")) == (
        "Measure both in turns on one device: dsocr-profile ab reports/eager reports/cannot-judge --rounds 5"
    )
    unknown = answered("cannot judge")
    unknown = evolve(unknown, new=evolve(unknown.new, run_id=None), base=evolve(unknown.base, path="a b/report.json"))
    assert step(unknown).endswith("dsocr-profile ab BASE.json NEW.json --rounds 5")
    spaced = evolve(unknown, base=evolve(unknown.base, path="a b/run"))
    assert "ab 'a b/run' NEW.json" in step(spaced)
    assert "noise" in step(answered("equal"))
    assert step(answered("improvement", -2e6)) == "Keep it. The new run's own report says what bounds it now."
    given = answered("regression")
    rest = tuple(evolve(row, difference_ns=1.4e6 if row.kind == "rest" else 1e5) for row in given.contributions)
    assert step(evolve(given, contributions=rest)).startswith("Capture both again")
    gone = evolve(given.stages[1], new_ns=None)
    assert contents.next_step(given, gone).startswith("Capture this stage on both sides")


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["stage", "module", "class", "host"])
@pytest.mark.parametrize("limit", [None, 3])
def test_tables_of_parts_add_up_as_they_are_shown(level: str, limit: int | None) -> None:
    table = contents.contributions(comparison(), "decode", level, "html", limit)  # type: ignore[arg-type]
    base, new, by = (list(map(number, column(table, label))) for label in ("Base", "New", "Difference"))
    for values in (base, new, by):
        assert sum(values[:-1]) == values[-1]
    assert [after - before for before, after in zip(base, new, strict=True)] == by
    assert float(by[-1]) == pytest.approx(-11.132, abs=0.006)


@pytest.mark.parametrize("write", [first_screen, markdown, printed])
def test_a_rest_larger_than_the_difference_is_no_share_that_is_explained(write: Callable[[Diff], str]) -> None:
    given = answered("regression")
    stages = tuple(evolve(stage, explained=4.348) for stage in given.stages)
    said = " ".join(write(diff_of(evolve(given, stages=stages))).split())
    assert "not explained: the rest is larger than the difference" in said
    assert "434.8" not in said


def test_a_stage_is_written_so_that_its_difference_holds() -> None:
    table = contents.latencies(comparison(), "html")
    base, new, by = (list(map(number, column(table, label))) for label in ("Base", "New", "Difference"))
    assert [after - before for before, after in zip(base, new, strict=True)] == by
    assert by == [Decimal("1.27"), Decimal("-11.13")]


def test_the_waterfall_goes_from_base_to_new_as_written() -> None:
    drawn = pictures.waterfall_picture(comparison(), comparison().stages[1], {})
    assert drawn is not None
    figures = [number(text) for text in re.findall(r">([+−]?[\d,.]+) ms</text>", drawn)]
    base, new, *parts = figures
    assert (base, new) == (Decimal("16.912"), Decimal("5.780"))
    assert base + sum(parts) == new
    assert "rest, not explained" in drawn


def test_a_small_difference_is_not_drawn_too_small_to_see() -> None:
    """The prefill's parts are 2 % of it: the axis begins later, and says so."""
    drawn = pictures.waterfall_picture(comparison(), comparison().stages[0], {})
    assert drawn is not None
    assert "the axis begins at" in drawn
    widths = [float(width) for width in re.findall(r'class="synchronising"[^>]*? width="([\d.]+)"', drawn)]
    assert max(widths) > 60


def test_parts_too_many_to_draw_are_one_bar_and_the_rest_stays() -> None:
    given = comparison()
    row = next(row for row in given.contributions if row.stage == "decode" and row.level == "module")
    many = tuple(evolve(row, name=f"module.{place}", difference_ns=-1000.0 * (place + 1)) for place in range(40))
    rest = tuple(row for row in given.contributions if row.kind == "rest" and row.level == "module")
    rows = contents.of_level(evolve(given, contributions=(*many, *rest)), "decode", "module")
    drawn = pictures.diverging_picture(rows, "By module", {})
    assert drawn is not None
    assert drawn.count("<rect") == 10
    assert "32 smaller parts" in drawn
    assert "rest, not explained" in drawn


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("language_model.layers.*.self_attn.q", "…guage_model.layers.*.self_attn.q"),
        ("gather or scatter in layers.*.self_attn", "gather or scatter in self_attn"),
        ("fill, bf16 in language_model.layers.*.mlp", "fill, bf16 in mlp"),
        ("lm_head", "lm_head"),
    ],
)
def test_the_end_of_a_path_says_more_than_its_beginning(name: str, label: str) -> None:
    row = evolve(comparison().contributions[0], name=name, kind="GPU time")
    drawn = pictures.diverging_picture([row], "By module", {})
    assert drawn is not None
    assert f">{label}</text>" in drawn
    narrow = pictures.diverging_picture([row], "By module", {}, pictures.NARROW)
    assert narrow is not None
    assert f">{name}</text>" in narrow


def test_stages_without_repetitions_say_so() -> None:
    given = comparison()
    stage = evolve(given.stages[1], unprofiled=False, interval=None)
    bare = evolve(given, stages=(stage,), base=evolve(given.base, samples={}), new=evolve(given.new, samples={}))
    assert contents.certainty(stage) == ""
    assert "profiled: what profiling costs is in it" in first_screen(diff_of(bare))
    assert pictures.interval_picture(bare) is None
    drawn = pictures.repetitions_picture(bare)
    assert drawn is not None
    assert "Base, profiled" in drawn


def test_a_stage_of_one_side_is_not_available_and_says_why() -> None:
    given = comparison()
    stage = evolve(given.stages[1], base_ns=None, difference_ns=None, ratio=None, interval=None, explained=None)
    alone = evolve(given, stages=(stage,), contributions=(), kernels=())
    table = contents.latencies(alone, "html")
    hints = [cell.hint for cell in table.rows[0] if cell.text == "n/a"]
    assert "the base does not have this stage" in hints
    for write in (page, markdown, printed):
        assert "n/a" in write(diff_of(alone))


# --- matches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "base", "new", "words"),
    [
        ("fused", 7, 1, "these 7 became this one"),
        ("split", 1, 3, "this one became these 3"),
        ("fused", 7, 2, "these 7 became these 2"),
        ("same work, another kernel", 1, 1, "same work, another kernel"),
        ("new", 0, 1, "new"),
    ],
)
def test_a_match_is_told_in_words(kind: str, base: int, new: int, words: str) -> None:
    assert match_in_words(kind, base, new) == words  # type: ignore[arg-type]


def test_every_kind_of_match_is_on_the_page_with_both_sides_kernels() -> None:
    text = Reader(page(diff())).text
    for words in ("these 7 became this one", "this one became these 2", "same work, another kernel", "vanished"):
        assert words in text
    assert "→ triton_poi_fused_add_mul_0" in text
    assert "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT" in text
    assert "→ nvjet_sm90_tst_128x8_64x12_2x1_v_bz_TNT" in text


def test_data_columns_hold_numbers_and_whole_names() -> None:
    row = comparison().kernels[1]
    values = {column.key: column.value(row) for column in DIFF_KERNELS.data}
    assert values["base_names"].count("; ") == 6
    assert values["difference_ns"] == -338_100.0
    stage = comparison().stages[1]
    values = {column.key: column.value(stage) for column in DIFF_STAGES.data}
    assert (values["low_ns"], values["answer"]) == (-11_170_000.0, "improvement")
    assert "answer_shown" not in values


# --- the page ------------------------------------------------------------------------------------------------------


def test_bars_lead_to_rows_that_there_are() -> None:
    read = Reader(page(diff(answered("regression"))))
    assert len(set(read.ids)) == len(read.ids)
    inner = [link[1:] for link in read.links if link.startswith("#")]
    assert any("-module-" in link for link in inner)
    assert set(inner) <= set(read.ids)
    assert [link for link in read.links if not link.startswith("#")] == []


def test_several_sides_have_a_table_and_a_section_each() -> None:
    text = page(diff(answered("regression"), forbidden()))
    read = Reader(text)
    assert 'id="diff_sides"' in text
    assert {"c0", "c1", "c2", "c2-s1-why"} <= set(read.ids)
    assert 'id="diff_sides"' not in page(diff())


def test_hostile_names_stay_text() -> None:
    given = diff_of(hostile())
    text = page(given)
    read = Reader(text)
    assert read.tags.count("script") == Reader(page(diff())).tags.count("script")
    assert "img" not in read.tags
    assert visible(HOSTILE[3]) in text.replace("&#39;", "'")
    for name in HOSTILE:
        assert "\x1b" not in text
        assert "\u202e" not in text
        if "<" in name:
            assert name not in text
            assert name not in re.sub(r"(?<!\\)`[^`]*`", "", markdown(given))  # inline code is text
    assert "\x1b[31mred" not in printed(given)


def test_the_page_says_the_same_without_scripts() -> None:
    """What a script makes is the choice of stages and tools of tables; nothing that is said."""
    text = page(diff())
    scripted = re.findall(r'class="[^"]*\bscripted\b', text)
    assert len(scripted) == 2  # the theme's button, and the kernels' search
    assert re.search(r"<details[ >]", text)


# --- Markdown and terminal -----------------------------------------------------------------------------------------


def large() -> Comparison:
    """Hundreds of parts, kernels and settings."""
    given = comparison()
    return evolve(
        given,
        contributions=tuple(
            evolve(row, name=f"{row.name}.{place}") for place in range(60) for row in given.contributions
        ),
        kernels=tuple(evolve(row, module=f"{row.module}.{place}") for place in range(60) for row in given.kernels),
        settings=given.settings * 30,
        notes=given.notes * 30,
    )


@pytest.mark.parametrize("sides", [1, 2, 5, 40])
def test_markdown_is_short_enough_for_a_pull_request(sides: int) -> None:
    text = markdown(diff(*[large()] * (sides - 1)) if sides > 1 else diff_of(large()))
    assert len(text.splitlines()) <= MOST_LINES
    assert comparison().headline in text
    assert "▼ improvement" in text


def test_markdown_folds_its_tables() -> None:
    text = markdown(diff())
    assert text.count("<details>") == text.count("</details>") == 3  # prefill is equal
    assert "| language_model.layers.\\*.self_attn |" in text
    assert "Next: Keep it" in text


def test_units_are_told_apart_where_stages_share_them() -> None:
    given = comparison()
    assert "captured: 12 images, 1,008 tokens" in contents.subject(given)[1]
    steps = evolve(given, stages=tuple(evolve(stage, per="step") for stage in given.stages))
    assert "captured: prefill 12 steps, decode 1,008 steps" in contents.subject(steps)[1]


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_stays_inside_its_width(width: int) -> None:
    text = printed(diff(answered("regression"), forbidden()), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.startswith(comparison().headline[:40])


def test_files_are_written_as_asked(tmp_path: Path) -> None:
    assert [path.name for path in write_diff(diff(), tmp_path)] == ["diff.html", "diff.md", "diff.json"]
    assert [path.name for path in write_diff(diff(), tmp_path / "deep" / "er", ["markdown"])] == ["diff.md"]
