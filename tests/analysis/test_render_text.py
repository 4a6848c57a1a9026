import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.render.markdown import escaped
from analysis.render.spec import text


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (None, "n/a"),
        (0, "0 ns"),
        (812, "812 ns"),
        (2_780.4, "2.78 µs"),
        (999_999, "1.00 ms"),
        (78_291_298, "78.3 ms"),
        (3_382_110_000, "3.38 s"),
        (3_600_000_000_000, "3,600 s"),
    ],
)
def test_a_duration_has_three_digits_and_the_unit_that_fits(ns: float | None, shown: str) -> None:
    assert text.duration(ns) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "n/a"), (0.0, "0 %"), (0.092, "9.2 %"), (0.0052, "0.52 %"), (0.000046, "0.005 %"), (1.0, "100.0 %"),
     (1e-9, "< 0.0001 %")],
)  # fmt: skip
def test_a_small_share_does_not_read_as_none(value: float | None, shown: str) -> None:
    assert text.share(value) == shown


@given(st.lists(st.integers(min_value=0, max_value=10**15), max_size=20))
def test_exact_milliseconds_add_up_on_paper(times: list[int]) -> None:
    on_paper = sum(int(text.exact_ms(one).replace(",", "").replace(".", "")) for one in times)
    assert on_paper == sum(times)


@given(st.text(alphabet=st.characters(codec=None)))
def test_nothing_invisible_is_left_in_a_name(name: str) -> None:
    shown = text.visible(name)
    assert shown.encode().decode() == shown  # no halves of surrogate pairs
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown)


def test_control_characters_are_written_out() -> None:
    assert text.visible("\x1b[31m\u202e\udcff") == "\\x1b[31m\\u202e\\udcff"


@given(st.text(), st.integers(min_value=3, max_value=40))
def test_a_shortened_name_keeps_its_ends(name: str, limit: int) -> None:
    short = text.shortened(name, limit)
    assert len(short) <= limit
    assert short == name or (name.startswith(short.split("…")[0]) and "…" in short)


@given(st.text())
def test_markdown_of_others_has_no_bare_markup(name: str) -> None:
    shown = escaped(text.visible(name))
    bare = re.sub(r"\\.|&#\d+;", "", shown)
    assert not re.search(r"[<>`*\[\]|~$@\\]", bare)
    assert "://" not in bare
