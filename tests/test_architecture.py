"""The directions of imports, read from the sources: imports inside functions count like any other."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from import_graph import ALL, ANALYSIS, HISTORY, ROOT, RUNNER, folder_of, imports, module_of, room

HEAVY = {"torch", "transformers", "nvtx", "runner"}
FLOORS = {
    "analysis": (
        "domain",
        "trace",
        "attribution",
        "sums",
        "efficiency",
        "quality",
        "verdict",
        "consistency",
        "report",
        "review",
        "ranks",
        "compare",
        "gate",
        "sweep",
        "render",
        "api",
        "cli",
    ),
    "history": (
        "records",
        "workload",
        "levels",
        "schema",
        "migrations",
        "location",
        "folder",
        "export",
        "upgrading",
        "store",
        "predictions",
        "trend",
    ),
    "runner": ("plan", "process", "inputs", "collectors", "child", "launcher", "cli"),
}
"""Rooms of each package from the ground up: a room imports itself and what lies below it."""


def test_there_is_something_to_look_at() -> None:
    assert {"analysis", "analysis.domain.convert", "analysis.trace.reader"} <= set(ANALYSIS)
    assert {"runner", "runner.child.annotate", "runner.child.models.deepseek_ocr"} <= set(RUNNER)
    assert {"history", "history.store", "history.migrations.versions.r0001_runs"} <= set(HISTORY)


@pytest.mark.parametrize("name", ANALYSIS | HISTORY)
def test_the_analysis_and_the_history_need_nothing_heavy(name: str) -> None:
    found = [(one, line) for one, line in imports(name, ALL[name]) if one.split(".")[0] in HEAVY]
    assert not found, f"{name} imports {found}"


@pytest.mark.parametrize("name", ANALYSIS)
def test_only_commands_of_the_analysis_know_the_history(name: str) -> None:
    found = [(one, line) for one, line in imports(name, ANALYSIS[name]) if one.split(".")[0] == "history"]
    assert not found or room(name) == "cli", f"{name} imports {found}"


@pytest.mark.parametrize("name", RUNNER | HISTORY)
def test_the_runner_and_the_history_share_only_the_domain(name: str) -> None:
    found = [
        (one, line)
        for one, line in imports(name, ALL[name])
        if one.split(".")[0] == "analysis" and one.split(".")[:2] != ["analysis", "domain"]
    ]
    assert not found, f"{name} imports {found}"


@pytest.mark.parametrize("name", ALL)
def test_no_arrow_runs_up(name: str) -> None:
    package = name.split(".")[0]
    floors = FLOORS[package]
    if not room(name):
        return
    assert room(name) in floors, f"{name}: a room without a floor; give it one in FLOORS"
    mine = floors.index(room(name))
    up = [
        (one, line)
        for one, line in imports(name, ALL[name])
        if one.split(".")[0] == package and room(one) in floors and floors.index(room(one)) > mine
    ]
    assert not up, f"{name} imports from a room above it: {up}"


def test_folders_form_no_circle() -> None:
    """Nor do folders inside a room: ``collectors.nsys`` may be imported by ``collectors``, which then gives it nothing."""
    for package in (ANALYSIS, HISTORY, RUNNER):
        graph: dict[str, set[str]] = {}
        for name, path in package.items():
            folder = folder_of(name, path)
            for one, _ in imports(name, path):
                found = module_of(one, package)
                if found is not None and folder_of(found, package[found]) != folder:
                    graph.setdefault(folder, set()).add(folder_of(found, package[found]))
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f"folders import each other: {' ← '.join(error.args[1])}")


@pytest.mark.parametrize("name", [name for name in RUNNER if name.startswith("runner.launcher")])
def test_the_launcher_never_imports_the_child(name: str) -> None:
    found = [(one, line) for one, line in imports(name, RUNNER[name]) if one.startswith("runner.child")]
    assert not found, f"{name} imports {found}"


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {name for name, path in ALL.items() if path.name == "__init__.py"}
    assert set(listed) == folders | {"runner.nsys_configs"}


@pytest.mark.parametrize("package", [ANALYSIS, HISTORY, RUNNER], ids=["analysis", "history", "runner"])
def test_no_circles(package: dict[str, Path]) -> None:
    graph = {
        name: {found for one, _ in imports(name, path) if (found := module_of(one, package)) and found != name}
        for name, path in package.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' ← '.join(error.args[1])}")


def test_only_one_file_and_the_doctors_program_import_nvtx() -> None:
    """The program that the doctor profiles is no part of a run, and must start without torch, which annotate needs."""
    users = {name for name, path in ALL.items() for one, _ in imports(name, path) if one.split(".")[0] == "nvtx"}
    assert users == {"runner.collectors.nvidia.recording", "runner.collectors.nsys.probe_program"}


@pytest.mark.parametrize("name", ALL)
def test_names_of_files_say_what_is_in_them(name: str) -> None:
    assert not {"utils", "util", "helpers", "common", "manager", "misc"} & set(name.split("."))


OWN_WORDS = {"forest", "lane", "lanes", "owner", "owners", "kept", "mend", "mended", "misfit", "misfits"}
"""Words of our own for what has a name that everybody knows: range tree, launch call, memoised, remedy, mismatch."""

NAMES_OF_ANYTHING = {"one", "found"}
"""As whole names they do not say of what: a row, a stage, a finding; matches, places, tables. ``one_input`` may stay."""

STILL_ANYTHING = (
    "analysis.verdict.",
    "analysis.review",
    "analysis.render.review.",
    "analysis.efficiency.counters.",
)
"""Modules, by the beginnings of their names, in which variables still have them."""


@pytest.mark.parametrize("name", ALL)
def test_names_in_the_code_are_those_that_a_stranger_knows(name: str) -> None:
    named: set[str] = set()
    for node in ast.walk(ast.parse(ALL[name].read_text())):
        if isinstance(node, ast.Name):
            named.add(node.id)
        elif isinstance(node, ast.arg):
            named.add(node.arg)
        elif isinstance(node, ast.Attribute):
            named.add(node.attr)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            named.add(node.name)
    words = {word for identifier in named for word in re.findall(r"[A-Z]?[a-z]+", identifier)}
    assert not OWN_WORDS & {word.lower() for word in words}
    if not name.startswith(STILL_ANYTHING):
        assert not NAMES_OF_ANYTHING & named


FORBID = """
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"forbidden here: {{name}}")

