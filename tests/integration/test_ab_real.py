"""``dsocr-profile ab`` with a real, small model on the CPU: rounds, captures, comparison, and the band that a gate takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
TINY = {"model": "llama-tiny", "max-new-tokens": 4, "repeats": 3, "device": "cpu", "collector": "torch"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text(json.dumps(TINY))
    (tmp_path / "b.json").write_text(json.dumps({**TINY, "decode": "static"}))
    return tmp_path


def environ(place: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "DSOCR_LOCK_DIR": str(place / "locks"), "COLUMNS": "120"}


def profile(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "runner.cli", *arguments, "--out", str(place / "out")]
    return subprocess.run(argv, cwd=place, env=environ(place), capture_output=True, text=True, timeout=300, check=False)


def test_two_settings_are_measured_in_turns_and_compared(place: Path) -> None:
    done = profile(place, "ab", "a.json", "b.json", "--rounds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    rounds = [line for line in done.stderr.splitlines() if line.startswith("round ")]
    assert rounds == ["round 1 of 2: A", "round 1 of 2: B", "round 2 of 2: B", "round 2 of 2: A"]
    (folder,) = (place / "out").glob("ab-*")
    result = json.loads((folder / "ab.json").read_text())
    diff = json.loads((folder / "diff.json").read_text())
    (comparison,) = diff["comparisons"]
    for name, side in (("a", "base"), ("b", "new")):
        run = json.loads((Path(result[name]["run_dir"]) / "run.json").read_text())
        assert run["status"] == "complete"
        assert (Path(result[name]["run_dir"]) / "trace.sqlite").is_file()
        pages = len(run["input_set"]["images"])
        assert len(run["control"]) == 2 * 3 * pages
        flat = [
            value for done in result["rounds"] if done["side"] == name.upper() for value in done["samples"]["prefill"]
        ]
        assert comparison[side]["samples"]["prefill"] == flat
    prefill = next(stage for stage in comparison["stages"] if stage["stage"] == "prefill")
    assert prefill["interval"]["band_from"] == "2 rounds a side in turns"
    assert "decode eager" in done.stdout


def test_the_same_setting_twice_gives_a_band_that_a_gate_takes(place: Path) -> None:
    done = profile(place, "ab", "a.json", "a.json", "--rounds", "2", "--no-capture")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (place / "out").glob("ab-*")
    bands = json.loads((folder / "bands.json").read_text())
    assert set(bands["bands"]) == {"prefill", "decode"}
    assert all(band["ns"] > 0 for band in bands["bands"].values())
    assert f"for --band: {folder / 'bands.json'}" in done.stdout
    for name in ("first", "second"):
        done = profile(place, "run", "llama-tiny", "--max-new-tokens", "4", "--device", "cpu", "--collector", "torch")
        assert done.returncode == 0, done.stderr
        (place / "out" / "latest").resolve().rename(place / name)
    (place / "gate.toml").write_text('on_cannot_judge = "pass"\n[[stage]]\nmax_increase = "10000 %"\n')
    argv = [sys.executable, "-m", "analysis.cli", "gate", "first", "second", "--policy", "gate.toml"]
    argv += ["--band", str(folder / "bands.json"), "--out", "gate"]
    gated = subprocess.run(
        argv, cwd=place, env=environ(place), capture_output=True, text=True, timeout=120, check=False
    )
    assert gated.returncode == 0, gated.stdout + gated.stderr
    assert len(json.loads((place / "gate" / "gate.json").read_text())["checks"]) == 2
