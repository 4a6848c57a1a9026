"""What the command line itself says: help, versions, completion, and mistakes before anything is started."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from attrs import evolve
from PIL import Image
from typer.testing import CliRunner

from analysis.domain.manifest import PhaseTime, RunManifest
from launch_kit import ROOT, fake_nsys, prepare
from runner.child.models.deepseek_ocr import DeepseekOcr
from runner.child.models.deepseek_ocr2 import DeepseekOcr2
from runner.child.models.generic import Generic
from runner.child.models.registry import INPUT_MODES, PRESETS
from runner.cli.app import EXAMPLES, app
from runner.launcher.outcome import headline_of, print_result
from runner.launcher.run_directory import RunDirectory

COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
SHOWN = sorted(name for name, command in COMMANDS.items() if not command.hidden)

WITHOUT_TORCH = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise AssertionError(f"imported {name}")
sys.meta_path.insert(0, Forbid())
from runner.cli import main
main(sys.argv[1:])
"""


def dsocr_profile(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process in which torch must not be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environ},
        timeout=60,
    )


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_help_has_examples(name: str, flag: str) -> None:
    shown = CliRunner().invoke(app, [name, flag], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert "Examples:" in shown.output
    assert f"dsocr-profile {name}" in shown.output.partition("Examples:")[2]


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_are_command_lines(example: str) -> None:
    program, name, *arguments = shlex.split(example)
    assert program == "dsocr-profile"
    with COMMANDS[name].make_context(name, arguments) as context:
        assert context.params


def test_the_version_is_that_of_the_package() -> None:
    from importlib import metadata

    done = dsocr_profile("--version")
    assert (done.returncode, done.stdout) == (0, f"dsocr-profile {metadata.version('dsocr-profiler')}\n")


def completed(words: str) -> list[str]:
    done = dsocr_profile(
        _DSOCR_PROFILE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1)
    )
    return done.stdout.split()


def test_shells_complete_commands_models_and_presets() -> None:
    assert completed("dsocr-profile re") == ["resume", "review"]
    assert completed("dsocr-profile run deepseek-ocr-2") == ["deepseek-ocr-2", "deepseek-ocr-2-tiny"]
    assert "light" in completed("dsocr-profile run --preset l")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["rum"], 2, "No such command 'rum'. Did you mean 'run', 'resume'?"),
        (["run", "--imags", "x"], 2, "No such option: --imags"),
        (["run", "deepseek-ocr-tinny"], 5, "nearest presets: deepseek-ocr-tiny"),
        (["run", "/none/model"], 5, "/none/model: no such folder"),
        (["run", "--input-mode", "tinny"], 2, "'tinny' is not one of 'tiny', 'small'"),
        (["run", "--input-mode", "native"], 5, "input mode 'native' is none of this model's: tiny, small, base"),
        (["run", "llama-tiny", "--input-mode", "tiny"], 5, "input mode 'tiny' is none of this model's: native, text"),
        (["run", "--images", "/none/pages"], 6, "/none/pages: no such file or folder"),
        (["run", "--images", "BROKEN"], 6, "broken.png: not a PNG, JPEG, TIFF or WebP image"),
        (["run", "--images", "PAGES", "--thorough"], 2, "--thorough is for the generated pages"),
        (["run", "--preset", "defalt"], 2, "preset 'defalt' is unknown; did you mean default"),
        (["run", "--device", "gpu"], 2, "--device gpu: write auto, cpu, cuda or cuda:N"),
        (["run", "--repeats", "0"], 2, "Invalid value for '--repeats'"),
        (["run", "--max-new-tokens", "0"], 2, "Invalid value for '--max-new-tokens'"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_mistakes_are_told_before_anything_is_started(
    tmp_path: Path, argv: list[str], code: int, words: str, dry: bool
) -> None:
    (tmp_path / "pages").mkdir()
    Image.new("RGB", (60, 40), "white").save(tmp_path / "pages" / "a.png")
    (tmp_path / "broken.png").write_text("no picture")
    places = {"BROKEN": str(tmp_path / "broken.png"), "PAGES": str(tmp_path / "pages")}
    argv = [places.get(word, word) for word in argv]
    if argv[0] == "run":
        argv += ["--out", str(tmp_path / "reports"), *(["--dry-run"] if dry else [])]
    done = dsocr_profile(*argv)
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "reports").exists()


