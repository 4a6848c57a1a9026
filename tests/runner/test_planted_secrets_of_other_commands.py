"""Secrets planted around sweep, ab, review and a loaded server: none is in any file, nor in what is printed."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve

from analysis.cli.app import app as analysis_app
from analysis.cli.exit_codes import run as analysis_run
from launch_kit import H100, environment, fake_ncu, fake_nsys, finished_run
from leak_search import leaks, leaks_in
from planted_commands import FORMED, Planted
from planted_secrets import NAMED, PLANTED
from program_kit import program, program_run
from runner.cli import main
from runner.launcher import review as review_module
from runner.launcher.review import Review, ReviewOptions
from runner.process.driver import DriverFacts, VisibleGpu
from runner.process.process import Interrupts

TINY = {"model": "llama-tiny", "max-new-tokens": 2, "repeats": 1, "device": "cpu", "collector": "torch"}
TEXTS = [text for text, _ in PLANTED.values()]


def test_a_value_that_is_cut_by_a_page_and_a_packed_file_are_searched(tmp_path: Path) -> None:
    secret = FORMED["anthropic"]
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        database.execute("CREATE TABLE t (v)")
        for before in range(3900, 4200, len(secret) // 2):
            database.execute("INSERT INTO t VALUES (?)", ("." * before + secret,))
    database.close()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inside", f"{'.' * 100}{secret}")
    found = leaks([tmp_path], {"it": secret})
    assert any("a.zip" in place for place in found)
    values = (tmp_path / "a.sqlite").read_bytes().count(secret.encode())
    assert values < 4200 // len(secret)  # some are cut, and those are found in the rows
    for row in range(1, 4):
        with sqlite3.connect(tmp_path / "a.sqlite") as database:
            database.execute("DELETE FROM t WHERE rowid = ?", (row,))
        database.close()
    assert any("a.sqlite" in place for place in leaks([tmp_path / "a.sqlite"], {"it": secret}))


def test_a_sweep_and_two_settings_in_turns_leave_no_secret_of_the_environment(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    sweep = str(tmp_path / "sweep")
    points = ["--batch-size", "1", "--max-new-tokens", "2", "--passes", "1", "--warmup", "0", "--window-steps", "2"]
    planted.run("runner", "sweep", "llama-tiny", *points, "--device", "cpu", "--out", sweep)
    planted.run("analysis", "sweep", sweep)
    for name, setting in (("a", TINY), ("b", {**TINY, "decode": "static"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(setting))
    sides = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    planted.run("runner", "ab", *sides, "--rounds", "2", "--out", str(planted.out))
    planted.run("runner", "doctor", code=None)
    planted.run("runner", "models")
    planted.run("runner", "history", "export", "--to", str(tmp_path / "samples.csv"), "--out", str(planted.out))
    assert list(planted.out.glob("ab-*/diff.html")), list(planted.out.rglob("*"))
    assert planted.leaks() == []


@pytest.mark.parametrize("how", ["", "no permission", "sections fail", "cannot import"])
def test_a_review_leaves_no_secret_in_reports_counters_or_logs(
    tmp_path: Path, how: str, real_trace: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the launcher's environment. The program prints all of what it was given, and ncu stores it, as the real one does."""
    facts = DriverFacts(cuda=(13, 0), driver="580.1", gpus=(VisibleGpu(H100, "b8a7a1a0-0000-0000-0000-000000000000"),))
    monkeypatch.setattr(review_module, "driver_facts", lambda: facts)
    monkeypatch.setenv("DSOCR_LOCK_DIR", str(tmp_path / "locks"))
    planted = Planted(tmp_path)
    for name, value in planted.environ.items():
        monkeypatch.setenv(name, value)
    directory = finished_run(planted.out, real_trace("deepseek-ocr_h100_64tok"))
    said: list[str] = []
    tool = fake_ncu(tmp_path / "tools")
    work = Review.open(
        directory, ReviewOptions(keep_report=True), tool, planted.environ | {"NCU_FAKE": how}, said.append
    )
    telling = "import os, sys; print(dict(os.environ)); sys.stderr.write(repr(sys.argv))"
    work = evolve(work, command=lambda place: [sys.executable, "-c", telling, str(place.plan_file)])
    failure = ""
    with Interrupts() as interrupts:
        try:
            work.carry_out(interrupts)
        except Exception as error:  # noqa: BLE001 - whatever it says is looked at
            failure = str(error)
    if not how:
        stored = list(work.place.path.glob("*.ncu-rep"))
        assert len(stored) == 3
        assert all(b"PATH=" in report.read_bytes() for report in stored)  # there is an environment in it
    (tmp_path / "said").write_text("\n".join([*said, failure, *map(str, work.commands())]))
    assert planted.leaks() == []


