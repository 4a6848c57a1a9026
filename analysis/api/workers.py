"""Who does the work on several traces: this process, processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol, TypeVar

from analysis.api.allocator import keep_freed_memory
from analysis.domain.errors import DsocrError, RequestError, TraceError

__all__ = ["Workers", "dask_workers", "local_workers", "shared_by_fork"]

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_DASK_PATIENCE: Final = "10s"
_LOOK_S: Final = 5.0
"""So often it is looked whether the cluster that works for us is still there."""
_NEEDED: Final = (
    "analysis.attribution.ranks",
    "analysis.ranks.side_by_side",
    "analysis.render.html.trace_parts",
    "analysis.render.html.page",
    "analysis.trace.manifest",
)
"""What a worker imports, and what these import."""
_PR_SET_PDEATHSIG: Final = 1
_SAFE_PATH: Final = "PYTHONSAFEPATH"
_OF_JEMALLOC: Final = "jemalloc_bg_thd"
"""The thread that Arrow's allocator begins when it is imported: jemalloc makes itself ready for a fork (``pthread_atfork``)."""


_SHARED: Final[list[Any]] = []
"""What workers see of the process that forked them; the last counts."""


def shared_by_fork() -> Any:
    """What `local_workers` was given to share, in a worker or in the process that began it; None: nothing."""
    return _SHARED[-1] if _SHARED else None


class Workers(Protocol):
    """What runs a function once per task, each in a process of its own."""

    def run(self, function: Callable[[Task], Answer], tasks: Sequence[Task]) -> list[Answer]:
        """Run it for each task.

        Returns:
            The answers in the order of the tasks.

        Raises:
            DsocrError: of the first task that failed; the others are not begun.
        """


@contextmanager
def local_workers(tasks: int, shared: object = None) -> Iterator[Workers]:
    """Processes of this machine, at most one per core and per task; for a single task none but this one.

    What they need is imported once: here, before they are forked, where this process has but one thread (a fork takes no
    other along, and whatever lock one holds stays locked), else in a server that forks them.

    Args:
        tasks: how many there will be.
        shared: what all tasks look at, such as a trace that is read: forked workers have it without a copy, as
            `shared_by_fork`. Where no fork is possible this process does the work, for it could not be handed over.
    """
    _SHARED.append(shared)
    try:
        yield from _local_workers(min(tasks, len(os.sched_getaffinity(0))), shares=shared is not None)
    finally:
        _SHARED.pop()


def _local_workers(workers: int, *, shares: bool) -> Iterator[Workers]:
    if workers < 2:
        yield _Here()
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_NEEDED))
    if _threads() == 1:
        for name in _NEEDED:
            import_module(name)
        if _threads() == 1:  # no library began one meanwhile
            context = multiprocessing.get_context("fork")
    if shares and context.get_start_method() != "fork":
        yield _Here()
        return
    forking = os.getpid() if context.get_start_method() == "fork" else None
    others = set(multiprocessing.active_children())
    with _nothing_of_the_current_folder():
        if forking is None:
            from multiprocessing import resource_tracker

            resource_tracker.ensure_running()  # once begun it leaves the signals of this thread alone
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(forking,))
    with pool:
        try:
            with _nothing_of_the_current_folder(), _deaf_to_ctrl_c():
                pool.submit(os.getpid)  # forks them all, before the caller begins threads
            yield _Pool(pool)
        except BaseException:  # Ctrl-C, or an error: nobody waits for what the others still find
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started in the body never hears Ctrl-C, not even while it starts, when Python would print a traceback of it.

    A terminal sends it to all of its processes; this one ends its workers, which it does not know before they are all
    started. So the first Ctrl-C counts at the end of the body; the second at once.
    """
    import signal
    import threading

    heard: list[int] = []
    former = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and callable(former)

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1 and callable(former):
            former(number, frame)

    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as the processes get it
    if ours:  # another thread of this one may take the signal all the same
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, former)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        if len(heard) == 1:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _nothing_of_the_current_folder() -> Iterator[None]:
    """The server that forks workers, and what tracks their resources, start with ``python -c``, which looks there first."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        os.environ.pop(_SAFE_PATH)
        if before is not None:
            os.environ[_SAFE_PATH] = before


