"""Help, examples and completion of ``dsocr-analyze``."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from analysis.cli.app import EXAMPLES, app

COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def dsocr_analyze(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from analysis.cli import main; main()", *argv]
    root = Path(__file__).parents[2]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=root, env={**os.environ, **environ}, timeout=60
    )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_help_has_examples(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "-h"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert "dsocr-analyze " in shown.output.partition("Examples:")[2]
    assert "Raises:" not in shown.output  # that part of a docstring is for readers of the code


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_are_command_lines(example: str) -> None:
    program, *arguments = shlex.split(example)
    assert program == "dsocr-analyze"
    name = arguments.pop(0) if arguments[0] in COMMANDS else "report"
    with COMMANDS[name].make_context(name, arguments) as context:
        assert context.params


def test_shells_complete_commands() -> None:
    script = dsocr_analyze("--show-completion", "bash")
    assert (script.returncode, "complete -o default" in script.stdout) == (0, True), script.stderr
    words = dsocr_analyze(
        _DSOCR_ANALYZE_COMPLETE="complete_bash", COMP_WORDS="dsocr-analyze re", COMP_CWORD="1"
    ).stdout.split()
    assert words == ["report", "review"]
