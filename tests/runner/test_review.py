"""The review of a run under a scripted ncu: what is kept, what is said, how it ends early."""

from __future__ import annotations

import json
import lzma
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.domain.errors import AnalysisFailedError, BusyError, CaptureError, InterruptedRunError, RequestError
from launch_kit import H100, ROOT, device_held, environment, fake_ncu, finished_run
from runner.launcher import review as review_module
from runner.launcher.review import Review, ReviewOptions, child_command, require_reviewable
from runner.launcher.run_directory import RunDirectory
from runner.process.driver import DriverFacts, VisibleGpu
from runner.process.process import Interrupts, marked_processes

SLOW = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); print('up', flush=True); "
FAILING = "import sys; sys.stderr.write('workload: error: the device ran out of memory\\n'); sys.exit(5)"


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = DriverFacts(cuda=(13, 0), driver="580.1", gpus=(VisibleGpu(H100, "b8a7a1a0-0000-0000-0000-000000000000"),))
    monkeypatch.setattr(review_module, "driver_facts", lambda: facts)
    monkeypatch.setenv("DSOCR_LOCK_DIR", str(tmp_path / "locks"))


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The counter files that the analysis was given; it leaves an empty page."""
    seen: list[list[str]] = []

    def command(run: RunDirectory, files: list[Path]) -> list[str]:
        seen.append([file.name for file in files])
        return [sys.executable, "-c", f"open({str(run.path / 'review.html')!r}, 'w'); print('the essence')"]

    monkeypatch.setattr(review_module, "analysis_command", command)
    return seen


Make = Callable[..., tuple[Review, list[str]]]


@pytest.fixture
def make(tmp_path: Path, real_trace: Callable[[str], Path], h100: None) -> Make:
    def opened(how: str = "", program: str = "", **options: Any) -> tuple[Review, list[str]]:
        directory = finished_run(tmp_path / "out", real_trace("deepseek-ocr_h100_64tok"))
        said: list[str] = []
        environ = environment(NCU_FAKE=how, SECRET_TOKEN="planted-secret", DSOCR_LOCK_DIR=str(tmp_path / "locks"))
        work = Review.open(directory, ReviewOptions(**options), fake_ncu(tmp_path), environ, said.append)
        return evolve(work, command=lambda place: [sys.executable, "-c", program or "pass"]), said

    return opened


def record(work: Review) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work.place.path / "collection.json").read_text())
    return found


def test_three_layers_are_counted_and_joined(make: Make, joined: list[list[str]]) -> None:
    work, said = make()
    pages: list[bool] = []
    with Interrupts() as interrupts:
        work.carry_out(interrupts, lambda: pages.append((work.directory.path / "review.html").is_file()))
    names = ["census-memory", "sections", "census-operations"]
    assert joined == [[f"{name}.csv.xz" for name in names]]
    assert pages == [True]
    layers = record(work)["layers"]
    assert [(one["name"], one["kernels"], one["ended_because"]) for one in layers] == [
        (name, 3, None) for name in names
    ]
    assert [one["expected"] for one in layers] == [2362 + 866, 16, 2362 + 866]
    assert [one["remark"] for one in record(work)["layers"]] == [
        "the trace has 3,228 launches there, so the program did not take quite the same way",
        "the trace has 16 such launch shapes",
        "the trace has 3,228 launches there, so the program did not take quite the same way",
    ]
    assert any(line.startswith("census-memory: 3,228 kernels, about 3 min") for line in said)
    assert work.directory.log("review-sections").is_file()
    assert "the essence" in work.directory.log("review").read_text()


def test_a_stage_that_ncu_did_not_see_is_told(make: Make, joined: list[list[str]]) -> None:
    work, said = make("no prefill", kernels=0)
    with Interrupts() as interrupts:
        work.carry_out(interrupts)
    assert any("no kernel of prefill was met: ncu saw no such range" in line for line in said)


def test_nothing_that_names_the_machine_is_left(make: Make, joined: list[list[str]]) -> None:
    work, _ = make()
    with Interrupts() as interrupts:
        work.carry_out(interrupts)
    left = {file.name for file in work.place.path.iterdir()}
    assert left == {f"{layer.name}.csv.xz" for layer in work.layers} | {"collection.json"}
    for file in work.place.path.glob("*.xz"):
        assert "planted-host" not in lzma.decompress(file.read_bytes()).decode()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for file in (file for file in work.directory.path.rglob("*") if file.is_file() and not file.is_symlink()):
        assert b"planted-secret" not in file.read_bytes(), file


def test_the_child_gets_the_runs_plan_in_a_folder_of_its_own(make: Make, joined: list[list[str]]) -> None:
    copy = (
        "import os, shutil, sys; shutil.copy(sys.argv[1], sys.argv[1] + '.seen'); "
        "open(sys.argv[1] + '.env', 'w').write(repr(dict(os.environ)))"
    )
    work, _ = make()
    work = evolve(work, command=lambda place: [sys.executable, "-c", copy, str(place.plan_file)])
    before = work.directory.plan_file.read_bytes()
    with Interrupts() as interrupts:
        work.carry_out(interrupts)
    seen = json.loads((work.place.path / "plan.json.seen").read_text())
    assert seen["run_dir"] == str(work.place.path)
    assert seen["settings"]["seed"] == 7
    assert work.directory.plan_file.read_bytes() == before
    environ = (work.place.path / "plan.json.env").read_text()
    assert "planted-secret" not in environ
    assert "'NV_COMPUTE_PROFILER_DISABLE_STOCK_FILE_DEPLOYMENT': '1'" in environ


def test_the_real_child_is_asked_for_one_prefill_and_one_step(tmp_path: Path) -> None:
    argv = child_command(RunDirectory(tmp_path))
    assert argv[-4:] == [str(tmp_path / "plan.json"), "--role", "capture", "--brief"]
    assert "--manifest" not in argv  # it would be stored with every kernel


def test_reports_are_kept_on_request(make: Make, joined: list[list[str]]) -> None:
    work, _ = make(keep_report=True, kernels=0)
    with Interrupts() as interrupts:
        work.carry_out(interrupts)
    reports = list(work.place.path.glob("*.ncu-rep"))
    assert len(reports) == 2
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in reports)


def test_no_permission_is_told_with_its_remedy_and_once(make: Make, joined: list[list[str]]) -> None:
    work, _ = make("no permission")
    with (
        Interrupts() as interrupts,
        pytest.raises(CaptureError, match="NVreg_RestrictProfilingToAdminUsers=0") as caught,
    ):
        work.carry_out(interrupts)
    assert "\n" not in str(caught.value)
    assert not joined
    assert len(record(work)["layers"]) == 1


def test_a_child_that_fails_is_told_in_its_own_words(make: Make, joined: list[list[str]]) -> None:
    work, _ = make(program=FAILING)
    with Interrupts() as interrupts, pytest.raises(CaptureError, match="ran out of memory"):
        work.carry_out(interrupts)
    assert record(work)["layers"][0]["ended_because"].startswith("ended with exit code 5")


def test_sections_that_fail_do_not_take_the_census_with_them(make: Make, joined: list[list[str]]) -> None:
    work, _ = make("sections fail")
    with (
        Interrupts() as interrupts,
        pytest.raises(CaptureError, match=r"sections: ncu says: Unknown Error.*review\.html"),
    ):
        work.carry_out(interrupts)
    assert joined == [["census-memory.csv.xz", "census-operations.csv.xz"]]


def test_a_report_that_cannot_be_read_is_told(make: Make, joined: list[list[str]]) -> None:
    work, _ = make("cannot import")
    with (
        Interrupts() as interrupts,
        pytest.raises(Exception, match="could not read its own report: ncu says: Could not"),
    ):
        work.carry_out(interrupts)


def test_the_budget_ends_it_in_order_and_keeps_what_there_is(
    make: Make, joined: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_module, "_START_S", 0.5)
    work, said = make(program=SLOW + "time.sleep(300)", budget_s=3.0)
    with Interrupts() as interrupts:
        work.carry_out(interrupts)  # no error: it was asked for
    layers = record(work)["layers"]
    assert layers[0]["kernels"] == 3
    assert layers[0]["ended_because"] == "ended by --budget-s 3"
    assert [one["file"] for one in layers[1:]] == [None, None]
    assert any("partial: ended by --budget-s 3" in line for line in said)
    assert joined == [["census-memory.csv.xz"]]
    assert not marked_processes(f"review-{work.plan.run_id}")


def test_ctrl_c_keeps_and_joins_what_there_is(make: Make, joined: list[list[str]]) -> None:
    work, _ = make(program=SLOW + "time.sleep(300)")
    log = work.directory.log("review-census-memory")

    def press() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not (log.is_file() and "kernel_2" in log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    with Interrupts() as interrupts:
        thread.start()
        with pytest.raises(InterruptedRunError, match=r"census-memory: interrupted.*review\.html"):
            work.carry_out(interrupts)
    thread.join()
    assert joined == [["census-memory.csv.xz"]]
    assert record(work)["layers"][0]["ended_because"] == "interrupted"
    assert not marked_processes(f"review-{work.plan.run_id}")


def test_an_earlier_reviews_counters_are_not_joined(make: Make, joined: list[list[str]]) -> None:
    work, _ = make("sections fail")
    work.place.path.mkdir()
    old = work.place.path / "sections.csv.xz"
    old.write_bytes(b"of another run")
    with Interrupts() as interrupts, pytest.raises(CaptureError):
        work.carry_out(interrupts)
    assert not old.exists()


def test_a_failed_join_keeps_the_counters(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('error: no kernel of it is in the trace')"]
    monkeypatch.setattr(review_module, "analysis_command", lambda run, files: failing)
    work, _ = make(kernels=0)
    with Interrupts() as interrupts, pytest.raises(AnalysisFailedError, match=r"no kernel of it is in the trace.*kept"):
        work.carry_out(interrupts)
    assert (work.place.path / "census-memory.csv.xz").is_file()


def test_a_held_device_is_not_shared(make: Make, joined: list[list[str]], tmp_path: Path) -> None:
    work, _ = make()
    with device_held("cuda:0", {**environment(), "DSOCR_LOCK_DIR": str(tmp_path / "locks")}):
        same = "cuda-b8a7a1a0-0000-0000-0000-000000000000.lock"
        # The holder sees no H100 here, so its lock has the name of a number.
        (tmp_path / "locks" / "cuda-0.lock").rename(tmp_path / "locks" / same)
        with Interrupts() as interrupts, pytest.raises(BusyError, match="held by another run"):
            work.carry_out(interrupts)


def test_another_gpu_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = make()
    other = DriverFacts(cuda=(13, 0), driver="580.1", gpus=(VisibleGpu("NVIDIA A100", "b"),))
    monkeypatch.setattr(review_module, "driver_facts", lambda: other)
    with Interrupts() as interrupts, pytest.raises(RequestError, match=r"recorded on NVIDIA H100.*here is NVIDIA A100"):
        work.carry_out(interrupts)
    monkeypatch.setattr(review_module, "driver_facts", lambda: DriverFacts(None, None))
    with Interrupts() as interrupts, pytest.raises(RequestError, match=r"not visible here.*--from"):
        work.carry_out(interrupts)


def test_too_small_a_disk_is_told_before_anything_starts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = make()
    monkeypatch.setattr(review_module, "_REPORT_BYTES", 1 << 60)
    with Interrupts() as interrupts, pytest.raises(CaptureError, match=r"GiB are free.*--stage decode"):
        work.carry_out(interrupts)


@pytest.mark.parametrize(
    ("changes", "told"), [({"device": "cpu"}, "ran on the CPU"), ({"collector": "torch"}, "collector torch")]
)
def test_runs_that_have_no_counters_are_told_why(
    tmp_path: Path, real_trace: Callable[[str], Path], changes: dict[str, str], told: str
) -> None:
    directory = finished_run(tmp_path, real_trace("deepseek-ocr_h100_64tok"), **changes)
    with pytest.raises(RequestError, match=told) as caught:
        require_reviewable(directory)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_trace_is_told(tmp_path: Path) -> None:
    directory = finished_run(tmp_path, tmp_path / "nothing")
    with pytest.raises(RequestError, match=r"no trace\.sqlite.*resume"):
        require_reviewable(directory)


def test_a_graph_that_was_traced_whole_is_said(tmp_path: Path, real_trace: Callable[[str], Path]) -> None:
    directory = finished_run(tmp_path / "out", real_trace("deepseek-ocr_h200_cuda-graph"), decode_mode="cuda-graph")
    work = Review.open(directory, ReviewOptions(), fake_ncu(tmp_path), environment(), print)
    assert work.layers[0].selection.stages == ("prefill",)
    assert any(note.startswith("decode: the trace holds its CUDA graph as one piece") for note in work.notes)


# -- the command --------------------------------------------------------------------------------------------------------


def dsocr(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "runner.cli", *arguments]
    env = environment(**variables)
    return subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


def test_dry_run_prints_every_command(tmp_path: Path, real_trace: Callable[[str], Path]) -> None:
    directory = finished_run(tmp_path / "out", real_trace("deepseek-ocr_h100_64tok"))
    tool = fake_ncu(tmp_path)
    done = dsocr("review", str(directory.path), "--ncu", tool.path, "--dry-run", "--stage", "decode", "--kernels", "8")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(lines) == 7
    assert "dsocr@decode_step/" in done.stdout
    assert "dsocr@prefill/" not in done.stdout
    assert "# census-memory: 866 kernels" in done.stdout
    assert lines[-1].count("--counters") == 3
    assert not (directory.path / "counters").exists()


def test_a_dry_run_without_ncu_says_what_would_be_done_and_what_is_missing(
    tmp_path: Path,
    real_trace: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from runner.cli.app import app
    from runner.collectors.ncu import tool as ncu_tool

    directory = finished_run(tmp_path / "out", real_trace("deepseek-ocr_h100_64tok"))
    monkeypatch.setattr(ncu_tool, "candidate_paths", lambda environ, folders=(): [])
    monkeypatch.delenv("NCU", raising=False)
    argv = ["review", str(directory.path), "--stage", "decode", "--kernels", "8"]
    app([*argv, "--dry-run"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# census: traffic and operations of all 866 kernels of decode, in two starts of the program"
    assert lines[1].startswith("# sections: ")
    assert lines[2].startswith("# about ")
    assert lines[3].startswith("# missing: no ncu found in PATH or the usual places: install Nsight Compute")
    with pytest.raises(CaptureError, match="no ncu found"):
        app(argv, standalone_mode=False)
    with pytest.raises(CaptureError, match="--ncu /nowhere/ncu: no such program"):
        app([*argv, "--dry-run", "--ncu", "/nowhere/ncu"], standalone_mode=False)


def test_a_run_is_found_by_its_beginning_and_bad_ones_are_one_line(
    tmp_path: Path, real_trace: Callable[[str], Path]
) -> None:
    finished_run(tmp_path / "out", real_trace("deepseek-ocr_h100_64tok"), device="cpu")
    done = dsocr("review", "1111", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "ran on the CPU" in done.stderr
    done = dsocr("review", "9", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "no run" in done.stderr


def test_other_peoples_counters_must_be_there(tmp_path: Path, real_trace: Callable[[str], Path]) -> None:
    directory = finished_run(tmp_path / "out", real_trace("deepseek-ocr_h100_64tok"))
    done = dsocr("review", str(directory.path), "--from", str(tmp_path / "none.csv"))
    assert done.returncode == 2
    assert "no such file" in done.stderr
