"""Locks of devices and runs: who holds them, who waits, and that looking at one takes it from nobody."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from analysis.domain.errors import BusyError, InterruptedRunError, RequestError, TimeoutExceededError
from launch_kit import device_held, environment, hold_device
from runner.launcher.device_lock import DeviceLock
from runner.process.driver import VisibleGpu, driver_facts, physical_device
from runner.process.lock import LockFile
from runner.process.machine_lock import Holder
from runner.process.process import Interrupts
from runner.process.process_mark import ProcessMark
from runner.process.waiting_line import WaitingLine

FIRST = VisibleGpu("NVIDIA H100", "3f2c9a7e-0000-0000-0000-000000000001")
SECOND = VisibleGpu("NVIDIA H100", "3f2c9a7e-0000-0000-0000-000000000002")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(DSOCR_LOCK_DIR=str(tmp_path / "locks"))


def test_a_device_is_held_by_one_and_freed_when_its_holder_is_killed(environ: dict[str, str]) -> None:
    lock = DeviceLock("cpu", (), environ)
    with device_held("cpu", environ) as process:
        assert lock.file.holder() == process.pid
        words = rf"device cpu is held by another run \(process {process.pid}\)"
        with pytest.raises(BusyError, match=words), lock.held(wait=False):
            pass
        assert DeviceLock("cuda:1", (), environ).file.holder() is None
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


_WAITER = """
import os, sys
from runner.launcher.device_lock import DeviceLock
lock = DeviceLock("cpu", (), os.environ)
with lock.held(wait=True, waiting=lambda line: print("waits", flush=True), asked_at=float(sys.argv[1])):
    print("has it", flush=True)
    sys.stdin.read()
"""


def test_those_who_wait_are_served_in_the_order_in_which_they_asked(environ: dict[str, str]) -> None:
    """Whoever tried at the right moment had it; and one that is killed while it waits holds up nobody."""
    holder = hold_device("cpu", environ)
    waiters: dict[int, subprocess.Popen[str]] = {}

    def end_all() -> None:
        for process in (holder, *waiters.values()):
            process.kill()

    hung = threading.Timer(60, end_all)  # ends the reading too
    hung.start()
    try:
        for asked in (30, 10, 20):
            waiters[asked] = subprocess.Popen(
                [sys.executable, "-c", _WAITER, str(asked)],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            output = waiters[asked].stdout
            assert output is not None
            assert output.readline() == "waits\n"
        waiters[20].kill()  # SIGKILL: it takes its ticket away no more
        waiters[20].wait()
        holder.kill()
        holder.wait()
        first, last = waiters[10], waiters[30]
        assert first.stdout is not None
        assert last.stdout is not None
        assert first.stdout.readline() == "has it\n"
        late = DeviceLock("cpu", (), environ)
        with pytest.raises(BusyError, match="device cpu is waited for by 1 run"), late.held(wait=False):
            pass
        assert last.poll() is None
        first.communicate("")
        assert last.stdout.readline() == "has it\n"
        last.communicate("")
    finally:
        hung.cancel()
        for process in (holder, *waiters.values()):
            process.kill()
            process.wait()
    assert not [file for file in DeviceLock("cpu", (), environ).folder.iterdir() if "ticket" in file.name]


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
    file = LockFile(tmp_path / "lock")
    with file.held():
        pass
    looking = os.open(file.path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.2, os.close, [looking]).start()  # a look that the system interrupted in its middle
    with file.held():
        assert file.written() == ProcessMark.own()
    assert file.holder() is None


def test_two_who_look_do_not_take_each_other_for_the_holder(tmp_path: Path) -> None:
    file = LockFile(tmp_path / "lock")
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
    with pytest.raises(RequestError, match=r"it is no folder.*DSOCR_LOCK_DIR"), lock.held(wait=False):
        pass


def test_a_relative_folder_of_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs in two folders had two locks, and measured side by side."""
    monkeypatch.chdir(tmp_path)
    for relative in ("locks", "./locks", "~/locks"):
        with pytest.raises(RequestError, match=f"DSOCR_LOCK_DIR={relative}: is relative.*absolute path"):
            DeviceLock("cpu", (), {"DSOCR_LOCK_DIR": relative})
    assert not list(tmp_path.iterdir())