SERVER = """
    import http.server, os, sys
    port, texts = int(sys.argv[1]), sys.argv[2:]
    print(dict(os.environ), flush=True)
    for text in texts: print("the server says", text, flush=True)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = ("the answer is " + " ".join(texts)).encode()
            self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
            self.wfile.write(body)
        def do_POST(self):
            print("asked", self.path, self.rfile.read(int(self.headers.get("Content-Length") or 0)), flush=True)
            self.do_GET()
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
LOAD = """
    import os, sys
    print(dict(os.environ), sys.argv)
    for text in sys.argv[2:]: sys.stderr.write("the load says " + text + "\\n")
    sys.exit(int(sys.argv[1]))
"""


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        number: int = asked.getsockname()[1]
        return number


@pytest.mark.parametrize("code", [0, 3])
def test_a_loaded_server_leaves_no_secret_in_any_log(tmp_path: Path, code: int) -> None:
    """In its command line, its answers and its output; in the addresses, in what is posted, in the load's command line."""
    planted = Planted(tmp_path)
    tool = fake_nsys(tmp_path / "nsys")
    port = free_port()
    server = [*program(tmp_path, SERVER, "server.py"), str(port), *TEXTS]
    load = shlex.join([*program(tmp_path, LOAD, "load.py"), str(code), *TEXTS])
    address = f"http://127.0.0.1:{port}"
    query = f"token={FORMED['query']}&api_key={FORMED['json']}"
    planted.environ["MY_TOKEN"] = NAMED["WANDB_API_KEY"]
    planted.run(
        "runner", "exec", "--nsys", tool.path, "--keep-env", "MY_TOKEN", "--out", str(planted.out), "--control", "1",
        "--grace", "1", "--ready-url", f"{address}/health?{query}", "--start-url", f"{address}/start?{query}",
        "--start-body", json.dumps({"texts": TEXTS}), "--stop-url", f"{address}/stop?{query}", "--load", load, "--",
        *server, code=None,
    )  # fmt: skip
    (run,) = (path.parent for path in planted.out.glob("*/run.json") if not path.parent.is_symlink())
    logs = "".join(log.read_text() for log in run.rglob("*.log"))
    assert "the server says" in logs, list(run.rglob("*"))
    assert "the load says" in logs
    for more in (["status", "latest"], ["status", "latest", "--json"], ["history", "list"]):
        planted.run("runner", *more, "--out", str(planted.out), code=None)
    for path in (*planted.out.glob("*/.secrets.json"), *planted.out.glob("*/trace.nsys-rep")):
        path.unlink(missing_ok=True)  # what awaits its export, for its user alone
    assert planted.leaks() == []


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """A command that is called, not started, changes this process: signals, the mask of files, the limit of core files."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    hook, limits, mask = sys.unraisablehook, resource.getrlimit(resource.RLIMIT_CORE), os.umask(0)
    os.umask(mask)
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    sys.unraisablehook = hook
    resource.setrlimit(resource.RLIMIT_CORE, limits)
    os.umask(mask)


# -- what is refused, and what is not kept -----------------------------------------------------------------------------


def ended(argv: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and output of a command, run in this process."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code, "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["MY_KEEPSAKE", FORMED["github"]])
@pytest.mark.parametrize("command", ["run", "sweep", "exec", "submit", "ab"])
def test_a_variable_is_kept_by_its_name_alone(
    tmp_path: Path, command: str, name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its value behind it, it was passed over, and the value written into plan.json."""
    monkeypatch.setenv("DSOCR_LOCK_DIR", str(tmp_path / "locks"))
    value = NAMED["WANDB_API_KEY"]
    kept = name if name in FORMED.values() else f"{name}={value}"
    out = ["--out", str(tmp_path / "out")]
    argv = [command, "llama-tiny", "--device", "cpu", "--keep-env", kept, *out]
    file = tmp_path / "asked.json"
    if command == "exec":
        argv = ["exec", "--keep-env", kept, *out, "--", "true"]
    elif command == "submit":
        file.write_text(json.dumps({"model_path": "llama-tiny", "input_dir": "/nowhere", "device": "cpu"}))
        argv = ["submit", str(file), "--keep-env", kept, *out]
    elif command == "ab":
        file.write_text(json.dumps({"model": "llama-tiny", "device": "cpu", "keep-env": [kept]}))
        argv = ["ab", str(file), str(file), *out]
    code, said = ended(argv, capfd)
    file.unlink(missing_ok=True)
    assert code == 2, said
    assert "must be the name of a variable alone, such as HF_TOKEN" in said
    assert leaks([tmp_path], {"value": value, "name": FORMED["github"]}) == []
    assert value not in said
    assert FORMED["github"] not in said


