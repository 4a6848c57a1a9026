"""Secrets of every kind under real Nsight Systems: in ranges, thread names, command line, environment and output."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch_kit import environment, real_nsys
from leak_search import leaks
from planted_secrets import NAMED, PLANTED
from program_kit import program, program_run, range_names
from runner.collectors.nsys.tool import NsysTool
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