# -- what others may have put there --------------------------------------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as other users")
STRANGER, OTHER = 65531, 65532


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user may reach, unlike pytest's own, and write."""
    folder = Path(tempfile.mkdtemp(prefix="dsocr-test-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def as_user(user: int, act: Callable[[], None]) -> None:
    """Do something in a process that is another user's."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.umask(0o077)
            act()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, user


def hold(environ: Mapping[str, str], device: str = "cpu") -> None:
    with DeviceLock(device, (), environ).held(wait=False):
        pass


@as_root
def test_a_folder_that_root_made_for_all_is_shared_by_all(reachable: Path) -> None:
    """One user's file, and another may hold it; Linux refuses to create what is there (protected_regular)."""
    environ = {"DSOCR_LOCK_DIR": str(reachable)}
    for user in (STRANGER, OTHER):
        as_user(user, lambda: hold(environ))
    hold(environ)
    assert (reachable / "cpu.lock").stat().st_uid == STRANGER
    assert stat.S_IMODE((reachable / "cpu.lock").stat().st_mode) == 0o666


@as_root
@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "folder"])
def test_what_a_stranger_put_in_a_locks_place_is_neither_followed_nor_waited_for(reachable: Path, kind: str) -> None:
    """A link in the old folder of locks, which all could write, made root's next run overwrite a file that it named."""
    precious = reachable / "precious"
    precious.write_text("a key")
    precious.chmod(0o600)
    lock = reachable / "cpu.lock"
    if kind == "hard link":
        os.link(precious, lock)  # which Linux forbids strangers where protected_hardlinks is set, but not everywhere
    else:
        plant: dict[str, Callable[[], object]] = {
            "link": lambda: lock.symlink_to(precious),
            "fifo": lambda: os.mkfifo(lock),
            "folder": lock.mkdir,
        }
        as_user(STRANGER, lambda: (plant[kind](), None)[1])
    words = {"link": "symbolic link", "hard link": "second name", "fifo": "no regular", "folder": "no regular"}[kind]
    device = DeviceLock("cpu", (), {"DSOCR_LOCK_DIR": str(reachable)})
    for _ in range(2):
        with pytest.raises(RequestError, match=rf"cpu.lock: .*{words}"), device.held(wait=False):
            pass
    assert device.file.holder() == (None if kind == "hard link" else 0)  # nobody holds it, or it cannot be told
    assert device.file.written() is None
    assert precious.read_text() == "a key"


@as_root
@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_strangers_folder_of_locks_is_not_used(reachable: Path, named: str) -> None:
    own = reachable / "own"
    own.mkdir(mode=0o700)
    folder = reachable / "locks"
    if named == "folder":  # owned by the stranger
        as_user(STRANGER, lambda: folder.mkdir(mode=0o755))
    else:  # a link to a folder of ours
        as_user(STRANGER, lambda: folder.symlink_to(own))
    words = {"folder": "belongs to user 65531", "file": "symbolic link"}[named]
    with pytest.raises(RequestError, match=words):
        hold({"DSOCR_LOCK_DIR": str(folder)})
    assert not list(own.iterdir())


def test_a_folder_in_which_others_could_replace_a_lock_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks").chmod(0o777)
    with pytest.raises(RequestError, match="others may write there"):
        hold({"DSOCR_LOCK_DIR": str(tmp_path / "locks")})
    (tmp_path / "locks").chmod(0o1777)
    hold({"DSOCR_LOCK_DIR": str(tmp_path / "locks")})


@as_root
def test_a_file_of_somebody_else_in_an_own_folder_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "cpu.lock").write_text("")
    os.chown(tmp_path / "cpu.lock", STRANGER, STRANGER)
    with pytest.raises(RequestError, match="belongs to user 65531"):
        hold({"DSOCR_LOCK_DIR": str(tmp_path)})


@pytest.mark.parametrize("content", ["", "\x1b[31mroot\x1b[0m", "12 34", "9" * 5000, "-1", "0", "٣"])
def test_a_holder_is_a_number_or_unknown(tmp_path: Path, content: str) -> None:
    file = LockFile(tmp_path / "lock")
    with file.held():
        file.path.write_text(content)
        assert file.holder() == 0
        assert file.written() is None
    assert file.holder() is None


