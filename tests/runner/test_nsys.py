"""Finding nsys, asking it what it can do, and the command lines."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.domain.errors import CaptureError, RequestError
from launch_kit import fake_nsys
from runner.collectors.nsys.answers import Answers, remember, remembered
from runner.collectors.nsys.tool import (
    candidate_paths,
    export_argv,
    find_nsys,
    missing_libraries,
    option_name,
    parse_options,
    parse_values,
    probe,
    profile_argv,
    usable_tools,
)

HELP = """
usage: nsys profile [<args>]

\t-c, --capture-range=

\t   Possible values are none, cudaProfilerApi.
\t   When '-c cudaProfilerApi' is used, profiling starts late.

\t--nvtx-domain-[include|exclude]=

\t   Possible values are a comma-separated list.

\t-t, --trace=

\t   Possible values are 'cuda', 'nvtx', 'cublas-verbose',
\t   'osrt' or 'none'. Select the API(s) to trace, such as 'no-value'.
"""


def test_options_are_read_from_help() -> None:
    options = parse_options(HELP)
    assert {"capture-range", "trace", "nvtx-domain-include", "nvtx-domain-exclude"} <= set(options)
    assert (options["c"], options["t"]) == ("capture-range", "trace")
    assert parse_values(options["trace"]) == {"cuda", "nvtx", "cublas-verbose", "osrt", "none"}
    assert parse_values(options["capture-range"]) == frozenset()


@given(st.text())
def test_any_text_is_read_without_a_fault(text: str) -> None:
    parse_options(text)
    parse_values(text)


def test_a_fake_is_probed(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path)
    assert tool.version == "2099.1.0"
    assert tool.fault is None
    assert "osrt" in tool.trace_values()
    assert tool.importer == str(tmp_path / "host-linux-x64/QdstrmImporter")


def test_a_link_to_nsys_finds_its_importer(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path / "install")
    link = tmp_path / "bin" / "nsys"
    link.parent.mkdir()
    link.symlink_to(tool.path)
    assert probe(link, os.environ).importer == tool.importer


def test_an_nsys_without_importer_is_not_usable(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path, importer=None)
    with pytest.raises(CaptureError, match=r"--nsys .*importer \(QdstrmImporter\) is not installed"):
        find_nsys(tool.path, os.environ)
    assert find_nsys(tool.path, os.environ, need_import=False).path == tool.path


def test_a_named_nsys_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such program"):
        find_nsys(str(tmp_path / "nsys"), os.environ)
    with pytest.raises(CaptureError, match=r"\$NSYS .*no such program"):
        find_nsys(None, {"NSYS": "/nowhere/nsys", "PATH": os.defpath})
    (tmp_path / "nsys").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "nsys").chmod(0o755)
    with pytest.raises(CaptureError, match="does not say its version"):
        find_nsys(str(tmp_path / "nsys"), os.environ)


def test_the_newest_usable_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.collectors.nsys.tool.NSYS_PLACES", ())
    newest = fake_nsys(tmp_path / "newest", importer=None)
    usable = fake_nsys(tmp_path / "usable")
    older = tmp_path / "older"
    fake_nsys(older)
    program = older / "target-linux-x64/nsys"
    program.write_text(program.read_text().replace("2099.1.0", "2011.1"))
    path = os.pathsep.join(str(tmp_path / name / "target-linux-x64") for name in ("older", "newest", "usable"))
    environ = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    assert len([one for one in candidate_paths(environ) if tmp_path in one.parents]) == 3
    found = find_nsys(None, environ)
    assert found.path == usable.path
    assert found.path != newest.path


def test_none_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("runner.collectors.nsys.tool.NSYS_PLACES", ())
    with pytest.raises(CaptureError, match=r"no nsys found.*make nsys.*--nsys"):
        find_nsys(None, {"PATH": str(tmp_path)})


def test_profile_argv_is_replaced_by_the_users_options(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path)
    argv = profile_argv(
        tool,
        {"trace": "cuda,nvtx", "sample": "none"},
        output="/runs/a b/trace",
        session="s",
        target=("python", "child.py"),
        extra=("-t=nvtx", "--backtrace=none"),
    )
    assert argv == [
        tool.path,
        "profile",
        "--output=/runs/a b/trace",
        "--session-new=s",
        "--sample=none",
        "-t=nvtx",
        "--backtrace=none",
        "python",
        "child.py",
    ]


@pytest.mark.parametrize("argument", ["--output=x", "-o", "--env-var=HF_TOKEN=x", "--session-new=x"])
def test_options_of_the_launcher_are_refused(tmp_path: Path, argument: str) -> None:
    tool = fake_nsys(tmp_path)
    with pytest.raises(RequestError, match=r"--nsys-arg="):
        profile_argv(tool, {}, output="x", session="s", target=("true",), extra=(argument,))


def test_export_argv_asks_only_what_is_known(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path)
    assert "--quiet=true" not in export_argv(tool, "a.nsys-rep", "a.sqlite")


def test_option_names() -> None:
    assert option_name("--trace=cuda") == option_name("-t", {"t": "trace"}) == option_name("trace") == "trace"


def test_missing_libraries_of_a_whole_program_are_none() -> None:
    assert missing_libraries(Path("/bin/sh"), os.environ) == ()


def binary(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A program that says nothing, as an nsys that must not be asked; and an environment with a cache of its own."""
    program = tmp_path / "target-linux-x64" / "nsys"
    program.parent.mkdir()
    shutil.copy(str(shutil.which("true")), program)
    return program, {"PATH": os.defpath, "XDG_CACHE_HOME": str(tmp_path / "cache")}


