"""``dsocr-analyze gate`` as a user calls it, on the committed reports."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from analysis.api.sides import read_side
from analysis.compare.bands import read_bands
from analysis.domain.bands import Band, Bands
from analysis.domain.convert import to_json
from analysis.domain.errors import RequestError
from import_graph import ROOT

REPORTS = ROOT / "reports" / "examples"
EAGER, GRAPH = REPORTS / "deepseek-ocr_h100", REPORTS / "deepseek-ocr_h100_cuda-graph"
H100 = "NVIDIA H100 80GB HBM3"


def gate(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "analysis.cli", "gate", *map(str, arguments)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def policy(folder: Path, text: str) -> Path:
    path = folder / "gate.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "base", "new", "code"),
    [
        ('[[stage]]\nstage = "decode"\nmax_increase = "3 %"\n', EAGER, GRAPH, 0),
        ('[[stage]]\nstage = "decode"\nmax_increase = "3 %"\n', GRAPH, EAGER, 20),
        ('[[stage]]\nstage = "prefill"\nmax_increase = "3 %"\n', GRAPH, EAGER, 21),
        ('on_cannot_judge = "pass"\n[[stage]]\nstage = "prefill"\nmax_increase = "3 %"\n', GRAPH, EAGER, 0),
        ('on_cannot_judge = "fail"\n[[stage]]\nstage = "prefill"\nmax_increase = "3 %"\n', GRAPH, EAGER, 20),
        ('[[stage]]\nstage = "decod"\nmax_increase = "3 %"\n', GRAPH, EAGER, 2),
        ('[[stage]]\nmax = "1 s"\n', EAGER, REPORTS / "none", 3),
    ],
    ids=["passed", "failed", "cannot judge", "passed all the same", "failed for it", "mistake", "no such run"],
)
def test_each_outcome_has_its_exit_code(text: str, base: Path, new: Path, code: int, tmp_path: Path) -> None:
    done = gate(base, new, "--policy", policy(tmp_path, text), "--out", tmp_path / "out")
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    written = sorted(path.name for path in (tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else []
    if code in (2, 3):
        assert written == []
        assert re.fullmatch(r"dsocr-analyze: error: [^\n]+\n", done.stderr)
    else:
        assert written == ["gate.benchmark.json", "gate.json", "gate.junit.xml", "gate.md"]
        assert f"Written into {tmp_path / 'out'}: gate.md" in done.stdout


def test_it_prints_what_was_exceeded_with_its_numbers(tmp_path: Path) -> None:
    text = '[[launches]]\nstage = "decode"\nmax_increase = 0\n[[module]]\nname = "layers.*.mlp"\nmax = "1 s"\n'
    done = gate(GRAPH, EAGER, "--policy", policy(tmp_path, text))
    assert done.stdout.startswith("Failed (")
    assert "failed: launches of decode, at most +0" in done.stdout
    assert "1 → 866 per token" in done.stdout
    assert "limits kept to" in done.stdout
    assert done.stderr.endswith("exceeded, 0 cannot be judged\n")
    assert "passed: decode · layers.*.mlp" in gate(GRAPH, EAGER, "--policy", tmp_path / "gate.toml", "--all").stdout


def test_the_json_is_as_its_schema_says(tmp_path: Path) -> None:
    text = '[[stage]]\nmax_increase = "3 %"\n[[launches]]\nmax = 5\n[[memory]]\nmax = "1 GB"\n'
    gate(GRAPH, EAGER, "--policy", policy(tmp_path, text), "--out", tmp_path)
    schema = json.loads((ROOT / "docs" / "schemas" / "gate.schema.json").read_text())
    document = json.loads((tmp_path / "gate.json").read_text())
    assert set(document) == set(schema["properties"])
    Draft202012Validator(schema).validate(document)


def bands(folder: Path, ns: float, device: str = H100, decode: str | None = None) -> Path:
    path = folder / "bands.json"
    path.write_text(to_json(Bands({"prefill": Band(ns, "8 rounds")}, device=device, decode=decode, rounds=8)))
    return path


def test_a_measured_band_makes_a_small_difference_equal(tmp_path: Path) -> None:
    text = '[[stage]]\nstage = "prefill"\nmax_increase = "1 %"\n'
    done = gate(GRAPH, EAGER, "--policy", policy(tmp_path, text), "--band", bands(tmp_path, 12e6), "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    (check,) = json.loads((tmp_path / "gate.json").read_text())["checks"]
    assert "within the band of 12.0 ms (8 rounds)" in check["because"]


def test_a_policys_band_comes_first(tmp_path: Path) -> None:
    text = '[bands]\nprefill = "20 %"\n[[stage]]\nstage = "prefill"\nmax_increase = "1 %"\n'
    done = gate(GRAPH, EAGER, "--policy", policy(tmp_path, text), "--band", bands(tmp_path, 1.0), "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "gate.toml states 20 %" in (tmp_path / "gate.json").read_text()


def test_a_band_of_another_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"was measured on NVIDIA A100, and .* ran on NVIDIA H100 80GB HBM3"):
        read_bands(bands(tmp_path, 1.0, "NVIDIA A100"), [read_side(EAGER)])
    assert read_bands(bands(tmp_path, 1.0), [read_side(EAGER)])["prefill"].ns == 1.0


def test_a_run_against_itself_is_said_to_be_the_same(tmp_path: Path) -> None:
    done = gate(EAGER, EAGER, "--policy", policy(tmp_path, "[[launches]]\nmax_increase = 0\n"), "--out", tmp_path)
    assert done.returncode == 0
    for told in (done.stdout, (tmp_path / "gate.md").read_text()):
        assert "Both sides are the same run" in " ".join(told.split())


def test_a_band_of_another_decode_mode_than_the_bases_is_refused(tmp_path: Path) -> None:
    eager, graph = read_side(EAGER), read_side(GRAPH)
    path = bands(tmp_path, 1.0, decode="cuda-graph")
    with pytest.raises(RequestError, match=r"was measured with decode cuda-graph, and .* ran with eager"):
        read_bands(path, [eager, graph])
    assert read_bands(path, [graph, eager])["prefill"].ns == 1.0


def test_the_example_policy_is_understood_and_every_table_is_described() -> None:
    from analysis.gate.policy import read_policy
    from analysis.gate.records import TABLES

    example = read_policy(ROOT / "docs" / "examples" / "gate" / "gate.toml")
    assert len(example.limits) == 7
    text = (ROOT / "docs" / "gate.md").read_text()
    assert all(f"`[[{table}]]`" in text for table in TABLES)
