"""Which server the load is made on: the program's own and no other, and what is said where it failed."""

from __future__ import annotations

import http.server
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from analysis.domain.errors import ChildFailedError, DsocrError, RequestError
from analysis.domain.program import ProgramManifest
from launch_kit import fake_nsys
from program_kit import program, program_run
from runner.collectors.nsys.tool import NsysTool
from runner.launcher.program import ProgramRun
from runner.process.http import ask
from runner.process.process import Interrupts

LONG_LOAD = shlex.join([sys.executable, "-c", "import time; time.sleep(300)"])
"""It ends with the run."""
SERVER = """
    import http.server, pathlib, sys, threading, time
    folder = pathlib.Path(sys.argv[1])
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers()
            if self.path == "/end":
                threading.Thread(target=server.shutdown).start()
        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    (folder / "up").touch()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(3)
    print("address in use" if sys.argv[3] == "1" else "bye")
    sys.exit(int(sys.argv[3]))
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def slow_nsys(folder: Path) -> NsysTool:
    """An nsys that works on after its program's end as long as the file ``nsys is at work`` is in the run's folder."""
    tool = fake_nsys(folder / "nsys")
    Path(tool.path).with_name("how").write_text("waits at the end")
    return tool


class _Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def stranger() -> Iterator[int]:
    """A server that is none of ours; gives its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def talker(says: bytes, *, again: bytes = b"") -> Iterator[int]:
    """A server that says something to everyone, and then a little again and again, for ever; gives its port."""
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(says)
                while not over.wait(0.02):
                    connection.sendall(again)
            except OSError:
                pass

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield int(listening.getsockname()[1])
        over.set()
        listening.shutdown(socket.SHUT_RDWR)


def failure(run: ProgramRun, kind: type[DsocrError]) -> str:
    """Start a run that must fail; gives what it says, which its run.json says too."""
    with Interrupts() as interrupts, pytest.raises(kind) as caught:
        run.start(interrupts, wait=False)
    assert caught.type is kind
    manifest = run.directory.read_program_manifest()
    assert (manifest.status, manifest.error) == ("failed", str(caught.value))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def well(run: ProgramRun) -> ProgramManifest:
    with Interrupts() as interrupts:
        return run.start(interrupts, wait=False)


# -- before the program is started -------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", [0, 1])
@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/health", 404)])
def test_a_server_that_is_there_before_is_not_the_programs(
    tmp_path: Path, control: int, path: str, status: int
) -> None:
    """Whatever it answers: another may be coming up, and answer well when the load begins."""
    ran = tmp_path / "ran"
    with stranger() as port:
        run = program_run(
            tmp_path / "out",
            ["touch", str(ran)],
            fake_nsys(tmp_path / "nsys"),
            control=control,
            ready_url=f"http://127.0.0.1:{port}{path}",
            load=f"touch {ran}",
        )
        said = failure(run, RequestError)
    assert said.startswith(f"http://127.0.0.1:{port}{path}: something answers there already (status {status}, process ")
    assert "BaseHTTP/" in said
    assert "another port" in said
    assert not ran.exists()
    assert not list(run.directory.path.glob("trace.*"))
    assert run.directory.read_program_manifest().exit_codes.child is None


def test_what_takes_connections_and_says_nothing_is_somebody_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.launcher.server._ASK_TIMEOUT_S", 0.3)
    with talker(b"") as port:
        run = program_run(
            tmp_path / "out",
            ["true"],
            fake_nsys(tmp_path / "nsys"),
            ready_url=f"http://localhost:{port}/",
            load="true",
        )
        assert "(a connection, and no answer, process " in failure(run, RequestError)


# -- while it runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1])
def test_a_program_that_ends_before_it_answers_fails_whoever_answers_then(tmp_path: Path, code: int) -> None:
    """nsys is at work after the program's end, and another server comes up on its port meanwhile."""
    port = free_port()
    run = program_run(
        tmp_path / "out",
        program(tmp_path, f"import time\ntime.sleep(0.5)\nprint('port in use')\nraise SystemExit({code})\n"),
        slow_nsys(tmp_path),
        ready_url=f"http://127.0.0.1:{port}/",
        load=f"touch {tmp_path / 'loaded'}",
    )
    at_work = run.directory.path / "nsys is at work"
    begun = threading.Event()

    def serve() -> None:
        while not at_work.exists():
            time.sleep(0.01)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Stranger)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        begun.set()
        time.sleep(1.0)
        at_work.unlink()
        server.shutdown()
        server.server_close()

    threading.Thread(target=serve, daemon=True).start()
    said = failure(run, ChildFailedError)
    assert begun.is_set()
    assert said.startswith(
        f"the server ended with exit code {code} under nsys before it answered http://127.0.0.1:{port}/: port in use"
    )
    assert not (tmp_path / "loaded").exists()