sys.meta_path.insert(0, Forbid())
import {module}
"""


@pytest.mark.parametrize("module", ["analysis.cli", "analysis.domain.convert", "analysis.domain.manifest"])
def test_the_analysis_is_imported_where_there_is_no_torch(module: str) -> None:
    code = FORBID.format(names=sorted(HEAVY), module=module)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_hook_does_forbid() -> None:
    code = FORBID.format(names=["json"], module="json")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "forbidden here: json" in done.stderr


SLOW_TO_IMPORT = {
    "numpy.ma",
    "pandas",
    "pyarrow.compute",
    "pyarrow.dataset",
    "matplotlib",
    "scipy",
    "urllib.request",
    *HEAVY,
}
"""What a report must not wait for; pandas takes longer to import than the rest of a small trace's report. ``numpy.ma`` comes with
`numpy.percentile`, with `numpy.median` of fractions and with `numpy.unique` of values alone."""

REPORT = """
import sys
from analysis.cli import main

{before}

sys.argv = ["dsocr-analyze", {trace!r}, "--out", {out!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules, sep="\\n", file=sys.stderr)
"""


def modules_after_a_report(
    real_trace: Callable[[str], Path], tmp_path: Path, before: str = "", name: str = "deepseek-ocr_h100_small"
) -> set[str]:
    """What a process of its own has imported when it has written a report; ``before`` runs first in it."""
    trace, out = str(real_trace(name)), str(tmp_path / "report")
    code = REPORT.format(trace=trace, out=out, before=before)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_small", "vllm_h100_llama"])
def test_a_report_imports_nothing_slow(real_trace: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    imported = modules_after_a_report(real_trace, tmp_path, name=name)
    assert "analysis.report" in imported
    assert not imported & SLOW_TO_IMPORT


READ_FIRST = """
from analysis.trace.reader import Trace

begin = Trace.begin

def note_and_begin(trace):
    print(*(f"{name} before reading" for name in sys.modules), sep="\\n", file=sys.stderr)
    begin(trace)

Trace.begin = note_and_begin
"""


def test_what_makes_the_report_is_imported_while_the_trace_is_read(
    real_trace: Callable[[str], Path], tmp_path: Path
) -> None:
    imported = modules_after_a_report(real_trace, tmp_path, READ_FIRST)
    assert "analysis.trace.reader before reading" in imported
    for name in ("analysis.report", "analysis.render", "analysis.attribution.attribution", "jinja2", "cattrs"):
        assert name in imported
        assert f"{name} before reading" not in imported


def test_all_of_our_python_is_typed() -> None:
    """``make lint`` types tests and benchmarks as strictly as the rest."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    assert settings["strict"]
    assert {name.split("/")[0] for name in tracked.splitlines()} == set(settings["files"])