def test_a_program_is_not_recorded_in_a_folder_with_a_secret_in_its_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSOCR_LOCK_DIR", str(tmp_path / "locks"))
    tool = fake_nsys(tmp_path / "nsys")
    for kind, (text, secret) in PLANTED.items():
        code, said = ended(["exec", "--nsys", tool.path, "--out", str(tmp_path / text), "--", "true"], capfd)
        assert (code, leaks_in(said.encode(), {kind: secret})) == (2, []), said
        assert "--out holds what looks like a secret" in said
        assert leaks([tmp_path], {kind: secret}) == []


def test_the_history_keeps_no_secret_of_a_folders_name(tmp_path: Path) -> None:
    planted = Planted(tmp_path / "kept")
    folder = tmp_path / f"runs-{FORMED['github']}" / "11111111-2222-3333-4444-555555555555"
    run = finished_run(folder.parent, tmp_path / "none.sqlite")
    (folder / f"{FORMED['npm']}.txt").write_text("a file of the user's")
    assert run.path == folder
    planted.run("runner", "history", "import", str(folder), "--out", str(planted.out))
    for more in (["list"], ["list", "--json"], ["show", "latest"], ["show", "latest", "--json"]):
        planted.run("runner", "history", *more, "--out", str(planted.out))
    assert b"1111" in planted.printed
    assert planted.leaks({"github": FORMED["github"], "npm": FORMED["npm"]}) == []


def test_what_is_deleted_from_the_history_is_overwritten(tmp_path: Path) -> None:
    """As of an older release, which kept what this one takes out."""
    planted = Planted(tmp_path / "kept")
    run = finished_run(tmp_path / "runs", tmp_path / "none.sqlite")
    planted.run("runner", "history", "import", str(run.path), "--out", str(planted.out))
    with sqlite3.connect(planted.out / "history.sqlite") as database:
        database.execute("UPDATE runs SET error = ?", (f"the server said {FORMED['npm']}",))
    database.close()
    assert leaks([planted.out], {"npm": FORMED["npm"]}) != []
    planted.run("runner", "history", "import", str(run.path), "--out", str(planted.out))
    assert planted.leaks({"npm": FORMED["npm"]}) == []


