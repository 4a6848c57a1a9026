"""How both commands end: interrupted at any moment, and with a disk full under what they print."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from analysis.domain.errors import InterruptedRunError, OutputError
from analysis.domain.system_errors import has_little_room, is_disk_full, reason_of
from import_graph import ROOT

FULL = Path("/dev/full")
needs_full_device = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")

COMMANDS = {
    "dsocr-analyze": [sys.executable, "-m", "analysis.cli", "schema", "report"],
    "dsocr-profile": [sys.executable, "-m", "runner.cli", "models"],
}

INTERRUPTED_IN_AN_IMPORT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{number})

sys.meta_path.insert(0, Interrupting())
sys.argv = {argv!r}
from {package}.cli import main
main()
"""


def assert_interrupted(done: "subprocess.CompletedProcess[str]", number: str = "SIGINT") -> None:
    assert done.returncode == InterruptedRunError.exit_code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert number in done.stderr or (number in ("SIGINT", "SIGTERM") and "interrupted" in done.stderr), done.stderr


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
@pytest.mark.parametrize(
    ("package", "argv", "module"),
    [
        ("analysis", ["dsocr-analyze", "--help"], "typer"),
        ("analysis", ["dsocr-analyze", "schema", "report"], "analysis.render.json_schema"),
        ("analysis", ["dsocr-analyze", "trace.sqlite"], "numpy"),
        ("runner", ["dsocr-profile", "--help"], "typer"),
        ("runner", ["dsocr-profile", "models"], "runner.child.models.registry"),
        ("runner", ["dsocr-profile", "history", "import", "."], "sqlalchemy"),
        ("runner", ["dsocr-profile", "inputs"], "PIL.Image"),
    ],
)
def test_ctrl_c_during_an_import_is_one_line(
    tmp_path: Path, package: str, argv: list[str], module: str, number: str
) -> None:
    code = INTERRUPTED_IN_AN_IMPORT.format(package=package, argv=argv, module=module, number=number)
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert_interrupted(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment), number)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


WINDOWS = {
    "while an error is told": ("fail()", "interrupt()", "", 2, ["failed"]),
    "between the command and its end": ("return_interrupting()", "", "", 130, ["interrupted"]),
    "in a destructor": ("swallowed(); wait_for_it()", "", "", 130, ["interrupted"]),
    "in a destructor, twice": ("swallowed(); swallowed(); wait_for_it()", "", "", 130, ["interrupted"]),
    "again while it is put away": ("put_away()", "", "", 130, ["put away", "interrupted"]),
    "again while it is told": ("interrupt()", "interrupt()", "", 130, ["interrupted"]),
    "when all is over": ("None", "", "interrupt()", 0, []),
    "when an error was told": ("fail()", "", "interrupt()", 2, ["failed"]),
}
"""Where it comes: the command, what is done while words are shown and when the interpreter ends; code and lines wanted."""

IN_A_WINDOW = """
import atexit, os, signal, sys, threading
from analysis.domain.ending import end_with
from analysis.domain.errors import RequestError

def interrupt():
    os.kill(os.getpid(), signal.{number})

class Swallowing:
    def __del__(self):
        interrupt()
        for _ in range(1000): pass

def swallowed():
    Swallowing()

def wait_for_it():
    threading.Event().wait(60)

def fail():
    raise RequestError("failed")

def return_interrupting():
    try:
        return 0
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{number}])
        interrupt()  # comes with the first step behind this function
        threading.Timer(0, lambda: None).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.{number}])

def put_away():
    try:
        interrupt()
        wait_for_it()
    finally:
        interrupt()
        for _ in range(1000): pass
        sys.stderr.write("put away\\n")

def show(words):
    {shown}
    sys.stderr.write(words + "\\n")
    {shown}

class Late:
    def __del__(self):
        {over}

def late():
    {over}
    for _ in range(1000): pass

atexit.register(late)
sys.modules["late"] = Late()  # goes with the modules, behind Python's own handlers
def command():
    {command}
end_with(command, "program", show)
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_signal_is_heard_at_every_moment_and_is_no_traceback(tmp_path: Path, window: str, number: str) -> None:
    command, shown, over, wanted, lines = WINDOWS[window]
    code = IN_A_WINDOW.format(command=command, shown=shown or "pass", over=over or "pass", number=number)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = [line.removeprefix("program: ") for line in done.stderr.splitlines()]
    assert (done.returncode, said) == (wanted, lines)


@needs_full_device
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_under_the_output_is_called_one(command: str) -> None:
    with FULL.open("w") as output:
        done = subprocess.run(COMMANDS[command], cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True)
    assert done.returncode == OutputError.exit_code
    assert done.stderr.count("\n") == 1, done.stderr
    assert "standard output: the disk is full" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_gone_is_no_error(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(COMMANDS[command], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_ctrl_c_in_a_report_leaves_no_half_file(
    real_trace: Callable[[str], Path], tmp_path: Path, numbers: list[signal.Signals]
) -> None:
    """Interrupted as soon as the first file of the report is there: the others follow, or not, but none in part."""
    out = tmp_path / "report"
    argv = [sys.executable, "-m", "analysis.cli", str(real_trace("deepseek-ocr_h100_64tok")), "--out", str(out)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out.is_dir() and any(out.iterdir())):
        time.sleep(0.001)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.02)
    output, errors = process.communicate()
    left = [path.name for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert not left
    if process.returncode:  # else it was done before the signal came
        assert_interrupted(subprocess.CompletedProcess(argv, process.returncode, output, errors))


def test_the_words_for_what_the_system_refuses() -> None:
    assert reason_of(OSError(errno.ENOSPC, "x")) == "the disk is full"
    assert "quota" in reason_of(OSError(errno.EDQUOT, "x"))
    assert "read-only" in reason_of(OSError(errno.EROFS, "x"))
    assert reason_of(OSError(errno.EACCES, os.strerror(errno.EACCES))) == "Permission denied"
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert is_disk_full(RuntimeError("write failed: I/O error: No space left on device (os error 28)"))


@needs_full_device
def test_libraries_words_for_a_full_disk_are_known() -> None:
    with pytest.raises(OSError) as caught, pa.OSFile(str(FULL), "wb") as file:
        file.write(b"x" * 100_000)
    assert reason_of(caught.value) == "the disk is full"


def test_sqlites_full_disk_is_one(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "small.sqlite")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 2")  # SQLite's own limit has the code of a full disk
    with pytest.raises(sqlite3.Error) as caught:
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,)] * 10)
    connection.close()
    assert reason_of(caught.value) == "the disk is full"


def test_a_disk_with_room_is_not_taken_for_a_full_one(tmp_path: Path) -> None:
    assert not has_little_room(tmp_path / "not" / "there" / "yet")
