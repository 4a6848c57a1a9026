"""docs/history.md says what there is."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from history.folder import read_folder
from history.location import locate
from history.schema import METADATA
from history.store import Store
from import_graph import ROOT

EAGER, GRAPH = (ROOT / "reports" / "examples" / name for name in ("deepseek-ocr_h100", "deepseek-ocr_h100_cuda-graph"))
PAGE = ROOT / "docs" / "history.md"


def test_the_page_lists_the_tables() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert set(listed) == set(METADATA.tables)


def test_the_query_of_the_page_answers(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    for folder in (EAGER, GRAPH):
        Store(locate(str(path))).record(read_folder(folder))
    match = re.search(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert match is not None
    with sqlite3.connect(path) as database:
        rows = database.execute(match[1]).fetchall()
    assert rows == [
        ("2026-11-24", "eager", 22.57, "token", "host-bound in Python"),
        ("2026-11-24", "cuda-graph", 2.8, "token", "kernel-bound"),
    ]