def test_the_families_have_the_modes_that_the_launcher_checks() -> None:
    assert DeepseekOcr().input_modes == INPUT_MODES["deepseek_ocr"]
    assert DeepseekOcr2().input_modes == INPUT_MODES["deepseek_ocr2"]
    assert {Generic(takes_images=True).input_modes[0], Generic().input_modes[0]} == set(INPUT_MODES["generic"])
    assert {preset.family for preset in PRESETS.values()} <= set(INPUT_MODES)


def test_a_folder_needs_no_weights_where_they_are_made_up(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    argv = ["run", str(tmp_path / "model"), "--out", str(tmp_path / "reports"), "--dry-run"]
    done = dsocr_profile(*argv)
    assert done.returncode == 5
    assert "no weights (*.safetensors) beside config.json; --random-weights" in done.stderr
    assert dsocr_profile(*argv, "--random-weights").returncode == 0
    (tmp_path / "model" / "config.json").unlink()
    assert dsocr_profile(*argv, "--random-weights").returncode == 5


SENTENCE = "Start with decode: replay it as a CUDA graph: 1,070 → at most 233 ms a page (−78 %)."


def finished(tmp_path: Path, log: str) -> tuple[RunDirectory, RunManifest]:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"))
    directory = run.directory
    manifest = directory.read_manifest()
    manifest = evolve(
        manifest,
        status="complete",
        exit_codes=evolve(manifest.exit_codes, analysis=0),
        phases=(PhaseTime("launcher", "preflight", 0.0, 1.5), PhaseTime("control", "passes", 1.5, 40.0)),
    )
    directory.write(directory.manifest_file, manifest)
    directory.log("analysis").write_text(log)
    return directory, manifest


def test_the_last_lines_are_the_headline_and_where_the_report_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = "deepseek-ocr\nPrefill is launch-bound.\nReport: /somewhere/report.html\nBeside it: report.md\n"
    directory, manifest = finished(tmp_path, log)
    (directory.path / "summary.json").write_text(json.dumps({"headline": SENTENCE}))
    directory.link_latest()
    monkeypatch.chdir(tmp_path)
    print_result(directory, manifest)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["deepseek-ocr", "Prefill is launch-bound."]
    assert lines[2] == "Took 42 s: control passes 40 s, preflight 1.5 s."
    assert lines[-3:] == [SENTENCE, f"Report: {directory.path}/report.html", "        latest/report.html"]
    assert sum("report.html" in line for line in lines) == 2


def test_without_a_link_or_a_headline_the_rest_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, manifest = finished(tmp_path, "deepseek-ocr\n")
    print_result(directory, manifest)
    assert capsys.readouterr().out.splitlines()[-1] == f"Report: {directory.path}/report.html"
    for content in ("[]", "{", '{"headline": 3}', '{"notes": ""}'):
        (directory.path / "summary.json").write_text(content)
        assert headline_of(directory) is None
    (directory.path / "summary.json").write_text(json.dumps({"headline": "a\x1b[31mb"}))
    assert headline_of(directory) == "a\\x1b[31mb"


def test_all_runs_are_shown_with_model_time_and_headline(tmp_path: Path) -> None:
    directory, _ = finished(tmp_path, "")
    (directory.path / "summary.json").write_text(json.dumps({"headline": SENTENCE}))
    wide = CliRunner().invoke(app, ["status", "--all", "--out", str(tmp_path)], env={"COLUMNS": "200"}).output
    assert wide.startswith(f"{directory.path.name[:8]}  complete    deepseek-ocr-tiny  20")
    assert wide.endswith(f"42 s  {SENTENCE}\n")
    narrow = CliRunner().invoke(app, ["status", "--all", "--out", str(tmp_path)], env={"COLUMNS": "80"}).output
    assert {len(line) for line in narrow.splitlines()} == {80}
    assert narrow.endswith("…\n")
    as_json = json.loads(CliRunner().invoke(app, ["status", "--all", "--json", "--out", str(tmp_path)]).output)
    assert (as_json[0]["headline"], as_json[0]["took_s"], as_json[0]["model"]) == (SENTENCE, 41.5, "deepseek-ocr-tiny")
