"""Runs of any program: what is asked of nsys, what is refused, and how a server is talked to and ended."""

from __future__ import annotations

import http.server
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from rich.console import Console

from analysis.domain.convert import to_json
from analysis.domain.errors import (
    CaptureError,
    ChildFailedError,
    ExportError,
    NoEventsError,
    RequestError,
    TimeoutExceededError,
)
from analysis.domain.program import ProgramManifest, ProgramTimes, wall_time_sentence, wall_times
from analysis.domain.redaction import encoded_forms
from analysis.trace.manifest import find_manifest
from analysis.trace.records import Marks
from launch_kit import ROOT, environment, fake_nsys
from program_kit import RANGES, program, program_run
from runner.collectors.nsys.program import program_options, python_of
from runner.collectors.nsys.scrub import scrub
from runner.collectors.nsys.tool import NsysTool, export_argv
from runner.launcher.program import ProgramRun
from runner.launcher.progress import RunProgress
from runner.launcher.server import Conversation
from runner.plan.program import ExecSettings
from runner.process.environment import program_environment, secrets_of
from runner.process.http import ask
from runner.process.process import TARGET_MARK, Interrupts, run_process, with_target_mark

MODERN = NsysTool(
    path="/opt/nsys",
    version="2026.1",
    profile_options={
        **dict.fromkeys(
            ("capture-range", "capture-range-end", "nvtx-capture", "session-new", "sample", "cpuctxsw"), ""
        ),
        **dict.fromkeys(("resolve-symbols", "delay", "duration", "kill", "cuda-memory-usage", "cuda-graph-trace"), ""),
        "trace-fork-before-exec": "",
        "trace": "Possible values are 'cuda', 'nvtx', 'nccl' or 'none'.",
    },
    export_options={"include-blobs": "", "quiet": ""},
    importer="/opt/importer",
)


# -- what nsys is asked ------------------------------------------------------------------------------------------------


def test_the_whole_program_is_captured_unless_asked_otherwise() -> None:
    options = program_options(ExecSettings(), MODERN).options
    assert "capture-range" not in options
    assert options["trace-fork-before-exec"] == "true"
    assert options["trace"] == "cuda,nvtx,nccl"
    assert options["cuda-graph-trace"] == "graph"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"capture": "cuda-profiler-api"}, {"capture-range": "cudaProfilerApi", "capture-range-end": "stop"}),
        (
            {"capture": "nvtx:step@my domain"},
            {"capture-range": "nvtx", "nvtx-capture": "step@my domain", "capture-range-end": "stop"},
        ),
        ({"start_url": "http://h/start", "load": "true"}, {"capture-range": "cudaProfilerApi"}),
        ({"delay_s": 1.5, "duration_s": 2.0}, {"delay": "1.5", "duration": "2", "kill": "none"}),
        ({"preset": "cuda-graph-nodes"}, {"cuda-graph-trace": "node"}),
    ],
)
def test_options_of_the_capture(settings: dict[str, Any], wanted: dict[str, str]) -> None:
    options = program_options(ExecSettings(**settings), MODERN).options
    assert wanted.items() <= options.items()


def test_an_nsys_that_cannot_begin_the_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="nvtx-capture"):
        program_options(ExecSettings(capture="nvtx:step"), fake_nsys(tmp_path))


def test_blobs_are_exported_where_nsys_can() -> None:
    assert "--include-blobs=true" in export_argv(MODERN, "a.nsys-rep", "a.sqlite", blobs=True)
    assert "--include-blobs=true" not in export_argv(MODERN, "a.nsys-rep", "a.sqlite")


def test_the_program_is_started_as_itself(tmp_path: Path) -> None:
    command = program(tmp_path, RANGES)
    run = program_run(tmp_path, command, fake_nsys(tmp_path / "nsys"), capture="cuda-profiler-api")
    argv = run.nsys.argv(run.command)
    assert argv[-4:] == ["/usr/bin/env", f"{TARGET_MARK}={run.plan.run_id}", *command]
    assert "--capture-range=cudaProfilerApi" in argv


