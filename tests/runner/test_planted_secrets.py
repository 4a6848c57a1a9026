"""Secrets of every kind, wherever a user can put them: none is in any file, nor in what is printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from analysis.domain import redaction
from counter_csv import Profiled, write_csv
from launch_kit import fake_nsys
from leak_search import leaks, leaks_in
from planted_commands import FORMED, POLICY, SECRETS, Planted
from planted_secrets import NAMED, PLANTED, disguises
from runner.collectors.ncu.counter_file import keep_counters
from trace_builder import TraceBuilder


def test_the_search_finds_what_lies_there(tmp_path: Path) -> None:
    for kind, secret in SECRETS.items():
        for number, form in enumerate(disguises(secret)):
            (tmp_path / f"{number}").write_bytes(b"x" * number + form + b"y")
        found = leaks([tmp_path], {kind: secret})
        assert len(found) == len(list(tmp_path.iterdir())), kind
    assert leaks([tmp_path], {"other": "something else entirely"}) == []


def test_commands_that_run_a_model_leave_no_secret_of_the_environment(tmp_path: Path) -> None:
    """run, status, resume, cancel, submit, history, and what dsocr-analyze makes of the runs."""
    planted = Planted(tmp_path)
    pages = tmp_path / "pages"
    pages.mkdir()
    Image.new("RGB", (64, 64), "white").save(pages / "a.png")
    out = ["--out", str(planted.out)]
    small = ["--device", "cpu", "--max-new-tokens", "2", "--repeats", "1"]
    planted.run("runner", "run", "deepseek-ocr-tiny", "--images", str(pages), "--collector", "torch", *small, *out)
    request = tmp_path / "request.json"
    asked = {"model_path": "deepseek-ocr-tiny", "input_dir": str(pages), "device": "cpu", "max_new_tokens": 2}
    request.write_text(json.dumps(asked | {"repeats": 1}))
    planted.run("runner", "submit", str(request), "--collector", "torch", *out)
    planted.run("runner", "cancel", "latest", *out, code=None)
    for arguments in (["status", "--all"], ["status", "--all", "--json"], ["status", "latest"], ["resume", "latest"]):
        planted.run("runner", *arguments, *out, code=None)
    for arguments in (["list"], ["list", "--json"], ["show", "latest"], ["export"], ["import", str(planted.out)]):
        planted.run("runner", "history", *arguments, *out, code=None)
    planted.run("runner", "history", "export", "--to", str(tmp_path / "samples.parquet"), *out, code=None)
    runs = [str(path.parent) for path in planted.out.glob("*/trace.sqlite") if not path.parent.is_symlink()]
    formats = [
        word for name in ("markdown", "json", "html", "parquet", "csv", "perfetto") for word in ("--format", name)
    ]
    planted.run("analysis", runs[0], "--out", str(tmp_path / "report"), *formats)
    planted.run("analysis", "diff", runs[0], runs[-1], "--out", str(tmp_path / "diff"), code=None)
    policy = tmp_path / "gate.toml"
    policy.write_text(POLICY)
    planted.run(
        "analysis", "gate", runs[0], runs[-1], "--policy", str(policy), "--out", str(tmp_path / "gate"), code=20
    )
    planted.run(
        "analysis", "trend", "--store", str(planted.out / "history.sqlite"), "--out", str(tmp_path / "trend.html")
    )
    planted.run("analysis", "show", runs[0])
    assert planted.leaks() == []


@pytest.mark.parametrize("command", ["run", "submit", "sweep", "ab"])
def test_a_secret_that_would_have_to_be_kept_is_refused_before_anything_is_written(
    tmp_path: Path,
    command: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every kind, as prompt, as a folder of pages, as the run's own folder."""
    from runner.cli import main

    monkeypatch.setenv("DSOCR_LOCK_DIR", str(tmp_path / "locks"))
    given = tmp_path / "given"
    given.mkdir()
    places = ["prompt", "images", "out", "model"] if command == "run" else ["prompt", "images"]
    for kind, (text, secret) in PLANTED.items():
        for place in places:
            value = {
                "images": "/nowhere",
                "out": str(tmp_path / "out"),
                "model": "deepseek-ocr-tiny",
                "prompt": "Read.",
            }
            value[place] = text if place == "prompt" else f"/nowhere/{text}/x"
            file = given / "setting.json"
            argv = ["run", value["model"], "--images", value["images"], "--prompt", value["prompt"], "--device", "cpu"]
            if command == "sweep":
                argv[0] = "sweep"
            elif command == "submit":
                asked = {"model_path": value["model"], "input_dir": value["images"], "device": "cpu"}
                file.write_text(json.dumps(asked))
                argv = ["submit", str(file), "--prompt", value["prompt"]]
            elif command == "ab":
                setting = {
                    "model": value["model"],
                    "images": value["images"],
                    "prompt": value["prompt"],
                    "device": "cpu",
                }
                file.write_text(json.dumps(setting))
                argv = ["ab", str(file), str(file)]
            with pytest.raises(SystemExit) as ended:
                main([*argv, "--out", value["out"]])
            said = "".join(capfd.readouterr())
            # A model that is not there is the model's fault (5), and is said without the secret in its name.
            assert ended.value.code in ((2, 5) if place == "model" else (2,)), (kind, place, said)
            assert leaks_in(said.encode(), {kind: secret}) == [], (kind, place)
            file.unlink(missing_ok=True)
            assert leaks([tmp_path], {kind: secret}) == [], (kind, place)


