"""Nothing in this program waits for ever: each call that can wait has a bound, or its reason stands here.

Read from the sources. A bound is an argument that says how long; what has none waits for a process, a thread, a lock or a
pipe as long as that likes. Files on a disk are no such wait, nor is what only computes.
"""

import ast
from collections.abc import Iterator
from typing import Final

import pytest

from import_graph import ROOT

PACKAGES: Final = ("runner", "analysis", "history")

ENDS_WITH: Final[dict[tuple[str, str, str], str]] = {
    # -- runner: pipes --------------------------------------------------------------------------------------------------
    (
        "runner/process/own_file.py",
        "own_record",
        "open",
    ): "opened with O_NONBLOCK, and read only if it is a regular file",
    ("runner/process/gate.py", "Gate.wait", "os.read"): "the pipe ends with the launcher, however that ends",
    ("runner/process/supervise.py", "_Supervisor._start", "open"): "the pipe ends with exec, or with the child",
    ("runner/process/supervise.py", "_Supervisor._start", "os.waitpid"): "the child has said that it ends, and ends",
    ("runner/process/supervise.py", "_Supervisor._wait", "os.read"): "this end does not block (O_NONBLOCK)",
    ("runner/process/supervise.py", "_read", "open"): "a file of /proc",
    (
        "runner/process/supervised.py",
        "SupervisedProcess._await_start",
        "os.read",
    ): "select has said that there is something",
    (
        "runner/process/supervised.py",
        "SupervisedProcess._take_end",
        "os.read",
    ): "select has said that there is something",
    ("runner/launcher/queue.py", "_started", "open"): "read once, when select has said that there is something",
    # -- runner: loops --------------------------------------------------------------------------------------------------
    ("runner/process/supervise.py", "_Supervisor._wait", "while"): "as long as the program; it costs nothing meanwhile",
    ("runner/process/lock.py", "LockFile.held", "while"): "asks `stop`, which knows signals and the time limit",
    (
        "runner/process/machine_lock.py",
        "MachineLock.held",
        "while",
    ): "asks `stop`, which knows signals and the time limit",
    ("runner/process/waiting_line.py", "Place.wait", "while"): "asks `stop`, which knows signals and the time limit",
    ("runner/launcher/run.py", "Run._follow", "while"): "`collect` ends with the program, which `run_process` bounds",
    (
        "runner/launcher/server.py",
        "Conversation._make_load",
        "while",
    ): "as long as the load, until the server's end closes it",
    ("runner/child/energy.py", "_Samples._sampled.sample", "while"): "until the work is over, which sets the event",
    ("runner/child/energy.py", "_Board.changes", "while"): "compares its own clock with `most_s`",
    # -- runner: threads ------------------------------------------------------------------------------------------------
    ("runner/launcher/run.py", "Run.capture_measured", "ThreadPoolExecutor"): "`collect`, see `Run._follow`",
    ("runner/launcher/run.py", "Run.capture_measured", "capture.result"): "`collect`, see `Run._follow`",
    ("runner/launcher/run.py", "Run._measure", "ThreadPoolExecutor"): "`collect`, see `Run._follow`",
    ("runner/launcher/run.py", "Run._measure", "capture.result"): "`collect`, see `Run._follow`",
    ("runner/launcher/sweep.py", "SweepRun._analyse", "ThreadPoolExecutor"): "analyses, which `run_process` bounds",
    ("runner/launcher/sweep.py", "SweepRun._analyse", "job.result"): "analyses, which `run_process` bounds",
    ("runner/collectors/nsys/tool.py", "usable_tools", "ThreadPoolExecutor"): "questions, each with a time-out",
    ("runner/collectors/nsys/tool.py", "probe", "ThreadPoolExecutor"): "questions, each with a time-out",
    (
        "runner/collectors/torch_profiler/recording.py",
        "MemorySink.__init__",
        "threading.Lock",
    ): "held for two list accesses",
    # -- runner: what only looks like it -------------------------------------------------------------------------------
    ("runner/process/lock.py", "LockFile.held", "wait"): "a function that tells the user whom is waited for",
    ("runner/process/machine_lock.py", "MachineLock.held", "wait"): "a function that tells the user whom is waited for",
    ("runner/process/machine_lock.py", "MachineLock.holder", "asking.connect"): "the socket has a time-out",
    ("runner/process/http.py", "_Asking._ask", "connection.connect"): "the connection has a time-out",
    ("runner/process/supervised.py", "_log_file", "open"): "a regular file, opened for writing",
    # -- analysis: threads and processes that compute -------------------------------------------------------------------
    (
        "analysis/api/workers.py",
        "_local_workers",
        "ProcessPoolExecutor",
    ): "workers compute; one that dies breaks the pool",
    ("analysis/api/workers.py", "_end_with_the_command", "wait"): "as long as the command: that is what it waits for",
    ("analysis/api/workers.py", "_Pool.run", "future.result"): "workers compute; one that dies breaks the pool",
    ("analysis/render/formats.py", "PageParts.__init__", "ThreadPoolExecutor"): "computes from a trace in memory",
    ("analysis/render/formats.py", "PageParts.__exit__", "self._pool.shutdown"): "computes from a trace in memory",
    ("analysis/render/formats.py", "write_report", "of_the_page.result"): "computes from a trace in memory",
    ("analysis/render/formats.py", "write_report", "ThreadPoolExecutor"): "writes files of what is in memory",
    ("analysis/render/formats.py", "write_report", "compressed.result"): "writes files of what is in memory",
    (
        "analysis/render/html/trace_parts.py",
        "trace_parts",
        "report.result",
    ): "the report, or its cancelling by PageParts",
    ("analysis/report.py", "assemble_to_judge_again", "ThreadPoolExecutor"): "computes from a trace in memory",
    ("analysis/report.py", "_assembled", "beside.kernels.result"): "computes from a trace in memory",
    ("analysis/report.py", "_assembled", "beside.findings.result"): "computes from a trace in memory",
    ("analysis/report.py", "_assembled", "beside.tables.result"): "computes from a trace in memory",
    ("analysis/trace/reader.py", "Trace.__exit__", "wait"): "reads a regular file",
    ("analysis/trace/reader.py", "Trace.__init__", "Lock"): "held while a regular file is read",
    ("analysis/trace/reader.py", "Trace.begin", "ThreadPoolExecutor"): "reads a regular file",
    ("analysis/trace/reader.py", "Trace._load", "self._reading.result"): "reads a regular file",
    ("analysis/trace/reader.py", "_on_two_threads", "ThreadPoolExecutor"): "reads a regular file",
    # -- history --------------------------------------------------------------------------------------------------------
    (
        "history/store.py",
        "Store._connection",
        "engine.connect",
    ): "connections have time limits: `_OF_THE_CONNECTION`, `_WAIT_S`",
}
"""File, function, call → why it ends. An entry whose call is gone fails too."""


