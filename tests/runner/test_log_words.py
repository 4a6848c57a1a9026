"""What is said of a program that failed, and of an nsys that did: each one's own words, and short."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.domain.ended import ended_in_words
from analysis.domain.errors import CaptureError, ChildFailedError
from launch_kit import environment, fake_nsys, prepare
from program_kit import RANGES, program, program_run
from runner.collectors.nsys.tool import NsysTool
from runner.launcher.log_words import last_line, last_line_of_nsys
from runner.launcher.program import ProgramRun
from runner.process.limits import low_limits, low_limits_note
from runner.process.process import Interrupts

AROUND_2022 = (
    "WARNING: --cuda-graph-trace=graph requires CUDA driver version 11.7 or higher. Setting to --cuda-graph-trace=node.\n",
    "Generating '/r/tmp/nsys-report-1c2d.qdstrm'\n\r[1/1] [0%                          ] trace.nsys-rep"
    "\r[1/1] [========================100%] trace.nsys-rep\nGenerated:\n    /r/trace.nsys-rep\n",
)
AROUND_2025 = (
    "WARNING: CPU IP/backtrace sampling not supported, disabling.\n"
    "Try the 'nsys status --environment' command to learn more.\n\n"
    "WARNING: CPU context switch tracing not supported, disabling.\n"
    "Try the 'nsys status --environment' command to learn more.\n\nCollecting data...\n"
    "Capture range started in the application.\n",
    "Capture range ended in the application.\nThe target application returned non-zero exit code 255\n"
    "Generating '/r/tmp/nsys-report-1c2d.qdstrm'\n[1/1] [========================100%] trace.nsys-rep\n"
    "Generated:\n\t/r/trace.nsys-rep\n",
)
LEFT_RUNNING = (
    "",
    "The target application terminated. One or more process it created re-parented.\n"
    "Waiting for termination of re-parented processes.\nUse the `--wait` option to modify this behavior.\n",
)
UNFINISHED = (
    "",
    "Unable to retrieve the importer version: skipping importation of the QDSTRM file.\n"
    "Importer error status: An unknown error occurred.\nGenerated:\n    /r/trace.qdstrm\n",
)
STATE = """WARNING: --cuda-graph-trace=graph requires CUDA driver version 11.7 or higher. Setting to --cuda-graph-trace=node.
FATAL ERROR: /build/agent/work/3/QuadD/Target/quadd_d/jni/Agent/Session.cpp(325): Throw in function virtual QuadDDaemon::Session
Dynamic exception type: boost::wrapexcept<QuadDCommon::NotFoundException>
std::exception::what: NotFoundException
[QuadDCommon::tag_message*] = Session state is not found.
"""
NO_ANSWER = """WARNING: --cuda-graph-trace=graph requires CUDA driver version 11.7 or higher. Setting to --cuda-graph-trace=node.
/build/agent/work/3/QuadD/Common/AgentAPI/Src/SessionImpl.cpp(18): rpc Configure(.Agent.ConfigureRequest) returns (.Agent.E);
 is canceled because the timeout period is expired
