"""Who is blamed for what: nsys that was killed, a signal by its name, a full disk, a folder that has gone."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from analysis.domain.ended import ended_in_words
from analysis.domain.errors import (
    CaptureError,
    ChildFailedError,
    DsocrError,
    RequestError,
)
from launch_kit import environment, fake_nsys, prepare
from program_kit import program, program_run
from runner.collectors.nsys.tool import NsysTool, output_name
from runner.launcher.run import Run
from runner.process.process import Interrupts


@pytest.fixture
def tool(tmp_path: Path) -> NsysTool:
    return fake_nsys(tmp_path / "nsys")


def fault_of(run: Run, kind: type[DsocrError]) -> str:
    with Interrupts() as interrupts, pytest.raises(kind) as caught:
        run.start(interrupts)
    assert caught.type is kind
    return str(caught.value)


# -- nsys --------------------------------------------------------------------------------------------------------------


def kill_nsys_when(there: Path, output: Path) -> threading.Thread:
    """Send SIGKILL to the nsys that writes ``output``, from outside of its process namespace, when a file is there."""

    def kill() -> None:
        while not there.exists():
            time.sleep(0.01)
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                argv = process.cmdline()
                if f"--output={output}" in argv and argv[2:3] == ["profile"]:
                    process.kill()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("behaviour", "words"), [("hang", "was ended by"), ("late crash", "lost its agent")], ids=["killed", "agent lost"]
)
def test_a_killed_nsys_is_not_the_programs_failure(tmp_path: Path, tool: NsysTool, behaviour: str, words: str) -> None:
    run = prepare(tmp_path, tool, behaviour, environ=environment(NSYS_FAKE="loses its agent"))
    kill_nsys_when(run.directory.path / "capture is at work", run.directory.path / "trace")
    said = fault_of(run, CaptureError)
    assert said.startswith(f"nsys {tool.version} {words}")
    assert "\n" not in said
    manifest = run.directory.read_manifest()
    assert (manifest.status, manifest.error) == ("failed", said)
    assert manifest.exit_codes.child is None
    assert manifest.exit_codes.nsys not in (0, None)


def test_a_killed_nsys_is_not_the_failure_of_any_program(tmp_path: Path, tool: NsysTool) -> None:
    text = """
        import os, pathlib, sys, time
        (pathlib.Path(sys.argv[1]) / os.environ["DSOCR_PROFILE_TARGET"] / "capture is at work").touch()
        time.sleep(300)
    """
    out = tmp_path / "out"
    run = program_run(out, [*program(tmp_path / "p", text), str(out)], tool)
    kill_nsys_when(run.directory.path / "capture is at work", run.directory.path / "trace")
    with Interrupts() as interrupts, pytest.raises(CaptureError, match=r"^nsys .* was ended by"):
        run.start(interrupts, wait=False)
    assert run.directory.read_program_manifest().exit_codes.child is None


@pytest.mark.parametrize("where", ["control", "capture"])
def test_a_signal_is_called_by_its_name(tmp_path: Path, tool: NsysTool, where: str) -> None:
    run = prepare(tmp_path, tool, f"killed in {where}")
    said = fault_of(run, ChildFailedError)
    assert "the program was ended by SIGKILL (9: often the kernel's out-of-memory killer" in said
    assert "dmesg" in said


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (7, "failed with exit code 7"),
        (-11, "was ended by SIGSEGV (11: a fault in native code"),
        (139, "was ended by SIGSEGV (11: "),
        (137, "was ended by SIGKILL (9: "),
        (143, "was ended by SIGTERM (15)"),
        (255, "failed with exit code 255"),
        (128, "failed with exit code 128"),
    ],
)
def test_exit_codes_in_words(code: int, words: str) -> None:
    assert ended_in_words(code).startswith(words)


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["100%", "%h-%p-%q{HOME}", "a b", "quo'te\"s", "new\nline", "-leading", "~", "é"])
def test_a_run_works_whatever_its_folder_is_called(tmp_path: Path, tool: NsysTool, name: str) -> None:
    run = prepare(tmp_path / name, tool, environ=environment())
    with Interrupts() as interrupts:
        assert run.start(interrupts).status == "complete"
    assert run.directory.report_file.is_file()


def test_marks_of_nsys_in_a_folders_name_are_only_a_name() -> None:
    assert output_name(Path("/a/%h 100%"), "rank%q{RANK}") == "/a/%%h 100%%/rank%q{RANK}"


def test_a_folder_that_nsys_cannot_name_is_refused_before_anything_runs(tmp_path: Path, tool: NsysTool) -> None:
    folder = tmp_path / os.fsdecode(b"not\xff\xfeutf8")
    with pytest.raises(RequestError, match=r"UTF-8; choose another --out") as caught:
        prepare(folder, tool)
    assert str(caught.value).isascii()
    assert not folder.exists()
