"""``dsocr-analyze diff``: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from analysis.compare.records import Diff
from analysis.domain.convert import from_plain

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "reports" / "examples"
EAGER, GRAPH = EXAMPLES / "deepseek-ocr_h100", EXAMPLES / "deepseek-ocr_h100_cuda-graph"


def run(*arguments: object, cwd: Path, columns: int = 80) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "analysis.cli", "diff", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": str(columns), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_sentence_comes_first_and_lines_fit(tmp_path: Path) -> None:
    done = run(EAGER, GRAPH, "--out", tmp_path / "out", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("decode is 8.06 times as fast (22.6 ms → 2.80 ms per token)")
    said = [line for line in done.stdout.splitlines() if not line.startswith("Report:")]
    assert max(map(len, said)) <= 80
    for words in ("improvement", "GPU idle: launching", "866 → 1", "decode eager → cuda-graph"):
        assert words in done.stdout


def test_the_file_is_as_its_schema_says_and_comes_back(tmp_path: Path) -> None:
    assert run(EAGER, GRAPH, EAGER, "--out", tmp_path, "--format", "json", cwd=tmp_path).returncode == 0
    document = json.loads((tmp_path / "diff.json").read_text())
    schema = json.loads((ROOT / "docs" / "schemas" / "diff.schema.json").read_text())
    assert not list(Draft202012Validator(schema).iter_errors(document))
    document.pop("schema_version")
    assert len(from_plain(Diff, document).comparisons) == 2


def test_without_a_folder_it_has_one_of_its_own(tmp_path: Path) -> None:
    assert run(EAGER, GRAPH, cwd=tmp_path).returncode == 0
    assert (tmp_path / "reports" / "deepseek-ocr_h100-to-deepseek-ocr_h100_cuda-graph" / "diff.json").is_file()
    assert run(EAGER, GRAPH, cwd=tmp_path).returncode == 0  # the same again goes to the same place
    assert len(list((tmp_path / "reports").iterdir())) == 1


def test_bands_are_read_and_used(tmp_path: Path) -> None:
    bands = {"bands_version": 1, "bands": {"decode": {"ns": 50e6, "source": "ten rounds", "measured": True}}}
    (tmp_path / "bands.json").write_text(json.dumps(bands))
    done = run(EAGER, GRAPH, "--out", tmp_path, "--band", tmp_path / "bands.json", cwd=tmp_path, columns=200)
    assert done.returncode == 0, done.stderr
    assert "ten rounds" in done.stdout
    assert "improvement" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([EAGER], 2, "two runs at least"),
        ([EAGER, "nowhere"], 3, "no such file"),
        ([EAGER, EXAMPLES / "tensor-parallel_2xh100_graph"], 2, "of several ranks"),
        ([EAGER, GRAPH, "--format", "pdf"], 2, "unknown format 'pdf'"),
        ([EAGER, GRAPH, "--band", "nowhere.json"], 2, "cannot be read"),
        ([EAGER, EAGER / "summary.json"], 2, "summary.json: is no report.json"),
    ],
    ids=["one", "missing", "ranks", "format", "band", "summary"],
)
def test_what_a_user_gets_wrong_is_one_line(tmp_path: Path, arguments: list[object], code: int, words: str) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
    assert not list(tmp_path.iterdir())