@pytest.mark.parametrize("control", [0, 1])
def test_a_program_that_fails_while_its_load_runs_has_failed(tmp_path: Path, control: int) -> None:
    """Though its load comes to a good end before nsys does."""
    port = free_port()
    ask_for_the_end = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/end').read()"
    run = program_run(
        tmp_path / "out",
        [*program(tmp_path, SERVER), str(tmp_path), str(port), "1"],
        slow_nsys(tmp_path),
        control=control,
        ready_url=f"http://127.0.0.1:{port}/",
        load=shlex.join([sys.executable, "-c", f"{ask_for_the_end}; import time; time.sleep(0.5)"]),
    )

    def go_on() -> None:
        log = run.directory.log("load")
        while not (run.directory.path / "nsys is at work").exists():
            time.sleep(0.01)
        time.sleep(2)  # the load has ended by then
        (run.directory.path / "nsys is at work").unlink()
        assert log.exists()

    threading.Thread(target=go_on, daemon=True).start()
    said = failure(run, ChildFailedError)
    where = "in the control run" if control else "under nsys"
    assert said.startswith(f"the server ended with exit code 1 {where} before its load had ended: address in use")
    assert not run.directory.read_program_manifest().ended_by_us


def test_a_server_that_its_client_ends_is_well(tmp_path: Path) -> None:
    port = free_port()
    ask_for_the_end = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/end').read()"
    run = program_run(
        tmp_path / "out",
        [*program(tmp_path, SERVER), str(tmp_path), str(port), "0"],
        slow_nsys(tmp_path),
        ready_url=f"http://127.0.0.1:{port}/",
        load=shlex.join([sys.executable, "-c", f"{ask_for_the_end}; import time; time.sleep(1)"]),
    )

    def go_on() -> None:
        while not (run.directory.path / "nsys is at work").exists():
            time.sleep(0.01)
        time.sleep(2)
        (run.directory.path / "nsys is at work").unlink()

    threading.Thread(target=go_on, daemon=True).start()
    manifest = well(run)
    assert (manifest.status, manifest.exit_codes.child, manifest.load_exit_code) == ("complete", 0, 0)


def test_a_server_that_we_end_is_not_blamed(tmp_path: Path) -> None:
    port = free_port()
    run = program_run(
        tmp_path / "out",
        [*program(tmp_path, SERVER), str(tmp_path), str(port), "0"],
        fake_nsys(tmp_path / "nsys"),
        control=1,
        ready_url=f"http://127.0.0.1:{port}/",
        load="true",
    )
    manifest = well(run)
    assert (manifest.status, manifest.ended_by_us, manifest.exit_codes.child) == ("complete", True, 3)


# -- one request -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"", "no whole answer in 0.5 s"),
        (b"HTTP/1.1 200 OK\r\nA: ", "no whole answer in 0.5 s"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no whole answer in 0.5 s (it began with status 200)"),
    ],
    ids=["status", "headers", "body"],
)
def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(says: bytes, words: str) -> None:
    with talker(says, again=b"x") as port:
        answer = ask(f"http://127.0.0.1:{port}/", timeout_s=0.5)
        assert (answer.status, answer.well, answer.somebody, answer.words) == (None, False, True, words)
        # Its connection is cut, so nothing goes on reading.
        until = time.monotonic() + 20
        while any(thread.name == "ask" for thread in threading.enumerate()):
            assert time.monotonic() < until
            time.sleep(0.02)


def test_nobody_is_told_from_somebody() -> None:
    nobody = ask(f"http://127.0.0.1:{free_port()}/", timeout_s=5)
    assert (nobody.somebody, nobody.status) == (False, None)
    with talker(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        other = ask(f"http://127.0.0.1:{port}/", timeout_s=5)
        assert (other.somebody, other.status) == (True, None)
        assert "SSH-2.0" in other.words


def test_of_an_answer_no_more_than_a_short_line_is_told() -> None:
    """An error quoted a server's whole page."""
    page = b"<!DOCTYPE html>\n" + b"<p>an error\x1b[31m \xe2\x80\xae</p>\n" * 40
    head = b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
    with talker(head + page) as port:
        said = ask(f"http://127.0.0.1:{port}/", timeout_s=5).said
    assert said.startswith("status 500, <!DOCTYPE html>")
    assert len(said) <= 200
    assert said.isprintable()
    assert "\\x1b[31m" in said
