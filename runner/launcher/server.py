"""What is done with a server: look that no other is there, wait for it, start an engine's profiler, make the load, stop it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from analysis.domain.ended import ended_in_words
from analysis.domain.errors import CaptureError, ChildFailedError, DsocrError, RequestError, TimeoutExceededError
from runner.plan.program import ExecSettings
from runner.process.environment import redact
from runner.process.file_modes import users_umask
from runner.process.http import ask
from runner.process.listener import listener_on

__all__ = ["Conversation", "require_nobody_there"]

_POLL_S: Final = 0.25
_ASK_TIMEOUT_S: Final = 5.0
_LEAST_S: Final = 0.1
"""What the last question before ``--ready-timeout`` is over gets."""
_PROFILER_TIMEOUT_S: Final = 600.0
"""An engine answers /stop_profile only when its workers have flushed, which takes minutes for long captures."""
_END_S: Final = 5.0


def require_nobody_there(address: str) -> None:
    """Refuse to start a server where another one answers already: the load would be made on that one.

    Args:
        address: where the server is to answer when it is ready.

    Raises:
        RequestError: somebody listens there, whatever he says.
    """
    answer = ask(address, timeout_s=_ASK_TIMEOUT_S)
    if not answer.somebody:
        return
    said = "a connection, and no answer" if answer.status is None else f"status {answer.status}"
    who = [name for name in (listener_on(address), answer.server) if name]
    raise RequestError(
        f"{redact((address,))[0]}: something answers there already ({', '.join([said, *who])}), which is not the program: that "
        "is not started yet, and the load would be made on the other; end what answers, or let the program answer on another "
        "port"
    )


class Conversation:
    """The load of one run of a server, made on a thread of its own while the server's process is waited for."""

    def __init__(
        self,
        settings: ExecSettings,
        *,
        env: Mapping[str, str],
        log: Path,
        say: Callable[[str], None],
        profiled: bool,
    ) -> None:
        """Prepare it.

        Args:
            settings: addresses and the load's command.
            env: of the load's command.
            log: file for its output.
            say: takes one line for the user.
            profiled: ask the engine's profiler to start and to stop.
        """
        self.error: DsocrError | None = None
        """What went wrong, for the end of the run: first the server is ended, and what was captured is saved."""
        self.load_code: int | None = None
        self.load_s: float | None = None
        self._settings = settings
        self._env = dict(env)
        self._log = log
        self._say = say
        self._profiled = profiled
        self.ready = settings.ready_url is None
        """The server has answered, where it was asked."""
        self._over = threading.Event()
        self._closed = threading.Event()
        self._gone = threading.Event()
        self._load: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._converse, name="load", daemon=True)

    def begin(self) -> None:
        """Begin; the server may still be coming up."""
        self._thread.start()

    def over(self) -> bool:
        """Whether all is done, or nothing more can be."""
        return self._over.is_set()

    def server_has_ended(self) -> None:
        """The server is gone, though its profiler may be at work: it is not waited for, and no load is begun any more."""
        self._gone.set()

    def close(self) -> None:
        """End it where it is: the server is gone, and so is its profiler."""
        self._gone.set()
        self._closed.set()
        load = self._load
        if load is not None and load.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(load.pid, signal.SIGTERM)
            try:
                load.wait(_END_S)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(load.pid, signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):  # in an uninterruptible wait of the kernel
                    load.wait(_END_S)
        self._thread.join(_END_S)

    def _converse(self) -> None:
        settings = self._settings
        try:
            if settings.ready_url is not None:
                self._wait_until_ready(settings.ready_url)
            if self._profiled and settings.start_url is not None and not self._gone.is_set():
                self._post(settings.start_url, settings.start_body)
            try:
                self._make_load(shlex.split(settings.load or ""))
            finally:
                if self._profiled and settings.stop_url is not None and not self._gone.is_set():
                    self._post(settings.stop_url, None)
        except DsocrError as error:
            self.error = error
        finally:
            self._over.set()

    def _wait_until_ready(self, address: str) -> None:
        shown = redact((address,))[0]
        self._say(f"waiting for {shown}")
        until = time.monotonic() + self._settings.ready_timeout_s
        while not self._gone.is_set():
            left_s = until - time.monotonic()
            answer = ask(address, timeout_s=min(_ASK_TIMEOUT_S, max(_LEAST_S, left_s)))
            if answer.well:
                self.ready = not self._gone.is_set()  # else another one answers
                return
            if time.monotonic() > until:
                raise TimeoutExceededError(
                    f"the server did not answer {shown} in {self._settings.ready_timeout_s:g} s (--ready-timeout): "
                    f"{answer.said}"
                )
            self._gone.wait(_POLL_S)

    def _post(self, address: str, body: str | None) -> None:
        shown = redact((address,))[0]
        answer = ask(address, timeout_s=_PROFILER_TIMEOUT_S, post=body, method="POST")
        if self._gone.is_set():
            return
        if not answer.well:
            raise CaptureError(f"{shown} did not start or stop the engine's profiler: {answer.said}")
        self._say(f"{shown}: {answer.status}")

    def _make_load(self, command: list[str]) -> None:
        if self._gone.is_set():
            return
        shown = shlex.join(redact(command))
        self._say(f"load: {shown}")
        started = time.monotonic()
        try:
            with self._log.open("ab") as output:
                self._load = subprocess.Popen(
                    command,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=users_umask(),
                )
        except OSError as error:
            raise ChildFailedError(f"--load {command[0]}: cannot be started ({error.strerror})") from error
        while True:  # as long as the load likes: a run of a server ends with it, or with the run's own limit
            with suppress(subprocess.TimeoutExpired):
                code = self._load.wait(_POLL_S)
                break
            if self._closed.is_set():
                return
        if self._closed.is_set():
            return
        self.load_code, self.load_s = code, time.monotonic() - started
        if code != 0:
            raise ChildFailedError(f"the load {ended_in_words(code)}: {shown} (its output: {self._log})")
