"""Secrets in what surrounds a run: checkout, host name, names of files, colours and pieces of a log, records of others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from PIL import Image

from analysis.domain.redaction import redacted
from counter_csv import Profiled, write_csv
from launch_kit import H100, ROOT, fake_ncu, fake_nsys, finished_run
from leak_search import leaks, leaks_in
from planted_commands import FORMED, POLICY, Planted
from planted_secrets import NAMED, PLANTED, encodings
from program_kit import program
from runner.launcher import review as review_module
from runner.launcher.review import Review, ReviewOptions
from runner.process.driver import DriverFacts, VisibleGpu
from runner.process.environment import own_secrets
from runner.process.process import Interrupts
from trace_builder import TraceBuilder

TEXTS = [text for text, _ in PLANTED.values()]
NO_SLASH = {kind: text for kind, (text, _) in PLANTED.items() if not {"/", "\n"} & set(text) and len(text) < 200}
"""What the name of a file may hold."""


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "kept")


def executed(planted: Planted, tool: str, *command: str, code: int | None = 0, before: tuple[str, ...] = ()) -> None:
    """Run a program under the fake nsys, and ask every command about it."""
    out = ("--out", str(planted.out))
    prefix, planted.prefix = planted.prefix, before or planted.prefix
    planted.run("runner", "exec", "--nsys", tool, "--control", "1", *out, "--dry-run", "--", *command, code=None)
    planted.run("runner", "exec", "--nsys", tool, "--control", "1", *out, "--", *command, code=code)
    for more in (["status", "--all"], ["status", "latest", "--json"], ["resume", "latest"], ["doctor"]):
        planted.run("runner", *more, *(() if more == ["doctor"] else out), code=None)
    for more in (["list", "--json"], ["show", "latest"], ["export"], ["export", "--format", "json"]):
        planted.run("runner", "history", *more, *out, code=None)
    planted.prefix = prefix


def test_nothing_of_a_checkout_but_its_commit_is_kept(tmp_path: Path, planted: Planted) -> None:
    """A remote's address and a header hold tokens, and a branch or a commit's subject may."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", f"user.email={FORMED['npm']}@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=checkout, check=True, capture_output=True)

    git("init", "-q", "-b", f"fix/{FORMED['github']}")
    git("remote", "add", "origin", f"https://me:{FORMED['gitlab']}@host.example/a.git")
    git("config", "http.https://host.example/.extraheader", f"AUTHORIZATION: basic {FORMED['header']}")
    (checkout / "file").write_text("text")
    git("add", ".")
    git("commit", "-q", "-m", f"Use password {FORMED['openai']}")
    git("tag", f"v-{FORMED['hugging face']}")
    planted.cwd = checkout
    executed(planted, fake_nsys(tmp_path / "nsys").path, sys.executable, "-c", "print('works')")
    (manifest,) = (json.loads(path.read_text()) for path in planted.out.glob("*-*/run.json"))
    assert len(manifest["git_commit"]) == 40
    assert manifest["folder"] == str(checkout)
    assert planted.leaks() == []


def test_a_hosts_name_is_kept_without_its_secret(tmp_path: Path, planted: Planted) -> None:
    name = FORMED["github"]
    inside = ("unshare", "--uts", "sh", "-c", f'echo {name} > /proc/sys/kernel/hostname && exec "$@"', "sh")
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no host name of its own may be set here")
    tool = fake_nsys(tmp_path / "nsys").path
    code = "import platform; print('on', platform.node())"
    executed(planted, tool, sys.executable, "-c", code, before=inside)
    (log,) = (path for path in planted.out.rglob("control.log") if not path.parent.parent.is_symlink())
    assert log.read_text() == "on ***\n"
    assert planted.leaks() == []


