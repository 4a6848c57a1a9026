"""The chart library that the page carries: the released build, unchanged, with its licence, in every wheel."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

from analysis.render.html import charts
from import_graph import ROOT

FOLDER = charts.BUILD.parent


def test_the_build_is_the_released_one() -> None:
    assert hashlib.sha256(charts.BUILD.read_bytes()).hexdigest() == charts.SHA256
    script = charts.library()
    assert "Licensed to the Apache Software Foundation" in script[:300]
    assert f'version="{charts.VERSION}"' in script
    assert len(script) < 1_000_000
    assert not re.search(r"(?i:</script|<!--)|\beval\(|new Function\(", script), "it stands in a script element"


def test_its_licence_lies_beside_it() -> None:
    licence = (FOLDER / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "Version 2.0" in licence
    assert "LICENSE-d3" in licence
    assert "Redistribution and use in source and binary forms" in (FOLDER / "LICENSE-d3").read_text()
    assert "Apache ECharts" in (FOLDER / "NOTICE").read_text()
    stated = (FOLDER.parent / "README.md").read_text()
    assert f"| {charts.VERSION} |" in stated


def test_no_package_is_asked_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    assert not [one for one in wanted if re.match("instaui|orjson|pydantic", one)]
    assert not re.search("^(instaui|orjson)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_a_wheel_holds_all_that_the_page_is_made_of(tmp_path: Path) -> None:
    pytest.importorskip(
        "setuptools", minversion="77", reason="builds with the installed setuptools: no network in tests"
    )
    source = tmp_path / "source"
    source.mkdir()
    for name in ("analysis", "runner", "history", "nsys_configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = subprocess.run(
        [sys.executable, "-c", "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])", tmp_path],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    page = ROOT / "analysis" / "render"
    files = [
        path
        for folder in ("html/assets", "html/templates", "html/vendor/echarts", "review/templates")
        for path in (page / folder).iterdir()
        if path.is_file()
    ]
    assert len(files) > 8
    assert {path.relative_to(ROOT).as_posix() for path in files} <= held
    for name in ("LICENSE-d3", "NOTICE"):
        assert [one for one in held if ".dist-info/" in one and one.endswith(f"/{name}")], name