@pytest.mark.parametrize(
    ("settings", "command", "words"),
    [
        ({}, (), "behind --"),
        ({}, ("no-such-program",), "no-such-program: no such program; give its path"),
        ({}, ("/etc/passwd",), "/etc/passwd: is there and not executable"),
        ({}, ("/",), "/: is a folder and no program"),
        ({}, ("",), "COMMAND behind --: the name of the program is empty"),
        ({"load": "/etc/passwd"}, ("true",), "--load '/etc/passwd': .* not executable"),
        ({"load": "''"}, ("true",), "--load '': the name of the program is empty"),
        ({"start_url": "http://h/s"}, ("true",), "--load"),
        ({"ready_url": "http://h/s"}, ("true",), "--load"),
        ({"load": "no-such-client"}, ("true",), "no-such-client"),
        ({"load": "an 'open quote"}, ("true",), "command line"),
        ({"load": "true", "start_url": "http://h/s", "start_body": "{"}, ("true",), "JSON"),
        ({"load": "true", "start_body": "{}"}, ("true",), "--start-url"),
        ({"load": "true", "duration_s": 1.0}, ("true",), "--duration"),
        ({"ranks": 2}, ("python3", "x.py"), "torchrun"),
        ({"ranks": 2}, ("torchrun", "--no-python", "x"), "{nsys}"),
        ({"nsys_args": ("--output=x",)}, ("true",), "--output"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], command: tuple[str, ...], words: str
) -> None:
    torchrun = tmp_path / "torchrun"
    torchrun.touch(0o755)
    environ = environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RequestError, match=words):
        program_run(tmp_path / "out", command, fake_nsys(tmp_path / "nsys"), environ=environ, **settings).commands()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["--capture", "some"], ["--ready-url", "ftp://h"], ["--ranks", "0"], ["--timeout", "0"]]
)
def test_values_out_of_range_name_their_option(arguments: list[str]) -> None:
    argv = [sys.executable, "-m", "runner.cli", "exec", *arguments, "--", "true"]
    done = subprocess.run(argv, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert arguments[0] in done.stderr


def test_dry_run_prints_the_commands_and_writes_nothing(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path / "nsys")
    argv = [sys.executable, "-m", "runner.cli", "exec", "--dry-run", "--nsys", tool.path, "--control", "1"]
    argv += ["--out", str(tmp_path / "out"), "echo", "--token", "planted"]
    done = subprocess.run(
        argv, env=environment(MY_KEY="planted"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("# only these variables")
    assert lines[1] == "echo --token '***'"
    assert " profile " in lines[2]
    assert " export " in lines[3]
    assert "analysis.cli" in lines[4]
    assert "planted" not in done.stdout + done.stderr
    assert "MY_KEY" not in done.stdout
    assert not (tmp_path / "out").exists()


def test_help_shows_how_engines_are_profiled() -> None:
    argv = [sys.executable, "-m", "runner.cli", "exec", "-h"]
    done = subprocess.run(argv, env=environment(COLUMNS="200"), cwd=ROOT, capture_output=True, text=True, check=True)
    for word in ("vllm serve", "sglang.launch_server", "torchrun", "generate.py"):
        assert word in done.stdout


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_secrets_are_found_where_they_stand() -> None:
    argv = [
        "serve",
        "--api-key",
        "of-option",
        "--env=A=1,HF_TOKEN=in-value",
        "https://me:in-address@host/",
        "--max-tokens",
        "4",
    ]
    kept = {"MY_TOKEN": "in-variable", "LANG": "C.UTF-8"}
    found = secrets_of(argv, kept, kept)
    escaped = {"me%3Ain-address", "me%3ain-address"}  # as a program may print it
    plain = {"of-option", "in-value", "me:in-address", "in-address", "in-variable"}  # a password without its user too
    assert set(found) == plain | escaped | encoded_forms(plain)
    assert found == tuple(sorted(found, key=len, reverse=True))


def test_the_program_gets_what_engines_read_and_nothing_of_ours() -> None:
    environ = {"VLLM_LOGGING_LEVEL": "INFO", "VLLM_API_KEY": "x", "HF_TOKEN": "x", "HF_HOME": "/hf", "OTHER": "x"}
    assert program_environment(environ | {"PYTHONPATH": "lib"}) == {
        "VLLM_LOGGING_LEVEL": "INFO",
        "HF_HOME": "/hf",
        "PYTHONPATH": "lib",
        "PYTHONUNBUFFERED": "1",
    }


def test_an_export_loses_secrets_wherever_they_are(tmp_path: Path) -> None:
    database = tmp_path / "trace.sqlite"
    connection = sqlite3.connect(database)
    connection.executescript(
        """CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
           CREATE TABLE NVTX_EVENTS (start INTEGER, textId INTEGER, binaryData TEXT);
           CREATE TABLE META_DATA_CAPTURE (name TEXT, value TEXT);"""
    )
    payload = b"\x01\x02planted-1\x00\xff"
    connection.execute(
        "INSERT INTO NVTX_EVENTS VALUES (1, 1, ?), (2, 2, ?)", (payload, b"DSOCR_PROFILE_RUN=x\0A=planted-2")
    )
    connection.execute("INSERT INTO StringIds VALUES (1, 'said planted-1\n'), (2, 'batch=4')")
    connection.execute("INSERT INTO META_DATA_CAPTURE VALUES ('COMMAND', 'serve --api-key planted-3 --port=80')")
    connection.commit()
    connection.close()
    result = scrub(database, secrets=("planted-1",))
    assert result.texts == 3
    assert b"planted" not in database.read_bytes()
    connection = sqlite3.connect(database)
    blobs = [row[0] for row in connection.execute("SELECT binaryData FROM NVTX_EVENTS ORDER BY start")]
    assert blobs == [b"\x01\x02*********\x00\xff", None]  # lengths and offsets in a payload stay true
    assert [row[0] for row in connection.execute("SELECT value FROM StringIds ORDER BY id")] == [
        "said *********\n",
        "batch=4",
    ]
    assert connection.execute("SELECT value FROM META_DATA_CAPTURE").fetchone() == ("serve --api-key *** --port=80",)
    connection.close()


def secret_run(tmp_path: Path, tool: NsysTool, how: str, **settings: Any) -> ProgramRun:
    """A run with a secret in its command line under the fake nsys, which fails as said."""
    environ = environment(DSOCR_LOCK_DIR=str(tmp_path / "locks"), NSYS_FAKE=how)
    command = [sys.executable, "-c", "import sys; print(sys.argv)", "--api-key", "planted-on-the-line"]
    return program_run(tmp_path / "out", command, tool, environ=environ, **settings)


def resumed(run: ProgramRun, how: str) -> None:
    environ = environment(NSYS_FAKE=how)
    with Interrupts() as interrupts:
        ProgramRun.taken_up(run.directory, run.nsys.tool, environ, lambda line: None).resume(interrupts)


def files_with_secrets(run: ProgramRun) -> list[str]:
    files = [file for file in run.directory.path.rglob("*") if file.is_file()]
    assert files
    return sorted(file.name for file in files if b"planted" in file.read_bytes())


def test_a_resumed_run_still_knows_what_to_take_out(tmp_path: Path) -> None:
    run = secret_run(tmp_path, fake_nsys(tmp_path / "nsys"), "no space")
    with Interrupts() as interrupts, pytest.raises(ExportError):
        run.start(interrupts, wait=False)
    # The report holds the secrets too, and waits for its export beside them.
    assert run.directory.report_file.is_file()
    assert files_with_secrets(run) == [run.directory.secrets_file.name]
    assert run.directory.secrets_file.stat().st_mode & 0o777 == 0o600
    run.directory.log("capture").write_text("planted-on-the-line")  # as of a launcher that was killed
    resumed(run, "stores what was printed")
    assert run.directory.trace_file.is_file()
    assert not run.directory.report_file.exists()
    assert files_with_secrets(run) == []


def test_a_launcher_that_was_killed_leaves_no_secret_behind_what_is_resumed(tmp_path: Path) -> None:
    """Nothing was captured; what it left is cleaned all the same, and the run is said to have failed."""
    run = secret_run(tmp_path, fake_nsys(tmp_path / "nsys"), "no space")
    with Interrupts() as interrupts, pytest.raises(ExportError):
        run.start(interrupts, wait=False)
    run.directory.report_file.unlink()
    run.directory.log("capture").write_text("planted-on-the-line")
    (run.directory.path / "tmp").mkdir()
    (run.directory.path / "tmp" / "stdout").write_text("planted-on-the-line")
    run.directory.write(run.directory.manifest_file, evolve(run.directory.read_program_manifest(), status="running"))
    with pytest.raises(CaptureError, match="nothing was captured"):
        resumed(run, "")
    assert files_with_secrets(run) == []
    assert run.directory.read_program_manifest().status == "failed"


def test_what_cannot_be_freed_of_secrets_is_not_exported(tmp_path: Path) -> None:
    run = secret_run(tmp_path, fake_nsys(tmp_path / "nsys"), "no space")
    with Interrupts() as interrupts, pytest.raises(ExportError):
        run.start(interrupts, wait=False)
    run.directory.secrets_file.unlink()
    with pytest.raises(CaptureError, match="run it again"):
        resumed(run, "stores what was printed")
    assert not run.directory.trace_file.exists()


@pytest.mark.parametrize("keep_report", [False, True])
def test_a_capture_without_events_keeps_no_report_with_secrets(tmp_path: Path, keep_report: bool) -> None:
    """There is nothing in it to go on with."""
    run = secret_run(tmp_path, fake_nsys(tmp_path / "nsys"), "no events", keep_report=keep_report)
    with Interrupts() as interrupts, pytest.raises(NoEventsError, match="opened no NVTX range and used no GPU"):
        run.start(interrupts, wait=False)
    assert run.directory.report_file.is_file() == keep_report
    if not keep_report:
        assert files_with_secrets(run) == []
    notes = " ".join(run.directory.read_program_manifest().notes)
    assert "nsys stored secrets of the command line" in notes
    assert "sqlite" not in notes
    assert NoEventsError.exit_code == 10  # there is nothing: not 12, which says that there is something to go on with
    assert run.directory.read_program_manifest().exit_codes.export == 0


# -- ranks -------------------------------------------------------------------------------------------------------------


def test_each_rank_gets_an_nsys_of_its_own(tmp_path: Path) -> None:
    torchrun = tmp_path / "torchrun"
    torchrun.write_text("#!/opt/venv/bin/python3\n")
    torchrun.chmod(0o755)
    shown = tmp_path / "shown.py"
    shown.write_text("import os, sys\nprint(os.environ['DSOCR_RANK'], *sys.argv[1:])\n")
    environ = environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
    command = ["torchrun", "--nproc-per-node", "2", "train.py"]
    run = program_run(tmp_path, command, fake_nsys(tmp_path / "nsys"), environ=environ, ranks=2)
    assert run.nsys.argv(run.command)[-4:] == command
    assert run.nsys.environment()["PYTHON_EXEC"] == str(run.nsys.rank_script)
    both = [f"{run.directory.path}/rank{rank}.sqlite" for rank in (0, 1)]
    assert run.analysis_command()[-4:] == [*both, "--out", str(run.directory.path)]
    script = tmp_path / "rank.sh"
    text = run.nsys.script(run.command, environ)
    assert "rank%q{DSOCR_RANK}" in text
    script.write_text(text.replace(run.nsys.tool.path, f"{sys.executable} {shown}"))
    for name in ("RANK", "OMPI_COMM_WORLD_RANK"):
        env = {"PATH": os.environ["PATH"], name: "3"}
        done = subprocess.run(
            ["sh", str(script), "-u", "train.py"], env=env, capture_output=True, text=True, check=True
        )
        words = done.stdout.split()
        assert words[:2] == ["3", "profile"]
        assert f"--session-new=dsocr-{run.plan.run_id[:8]}-3" in words
        assert words[-3:] == ["/opt/venv/bin/python3", "-u", "train.py"]
    done = subprocess.run(
        ["sh", str(script)], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "rank" in done.stderr


def test_which_python_starts_the_ranks(tmp_path: Path) -> None:
    script = tmp_path / "torchrun"
    script.write_text("#!/usr/bin/env python3.12\n")
    script.chmod(0o755)
    assert python_of(["torchrun"], {"PATH": str(tmp_path)}) == "python3.12"
    assert python_of(["torchrun"], {"PATH": str(tmp_path), "PYTHON_EXEC": "/my/python"}) == "/my/python"
    assert python_of([sys.executable, "-m", "torch.distributed.run"], os.environ) == sys.executable
    assert python_of(["mpirun"], {"PATH": ""}) == "python3"


# -- a server ----------------------------------------------------------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[str, str]]

    def _answer(self, code: int, body: bytes = b"") -> None:
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/well")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.asked.append(("GET", self.path))
        codes = {"/well": 200, "/moved": 302, "/ill": 500}
        self._answer(codes.get(self.path, 404), b"two\nlines")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.asked.append(("POST", f"{self.path} {body} {self.headers.get('Content-Type')}"))
        self._answer(200 if "profile" in self.path else 404)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    _Handler.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_addresses_are_asked_as_they_are(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert ask(f"{address}/well", timeout_s=5).well
    moved = ask(f"{address}/moved", timeout_s=5)
    assert (moved.status, moved.well) == (302, False)
    assert _Handler.asked == [("GET", "/well"), ("GET", "/moved")]
    ill = ask(f"{address}/ill", timeout_s=5)
    assert (ill.status, ill.words) == (500, "two lines")
    nobody = ask("http://127.0.0.1:9/", timeout_s=5)
    assert nobody.status is None
    assert "refused" in nobody.words


def converse(tmp_path: Path, *, profiled: bool = True, **settings: Any) -> Conversation:
    said: list[str] = []
    talk = Conversation(
        ExecSettings(**settings), env=dict(os.environ), log=tmp_path / "load.log", say=said.append, profiled=profiled
    )
    talk.begin()
    talk._thread.join(30)
    assert talk.over()
    return talk


def test_an_engines_profiler_is_started_and_stopped_around_the_load(tmp_path: Path, address: str) -> None:
    asked: dict[str, Any] = {
        "ready_url": f"{address}/well",
        "start_url": f"{address}/start_profile",
        "start_body": '{"num_steps": 5}',
        "stop_url": f"{address}/stop_profile",
        "load": f"{sys.executable} -c 'print(7)'",
    }
    talk = converse(tmp_path, **asked)
    assert (talk.error, talk.load_code) == (None, 0)
    assert _Handler.asked == [
        ("GET", "/well"),
        ("POST", '/start_profile {"num_steps": 5} application/json'),
        ("POST", "/stop_profile  None"),
    ]
    assert (tmp_path / "load.log").read_text() == "7\n"
    _Handler.asked.clear()
    assert converse(tmp_path, profiled=False, **asked).load_code == 0
    assert _Handler.asked == [("GET", "/well")]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"ready_url": "/never", "ready_timeout_s": 0.1, "load": "true"}, TimeoutExceededError, "status 404"),
        ({"start_url": "/other", "load": "true"}, CaptureError, "status 404"),
        ({"load": "false"}, ChildFailedError, "exit code 1"),
    ],
)
def test_what_goes_wrong_is_kept_for_the_end(
    tmp_path: Path, address: str, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    whole = {name: address + value if str(value).startswith("/") else value for name, value in settings.items()}
    talk = converse(tmp_path, stop_url=f"{address}/stop_profile", **whole)
    assert isinstance(talk.error, error)
    assert words in str(talk.error)
    # What the engine began to profile is stopped, so that it is written.
    assert (("POST", "/stop_profile  None") in _Handler.asked) == ("load" in settings and settings["load"] == "false")


def test_the_load_ends_with_the_server(tmp_path: Path) -> None:
    talk = Conversation(
        ExecSettings(load="sleep 300"),
        env=dict(os.environ),
        log=tmp_path / "load.log",
        say=lambda line: None,
        profiled=True,
    )
    talk.begin()
    while talk._load is None:
        pass
    talk.close()
    assert talk._load.returncode == -signal.SIGTERM
    assert talk.error is None


# -- signals -----------------------------------------------------------------------------------------------------------

_STUBBORN = """
import signal, sys, time
heard = open(sys.argv[1], "a", buffering=1)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: heard.write(signal.Signals(number).name + "\\n"))
heard.write("up\\n")
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize(("over", "heard"), [(True, ["SIGINT", "SIGTERM"]), (False, ["SIGTERM", "SIGTERM"])])
def test_a_server_is_asked_gently_first(tmp_path: Path, over: bool, heard: list[str]) -> None:
    """A script around it, and a process around that, as nsys is: only the program inside gets the signals."""
    file = tmp_path / "heard"
    inner = [*program(tmp_path, _STUBBORN), str(file)]
    script = tmp_path / "start.sh"
    script.write_text('#!/bin/sh\nexec "$@"\n')
    script.chmod(0o755)
    argv = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"]
    argv += with_target_mark([str(script), *inner], "this one")

    def up() -> bool:
        return file.exists() and "up" in file.read_text()

    with Interrupts() as interrupts:

        def press() -> None:
            if not over and up():
                interrupts.count = 1

        outcome = run_process(
            argv,
            env={**environment(), "DSOCR_PROFILE_RUN": tmp_path.name},
            log=tmp_path / "log",
            interrupts=interrupts,
            target="this one",
            grace_s=0.5,
            watch=press,
            over=lambda: over and up(),
        )
    assert outcome.ended_by == ("over" if over else "interrupt")
    assert (outcome.target_seen, outcome.gave_up) == (True, False)
    assert file.read_text().split() == ["up", *heard]
    # The process around it was left to end by itself: it says what became of the program (killed).
    assert outcome.returncode == 256 - signal.SIGKILL


def test_a_server_behind_a_shell_is_reached_too(tmp_path: Path) -> None:
    """Ctrl-C ends the shell, which leaves the server running; it must not be waited for until nsys gives up."""
    file = tmp_path / "heard"
    ends = _STUBBORN.replace(
        "lambda number, frame:", "lambda number, frame: number == signal.SIGTERM and sys.exit(0) or"
    )
    script = f"{sys.executable} {program(tmp_path, ends)[1]} {file} & wait"
    # The supervisor's command line holds the server's too.
    waits = """if True:
        import os, subprocess, sys, psutil, time
        subprocess.call(sys.argv[1:])
        known = (os.getpid(), os.getppid())
        while any("heard" in " ".join(p.cmdline()) for p in psutil.process_iter() if p.pid not in known):
            time.sleep(0.1)
    """
    argv = [sys.executable, "-c", waits, *with_target_mark(["sh", "-c", script], "that one")]
    with Interrupts() as interrupts:
        outcome = run_process(
            argv,
            env={**environment(), "DSOCR_PROFILE_RUN": tmp_path.name},
            log=tmp_path / "log",
            interrupts=interrupts,
            target="that one",
            grace_s=0.5,
            finish_s=20.0,
            over=lambda: file.exists() and "up" in file.read_text(),
        )
    assert (outcome.ended_by, outcome.gave_up) == ("over", False)
    assert outcome.elapsed_s < 20


def test_a_server_that_was_ended_under_a_profiler_that_hangs(tmp_path: Path) -> None:
    """The profiler is then given up on as it is after a program that ended by itself."""
    nsys = tmp_path / "nsys"
    nsys.symlink_to(sys.executable)
    hangs = """if True:
        import signal, subprocess, sys, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        subprocess.call(sys.argv[1:])
        time.sleep(300)
    """
    (tmp_path / "profile").write_text(hangs)
    ready = tmp_path / "ready"
    serves = f"trap 'exit 0' INT; touch {ready}; while :; do sleep 0.1; done"
    with Interrupts() as interrupts:
        outcome = run_process(
            [str(nsys), "profile", *with_target_mark(["sh", "-c", serves], "the server")],
            env={**environment(), "DSOCR_PROFILE_RUN": tmp_path.name},
            log=tmp_path / "log",
            cwd=tmp_path,
            interrupts=interrupts,
            target="the server",
            grace_s=3.0,
            finish_s=1.0,
            over=ready.exists,
        )
    assert (outcome.ended_by, outcome.gave_up, outcome.target_seen) == ("stuck", True, True)


# -- records -----------------------------------------------------------------------------------------------------------


def test_its_run_json_explains_no_trace(tmp_path: Path) -> None:
    """It says nothing of stages and tokens, so the analysis takes the trace as one without a manifest."""
    run = program_run(tmp_path, ("true",), fake_nsys(tmp_path / "nsys"))
    run.directory.create()
    run.directory.write(run.directory.manifest_file, run._first_manifest())
    record = json.loads(run.directory.manifest_file.read_text())
    assert (record["kind"], record["status"], record["command"]) == ("exec", "queued", ["true"])
    nothing = Marks((), (), ())
    assert find_manifest(run.directory.path / "trace.sqlite", nothing, None) is None
    assert isinstance(run.directory.read_record(), ProgramManifest)


def test_wall_times_are_compared_and_nothing_else(tmp_path: Path) -> None:
    run = program_run(tmp_path, ("true",), fake_nsys(tmp_path / "nsys"))
    manifest = run._first_manifest()
    assert wall_times(manifest) is None
    times = (ProgramTimes(False, 1.0), ProgramTimes(False, 2.0), ProgramTimes(False, 3.0), ProgramTimes(True, 3.0))
    measured = wall_times(ProgramManifest(**{**_fields(manifest), "times": times}))
    assert measured is not None
    assert wall_time_sentence(measured) == (
        "The same command without the profiler took 2.00 s (median of 3 runs); under it 3.00 s (1.50 ×)."
    )


def test_a_report_says_what_the_command_takes_without_the_profiler(tmp_path: Path, real_trace: Any) -> None:
    """In every output, of one trace and of ranks; of a trace that the run did not make it says nothing."""
    run = program_run(tmp_path, ("true",), fake_nsys(tmp_path / "nsys"))
    times = (ProgramTimes(False, 1.0), ProgramTimes(True, 1.5))
    files = [real_trace(f"tensor-parallel_2xh200_rank{rank}") for rank in (0, 1)]
    names = ("rank0.sqlite", "rank1.sqlite")
    manifest = evolve(run._first_manifest(), times=times, traces=names, ranks=2)
    folder = tmp_path / "run"
    folder.mkdir()
    for name, file in zip((*names, "other.sqlite"), (*files, files[0]), strict=True):
        (folder / name).symlink_to(file)
    (folder / "run.json").write_text(to_json(manifest))
    sentence = "The same command without the profiler took 1.00 s (one run); under it 1.50 s (1.50 ×)."

    def outputs(*traces: str) -> dict[str, str]:
        out = tmp_path / "-".join(traces)
        command = [sys.executable, "-m", "analysis.cli", *(str(folder / name) for name in traces), "--out", str(out)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"}
        )
        return {"terminal": done.stdout} | {name: (out / name).read_text() for name in ("report.md", "report.html")}

    for traces in (("rank0.sqlite",), names):
        assert [name for name, text in outputs(*traces).items() if sentence not in " ".join(text.split())] == []
    written = json.loads((tmp_path / "rank0.sqlite" / "report.json").read_text())
    assert written["detail"]["wall_times"] == {
        "alone_s": [1.0], "profiled_s": 1.5, "load_alone_s": [], "load_profiled_s": None,
    }  # fmt: skip
    assert not any("without the profiler took" in text for text in outputs("other.sqlite").values())


def test_a_program_shows_and_keeps_its_phases(tmp_path: Path) -> None:
    run = program_run(tmp_path, ("sleep", "0.3"), fake_nsys(tmp_path / "nsys"), control=2)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, highlight=False, legacy_windows=False)
    run = evolve(run, progress=RunProgress(run.say, console=console))
    lines: list[str] = []
    draw = run.progress.draw

    def watched() -> None:
        lines.append(run.progress.line(time.monotonic()))
        draw()

    run.progress.draw = watched  # type: ignore[method-assign]
    with Interrupts() as interrupts:
        manifest = run.start(interrupts, wait=False)
    steps = [(phase.program, phase.step) for phase in manifest.phases]
    assert steps[:4] == [
        ("launcher", "preflight"),
        ("control", "program"),
        ("capture", "program"),
        ("launcher", "export"),
    ]
    assert any(line.startswith("control runs: nothing attached · run 2 of 2 · ") for line in lines)
    assert any(line.startswith("capture: the program under the profiler · ") for line in lines)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert shown.index("✓ control runs") < shown.index("✓ capture") < shown.index("✓ export")
    assert run.directory.read_program_manifest().phases == manifest.phases
    again = program_run(tmp_path, ("sleep", "0.3"), fake_nsys(tmp_path / "nsys"), control=2)
    with Interrupts() as interrupts:
        again.start(interrupts, wait=False)
    assert again.progress.left_s(time.monotonic()) is not None  # the run before says how long one takes
    other = program_run(tmp_path, ("sleep", "0.3"), fake_nsys(tmp_path / "nsys"), control=1)
    with Interrupts() as interrupts:
        other.start(interrupts, wait=False)
    assert other.progress.left_s(time.monotonic()) is None


def _fields(manifest: ProgramManifest) -> dict[str, Any]:
    import attrs

    return attrs.asdict(manifest, recurse=False)
