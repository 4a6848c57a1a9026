"""The page of faults is what the rows say, and is as long as promised."""

from __future__ import annotations

from fault_table import PAGE, page, rows_of_the_table


def test_the_page_says_what_the_rows_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make docs"


def test_there_are_enough_rows() -> None:
    rows = [(file, test, row.name) for _, file, test, row in rows_of_the_table()]
    assert len(rows) >= 40
    assert len(set(rows)) == len(rows)
