"""The example workflow of docs/gate.md, step for step as a runner would, on two reports that are committed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

import pytest
from junitparser import JUnitXml

pytestmark = pytest.mark.integration

ROOT: Final = Path(__file__).parent.parent.parent
EXAMPLE: Final = ROOT / "docs" / "examples" / "gate"
REPORTS: Final = ROOT / "reports" / "examples"
EAGER, GRAPH = "deepseek-ocr_h100", "deepseek-ocr_h100_cuda-graph"


def script_of(step: str) -> str:
    """The lines that a step of the workflow runs."""
    text = (EXAMPLE / "performance-gate.yml").read_text()
    match = re.search(rf"- name: {step}\n\s+run: \|\n((?:\s{{10}}.*\n|\n)+)", text)
    assert match is not None
    return textwrap.dedent(match[1])


def gate(place: Path, base: str, new: str) -> subprocess.CompletedProcess[str]:
    """Run the gate's step in a checkout that looks as the workflow says."""
    shutil.copytree(REPORTS / base, place / "performance" / "base")
    shutil.copytree(REPORTS / new, place / "runs" / "latest")
    shutil.copy(EXAMPLE / "gate.toml", place / "performance" / "gate.toml")
    programs = place / "bin"
    programs.mkdir()
    (programs / "dsocr-analyze").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m analysis.cli "$@"\n')
    (programs / "dsocr-analyze").chmod(0o755)
    environ = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(place / "summary.md"),
    }
    script = script_of("Gate")
    assert "dsocr-analyze gate " in script
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]  # as GitHub's runner starts it
    return subprocess.run(shell, cwd=place, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_eager_against_cuda_graph_passes(tmp_path: Path) -> None:
    done = gate(tmp_path, EAGER, GRAPH)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "summary.md").read_text().startswith("### ✅ Performance gate: passed\n")
    parsed = JUnitXml.fromfile(str(tmp_path / "gate" / "gate.junit.xml"))
    assert parsed.tests >= 6
    assert parsed.failures == parsed.errors == 0


def test_cuda_graph_against_eager_fails_and_says_what_grew(tmp_path: Path) -> None:
    done = gate(tmp_path, GRAPH, EAGER)
    assert done.returncode == 20, done.stdout + done.stderr
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("### ❌ Performance gate: failed\n")
    assert "| `decode` | 2.80 ms | 22.6 ms per token | +706.0 % | at most +5.0 % |" in summary
    assert len(summary.splitlines()) < 60
    parsed = JUnitXml.fromfile(str(tmp_path / "gate" / "gate.junit.xml"))
    assert parsed.failures >= 2
    entries = json.loads((tmp_path / "gate" / "gate.benchmark.json").read_text())
    assert {"stage decode", "launches of decode"} <= {entry["name"] for entry in entries}


def test_the_workflow_stays_what_github_reads() -> None:
    text = (EXAMPLE / "performance-gate.yml").read_text()
    assert "\t" not in text
    assert re.search(r"^on: pull_request$", text, re.MULTILINE)
    assert text.count("- name: ") == 5
    assert "tool: customSmallerIsBetter" in text
