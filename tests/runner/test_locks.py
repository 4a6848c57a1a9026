"""Locks of devices and runs: who holds them, who waits, and that looking at one takes it from nobody."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from analysis.domain.errors import BusyError, InterruptedRunError, RequestError
from launch_kit import environment, hold_device
from runner.launcher.device_lock import DeviceLock
from runner.process.driver import VisibleGpu, driver_facts, physical_device
from runner.process.lock import LockFile
from runner.process.process import Interrupts

FIRST = VisibleGpu("NVIDIA H100", "3f2c9a7e-0000-0000-0000-000000000001")
SECOND = VisibleGpu("NVIDIA H100", "3f2c9a7e-0000-0000-0000-000000000002")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(DSOCR_LOCK_DIR=str(tmp_path / "locks"))


def test_a_device_is_held_by_one_and_freed_when_its_holder_is_killed(environ: dict[str, str]) -> None:
    lock = DeviceLock("cpu", (), environ)
    process = hold_device("cpu", environ)
    try:
        assert lock.file.holder() == process.pid
        words = rf"device cpu is held by another run \(process {process.pid}\)"
        with pytest.raises(BusyError, match=words), lock.held(wait=False):
            pass
        assert DeviceLock("cuda:1", (), environ).file.holder() is None
    finally:
        process.kill()
        process.wait()
    assert lock.file.holder() is None
    with lock.held(wait=False):
        assert lock.file.holder() == os.getpid()


def test_waiting_ends_when_the_device_is_free(environ: dict[str, str]) -> None:
    process = hold_device("cpu", environ)
    told: list[str] = []

    def waiting(line: str) -> None:
        told.append(line)
        process.kill()

    with DeviceLock("cpu", (), environ).held(wait=True, waiting=waiting):
        process.wait()
    assert told == [f"device cpu is held by another run (process {process.pid}); waiting"]


def test_waiting_can_be_interrupted(environ: dict[str, str]) -> None:
    process = hold_device("cpu", environ)
    told: list[str] = []
    try:
        with Interrupts() as interrupts:
            interrupts.count = 1
            waiting = DeviceLock("cpu", (), environ).held(wait=True, interrupts=interrupts, waiting=told.append)
            with pytest.raises(InterruptedRunError), waiting:
                pass
    finally:
        process.kill()
        process.wait()
    assert len(told) == 1


def test_looking_at_a_lock_takes_it_from_nobody(tmp_path: Path) -> None:
    """`status`, and `submit` before, looked at locks that a run was about to take: it must start all the same."""
    file = LockFile(tmp_path / "lock", 0o600)
    with file.held():
        pass
    looking = FileLock(file.path, thread_local=False)
    looking.acquire()
    threading.Timer(0.2, looking.release).start()  # a look that the system interrupted in its middle
    with file.held():
        assert file.written() == str(os.getpid())
    assert file.holder() is None


def test_two_who_look_do_not_take_each_other_for_the_holder(tmp_path: Path) -> None:
    file = LockFile(tmp_path / "lock", 0o600)
    with file.held():
        pass
    seen: set[int | None] = set()

    def look() -> None:
        for _ in range(50):
            seen.add(file.holder())

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for thread in lookers:
        thread.start()
    for thread in lookers:
        thread.join()
    assert seen == {None}


def test_a_lock_that_cannot_be_used_says_how_to_move_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lock = DeviceLock("cpu", (), {"DSOCR_LOCK_DIR": str(tmp_path / "file")})
    with pytest.raises(RequestError, match="DSOCR_LOCK_DIR"), lock.held(wait=False):
        pass


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A place that every user may reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="dsocr-test-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as other users")
def test_users_share_a_device(shared_folder: Path) -> None:
    """The folder is one user's, the file another's, and a third may hold it."""
    environ = {"DSOCR_LOCK_DIR": str(shared_folder / "locks")}
    for user, device in ((65531, "cuda:1"), (65532, "cpu"), (65533, "cpu")):
        process = os.fork()
        if process == 0:
            try:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
                os.umask(0o077)
                with DeviceLock(device, (), environ).held(wait=False):
                    os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, user
    assert stat.S_IMODE((shared_folder / "locks" / "cpu.lock").stat().st_mode) == 0o666


def test_a_gpu_has_one_name_wherever_it_stands() -> None:
    assert physical_device("cuda:1", (SECOND, FIRST)) == physical_device("cuda:0", (FIRST,))
    assert physical_device("cuda", (FIRST, SECOND)) == f"cuda-{FIRST.uuid}"
    assert physical_device("cuda:0", (FIRST,)) != physical_device("cuda:0", (SECOND,))
    assert physical_device("cuda:3", (FIRST,)) == "cuda-3"
    assert physical_device("cpu", (FIRST,)) == "cpu"


@pytest.mark.skipif(not driver_facts().gpus, reason="no GPU here")
def test_every_spelling_of_a_gpu_gives_its_one_lock() -> None:
    gpus = driver_facts().gpus
    numbers = [str(index) for index in range(len(gpus))]
    named = [f"GPU-{gpu.uuid}" for gpu in gpus]
    spellings = [
        {},
        {"CUDA_VISIBLE_DEVICES": ",".join(numbers)},
        {"CUDA_VISIBLE_DEVICES": ",".join(reversed(numbers))},
        {"CUDA_VISIBLE_DEVICES": ",".join(named)},
        {"CUDA_VISIBLE_DEVICES": ",".join(name[:12] for name in named)},
        {"CUDA_VISIBLE_DEVICES": ",".join(reversed(named)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    ]
    ask = "from runner.process.driver import driver_facts, physical_device\nfacts = driver_facts()\n"
    ask += "print(*(physical_device(f'cuda:{n}', facts.gpus) for n in range(len(facts.gpus))))"
    plain = {name: value for name, value in environment().items() if not name.startswith("CUDA_")}
    answers = [
        subprocess.run(
            [sys.executable, "-c", ask], env={**plain, **spelled}, capture_output=True, text=True, check=True
        ).stdout.split()
        for spelled in spellings
    ]
    assert all(sorted(answer) == sorted(answers[0]) for answer in answers), answers
    assert all(len(set(answer)) == len(gpus) for answer in answers)
    if len(gpus) > 1:
        assert answers[2] == list(reversed(answers[1]))