def test_a_secret_between_quotes_is_taken_out_of_what_a_record_holds(tmp_path: Path) -> None:
    """As JSON its quotes are escaped: looked at so, nothing in it was a secret."""
    directory = finished_run(tmp_path, tmp_path / "none.sqlite")
    for kind, (text, secret) in PLANTED.items():
        told = f"the server said {text} and {json.dumps({'inner': text})}"
        directory.write(directory.manifest_file, evolve(directory.read_manifest(), error=told))
        assert leaks([tmp_path], {kind: secret}) == []
        assert "the server said" in str(directory.read_manifest().error)


def test_what_starts_a_rank_is_freed_of_secrets_when_none_is_started_any_more(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path / "nsys")
    argument = f"--start-agent=password={NAMED['DB_PASSWORD']}"
    run = program_run(
        tmp_path / "out", ["torchrun", "x.py"], tool, environ=torchrun(tmp_path), ranks=2, nsys_args=(argument,)
    )
    run.directory.create()
    with run._without_secrets_at_the_end():
        run._write_rank_script()
        assert NAMED["DB_PASSWORD"] in run.nsys.rank_script.read_text()
    assert "***" in run.nsys.rank_script.read_text()
    assert leaks([tmp_path / "out"], NAMED) == []


def torchrun(folder: Path) -> dict[str, str]:
    """An environment with a torchrun."""
    program_file = folder / "torchrun"
    program_file.write_text("#!/opt/venv/bin/python3\n")
    program_file.chmod(0o755)
    return environment(PATH=f"{folder}:{os.environ['PATH']}", DSOCR_LOCK_DIR=str(folder / "locks"))


