"""The launcher under a real Nsight Systems, on a CPU. Needs an nsys that can import (`make nsys`)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from attrs import evolve

from analysis.domain.errors import (
    CaptureError,
    ChildFailedError,
    ExportError,
    InterruptedRunError,
)
from launch_kit import ROOT, environment, prepare, real_nsys, wrapper_without_importer
from runner.collectors.nsys.collector import NsysCollector
from runner.collectors.nsys.export import export_report, finish_import
from runner.collectors.nsys.presets import load_preset, preset_names, resolve_options
from runner.collectors.nsys.probe import functional_probe
from runner.collectors.nsys.tool import NsysTool, find_nsys, probe, profile_argv
from runner.launcher.run import child_command
from runner.process.isolation import namespace_prefix
from runner.process.process import Interrupts, marked_processes, run_process

pytestmark = pytest.mark.integration

SECRET = "planted-in-the-environment-5c1e"


@pytest.fixture(scope="module")
def nsys() -> NsysTool:
    tool = real_nsys()
    if tool is None:
        pytest.skip("no usable nsys on this machine: `make nsys`")
    return tool


def events(trace: Path) -> set[tuple[str | None, int, str]]:
    """(domain, event type, text) of all NVTX events."""
    connection = sqlite3.connect(trace)
    rows = connection.execute(
        """
        SELECT d.name, e.eventType, coalesce(e.text, s.value)
        FROM NVTX_EVENTS e
        LEFT JOIN StringIds s ON s.id = e.textId
        LEFT JOIN (SELECT DISTINCT n.domainId, coalesce(n.text, t.value) AS name FROM NVTX_EVENTS n
                   LEFT JOIN StringIds t ON t.id = n.textId WHERE n.eventType = 75) d ON d.domainId = e.domainId
        """
    ).fetchall()
    connection.close()
    return set(rows)


def signal_when(file: Path, times: int = 1) -> None:
    def wait_and_signal() -> None:
        while not file.exists():
            time.sleep(0.05)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.0)

    threading.Thread(target=wait_and_signal, daemon=True).start()


def test_the_functional_probe(nsys: NsysTool) -> None:
    result = functional_probe(nsys, environment(), with_kernel=False)
    assert result.missing == ()
    assert set(result.seen) == {"the range", "its domain", "the mark"}


PROBE = """
import os, sys
from pathlib import Path
from runner.collectors.nsys import probe
from runner.collectors.nsys.tool import probe as ask
if "namespace" not in sys.argv:
    probe.namespace_prefix = lambda environ: ()
probe.functional_probe(ask(Path(sys.argv[1]), os.environ), os.environ, with_kernel=False)
"""


@pytest.mark.parametrize("view", ["namespace", "none"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("begun", ["--start-agent", "nsys-launcher"])
def test_nothing_of_a_probe_outlives_it(
    tmp_path: Path, nsys: NsysTool, view: str, number: signal.Signals, begun: str
) -> None:
    """Ended in its first second, while nsys starts its parts, the agent in a session of its own among them."""
    environ = environment(TMPDIR=str(tmp_path))

    def parts() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TMPDIR", "").startswith(str(tmp_path)) and process.pid != doctor.pid:
                    found.append(process)
        return found

    def has_begun() -> bool:
        for process in parts():
            with suppress(psutil.Error):
                if begun in " ".join(process.cmdline()):
                    return True
        return False

    doctor = subprocess.Popen([sys.executable, "-c", PROBE, nsys.path, view], env=environ, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 90
    try:
        while not has_begun():
            assert doctor.poll() is None
            assert time.monotonic() < until
        doctor.send_signal(number)
        doctor.wait(90)
        while parts():
            assert time.monotonic() < until, [process.cmdline() for process in parts()]
            time.sleep(0.05)
    finally:
        doctor.kill()


PAYLOADS = """
from runner.collectors.nvidia.recording import NvtxSink

sink = NvtxSink()
for payload in (None, 909, None, 0, -3, None, 2**40):
    sink.push("dsocr", "decode_step", payload)
    sink.pop("dsocr")
