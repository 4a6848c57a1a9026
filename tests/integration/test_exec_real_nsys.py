"""``exec`` under a real Nsight Systems, on a CPU: whatever people run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from analysis.domain.errors import CaptureError, ChildFailedError, InterruptedRunError
from analysis.domain.program import ProgramManifest
from launch_kit import ROOT, environment, real_nsys
from program_kit import CLIENT, RANGES, SERVER, program, program_run, range_names
from runner.collectors.nsys.tool import NsysTool
from runner.launcher.program import ProgramRun
from runner.process.process import Interrupts, marked_processes

pytestmark = pytest.mark.integration

PLAIN = ["prefill", "decode", "decode", "decode"]


@pytest.fixture(scope="session")
def nsys() -> NsysTool:
    tool = real_nsys()
    if tool is None:
        pytest.skip("no usable nsys here; `make nsys`")
    return tool


def start(run: ProgramRun) -> ProgramManifest:
    with Interrupts() as interrupts:
        return run.start(interrupts, wait=True)


def test_a_foreign_script_needs_no_option(tmp_path: Path, nsys: NsysTool) -> None:
    run = program_run(tmp_path, program(tmp_path, RANGES), nsys)
    manifest = start(run)
    assert (manifest.status, manifest.exit_codes.child, manifest.traces) == ("complete", 0, ("trace.sqlite",))
    assert range_names(run.directory.path / "trace.sqlite") == PLAIN
    assert run.directory.read_program_manifest() == manifest


def test_the_command_line(tmp_path: Path, nsys: NsysTool) -> None:
    """A module beside the script is found, and nothing of ours is in the program's way."""
    (tmp_path / "neighbour.py").write_text("LENGTH = 3\n")
    command = program(
        tmp_path, "import neighbour, os, sys, nvtx\nwith nvtx.annotate('x'): print(os.environ.get('PYTHONSAFEPATH'))"
    )
    argv = [sys.executable, "-m", "runner.cli", "exec", "--nsys", nsys.path, "--control", "1"]
    argv += ["--out", str(tmp_path / "out"), "--", *command]
    env = environment(DSOCR_LOCK_DIR=str(tmp_path / "locks"))
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The same command without the profiler took" in done.stdout
    assert "None" in (tmp_path / "out" / "latest" / "logs" / "capture.log").read_text()
    status = [sys.executable, "-m", "runner.cli", "status", "latest", "--out", str(tmp_path / "out")]
    done = subprocess.run(status, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "complete" in done.stdout


def test_two_that_start_at_once_do_not_meet(tmp_path: Path, nsys: NsysTool) -> None:
    """nsys names what its parts share on the machine by process ids, which begin anew in each one's namespace."""
    command = program(tmp_path, RANGES + "    time.sleep(1)\n")
    argv = [sys.executable, "-m", "runner.cli", "exec", "--nsys", nsys.path, "--timeout", "60"]
    started = []
    for name in ("a", "b", "c"):
        env = environment(DSOCR_LOCK_DIR=str(tmp_path / f"locks of {name}"))
        line = [*argv, "--out", str(tmp_path / name), "--", *command]
        started.append(subprocess.Popen(line, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def test_children_are_followed_however_they_are_made(tmp_path: Path, nsys: NsysTool) -> None:
    command = program(
        tmp_path,
        """
        import nvtx, os, subprocess, sys, time
        with nvtx.annotate("parent"):
            time.sleep(0.01)
        child = os.fork()
        if child == 0:
            with nvtx.annotate("forked"):
                time.sleep(0.01)
            sys.exit(0)
        os.waitpid(child, 0)
        subprocess.run([sys.executable, "-c", "import nvtx, time\\nwith nvtx.annotate('started'): time.sleep(0.01)"])
        """,
    )
    run = program_run(tmp_path, command, nsys)
    start(run)
    assert sorted(range_names(run.directory.path / "trace.sqlite")) == ["forked", "parent", "started"]


def test_a_range_begins_the_capture(tmp_path: Path, nsys: NsysTool) -> None:
    run = program_run(tmp_path, program(tmp_path, RANGES), nsys, capture="nvtx:decode")
    start(run)
    assert range_names(run.directory.path / "trace.sqlite") == ["decode"]


@pytest.mark.parametrize(
    ("capture", "words"), [("nvtx:nothing", "no range named nothing"), ("cuda-profiler-api", "cudaProfilerStart")]
)
def test_a_capture_that_never_begins_says_why(tmp_path: Path, nsys: NsysTool, capture: str, words: str) -> None:
    run = program_run(tmp_path, program(tmp_path, RANGES), nsys, capture=capture)
    with pytest.raises(CaptureError, match=words):
        start(run)
    assert run.directory.read_program_manifest().status == "failed"


def test_no_secret_reaches_what_is_kept(tmp_path: Path, nsys: NsysTool) -> None:
    """On the command line, in the environment, in a kept variable – and printed by the program itself."""
    command = program(tmp_path, RANGES + "    print(sys.argv)\n    import os; print(os.environ['MY_TOKEN'])\n")
    command += ["--api-key", "planted-on-the-line", "--url=http://me:planted-pw@localhost/"]
    environ = environment(
        DSOCR_LOCK_DIR=str(tmp_path / "locks"), HF_TOKEN="planted-outside", MY_TOKEN="planted-and-kept", LC_X="seen"
    )
    said: list[str] = []
    run = program_run(tmp_path / "out", command, nsys, environ=environ, said=said, keep_env=("MY_TOKEN",))
    manifest = start(run)
    assert "MY_TOKEN" in manifest.environment
    assert "HF_TOKEN" not in manifest.environment
    assert manifest.command[2:] == ("--api-key", "***", "--url=http://***@localhost/")
    kept = [file for file in run.directory.path.rglob("*") if file.is_file()]
    assert {"trace.sqlite", "run.json", "plan.json", "capture.log"} <= {file.name for file in kept}
    assert not [file for file in kept if b"planted" in file.read_bytes()]
    assert "planted" not in " ".join(said)
    assert not (run.directory.path / "trace.nsys-rep").exists()
    assert "***" in run.directory.log("capture").read_text()


def test_a_report_without_secrets_is_kept(tmp_path: Path, nsys: NsysTool) -> None:
    run = program_run(tmp_path, program(tmp_path, RANGES), nsys)
    manifest = start(run)
    if any("other processes" in note for note in manifest.notes):
        pytest.skip("no private view of the processes here")
    assert (run.directory.path / "trace.nsys-rep").stat().st_mode & 0o777 == 0o600


def test_a_failing_program_is_told_and_its_trace_saved(tmp_path: Path, nsys: NsysTool) -> None:
    run = program_run(tmp_path, program(tmp_path, RANGES + "    sys.exit('out of cheese')\n"), nsys)
    with pytest.raises(ChildFailedError, match=r"exit code 1 .*out of cheese.*trace\.sqlite"):
        start(run)
    assert range_names(run.directory.path / "trace.sqlite") == PLAIN
    assert run.directory.read_program_manifest().exit_codes.child == 1


def test_resume_makes_the_export_again(tmp_path: Path, nsys: NsysTool) -> None:
    run = program_run(tmp_path, program(tmp_path, RANGES), nsys, keep_report=True)
    start(run)
    database = run.directory.path / "trace.sqlite"
    database.unlink()
    argv = [sys.executable, "-m", "runner.cli", "resume", "latest", "--out", str(tmp_path), "--nsys", nsys.path]
    done = subprocess.run(argv, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert range_names(database) == PLAIN
    review = [sys.executable, "-m", "runner.cli", "review", "latest", "--out", str(tmp_path)]
    done = subprocess.run(review, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "exec" in done.stderr


HANGS = RANGES + "    time.sleep(4)\n    open(sys.argv[1], 'w').close()\n    time.sleep(300)\n"
"""nsys fetches what it has every few seconds: what is older is safe from any signal."""


def test_ctrl_c_keeps_what_was_captured(tmp_path: Path, nsys: NsysTool) -> None:
    """The program overwrites its command line, as servers do: it is found all the same."""
    script = tmp_path / "wrapped.sh"
    command = [*program(tmp_path, HANGS), str(tmp_path / "at work")]
    script.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
    script.chmod(0o755)
    run = program_run(tmp_path, [str(script)], nsys)

    def interrupt() -> None:
        while not (tmp_path / "at work").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with Interrupts() as interrupts, pytest.raises(InterruptedRunError, match="resume"):
        run.start(interrupts, wait=True)
    assert run.directory.read_program_manifest().status == "interrupted"
    assert not marked_processes(run.plan.run_id)
    with Interrupts() as interrupts:
        manifest = ProgramRun.taken_up(run.directory, nsys, environment(), lambda line: None).resume(interrupts)
    assert manifest.traces == ("trace.sqlite",)
    assert "prefill" in range_names(run.directory.path / "trace.sqlite")


def served(folder: Path) -> tuple[list[str], str, Path]:
    """A server's command line, its address, and the file in which it writes what it was told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "port").write_text(str(port))
    said = folder / "said"
    return [*program(folder, SERVER, "server.py"), str(folder / "port"), str(said)], f"http://127.0.0.1:{port}", said


def test_a_server_is_loaded_and_ended(tmp_path: Path, nsys: NsysTool) -> None:
    command, address, heard = served(tmp_path)
    client = shlex.join(program(tmp_path, CLIENT, "client.py"))
    body = json.dumps({"activities": ["CUDA_PROFILER"]})
    run = program_run(
        tmp_path,
        command,
        nsys,
        capture="all",  # no GPU here, so nothing calls cudaProfilerStart
        control=1,
        ready_url=f"{address}/health",
        load=f"{client} {address}/generate 0",
        start_url=f"{address}/start_profile",
        start_body=body,
        stop_url=f"{address}/stop_profile",
    )
    manifest = start(run)
    assert (manifest.status, manifest.ended_by_us, manifest.exit_codes.child) == ("complete", True, 3)
    assert manifest.load_exit_code == 0
    assert [times.load_s is not None for times in manifest.times] == [True, True]
    # The control run has no profiler to start; both servers were ended by Ctrl-C and could clean up.
    assert heard.read_text().splitlines() == [
        "ended by Ctrl-C",
        f"/start_profile {body}",
        "/stop_profile ",
        "ended by Ctrl-C",
    ]
    assert range_names(run.directory.path / "trace.sqlite") == ["prefill"] * 4


@pytest.mark.parametrize(
    ("path", "code", "error", "words"),
    [
        ("/start_profile", 5, ChildFailedError, "the load failed with exit code 5"),
        ("/nothing", 0, CaptureError, "status 404"),
    ],
)
def test_what_goes_wrong_with_the_load_is_told_after_the_server_was_ended(
    tmp_path: Path, nsys: NsysTool, path: str, code: int, error: type[Exception], words: str
) -> None:
    command, address, heard = served(tmp_path)
    client = shlex.join(program(tmp_path, CLIENT, "client.py"))
    run = program_run(
        tmp_path,
        command,
        nsys,
        capture="all",
        ready_url=f"{address}/health",
        load=f"{client} {address}/generate {code}",
        start_url=address + path,
        stop_url=f"{address}/stop_profile",
    )
    with pytest.raises(error, match=words):
        start(run)
    assert heard.read_text().splitlines()[-1] == "ended by Ctrl-C"
    # Without a load there is no event to export.
    assert (run.directory.path / "trace.sqlite").is_file() == (path == "/start_profile")
    assert not marked_processes(run.plan.run_id)


RANKS = """
    import nvtx, os, sys, torch, torch.distributed as dist
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    with nvtx.annotate(f"step of rank {rank}"):
        total = torch.tensor([rank + 1])
        dist.all_reduce(total)
    assert total.item() == 3 and "PYTHON_EXEC" not in os.environ
    dist.destroy_process_group()
    sys.exit(int(sys.argv[1]) if rank == 1 else 0)
"""


def torchrun(folder: Path, code: int) -> list[str]:
    launcher = Path(sys.executable).with_name("torchrun")
    if not launcher.exists():
        pytest.skip("no torchrun here")
    return [str(launcher), "--standalone", "--nproc-per-node", "2", *program(folder, RANKS, "train.py")[1:], str(code)]


def test_each_rank_gets_a_report_of_its_own(tmp_path: Path, nsys: NsysTool) -> None:
    run = program_run(tmp_path / "out", torchrun(tmp_path, 0), nsys, ranks=2)
    try:
        manifest = start(run)
    except CaptureError as error:
        # nsys 2022.4 fails at its start now and then. A launcher of ranks hides that, so it is not started again by itself.
        if "nsys did not start the program" not in str(error):
            raise
        run = program_run(tmp_path / "again", torchrun(tmp_path, 0), nsys, ranks=2)
        manifest = start(run)
    assert (manifest.status, manifest.ranks) == ("complete", 2)
    assert manifest.traces == ("rank0.sqlite", "rank1.sqlite")
    for rank, trace in enumerate(manifest.traces):
        assert range_names(run.directory.path / trace) == [f"step of rank {rank}"]
    assert not marked_processes(run.plan.run_id)


def test_a_rank_that_fails_is_told(tmp_path: Path, nsys: NsysTool) -> None:
    run = program_run(tmp_path / "out", torchrun(tmp_path, 7), nsys, ranks=2)
    with pytest.raises(ChildFailedError, match="exit code 1"):
        start(run)
    # Whether the other rank's report survives is torchrun's doing: it ends that rank's nsys, which may still be writing.
    assert run.directory.read_program_manifest().status == "failed"
    assert not marked_processes(run.plan.run_id)


def test_a_rank_too_many_is_told(tmp_path: Path, nsys: NsysTool) -> None:
    run = program_run(tmp_path / "out", torchrun(tmp_path, 0), nsys, ranks=3)
    with pytest.raises(CaptureError, match="no report for rank2"):
        start(run)


def test_any_launcher_can_start_ranks(tmp_path: Path, nsys: NsysTool) -> None:
    """A placeholder says where each rank begins; a shell starts two ranks as mpirun would."""
    command = program(
        tmp_path, "import nvtx, os, time\nwith nvtx.annotate('rank ' + os.environ['PMI_RANK']): time.sleep(0.01)"
    )
    both = 'for rank in 0 1; do PMI_RANK=$rank "$@" & done; wait'
    run = program_run(tmp_path / "out", ["sh", "-c", both, "sh", "{nsys}", *command], nsys, ranks=2)
    start(run)
    assert range_names(run.directory.path / "rank1.sqlite") == ["rank 1"]