ANSWERS = Answers("2025.3.1", {"trace": "Possible values are 'cuda'."}, {"quiet": ""})


def test_what_an_nsys_answered_is_not_asked_again(tmp_path: Path) -> None:
    program, environ = binary(tmp_path)
    with pytest.raises(CaptureError, match="does not say its version"):
        probe(program, environ)
    remember(program, environ, ANSWERS)
    tool = probe(program, environ)
    assert (tool.version, tool.trace_values(), tool.importer) == ("2025.3.1", frozenset({"cuda"}), None)
    os.utime(program, ns=(1, 1))  # another file by its time
    with pytest.raises(CaptureError, match="does not say its version"):
        probe(program, environ)


def test_only_programs_are_remembered_and_not_too_many(tmp_path: Path) -> None:
    program, environ = binary(tmp_path)
    for number in range(20):
        os.utime(program, ns=(number, number))
        remember(program, environ, ANSWERS)
    assert remembered(program, environ) == ANSWERS
    (cache,) = (tmp_path / "cache" / "dsocr-profiler").iterdir()
    assert len(json.loads(cache.read_text())["of"]) == 16
    cache.write_text("[1]")
    assert remembered(program, environ) is None
    script = tmp_path / "nsys"
    script.write_text("#!/bin/sh\nexec /opt/whichever/nsys\n")
    remember(script, environ, ANSWERS)
    assert remembered(script, environ) is None
    remember(program, {"PATH": os.defpath}, ANSWERS)  # neither a home nor a cache
    assert remembered(program, {"PATH": os.defpath}) is None
    (tmp_path / "file").write_text("x")
    remember(program, {"XDG_CACHE_HOME": str(tmp_path / "file")}, ANSWERS)  # a place that cannot be written


def test_candidates_are_asked_at_once_and_the_newest_is_taken(tmp_path: Path) -> None:
    fakes = [fake_nsys(tmp_path / name / ".nsys") for name in ("first", "second")]
    tools, reasons = usable_tools({"PATH": os.defpath}, folders=[tmp_path / "first", tmp_path / "second"])
    assert {fake.path for fake in fakes} <= {tool.path for tool in tools}
    assert [tool.version_key for tool in tools if tool.fault is None] == sorted(
        (tool.version_key for tool in tools if tool.fault is None), reverse=True
    )
    assert all(isinstance(reason, str) for reason in reasons)