def _argument(call: ast.Call, name: str, position: int) -> ast.expr | None:
    """An argument that says something: ``None`` as a bound is none."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    if given is None and len(call.args) > position:
        given = call.args[position]
    return None if isinstance(given, ast.Constant) and given.value is None else given


def _any_bound(call: ast.Call, position: int = 0) -> bool:
    return any(_argument(call, name, position) is not None for name in ("timeout", "timeout_s", "seconds"))


def _flags(call: ast.Call) -> set[str]:
    return {node.attr for argument in call.args for node in ast.walk(argument) if isinstance(node, ast.Attribute)}


class _Waits(ast.NodeVisitor):
    """Collects what can wait without a bound, with the function that it stands in."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, int]] = []
        self._inside: list[str] = []

    def _named(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        self._inside.append(node.name)
        self.generic_visit(node)
        self._inside.pop()

    visit_ClassDef = visit_FunctionDef = _named

    def _add(self, node: ast.AST, words: str) -> None:
        self.found.append((".".join(self._inside), words, getattr(node, "lineno", 0)))

    def visit_While(self, node: ast.While) -> None:
        names = {
            inner.attr if isinstance(inner, ast.Attribute) else inner.id
            for inner in ast.walk(node)
            if isinstance(inner, (ast.Attribute, ast.Name))
        }
        calls = {_last(inner) for inner in ast.walk(node) if isinstance(inner, ast.Call)}
        if calls & {"sleep", "wait", "poll"} and not names & {"monotonic", "is_late"}:
            self._add(node, "while")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if _is_unbounded(node):
            self._add(node, ast.unparse(node.func))
        self.generic_visit(node)


def _last(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_unbounded(call: ast.Call) -> bool:
    whole, name = ast.unparse(call.func), _last(call)
    of = whole.removesuffix(f".{name}")
    if of == "subprocess" and name in ("run", "call", "check_call", "check_output"):
        return not _any_bound(call, 99)
    if of == "os" and name in ("wait", "wait3", "wait4", "waitid", "system", "popen", "fdopen", "read"):
        return True
    if of == "os" and name == "waitpid":
        return "WNOHANG" not in _flags(call)
    if name in ("flock", "lockf"):
        return not _flags(call) & {"LOCK_NB", "LOCK_UN"}
    if whole == "select.select":
        return _argument(call, "timeout", 3) is None
    if name == "poll":  # of select; Popen.poll does not wait
        return "poll" in of and not call.args
    if whole == "open":  # pathlib opens files, by the linter's rule; this opens descriptors, which may be pipes
        return not any(keyword.arg == "opener" for keyword in call.keywords)  # which says how, such as without waiting
    if name in ("recv", "recv_into", "recvfrom", "recvmsg", "accept", "sigwait", "pause", "input", "getpass"):
        return True
    if name == "communicate":
        return not _any_bound(call, 1)
    if name in ("read", "readline", "readlines"):
        return of.endswith(("stdout", "stderr", "stdin"))
    if name in ("confirm", "prompt"):
        return of == "typer"
    if name in ("urlopen", "create_connection") or (name == "open" and of.endswith("opener")):
        return not _any_bound(call, 2 if name == "urlopen" else 1)
    if name in ("wait", "wait_procs", "as_completed", "acquire", "result"):
        return not _any_bound(call, 1 if of in ("concurrent.futures", "futures", "psutil") or "." not in whole else 0)
    if name in ("join", "get"):  # str.join and dict.get take something
        return not call.args and not call.keywords
    if name == "shutdown":
        return not any(keyword.arg == "wait" for keyword in call.keywords) and not call.args
    if name == "connect":
        return of not in ("sqlite3", "self") and not _any_bound(call, 1)
    return name in ("ThreadPoolExecutor", "ProcessPoolExecutor", "Lock", "RLock", "Semaphore", "Condition", "Barrier")


def _waits(source: str) -> list[tuple[str, str, int]]:
    visitor = _Waits()
    visitor.visit(ast.parse(source))
    return visitor.found


def _everywhere() -> Iterator[tuple[str, str, str, int]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            name = str(file.relative_to(ROOT))
            yield from ((name, *found) for found in _waits(file.read_text(encoding="utf-8")))


WITHOUT_A_BOUND = """
process.wait()
process.wait(None)
process.wait(timeout=None)
process.communicate()
process.communicate(b"x")
subprocess.run(argv, check=False)
subprocess.check_output(argv, timeout=None)
os.waitpid(pid, 0)
os.read(pipe, 10)
os.system("x")
process.stdout.read()
process.stdout.readline()
open(descriptor)
select.select([x], [], [])
select.select([x], [], [], None)
poll.poll()
thread.join()
future.result()
as_completed(futures)
concurrent.futures.wait(futures)
queue.get()
lock.acquire()
threading.Lock()
pool.shutdown()
ThreadPoolExecutor(2)
socket.recv(10)
socket.accept()
socket.connect(address)
urllib.request.urlopen(address)
opener.open(request)
fcntl.flock(descriptor, fcntl.LOCK_EX)
signal.pause()
input()
typer.confirm("sure?")
while True: time.sleep(1)
while not process.wait(1): pass
"""

WITH_A_BOUND = """
process.wait(5)
process.wait(timeout=5)
process.communicate(timeout=5)
process.communicate(b"x", timeout=5)
subprocess.run(argv, timeout=5)
os.waitpid(pid, os.WNOHANG)
path.open()
path.read_bytes()
open(path, "rb", opener=_without_waiting)
select.select([x], [], [], 0)
poll.poll(100)
process.poll()
thread.join(5)
", ".join(words)
future.result(timeout=5)
concurrent.futures.wait(futures, 5)
queue.get(timeout=5)
known.get("x")
pool.shutdown(wait=False)
sqlite3.connect(path)
urllib.request.urlopen(address, timeout=5)
opener.open(request, timeout=5)
fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.flock(descriptor, fcntl.LOCK_UN)
while time.monotonic() < until: time.sleep(1)
while x: x = x.parent
"""


@pytest.mark.parametrize("line", WITHOUT_A_BOUND.strip().splitlines())
def test_a_wait_without_a_bound_is_seen(line: str) -> None:
    assert _waits(line)


@pytest.mark.parametrize("line", WITH_A_BOUND.strip().splitlines())
def test_a_wait_with_a_bound_is_let_through(line: str) -> None:
    assert not _waits(line)


def test_each_wait_has_a_bound_or_its_reason() -> None:
    unbounded = [
        f"{file}:{line}: {call} in {function or 'the module'}"
        for file, function, call, line in _everywhere()
        if (file, function, call) not in ENDS_WITH
    ]
    assert not unbounded, "give it a bound, or say in ENDS_WITH what ends it:\n" + "\n".join(unbounded)


def test_no_reason_outlives_its_call() -> None:
    there = {(file, function, call) for file, function, call, _ in _everywhere()}
    assert not set(ENDS_WITH) - there