"""


@pytest.fixture
def tool(tmp_path: Path) -> NsysTool:
    return fake_nsys(tmp_path / "nsys")


def logged(tmp_path: Path, content: str | bytes) -> Path:
    log = tmp_path / "capture.log"
    log.write_bytes(content if isinstance(content, bytes) else content.encode())
    return log


def failing(run: ProgramRun, kind: type[CaptureError | ChildFailedError]) -> str:
    with Interrupts() as interrupts, pytest.raises(kind) as caught:
        run.start(interrupts, wait=False)
    assert caught.type is kind
    return str(caught.value)


# -- the program's words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", [AROUND_2022, AROUND_2025, LEFT_RUNNING, UNFINISHED])
@pytest.mark.parametrize("end", ["\n", ""])
def test_nsys_lines_are_not_the_programs(tmp_path: Path, around: tuple[str, str], end: str) -> None:
    before, after = around
    after = after if end else "Generating '/r/tmp/nsys-report-1c2d.qdstrm'\n" + after
    assert last_line(logged(tmp_path, f"{before}out of cheese{end}{after}")) == "out of cheese"
    assert last_line(logged(tmp_path, f"{before}{after}")) == "it printed nothing"


@pytest.mark.parametrize(
    "line",
    ["WARNING: the model has no tokenizer", "[2026-11-25 10:00:00] gave up", "usage is wrong", "FATAL ERROR: heap"],
)
def test_a_line_like_nsys_own_is_the_programs(tmp_path: Path, line: str) -> None:
    assert last_line(logged(tmp_path, f"{AROUND_2022[0]}{line}\n{AROUND_2022[1]}")) == line


def test_what_is_no_text_is_one_short_line(tmp_path: Path) -> None:
    said = last_line(logged(tmp_path, bytes(range(11, 256)) * 40 + b"Generating '/r/tmp/nsys-report-1c2d.qdstrm'\n"))
    assert len(said) <= 200
    assert said.isprintable()
    assert "\\x80" in said or "\\x0b" in said
    assert "Generating" not in said


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = logged(tmp_path, "")
    with log.open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file: more than fits into any memory
        file.seek(0, 2)
        file.write(b"\nout of cheese\n")
    assert last_line(log) == "out of cheese"


def test_a_program_that_fails_without_a_word(tmp_path: Path, tool: NsysTool) -> None:
    text = (
        RANGES + '    print("WARNING: --cuda-graph-trace=graph requires CUDA driver version 11.7")\n    sys.exit(255)\n'
    )
    said = failing(program_run(tmp_path / "out", program(tmp_path, text), tool), ChildFailedError)
    assert "the program ended with exit code 255 under nsys: it printed nothing (all of it: " in said


# -- nsys' own failures ------------------------------------------------------------------------------------------------


def test_what_nsys_says_of_its_own_failure(tmp_path: Path) -> None:
    assert last_line_of_nsys(logged(tmp_path, STATE)) == (
        "std::exception::what: NotFoundException; [QuadDCommon::tag_message*] = Session state is not found."
    )
    assert last_line_of_nsys(logged(tmp_path, NO_ANSWER)) == "is canceled because the timeout period is expired"
    assert last_line(logged(tmp_path, STATE)) == "it printed nothing"


@pytest.mark.parametrize("kind", ["agent", "process"])
def test_an_nsys_that_fails_before_its_program_is_started_once_more(tmp_path: Path, tool: NsysTool, kind: str) -> None:
    Path(tool.path).with_name("how").write_text(f"fails of itself ({kind})")
    said: list[str] = []
    run = program_run(tmp_path / "out", program(tmp_path, RANGES), tool, said=said)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts, wait=False)
    assert (manifest.status, manifest.exit_codes.child) == ("complete", 0)
    assert any("failed before it started the program" in line and "started once more" in line for line in said)
    assert any("started once more" in note for note in manifest.notes)
    assert "WARNING" in (run.directory.path / "logs" / "capture-failed.log").read_text()


def test_a_run_of_ours_starts_it_once_more_too(tmp_path: Path, tool: NsysTool) -> None:
    said: list[str] = []
    run = prepare(tmp_path, tool, environ=environment(NSYS_FAKE="fails of itself (agent)"), said=said)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts)
    assert manifest.status == "complete"
    assert any("started once more" in line for line in said)
    assert any("started once more" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("kind", "what", "words"),
    [
        ("agent", "could not start its agent", "Agent launcher failed."),
        ("process", "could not start a process of its own", "pipe(2) failed: Too many open files"),
    ],
)
def test_one_that_fails_again_is_called_the_cause(
    tmp_path: Path, tool: NsysTool, kind: str, what: str, words: str
) -> None:
    Path(tool.path).with_name("how").write_text(f"fails of itself ({kind}) always")
    run = program_run(tmp_path / "out", program(tmp_path, RANGES), tool)
    said = failing(run, CaptureError)
    assert said.startswith(f"nsys {tool.version} itself failed, and not the program: it {what}")
    assert "several nsys run at once" in said
    assert "run it again" in said
    assert "its last words: " in said
    assert words in said
    assert str(run.directory.log("capture")) in said
    assert "WARNING" not in said


def test_low_limits_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_NOFILE: 24, resource.RLIMIT_FSIZE: 51200, resource.RLIMIT_AS: 300 << 20}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], limits[which]))
    assert low_limits() == (
        "24 open files (ulimit -n)",
        "51,200 bytes for a file (ulimit -f)",
        "300 MiB of address space (ulimit -v)",
    )
    usual = {resource.RLIMIT_NOFILE: 1024}
    limits |= usual | dict.fromkeys((resource.RLIMIT_FSIZE, resource.RLIMIT_AS), resource.RLIM_INFINITY)
    assert (low_limits(), low_limits_note()) == ((), "")


def test_the_limits_stand_where_nsys_failed(tmp_path: Path, tool: NsysTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.process.limits._FEW_FILES", 1 << 30)
    Path(tool.path).with_name("how").write_text("fails of itself (process) always")
    said = failing(program_run(tmp_path / "out", program(tmp_path, RANGES), tool), CaptureError)
    assert f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]} open files (ulimit -n)); raise them" in said


def test_shared_memory_that_was_cut_short_is_named(
    tmp_path: Path, tool: NsysTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.collectors.nsys.death._SHARED_MEMORY", tmp_path)
    segment = tmp_path / f"NSys-{tool.version}"
    segment.touch()
    Path(tool.path).with_name("how").write_text("fails of itself (agent) always")
    said = failing(program_run(tmp_path / "out", program(tmp_path, RANGES), tool), CaptureError)
    assert f"{segment} is empty, and with that none can start: remove it when no nsys runs" in said
    segment.write_bytes(b"x")
    said = failing(program_run(tmp_path / "out", program(tmp_path, RANGES), tool), CaptureError)
    assert str(segment) not in said


def test_a_limit_of_processor_time_is_named() -> None:
    """The kernel kills a program at its hard limit, without SIGXCPU before where the soft one is the same."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (40, 50))\n"
    code += "from analysis.domain.ended import ended_in_words; print(ended_in_words(-9)); print(ended_in_words(152))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    killed, told = done.stdout.splitlines()
    assert killed.startswith("was ended by SIGKILL (9: its limit of processor time, 50 s (ulimit -t), or the kernel's")
    assert told == "was ended by SIGXCPU (24: its limit of processor time was used up)"
    assert "(ulimit -t)" in ended_in_words(-9)  # a program may have set a limit for itself