def _threads() -> int:
    """Of this process, those of libraries too, but for jemalloc's; more than one where nothing says."""
    try:
        names = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
    except OSError:
        return 2
    return len(names) - names.count(_OF_JEMALLOC)


def _begin_worker(parent: int | None) -> None:
    """As the command itself does: see `analysis.cli.app.main`. It ends with the process that has begun it.

    Workers that wait for work hold each other's end of the pipe open, so without a signal none would see that end.

    Args:
        parent: who has forked it; None: a server, which ends when the last worker has.
    """
    import ctypes
    import gc
    import signal
    import threading

    if parent is None:
        threading.Thread(target=_end_with_the_command, daemon=True).start()
    else:
        with suppress(AttributeError, OSError):  # a system without it does without
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
    gc.disable()
    keep_freed_memory()


def _end_with_the_command() -> None:
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    command = parent_process()
    if command is not None:
        wait([command.sentinel])
        os._exit(1)


class _Here:
    def run(self, function: Callable[[Task], Answer], tasks: Sequence[Task]) -> list[Answer]:
        return [function(task) for task in tasks]


class _Pool:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def run(self, function: Callable[[Task], Answer], tasks: Sequence[Task]) -> list[Answer]:
        from concurrent.futures.process import BrokenProcessPool

        futures = [self._pool.submit(function, task) for task in tasks]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            left = ", ".join(
                str(_file_of(task)) for task, future in zip(tasks, futures, strict=True) if _failed(future)
            )
            raise TraceError(f"{left}: a worker ended while it read one of these (out of memory?)") from error
        finally:
            for future in futures:
                future.cancel()


def _file_of(task: Any) -> object:
    return getattr(task, "path", task)


def _failed(future: Any) -> bool:
    return not future.done() or future.cancelled() or future.exception() is not None


@contextmanager
def dask_workers(address: str) -> Iterator[Workers]:
    """The workers of a running Dask cluster, which see the same files under the same paths.

    Args:
        address: of its scheduler, such as ``tcp://10.0.0.1:8786``.

    Raises:
        RequestError: dask.distributed is not installed, or nothing answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise RequestError("--scheduler needs dask.distributed: pip install 'dsocr-profiler[dask]'") from error
    try:
        client: Any = Client(address, timeout=_DASK_PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise RequestError(f"--scheduler {address}: no Dask scheduler answers there ({error})") from error
    try:
        if not client.scheduler_info()["workers"]:
            raise RequestError(f"--scheduler {address}: its cluster has no workers; start some (dask worker {address})")
        yield _Cluster(client)
    finally:
        client.close()


class _Cluster:
    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, function: Callable[[Task], Answer], tasks: Sequence[Task]) -> list[Answer]:
        from distributed import KilledWorker

        futures = [self._client.submit(function, task, pure=False) for task in tasks]
        answers = []
        for task, future in zip(tasks, futures, strict=True):
            try:
                answers.append(self._result_of(future))
            except KilledWorker as error:
                self._client.cancel(futures)
                raise TraceError(
                    f"{_file_of(task)}: the cluster's workers died while they read it (out of memory?)"
                ) from error
            except DsocrError:
                self._client.cancel(futures)
                raise
        return answers

    def _result_of(self, future: Any) -> Any:
        """Wait for it as long as the cluster has a worker: without one it would stay "waiting" for ever."""
        while True:
            try:
                return future.result(timeout=_LOOK_S)
            except TimeoutError:
                if not self._client.scheduler_info()["workers"]:
                    raise TraceError("the cluster has no workers any more; start some, and run it again") from None
