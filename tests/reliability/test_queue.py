"""Faults of runs in the background: submit, status, cancel."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from fault_scene import Scene, Started, wait_for
from fault_table import Resume, Row, faults
from launch_kit import device_held
from runner.launcher.run_directory import RunDirectory
from runner.process.supervised import is_supervisor

QUEUE = "Queue"
NOTHING = Resume(10, "nothing was captured, so there is nothing to resume; run it again")


def state(scene: Scene, directory: RunDirectory) -> dict[str, Any]:
    done = scene.do("status", directory.path.name, "--json", "--out", str(scene.out))
    assert done.code() == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def wait_for_status(scene: Scene, directory: RunDirectory, wanted: str) -> None:
    """Through run.json, which is written whole; `status` itself is asked by the row's check."""
    wait_for(lambda: directory.read_record().status == wanted, f"status {wanted}")


def worker(scene: Scene, directory: RunDirectory) -> psutil.Process:
    return scene.wait_for_process("runner.cli work", directory.path.name)


def accepted(scene: Scene, answer: Started) -> tuple[RunDirectory, str]:
    assert answer.code() == 0, answer.stderr
    told = json.loads(answer.stdout)
    return RunDirectory(scene.out / told["run_id"]), told["status"]


@faults(
    QUEUE,
    Row(
        "five submits at once", "queue", 0, "complete", "", kept=("trace.sqlite", "report.html"),
        go_on="nothing to do: at most one answers `running`, the others `queued`, and all come to their end one after the other",
    ),
)  # fmt: skip
def test_five_submits_at_once(scene: Scene, row: Row) -> None:
    scene.behave("waits in control")
    request = scene.request()
    argv = ["submit", str(request), "--out", str(scene.out), "--collector", "nsys", "--nsys", scene.nsys]
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: scene.start(*argv), range(5)))
    told = [accepted(scene, answer) for answer in answers]
    assert sum(status == "running" for _, status in told) <= 1
    scene.behave("well")
    scene.wait_for_file("control is at work").unlink()
    for directory, _ in told:
        wait_for_status(scene, directory, "complete")
        wait_for(lambda directory=directory: directory.holder() is None, "the end of the worker")  # type: ignore[misc]
    for directory, _ in told[1:]:
        scene._check_kept(row, directory)
    scene.check(row, answers[0], directory=told[0][0])


@faults(
    QUEUE,
    Row(
        "`cancel` of a queued run", "queue", 0, "cancelled", "cancelled",
        go_on="submit it again; it never began",
    ),
)  # fmt: skip
def test_cancel_of_a_queued_run(scene: Scene, row: Row) -> None:
    with device_held("cpu", scene.environ):
        directory, status = accepted(scene, scene.submit())
        assert status == "queued"
        cancel = scene.do("cancel", directory.path.name, "--out", str(scene.out))
    assert not (directory.path / "control.json").exists()
    scene.check(row, cancel)


@faults(
    QUEUE,
    Row(
        "`cancel` of a running run", "queue, capture", 0, "cancelled", "cancelled",
        kept=("control.json", "trace.nsys-rep"), resume=Resume(0, "partial capture"), name="once",
    ),
    Row(
        "`cancel` twice, quickly", "queue, capture", 0, "cancelled", "cancelled",
        kept=("control.json", "trace.nsys-rep"), resume=Resume(0, "partial capture"), name="twice",
    ),
)  # fmt: skip
def test_cancel_of_a_running_run(scene: Scene, row: Row) -> None:
    scene.behave("stubborn at once, hang" if row.name == "twice" else "hang")
    directory, status = accepted(scene, scene.submit())
    assert status == "running"
    scene.wait_for_file("capture is at work")
    cancel = scene.start("cancel", directory.path.name, "--out", str(scene.out))
    if row.name == "twice":
        scene.wait_for_file("capture heard SIGTERM")  # the first is at work, and the program does not end of it
        second = scene.do("cancel", directory.path.name, "--out", str(scene.out))
        assert second.code() in (0, 2, 15), second.stderr  # cancelled too, over already, or still at it
        assert "Traceback" not in second.stderr
    scene.check(row, cancel)


