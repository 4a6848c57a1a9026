import re

from hypothesis import given
from hypothesis import strategies as st

from analysis.render.markdown_tables import escaped
from analysis.render.spec import text


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