"""


def test_a_range_has_its_own_payload_or_none(tmp_path: Path, nsys: NsysTool) -> None:
    """nvtx keeps the attributes of a name, and has no way to take a payload off them."""
    target = (sys.executable, "-c", PAYLOADS)
    options = {"trace": "nvtx", "sample": "none", "cpuctxsw": "none"}
    argv = profile_argv(nsys, options, output=str(tmp_path / "trace"), session="payloads", target=target)
    log, trace = tmp_path / "log", tmp_path / "trace.sqlite"
    with Interrupts() as interrupts:
        env, deadline = environment(), time.monotonic() + 120
        run_process(argv, env=env, log=log, interrupts=interrupts, target=target, deadline=deadline)
        report = finish_import(nsys, tmp_path, env=env, log=log, interrupts=interrupts)
        export_report(nsys, report, trace, env=env, log=log, interrupts=interrupts)
    with closing(sqlite3.connect(trace)) as connection:
        rows = connection.execute("SELECT int64Value FROM NVTX_EVENTS WHERE eventType = 59 ORDER BY start").fetchall()
    assert [payload for (payload,) in rows] == [None, 909, None, 0, -3, None, 2**40]


def test_every_preset_resolves_or_says_why_not(nsys: NsysTool) -> None:
    for name in preset_names():
        preset = load_preset(name)
        resolved = resolve_options(preset, nsys, device="cuda:0")
        assert set(resolved.options) <= set(nsys.profile_options)


def test_a_scripted_run_from_capture_to_export(tmp_path: Path, nsys: NsysTool) -> None:
    run = prepare(tmp_path, nsys)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts)
    assert manifest.status == "complete"
    assert not any("did not end well" in note for note in manifest.notes)
    found = events(run.directory.trace_file)
    assert ("dsocr", 59, "image[0]") in found
    assert ("dsocr", 59, "prefill") in found
    marks = [text for domain, kind, text in found if domain == "dsocr.meta" and kind == 34]
    assert len(marks) == 1
    inside = json.loads(marks[0].removeprefix("dsocr-manifest "))
    assert inside["run_id"] == manifest.run_id
    assert inside["status"] == "running"
    assert inside["control"]


def test_the_tiny_model_end_to_end(tmp_path: Path, nsys: NsysTool) -> None:
    """``dsocr-profile run`` as a user calls it, with the real workload, to the report."""
    out = tmp_path / "reports"
    argv = [sys.executable, "-m", "runner.cli", "run", "deepseek-ocr-tiny", "--collector", "nsys", "--device", "cpu"]
    argv += ["--nsys", nsys.path, "--images", str(_page(tmp_path)), "--out", str(out)]
    argv += ["--repeats", "1", "--max-new-tokens", "3"]
    done = subprocess.run(
        argv,
        env=environment(DSOCR_LOCK_DIR=str(tmp_path)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        umask=0,
    )
    folder = (out / "latest").resolve()
    assert done.returncode == 0, done.stderr
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["exit_codes"]["control"] == manifest["exit_codes"]["child"] == manifest["exit_codes"]["nsys"] == 0
    assert manifest["exit_codes"]["export"] == manifest["exit_codes"]["analysis"] == 0
    # On a CPU the trace has ranges and no GPU work, and the report says so instead of showing zeros as facts.
    report = (folder / "report.md").read_text()
    assert "host times only" in report
    assert "andom" in report.split("##")[0]  # "Weights: random"
    found = events(folder / "trace.sqlite")
    assert {"prefill", "decode", "decode_step", "image[0]"} <= {text for domain, _, text in found if domain == "dsocr"}
    assert any(domain == "dsocr.module" for domain, _, _ in found)
    assert any(text.startswith("dsocr-manifest ") for domain, _, text in found if domain == "dsocr.meta" and text)
    for path in (out, *out.rglob("*")):
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def _page(folder: Path) -> Path:
    from PIL import Image

    page = folder / "page.png"
    Image.new("RGB", (640, 640), "white").save(page)
    return page


def test_a_secret_is_in_no_byte_of_any_artefact(tmp_path: Path, nsys: NsysTool) -> None:
    """Planted in this process' own environment and in a neighbour's: nsys reads those of all processes that it may."""
    neighbour = subprocess.Popen(
        ["sleep", "300"], env={**os.environ, "NEIGHBOUR_TOKEN": SECRET, "PATH": os.environ["PATH"]}
    )
    try:
        run = prepare(tmp_path, nsys, environ=environment(HF_TOKEN=SECRET, SOMETHING=SECRET, NVIDIA_API_KEY=SECRET))
        with Interrupts() as interrupts:
            manifest = run.start(interrupts)
    finally:
        neighbour.kill()
        neighbour.wait()
    assert manifest.status == "complete"
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert run.directory.trace_file in files
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
    if namespace_prefix(os.environ):
        assert run.directory.report_file in files  # nothing foreign in it, so it is kept
        # The report compresses its strings, so that its bytes alone prove little: export it anew, unscrubbed.
        raw = tmp_path / "raw.sqlite"
        subprocess.run(
            [nsys.path, "export", "--type=sqlite", f"--output={raw}", str(run.directory.report_file)],
            check=True,
            capture_output=True,
        )
        assert b"PATH=" in raw.read_bytes()
        assert SECRET.encode() not in raw.read_bytes()


def test_without_a_private_process_view_a_foreign_report_is_deleted(
    tmp_path: Path, nsys: NsysTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.collectors.nsys.collector.namespace_prefix", lambda environ: ())
    neighbour = subprocess.Popen(["sleep", "300"], env={"NEIGHBOUR_TOKEN": SECRET, "PATH": os.environ["PATH"]})
    try:
        run = prepare(tmp_path, nsys)
        with Interrupts() as interrupts:
            manifest = run.start(interrupts)
    finally:
        neighbour.kill()
        neighbour.wait()
    assert not run.directory.report_file.exists()
    assert any("NEIGHBOUR_TOKEN" in note for note in manifest.notes)
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert SECRET.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("behaviour", ["hang", "stubborn hang"])
def test_ctrl_c_ends_the_child_and_nsys_finishes_its_report(tmp_path: Path, nsys: NsysTool, behaviour: str) -> None:
    run = prepare(tmp_path, nsys, behaviour)
    with Interrupts() as interrupts:
        signal_when(run.directory.path / "capture is at work")
        with pytest.raises(InterruptedRunError, match="resume"):
            run.start(interrupts)
    assert run.directory.read_manifest().status == "interrupted"
    assert not marked_processes(run.plan.run_id)
    with Interrupts() as interrupts:
        run.resume(interrupts)
    recorded = events(run.directory.trace_file)
    assert any(domain == "dsocr.meta" and kind == 34 for domain, kind, _ in recorded)
    # A program that has to be killed takes with it what nsys has not fetched: with 2022.4 all but the first moment.
    assert "stubborn" in behaviour or ("dsocr", 59, "prefill") in recorded


def test_a_second_ctrl_c_leaves_no_process_behind(tmp_path: Path, nsys: NsysTool) -> None:
    run = prepare(tmp_path, nsys, "stubborn hang", grace_s=300.0)
    with Interrupts() as interrupts:
        signal_when(run.directory.path / "capture is at work", times=2)
        with pytest.raises(InterruptedRunError, match="killed"):
            run.start(interrupts)
    assert not marked_processes(run.plan.run_id)


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [("late crash", 9, "exit code 9"), ("signal itself", 128 + signal.SIGSEGV, "SIGSEGV")],
)
def test_a_crash_of_the_child_keeps_the_trace(
    tmp_path: Path, nsys: NsysTool, behaviour: str, code: int, words: str
) -> None:
    run = prepare(tmp_path, nsys, behaviour)
    with Interrupts() as interrupts, pytest.raises(ChildFailedError, match=words):
        run.start(interrupts)
    manifest = run.directory.read_manifest()
    assert (manifest.status, manifest.exit_codes.child, manifest.exit_codes.nsys) == ("failed", code, 0)
    # A signal may cost the last events that nsys has not fetched yet, never the earlier ones.
    assert any(domain == "dsocr.meta" and kind == 34 for domain, kind, _ in events(run.directory.trace_file))


def test_an_unknown_option_is_told_in_nsys_own_words(tmp_path: Path, nsys: NsysTool) -> None:
    run = prepare(tmp_path, nsys, nsys_args=("--no-such-option=1",))
    with Interrupts() as interrupts, pytest.raises(CaptureError, match=r"did not start the program.*no-such-option"):
        run.start(interrupts)


def test_a_missing_importer_leaves_a_stream_that_can_be_resumed(tmp_path: Path, nsys: NsysTool) -> None:
    program = wrapper_without_importer(nsys, tmp_path / "half")
    half = probe(program, os.environ)
    with pytest.raises(CaptureError, match="QdstrmImporter"):
        find_nsys(str(program), os.environ)
    run = prepare(tmp_path / "out", half)
    with Interrupts() as interrupts, pytest.raises(ExportError, match=r"trace\.qdstrm.*no QdstrmImporter.*resume"):
        run.start(interrupts)
    manifest = run.directory.read_manifest()
    assert (manifest.exit_codes.child, manifest.status) == (0, "failed")
    whole = NsysCollector(nsys).for_plan(run.plan, run.environ)
    with Interrupts() as interrupts:
        assert evolve(run, collection=whole).resume(interrupts).status == "complete"
    assert ("dsocr", 59, "prefill") in events(run.directory.trace_file)


def test_an_importer_that_lacks_a_library_is_named(tmp_path: Path, nsys: NsysTool) -> None:
    """The importer's folder without one of its libraries: what a missing libdw.so.1 is to nsys 2025.3."""
    assert nsys.importer is not None
    host = Path(nsys.importer).parent
    program = wrapper_without_importer(nsys, tmp_path / "half")
    missing = "libAnalysis.so"
    if not (host / missing).exists():
        pytest.skip(f"this nsys has no {missing}")
    copy = tmp_path / "half" / host.name
    copy.mkdir()
    for file in host.iterdir():
        if file.is_file() and file.name != missing:
            if file.name == "QdstrmImporter":
                shutil.copy2(file, copy / file.name)  # $ORIGIN is where the file itself lies
            else:
                (copy / file.name).symlink_to(file.resolve())
    tool = probe(program, os.environ)
    assert missing in tool.missing
    with pytest.raises(CaptureError, match=missing):
        find_nsys(str(program), os.environ)
    run = prepare(tmp_path / "out", tool)
    with Interrupts() as interrupts, pytest.raises(ExportError, match=missing):
        run.start(interrupts)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB; only root can mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("a small file system cannot be mounted here (not root)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("left_kib", [8, 150, 400])
def test_a_full_disk_is_a_clear_error_and_loses_nothing(tiny_disk: Path, nsys: NsysTool, left_kib: int) -> None:
    run = prepare(tiny_disk, nsys)
    free = shutil.disk_usage(tiny_disk).free
    (tiny_disk / "ballast").write_bytes(b"\0" * max(free - left_kib * 1024, 0))
    before = {run.directory.plan_file: run.directory.plan_file.read_bytes()}
    with Interrupts() as interrupts, pytest.raises((CaptureError, ExportError, ChildFailedError)) as caught:
        run.start(interrupts)
    assert len(str(caught.value).splitlines()) == 1
    assert not run.directory.trace_file.exists()
    assert not list(run.directory.path.glob("*partial*"))
    run.directory.read_manifest()  # still whole
    assert {file: file.read_bytes() for file in before} == before


def test_a_target_that_cannot_be_written(tmp_path: Path, nsys: NsysTool) -> None:
    argv = [sys.executable, "-m", "runner.cli", "run", "deepseek-ocr-tiny", "--device", "cpu", "--collector", "nsys"]
    argv += ["--nsys", nsys.path, "--images", str(_page(tmp_path)), "--out", "/proc/reports"]
    done = subprocess.run(
        argv,
        env=environment(DSOCR_LOCK_DIR=str(tmp_path)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: /proc/reports")
    assert "Traceback" not in done.stderr


def test_the_real_child_is_what_the_launcher_starts(tmp_path: Path, nsys: NsysTool) -> None:
    run = prepare(tmp_path, nsys, command=child_command)
    child = child_command(run.directory, "capture")
    assert run.commands()["capture"][-len(child) :] == child


def test_two_ranks_share_a_model(tmp_path: Path, nsys: NsysTool) -> None:
    """Through the command line, on two processes of this CPU: one trace each, with the collectives' results equal."""
    argv = [sys.executable, "-m", "runner.cli", "run", "llama-tiny", "--device", "cpu", "--collector", "nsys"]
    argv += ["--nsys", nsys.path, "--tensor-parallel", "2", "--repeats", "1", "--max-new-tokens", "3"]
    argv += ["--images", str(_page(tmp_path)), "--out", str(tmp_path / "out")]
    env = environment(DSOCR_LOCK_DIR=str(tmp_path))
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "latest"
    first, second = (events(folder / f"rank{rank}.sqlite") for rank in (0, 1))
    stages = [name for domain, kind, name in first if (domain, kind) == ("dsocr", 59)]
    assert {"image[0]", "prefill", "decode", "decode_step"} <= set(stages)
    assert stages == [name for domain, kind, name in second if (domain, kind) == ("dsocr", 59)]
    run = json.loads((folder / "run.json").read_text())
    assert (run["status"], run["options"]["tensor_parallel"]) == ("complete", 2)
    assert any("2 ranks share the model" in note for note in run["notes"])
    assert not (folder / "random-weights").exists()
    assert {"report.html", "rank0", "rank1"} <= {entry.name for entry in folder.iterdir()}
    assert (folder / "rank1" / "report.html").is_file()
    # The same tokens as one process makes: the shares add up to the whole model.
    alone = [*argv[: argv.index("--tensor-parallel")], *argv[argv.index("--tensor-parallel") + 2 :]]
    alone[alone.index("nsys")] = "torch"
    done = subprocess.run(alone, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = json.loads((tmp_path / "out" / "latest" / "run.json").read_text())
    assert [image["new_tokens"] for image in whole["control"]] == [image["new_tokens"] for image in run["control"]]
    assert whole["model"]["parameters"] == run["model"]["parameters"]