@faults(
    QUEUE,
    Row(
        "`cancel` of a run whose worker was killed (SIGKILL)", "queue, control run", 0, "cancelled", "cancelled",
        resume=NOTHING,
    ),
)  # fmt: skip
def test_cancel_of_a_run_whose_worker_was_killed(scene: Scene, row: Row) -> None:
    scene.behave("hang in control")
    directory, _ = accepted(scene, scene.submit())
    scene.wait_for_file("control is at work")
    worker(scene, directory).kill()
    wait_for(lambda: directory.read_record() is not None and not held_by_worker(scene, directory), "the worker's end")
    cancel = scene.do("cancel", directory.path.name, "--out", str(scene.out))
    scene.check(row, cancel)


@faults(
    QUEUE,
    Row(
        "two `cancel`s at once of a run whose worker and supervisor were killed; its program does not end at SIGTERM",
        "queue, control run", 0, "cancelled", "cancelled", resume=NOTHING,
    ),
)  # fmt: skip
def test_two_cancels_of_a_run_whose_worker_was_killed(scene: Scene, row: Row) -> None:
    """One took the other for the run, and ended it: exit 130, "interrupted"."""
    scene.behave("stubborn at once, hang in control")
    directory, _ = accepted(scene, scene.submit())
    scene.wait_for_file("control is at work")
    killed = worker(scene, directory)
    for process in (*supervisors_of(killed), killed):
        process.kill()
    wait_for(lambda: directory.holder() is None, "the end of both")
    first = scene.start("cancel", directory.path.name, "--out", str(scene.out))
    scene.wait_for_file("control heard SIGTERM")
    second = scene.do("cancel", directory.path.name, "--out", str(scene.out))
    assert (second.code(), second.stdout) == (0, f"{directory.path.name}  cancelled\n"), second.stderr
    scene.check(row, first)


@faults(
    QUEUE,
    Row(
        "`cancel` of a run whose worker was killed, while its supervisor is stopped (SIGSTOP)", "queue, capture", 0,
        "cancelled", "its launcher is gone…cancelled", kept=("control.json", "trace.nsys-rep"),
        resume=Resume(0, "partial capture"), name="cancel",
    ),
    Row(
        "the next run on a device whose run's worker was killed, while its supervisor is stopped (SIGSTOP)", "start", 0,
        "complete", "its launcher is gone…ending it", kept=("trace.sqlite", "report.html"),
        go_on="nothing to do: what was left is ended first; `resume` of the other run", name="next",
    ),
)  # fmt: skip
def test_a_stopped_supervisor(scene: Scene, row: Row) -> None:
    """It held run and device for ever: `cancel` gave up, and the next run was told of a process that was dead."""
    scene.behave("hang")
    directory, _ = accepted(scene, scene.submit())
    scene.wait_for_file("capture is at work")
    killed = worker(scene, directory)
    for process in supervisors_of(killed):
        process.suspend()
    killed.kill()
    wait_for(lambda: state(scene, directory)["process"] is None, "the worker's end")
    said = state(scene, directory)
    assert (said["status"], said["process"]) == ("running", None)
    assert "its launcher is gone" in said["error"]
    assert "`dsocr-profile cancel` ends it" in said["error"]
    if row.name == "cancel":
        scene.check(row, scene.do("cancel", directory.path.name, "--out", str(scene.out)))
        return
    scene.behave("well")
    run = scene.run()
    run.code()
    (following,) = (each for each in scene.directories() if each.path != directory.path)
    scene.check(row, run, directory=following)
    assert state(scene, directory)["status"] == "failed"


@faults(
    QUEUE,
    Row(
        "`cancel` from outside of the container (PID namespace) that the run is in", "queue, capture", 0, "cancelled",
        "another PID namespace, such as a container's…cancelled", kept=("control.json", "trace.nsys-rep"),
        resume=Resume(0, "partial capture"),
    ),
)  # fmt: skip
def test_cancel_from_outside_of_a_container(scene: Scene, row: Row) -> None:
    """No signal reaches it: the run looks into its folder."""
    container = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*container, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no PID namespace can be made here")
    scene.behave("hang")
    run = scene.start(*scene.run_arguments(), inside=container)
    scene.wait_for_file("capture is at work")
    beside = scene.run()
    assert beside.code() == 15
    assert "of another PID namespace, such as a container's); wait with --wait" in beside.stderr
    (refused,) = (each for each in scene.directories() if each.read_record().status == "failed")
    shutil.rmtree(refused.path)
    cancel = scene.do("cancel", scene.directory.path.name, "--out", str(scene.out))
    assert run.code() == 130, run.stderr
    scene.check(row, cancel)


def supervisors_of(launcher: psutil.Process) -> list[psutil.Process]:
    return [process for process in launcher.children() if is_supervisor(process)]