def test_a_folder_of_locks_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    old = os.umask(0)
    try:
        lock = DeviceLock(f"cuda:{os.getpid()}", (), {})  # a device that nobody else's test has
        with lock.held(wait=False):
            for folder in (lock.folder, lock.folder.parent):
                assert (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_uid) == (0o700, os.geteuid())
            assert stat.S_IMODE(lock.file.path.stat().st_mode) == 0o600
    finally:
        os.umask(old)
    lock.file.path.unlink()


@as_root
def test_a_temporary_folder_of_that_name_that_is_a_strangers_is_not_used(
    reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/run/user/0").is_dir():
        pytest.skip("root has a runtime folder of its own here")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(reachable))
    monkeypatch.setattr(tempfile, "tempdir", str(reachable))
    as_user(STRANGER, lambda: (reachable / "runtime-0").mkdir(mode=0o777))
    with pytest.raises(RequestError, match=r"runtime-0 .*set DSOCR_LOCK_DIR"):
        hold({})


# -- a lock that users share who trust each other in nothing -------------------------------------------------------------

NAME_HOLDER = """
import os, sys, time
from runner.process.machine_lock import MachineLock
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
with MachineLock(sys.argv[1]).held():
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def strangers_run() -> Iterator[subprocess.Popen[str]]:
    """Another user's run on the device ``cuda:<this process>``."""
    argv = [sys.executable, "-c", NAME_HOLDER, f"cuda-{os.getpid()}", str(STRANGER)]
    process = subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@as_root
def test_another_users_run_on_the_same_device_is_waited_for(strangers_run: subprocess.Popen[str]) -> None:
    device = f"cuda:{os.getpid()}"
    words = rf"device {device} is held by another run \(process {strangers_run.pid} of user 65531\)"
    with pytest.raises(BusyError, match=words):
        hold({}, device)
    told: list[str] = []

    def waiting(line: str) -> None:
        told.append(line)
        strangers_run.kill()

    lock = DeviceLock(device, (), {})
    with lock.held(wait=True, waiting=waiting):
        strangers_run.wait()
        assert lock.machine is not None
        assert lock.machine.holder() == Holder(os.getpid(), os.geteuid())
    assert lock.machine.holder() is None
    assert len(told) == 1
    lock.file.path.unlink()


@as_root
def test_waiting_for_another_user_can_be_interrupted(strangers_run: subprocess.Popen[str]) -> None:
    lock = DeviceLock(f"cuda:{os.getpid()}", (), {})
    with Interrupts() as interrupts:
        interrupts.count = 1
        with pytest.raises(InterruptedRunError), lock.held(wait=True, interrupts=interrupts):
            pass
    lock.file.path.unlink()


def test_a_sandbox_without_such_names_holds_the_users_own_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("socket.socket.bind", refuse)
    lock = DeviceLock(f"cuda:{os.getpid()}", (), {})
    with lock.held(wait=False):
        assert lock.file.holder() == os.getpid()
    lock.file.path.unlink()


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


def test_waiting_for_a_device_ends_with_the_time_of_the_run(tmp_path: Path) -> None:
    environ = environment(DSOCR_LOCK_DIR=str(tmp_path))
    with device_held("cpu", environ) as holder, Interrupts() as interrupts:
        interrupts.deadline = time.monotonic() + 0.5
        with (
            pytest.raises(TimeoutExceededError, match=rf"process {holder.pid}.*--timeout was over"),
            DeviceLock("cpu", (), environ).held(wait=True, interrupts=interrupts),
        ):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as other users")
def test_a_ticket_of_another_user_is_named_and_no_older_than_its_file(tmp_path: Path) -> None:
    """In a folder that several share anybody may put a ticket that says that it was there before all others."""
    ticket = tmp_path / "cpu.00000000000000000000.1.ticket"
    line = WaitingLine(tmp_path, "cpu")
    with ticket.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with line.joined(time.time()) as place:
            assert place.those_ahead() == ["process 1"]  # of one's own user it is believed
        os.chown(ticket, 65531, 65531)
        with line.joined(time.time() - 3600) as place:
            assert place.ahead() == 0
        with line.joined(time.time() + 1) as place:
            assert place.those_ahead() == ["process 1 of user 65531"]