def test_a_program_that_crashes_leaves_no_core_file(tmp_path: Path) -> None:
    """It would hold the environment. The limit that the user has set stays the most that a program may ask for."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    if most == 0:
        pytest.skip("this system lets no program leave a core file")
    tool = fake_nsys(tmp_path / "nsys")
    crashing = program(
        tmp_path,
        "import os, resource\nprint('limit', *resource.getrlimit(resource.RLIMIT_CORE), flush=True)\nos.abort()",
    )
    command = ["exec", "--nsys", tool.path, "--control", "1", "--out", str(tmp_path / "out"), "--", *crashing]
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", *command],
        env=environment(DSOCR_LOCK_DIR=str(tmp_path / "locks")),
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (most, most)),
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    (log,) = (path for path in (tmp_path / "out").rglob("control.log") if not path.parent.is_symlink())
    assert f"limit 0 {most}" in log.read_text()
    assert [path.name for path in tmp_path.rglob("*core*")] == []


# -- lines about mistakes ----------------------------------------------------------------------------------------------

MISTAKES: list[tuple[str, str]] = [
    ("runner", "status TEXT --out OUT"),
    ("runner", "resume TEXT --out OUT"),
    ("runner", "cancel TEXT --out OUT"),
    ("runner", "review TEXT --out OUT"),
    ("runner", "review latest --ncu PATH --out OUT"),
    ("runner", "review latest --from PATH --out OUT"),
    ("runner", "status latest --out PATH"),
    ("runner", "history show TEXT --out OUT"),
    ("runner", "history list --store TEXT --out OUT"),
    ("runner", "history list --store postgresql://me:TEXT@127.0.0.1:1/x --out OUT"),
    ("runner", "history import PATH --out OUT"),
    ("runner", "history export --to PATH --out OUT"),
    ("runner", "inputs PATH"),
    ("runner", "models TEXT"),
    ("runner", "submit PATH --out OUT"),
    ("runner", "ab PATH PATH --out OUT"),
    ("runner", "sweep TEXT --device cpu --out OUT --dry-run"),
    ("runner", "sweep llama-tiny --images PATH --device cpu --out OUT --dry-run"),
    ("runner", "sweep llama-tiny --decode TEXT --device cpu --out OUT --dry-run"),
    ("runner", "run llama-tiny --attn TEXT --device cpu --out OUT --dry-run"),
    ("runner", "run llama-tiny --dtype TEXT --device cpu --out OUT --dry-run"),
    ("runner", "run llama-tiny --device TEXT --out OUT --dry-run"),
    ("runner", "run llama-tiny --preset TEXT --device cpu --out OUT --dry-run"),
    ("runner", "run llama-tiny --nsys PATH --device cpu --out OUT --dry-run"),
    ("runner", "run llama-tiny --nsys-arg TEXT --device cpu --out OUT --dry-run"),
    ("runner", "run llama-tiny --nsys-arg --env-var=A=TEXT --device cpu --out OUT --dry-run"),
    ("runner", "run llama-tiny --max-new-tokens TEXT --device cpu --out OUT --dry-run"),
    ("runner", "run llama-tiny --store TEXT --device cpu --out OUT --dry-run"),
    ("runner", "run llama-tiny --TEXT"),
    ("runner", "exec --out OUT --dry-run -- TEXT"),
    ("runner", "exec --out OUT -- PATH --key TEXT"),
    ("runner", "exec --out OUT --capture TEXT -- true"),
    ("runner", "exec --out OUT --ready-url TEXT --load true -- true"),
    ("runner", "exec --out OUT --load TEXT -- true"),
    ("runner", "exec --out OUT --load true --start-url http://h/ --start-body TEXT -- true"),
    ("runner", "TEXT"),
    ("analysis", "TEXT"),
    ("analysis", "PATH"),
    ("analysis", "TRACE --manifest PATH --out OUT"),
    ("analysis", "TRACE --config PATH --out OUT"),
    ("analysis", "TRACE --model TEXT --out OUT"),
    ("analysis", "TRACE --vocabulary TEXT --out OUT"),
    ("analysis", "TRACE --kernel-rules PATH --out OUT"),
    ("analysis", "TRACE --format TEXT --out OUT"),
    ("analysis", "diff PATH TRACE --out OUT"),
    ("analysis", "gate TRACE TRACE --policy PATH --out OUT"),
    ("analysis", "review TRACE --counters PATH --out OUT"),
    ("analysis", "kernels TRACE --match TEXT"),
    ("analysis", "table TRACE --by TEXT"),
    ("analysis", "table TRACE --by module --stage TEXT"),
    ("analysis", "trend --store TEXT"),
    ("analysis", "trend --model TEXT --store OUT/none.sqlite"),
    ("analysis", "trend --store postgresql://me:TEXT@127.0.0.1:1/x"),
    ("analysis", "sweep PATH"),
    ("analysis", "schema TEXT"),
    ("analysis", "check PATH"),
]
"""Command lines that are wrong, or find nothing. Of the kinds of secrets each meets three: all would take minutes."""


@pytest.mark.parametrize(("program_name", "line"), MISTAKES, ids=[line[:50] for _, line in MISTAKES])
def test_a_line_about_a_mistake_holds_no_secret(
    program_name: str,
    line: str,
    tmp_path: Path,
    real_trace: Callable[[str], Path],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DSOCR_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.chdir(tmp_path)
    kinds = list(PLANTED)
    first = MISTAKES.index((program_name, line))
    for kind in (kinds[(7 * first + 16 * number) % len(kinds)] for number in range(3)):
        text, secret = PLANTED[kind]
        values = {
            "PATH": f"/proc/none/{text}/x",
            "OUT": str(tmp_path / "out"),
            "TRACE": str(real_trace("llama_h100_cuda-graph")),
        }
        argv = []
        for word in line.split():
            argv.append(values.get(word, word).replace("TEXT", text))
        monkeypatch.setattr(sys, "argv", [program_name, *argv])
        with pytest.raises(SystemExit) as caught:
            main(argv) if program_name == "runner" else analysis_run(analysis_app)
        said = "".join(capfd.readouterr())
        assert isinstance(caught.value.code, int), said
        assert "Traceback" not in said
        assert leaks_in(said.encode(), {kind: secret}) == [], kind
        assert leaks([tmp_path], {kind: secret}) == [], kind