def held_by_worker(scene: Scene, directory: RunDirectory) -> bool:
    return any("runner.cli work" in " ".join(process.cmdline()) for process in scene.processes())


@faults(
    QUEUE,
    Row(
        "SIGKILL of the worker", "queue, control run", None, "failed", "", resume=NOTHING,
    ),
)  # fmt: skip
def test_the_worker_is_killed(scene: Scene, row: Row) -> None:
    scene.behave("hang in control")
    answer = scene.submit()
    directory, _ = accepted(scene, answer)
    scene.wait_for_file("control is at work")
    worker(scene, directory).kill()
    scene.check(row, answer)


@faults(
    QUEUE,
    Row(
        "SIGKILL of a worker that waits for the device", "queue", None, "failed", "",
        go_on="submit it again; the runs behind it go on",
    ),
)  # fmt: skip
def test_a_queued_worker_is_killed(scene: Scene, row: Row) -> None:
    with device_held("cpu", scene.environ):
        first, _ = accepted(scene, scene.submit())
        second, status = accepted(scene, scene.submit())
        assert status == "queued"
        worker(scene, first).kill()
        wait_for(lambda: state(scene, first)["status"] == "failed", "status failed")
    wait_for_status(scene, second, "complete")
    wait_for(lambda: second.holder() is None, "the end of the worker")
    scene.check(row, scene.started[0], directory=first)


@faults(
    QUEUE,
    Row(
        "`submit` for a GPU that is not there", "queue", 2, None, "cuda:9",
        go_on="name a device that `dsocr-profile doctor` lists",
    ),
)  # fmt: skip
def test_submit_for_a_gpu_that_is_not_there(scene: Scene, row: Row) -> None:
    submit = scene.submit(device="cuda:9")
    assert not scene.directories()
    scene.check(row, submit)


@faults(
    QUEUE,
    Row(
        '`cancel ""`', "queue", 2, "complete", "has an empty id", kept=("trace.sqlite", "report.html"), go_on="name the run",
    ),
)  # fmt: skip
def test_cancel_of_nothing(scene: Scene, row: Row) -> None:
    """An empty id is no run's, though it is the beginning of each."""
    assert scene.run().code() == 0
    cancel = scene.do("cancel", "", "--out", str(scene.out))
    assert "already" not in cancel.stderr
    scene.check(row, cancel)


@faults(
    QUEUE,
    Row(
        "`status` while the report is made", "queue, report", 0, "complete", "", kept=("report.html",),
        go_on="ask again: `running` until the report is there",
    ),
)  # fmt: skip
def test_status_while_the_report_is_made(scene: Scene, row: Row) -> None:
    answer = scene.submit()
    directory, _ = accepted(scene, answer)
    analysis = scene.wait_for_process("analysis.cli")
    analysis.suspend()
    try:
        assert not (directory.path / "report.json").exists()
        assert state(scene, directory)["status"] == "running"
    finally:
        analysis.resume()
    wait_for_status(scene, directory, "complete")
    assert (directory.path / "report.json").is_file()
    wait_for(lambda: directory.holder() is None, "the end of the worker")
    scene.check(row, answer)


@faults(
    QUEUE,
    Row(
        "another run holds the device", "start", 15, "failed", "device cpu is held by another run…--wait",
        go_on="`--wait`, or `submit`",
    ),
)  # fmt: skip
def test_the_device_is_held(scene: Scene, row: Row) -> None:
    with device_held("cpu", scene.environ):
        run = scene.run()
        run.code()
    scene.check(row, run)


@faults(
    QUEUE,
    Row("Ctrl-C", "waiting for the device (`--wait`)", 130, "interrupted", "interrupted while waiting for the device"),
)
def test_ctrl_c_while_waiting(scene: Scene, row: Row) -> None:
    with device_held("cpu", scene.environ):
        run = scene.run("--wait")
        wait_for(lambda: "waiting" in run.stderr, "its word")
        run.send(signal.SIGINT)
        run.code()
    scene.check(row, run)


@faults(
    QUEUE,
    Row(
        "`--timeout` while another run holds the device", "waiting for the device (`--wait`)", 14, "timed_out",
        "device cpu is held by another run…--timeout was over before it was free",
    ),
)  # fmt: skip
def test_a_time_out_while_waiting(scene: Scene, row: Row) -> None:
    with device_held("cpu", scene.environ):
        run = scene.run("--wait", "--timeout", "3")
        run.code()
    scene.check(row, run)