@pytest.mark.parametrize("place", ["page", "model"])
def test_a_secret_in_the_name_of_a_page_or_a_model_is_refused(
    tmp_path: Path, place: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of pages and models that are there; the plan would hold their paths."""
    from runner.cli import main

    monkeypatch.setenv("DSOCR_LOCK_DIR", str(tmp_path / "locks"))
    given = tmp_path / "given"
    for number, (kind, text) in enumerate(NO_SLASH.items()):
        folder = given / str(number)
        folder.mkdir(parents=True)
        name = f"{text} page" if place == "page" else "page"
        Image.new("RGB", (64, 64), "white").save(folder / f"{name}.png")
        model = given / f"{number} {text}"
        if place == "model":
            model.mkdir()
            (model / "config.json").write_text('{"model_type": "llama"}')
        argv = [
            "run",
            str(model) if place == "model" else "llama-tiny",
            "--images",
            str(folder),
            "--device",
            "cpu",
            "--random-weights",
        ]
        more = ["--dry-run"] if number % 2 else []
        with pytest.raises(SystemExit) as ended:
            main([*argv, *more, "--collector", "torch", "--out", str(tmp_path / "out")])
        said = "".join(capfd.readouterr())
        assert ended.value.code == 2, (kind, more, said)
        assert leaks_in(said.encode(), {kind: FORMED[kind]}) == [], (kind, said)
        shutil.rmtree(given)
        assert leaks([tmp_path], {kind: FORMED[kind]}) == [], kind


COLOURED = """
    import os, sys, time
    def say(text, stream=sys.stdout):
        stream.write(text); stream.flush()
    for text in sys.argv[1:]:
        middle = len(text) - 9
        say("\\x1b[33mkey\\x1b[0m: " + text[:middle] + "\\x1b[1m" + text[middle:] + "\\x1b(B\\x1b[m\\n")
        say("\\x1b]8;;http://h/?q=" + text.replace(" ", "+").partition("\\n")[0] + "\\x07link\\x1b]8;;\\x07\\n", sys.stderr)
        say("loading 10%\\r" + text.replace("\\n", "\\r\\n") + "\\rloading 100%\\r\\n")
        say("in pieces " + text[:middle]); time.sleep(0.001); say(text[middle:] + "\\n")
        say("." * (8192 - middle) + text + "\\n", sys.stderr)
    say(repr(os.environ.get("MY_TOKEN")) + "\\n")
"""


def test_a_log_with_colours_and_pieces_holds_no_secret(tmp_path: Path, planted: Planted) -> None:
    """What a server prints: in colours, over itself, in pieces, across the ends of what is written at once."""
    planted.environ["MY_TOKEN"] = NAMED["WANDB_API_KEY"]
    command = program(tmp_path / "program", COLOURED)
    texts = [*TEXTS, *(f"it is {value}" for value in NAMED.values())]
    executed(planted, fake_nsys(tmp_path / "nsys").path, *command, *texts)
    logs = [path for path in planted.out.rglob("*.log") if not path.parent.parent.is_symlink()]
    assert any("loading 100%" in log.read_text() for log in logs)
    assert planted.leaks() == []


def test_a_log_with_encoded_secrets_holds_none(tmp_path: Path, planted: Planted) -> None:
    """Of the launcher's environment and of the command line, in every encoding."""
    told = tmp_path / "told"
    told.write_bytes(b"\n".join(b"says " + form for text in (*TEXTS, *NAMED.values()) for form in encodings(text)))
    code = f"import sys; sys.stdout.buffer.write(open({str(told)!r}, 'rb').read())"
    executed(planted, fake_nsys(tmp_path / "nsys").path, sys.executable, "-c", code, *TEXTS)
    assert planted.leaks() == []


def test_a_run_whose_launcher_was_killed_is_reported_without_secrets(tmp_path: Path, planted: Planted) -> None:
    tool = fake_nsys(tmp_path / "nsys")
    (Path(tool.path).parent / "how").write_text("with a launcher")
    mark = tmp_path / "at work"
    code = f"""
import pathlib, sys, time
for text in sys.argv[1:]: print("said", text, flush=True)
pathlib.Path({str(mark)!r}).touch()
time.sleep(120)
"""
    command = ["exec", "--nsys", tool.path, "--control", "0", "--grace", "1", "--out", str(planted.out), "--"]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "runner.cli", *command, sys.executable, "-c", code, *TEXTS],
        env=planted.environ,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(launcher.pid, signal.SIGKILL)
    planted.printed += launcher.communicate()[1]
    out = ("--out", str(planted.out))
    for more in (["status", "latest"], ["status", "--all", "--json"], ["resume", "latest"], ["status", "latest"]):
        planted.run("runner", *more, *out, code=None)
    planted.run("runner", "history", "list", *out, code=None)
    (log,) = (path for path in planted.out.rglob("capture.log") if not path.parent.parent.is_symlink())
    assert "said" in log.read_text()
    left = [*planted.out.glob("*-*/.secrets.json"), *planted.out.glob("*-*/trace.nsys-rep")]
    for path in left:  # what awaits its export lies there for its user alone
        assert path.stat().st_mode & 0o077 == 0
        path.unlink()
    assert planted.leaks() == []


def strangers_run(folder: Path, trace: Path) -> Path:
    """The folder of a run of which an older release, or somebody else, wrote every text as it was."""
    directory = finished_run(folder, trace)
    told = " and ".join(TEXTS)

    def changed(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: changed(inner, key) for key, inner in value.items()}
        if name in ("notes", "argv", "command") and isinstance(value, list):
            return [*value, *TEXTS]
        return told if name in ("error", "partial") else value

    for path in (directory.manifest_file, directory.plan_file):
        record = changed(json.loads(path.read_text()))
        if path == directory.manifest_file:
            record |= {"status": "failed"}
            record["model"] |= {"id": f"me/{told}"}
            record["versions"] |= {"torch": told}
        path.write_text(json.dumps(record))
    (directory.path / "logs" / "capture.log").write_text("\n".join(TEXTS))
    return directory.path


