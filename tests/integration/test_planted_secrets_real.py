"""Secrets of every kind under the real tools of Nsight: in ranges, thread names, command line, environment and output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from analysis.domain.errors import CaptureError
from launch_kit import H100, environment, finished_run, real_nsys
from leak_search import leaks
from planted_secrets import NAMED, PLANTED
from program_kit import program, program_run, range_names
from runner.collectors.ncu.tool import NcuTool, find_ncu
from runner.collectors.nsys.collector import local_folders
from runner.collectors.nsys.tool import NsysTool
from runner.launcher import review as review_module
from runner.launcher.review import Review, ReviewOptions
from runner.process.driver import DriverFacts, VisibleGpu
from runner.process.process import Interrupts

pytestmark = pytest.mark.integration

SECRETS = {kind: secret for kind, (_, secret) in PLANTED.items()} | NAMED

PROGRAM = """
    import os, sys, time
    import nvtx
    for text in TEXTS:
        print(text, flush=True)
        with nvtx.annotate(text):
            time.sleep(0.001)
        with nvtx.annotate("layer", domain=text[:100]):
            nvtx.mark(text)
    print(dict(os.environ))
    with nvtx.annotate(os.environ.get("MY_TOKEN", "nothing")):
        pass
"""


@pytest.fixture
def nsys() -> NsysTool:
    tool = real_nsys()
    if tool is None:
        pytest.skip("no usable nsys here; `make nsys`")
    return tool


@pytest.mark.parametrize("given", [True, False], ids=["given", "of its own"])
def test_nothing_of_a_planted_program_is_left(tmp_path: Path, nsys: NsysTool, given: bool) -> None:
    """The program says what it was given in its command line and a kept variable, or what it knows by itself."""
    texts = [text for text, _ in PLANTED.values()]
    known = "sys.argv[1:]" if given else repr(texts)
    command = program(tmp_path / "program", PROGRAM.replace("TEXTS", known)) + (texts if given else [])
    forms = {f"PLANT_{number}": text for number, text in enumerate(texts)}
    environ = environment(**forms, **NAMED, MY_TOKEN=NAMED["WANDB_API_KEY"], DSOCR_LOCK_DIR=str(tmp_path / "locks"))
    said: list[str] = []
    keep_env = ("MY_TOKEN",) if given else ()
    run = program_run(tmp_path / "out", command, nsys, environ=environ, said=said, keep_env=keep_env, control=1)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts, wait=True)
    assert manifest.status == "complete"
    assert len(range_names(run.directory.trace_file)) == 2 * len(texts) + 1
    assert not run.directory.report_file.exists()
    (tmp_path / "said").write_text("\n".join(said))
    assert leaks([tmp_path / "out", tmp_path / "locks", tmp_path / "said"], SECRETS) == []


def test_a_program_without_secrets_keeps_its_report(tmp_path: Path, nsys: NsysTool) -> None:
    """Else every report would be deleted: what looks like a secret must be one."""
    command = program(tmp_path, "import nvtx\nwith nvtx.annotate('decode'): print('hello')")
    environ = environment(**NAMED, DSOCR_LOCK_DIR=str(tmp_path / "locks"))
    run = program_run(tmp_path / "out", [*command, "--max-new-tokens", "64"], nsys, environ=environ)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts, wait=True)
    if any("other processes" in note for note in manifest.notes):
        pytest.skip("no private view of the processes here")
    assert run.directory.report_file.is_file()
    assert leaks([run.directory.path], dict(NAMED)) == []


@pytest.fixture
def ncu() -> NcuTool:
    try:
        return find_ncu(None, os.environ, folders=local_folders())
    except CaptureError as error:
        pytest.skip(f"{error} (make ncu)")


def test_a_review_with_the_real_ncu_leaves_no_secret(
    tmp_path: Path, ncu: NcuTool, real_trace: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a driver it neither starts the program nor stores a report: what it says is looked at, and what we keep of it."""
    facts = DriverFacts(cuda=(13, 0), driver="580.1", gpus=(VisibleGpu(H100, "b8a7a1a0-0000-0000-0000-000000000000"),))
    monkeypatch.setattr(review_module, "driver_facts", lambda: facts)
    forms = {f"PLANT_{number}": text for number, (text, _) in enumerate(PLANTED.values())}
    environ = environment(**forms, **NAMED, DSOCR_LOCK_DIR=str(tmp_path / "locks"), HOME=str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    directory = finished_run(tmp_path / "out", real_trace("deepseek-ocr_h100_64tok"))
    said: list[str] = []
    work = Review.open(directory, ReviewOptions(keep_report=True), ncu, environ, said.append)
    telling = "import os, sys; print('told:', dict(os.environ)); sys.stderr.write(repr(sys.argv))"
    work = evolve(work, command=lambda place: [sys.executable, "-c", telling, str(place.plan_file)])
    with Interrupts() as interrupts, pytest.raises(CaptureError) as caught:
        work.carry_out(interrupts)
    assert "==ERROR==" in work.directory.log(f"review-{work.layers[0].name}").read_text()
    (tmp_path / "said").write_text("\n".join([*said, str(caught.value)]))
    assert leaks([tmp_path], SECRETS) == []