@pytest.mark.parametrize("asked_to_fail", ["", "no space"])
def test_exec_leaves_no_secret_of_command_line_environment_or_output(tmp_path: Path, asked_to_fail: str) -> None:
    planted = Planted(tmp_path)
    tool = fake_nsys(tmp_path / "nsys")
    # The program prints what it was given, its command line, and secrets that nobody gave it.
    file = tmp_path / "program.py"
    file.write_text(
        "import base64, json, os, sys\n"
        "print(sys.argv, dict(os.environ))\n"
        "print(json.dumps(os.environ.get('MY_TOKEN')))\n"
        "for line in sys.argv[1:]: print(line); print('said:', line, file=sys.stderr)\n"
    )
    arguments = [f"--option={text}" for text, _ in PLANTED.values()] + [text for text, _ in PLANTED.values()]
    planted.environ |= {"MY_TOKEN": NAMED["WANDB_API_KEY"], "NSYS_FAKE": asked_to_fail}
    command = ["exec", "--nsys", tool.path, "--control", "1", "--keep-env", "MY_TOKEN", "--keep-env", "NSYS_FAKE"]
    planted.run(
        "runner", *command, "--out", str(planted.out), "--", sys.executable, str(file), *arguments,
        code=None if asked_to_fail else 0,
    )  # fmt: skip
    for more in (["status", "--all"], ["history", "list"], ["history", "import", str(planted.out)]):
        planted.run("runner", *more, "--out", str(planted.out), code=None)
    waiting = [path for path in planted.out.glob("*/.secrets.json") if not path.parent.is_symlink()]
    if asked_to_fail:
        # What awaits its export lies beside what is to be taken out of it, for its user alone.
        assert [path.stat().st_mode & 0o077 for path in waiting] == [0]
        for path in [*waiting, *planted.out.glob("*/trace.nsys-rep")]:
            path.unlink(missing_ok=True)
    else:
        assert waiting == []
    assert planted.leaks() == []


def hostile_trace(path: Path) -> Path:
    """A trace in which every text that a user can choose holds a secret."""
    built = TraceBuilder().gpu()
    at = 0
    for text, _ in PLANTED.values():
        built.range(text, at, at + 90).range(f"layer[{text}]", at + 1, at + 80).mark(text, at)
        built.launch(at + 10, at + 20, ("gemm", at + 30, at + 60))
        built.capture_setting("COMMAND_LINE", f"python3 serve.py --key {text}").diagnostic(text)
        at += 100
    built.thread_name(" ".join(text for text, _ in PLANTED.values()))
    return built.write(path)


def test_a_strangers_trace_is_reported_without_its_secrets(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    trace = hostile_trace(tmp_path / "trace.sqlite")
    formats = [
        word for name in ("markdown", "json", "html", "parquet", "csv", "perfetto") for word in ("--format", name)
    ]
    planted.run("analysis", str(trace), "--out", str(tmp_path / "report"), *formats)
    planted.run("analysis", "diff", str(trace), str(trace), "--out", str(tmp_path / "diff"), code=None)
    for arguments in (["show"], ["table", "--by", "range"], ["check", "--json"], ["kernels"]):
        planted.run("analysis", arguments[0], str(trace), *arguments[1:], code=None)
    assert any((tmp_path / "report").iterdir())
    assert leaks([trace], FORMED) != []
    trace.unlink()
    assert planted.leaks(FORMED) == []


def test_a_traces_path_is_not_reported_with_its_secret(tmp_path: Path, real_trace: Callable[[str], Path]) -> None:
    planted = Planted(tmp_path)
    text, secret = PLANTED["github"]
    folder = tmp_path.parent / f"{tmp_path.name}-{text}"
    folder.mkdir()
    trace = folder / f"{text}.sqlite"
    trace.symlink_to(real_trace("deepseek-ocr_h100_small"))
    planted.run("analysis", str(trace), "--out", str(tmp_path / "report"))
    planted.run("analysis", str(folder / "none.sqlite"), code=None)
    assert planted.leaks({"github": secret}) == []


def test_an_export_holds_no_secret_in_any_of_its_bytes(tmp_path: Path) -> None:
    from runner.collectors.nsys.scrub import scrub

    trace = hostile_trace(tmp_path / "trace.sqlite")
    assert leaks([trace], FORMED)
    result = scrub(trace)
    assert result.texts > 0
    assert leaks([tmp_path], FORMED) == []


def test_a_counter_file_holds_no_secret(tmp_path: Path) -> None:
    kernels = [
        Profiled(text.replace("\n", " "), state=f'7  "dsocr:{text}:none:none:x:y:z"  ', values=(1, 2))
        for text, _ in PLANTED.values()
    ]
    source = write_csv(tmp_path / "printed.csv", kernels)
    keep_counters(source, tmp_path / "counters.csv.xz")
    source.unlink()
    assert leaks([tmp_path], FORMED) == []


def test_no_secret_is_in_this_processs_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is planted above is odd enough to be known by its name."""
    for name, value in NAMED.items():
        monkeypatch.setenv(name, value)
    assert set(NAMED.values()) <= set(redaction.secret_values(os.environ))