def test_a_strangers_run_is_shown_compared_and_recorded_without_its_secrets(
    tmp_path: Path, planted: Planted, real_trace: Callable[[str], Path]
) -> None:
    run = strangers_run(tmp_path / "theirs", real_trace("deepseek-ocr_h100_64tok"))
    assert leaks([run], FORMED) != []
    out = ("--out", str(planted.out))
    for more in (["status", run.name], ["status", "--all", "--json"], ["cancel", run.name]):
        planted.run("runner", *more, "--out", str(run.parent), code=None)
    planted.run("runner", "history", "import", str(run), *out)
    for more in (["list"], ["list", "--json"], ["show", run.name], ["show", run.name, "--json"], ["export"]):
        planted.run("runner", "history", *more, *out)
    for ending in ("csv", "json", "parquet"):
        planted.run("runner", "history", "export", "--to", str(planted.folder / f"samples.{ending}"), *out)
    formats = [word for name in ("markdown", "json", "html", "csv", "perfetto") for word in ("--format", name)]
    planted.run("analysis", str(run), "--out", str(planted.folder / "report"), *formats, code=None)
    planted.run("analysis", "diff", str(run), str(run), "--out", str(planted.folder / "diff"), code=None)
    policy = tmp_path / "gate.toml"
    policy.write_text(POLICY)
    gate = planted.folder / "gate"
    planted.run("analysis", "gate", str(run), str(run), "--policy", str(policy), "--out", str(gate), code=20)
    trend = str(planted.folder / "trend.html")
    planted.run("analysis", "trend", "--store", str(planted.out / "history.sqlite"), "--out", trend, code=None)
    assert {path.name for path in gate.iterdir()} >= {"gate.junit.xml", "gate.benchmark.json", "gate.md", "gate.json"}
    assert planted.leaks(FORMED) == []


def test_a_strangers_trace_is_compared_and_judged_without_its_secrets(tmp_path: Path, planted: Planted) -> None:
    """Named stages, so that gate and diff speak of each. Names of kernels are compilers', and left as they are."""
    built = TraceBuilder().gpu()
    at = 0
    for text in TEXTS:
        built.range(f"decode {text}", at, at + 90).range(f"{text} layer", at + 1, at + 80)
        built.launch(at + 10, at + 20, ("gemm", at + 30, at + 60))
        at += 100
    built.capture_setting("HOSTNAME", FORMED["github"]).capture_setting("TARGET", f"https://me:{FORMED['npm']}@h/x")
    trace = built.write(tmp_path / "trace.sqlite")
    policy = tmp_path / "gate.toml"
    policy.write_text(
        POLICY + "".join(f"[[module]]\nname = {json.dumps(text)}\nmax = 0\noptional = true\n" for text in TEXTS)
    )
    folder = planted.folder
    formats = [
        word for name in ("markdown", "json", "html", "csv", "perfetto", "parquet") for word in ("--format", name)
    ]
    planted.run("analysis", str(trace), "--out", str(folder / "report"), *formats)
    for kind in ("csv", "json", "markdown"):
        planted.run("analysis", "table", str(trace), "--by", "range", "--format", kind, code=None)
    planted.run("analysis", "kernels", str(trace), "--json", code=None)
    planted.run("analysis", "diff", str(trace), str(trace), "--out", str(folder / "diff"), code=None)
    planted.run(
        "analysis", "gate", str(trace), str(trace), "--policy", str(policy), "--out", str(folder / "gate"), code=20
    )
    assert (folder / "gate" / "gate.junit.xml").is_file()
    counters = write_csv(
        tmp_path / "counters.csv",
        [Profiled("gemm", state=f'7  "dsocr:{text}:none:none:x:y:z"  ', values=(1, 2)) for text in TEXTS],
    )
    review = ["review", str(trace), "--counters", str(counters), "--out", str(folder / "review")]
    planted.run("analysis", *review, code=None)
    assert planted.leaks(FORMED) == []


@pytest.mark.parametrize("how", ["", "cannot import"])
def test_a_review_keeps_nothing_that_ncu_says(
    tmp_path: Path, how: str, planted: Planted, real_trace: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its log and in what it prints as CSV: ncu tells command lines, host names and ranges."""
    facts = DriverFacts(cuda=(13, 0), driver="580.1", gpus=(VisibleGpu(H100, "b8a7a1a0-0000-0000-0000-000000000000"),))
    monkeypatch.setattr(review_module, "driver_facts", lambda: facts)
    for name, value in planted.environ.items():
        monkeypatch.setenv(name, value)
    directory = finished_run(planted.out, real_trace("deepseek-ocr_h100_64tok"))
    tool = fake_ncu(tmp_path / "tools")
    (Path(tool.path).parent / "told").write_text("\0".join([*TEXTS, *NAMED.values()]))
    said: list[str] = []
    environ = planted.environ | {"NCU_FAKE": how}
    work = Review.open(directory, ReviewOptions(), tool, environ, said.append)
    work = evolve(work, command=lambda place: [sys.executable, "-c", "print('works')", str(place.plan_file)])
    with Interrupts() as interrupts:
        try:
            work.carry_out(interrupts)
        except Exception as error:  # noqa: BLE001 - whatever it says is looked at
            said.append(str(error))
    (planted.folder / "said").write_text("\n".join(redacted(line, own_secrets()) for line in said))  # as it is printed
    logs = list(directory.path.rglob("*review*.log"))
    assert any("ncu tells" in log.read_text() for log in logs), logs
    if not how:
        assert list(directory.path.rglob("*.csv.xz"))
    assert planted.leaks() == []
