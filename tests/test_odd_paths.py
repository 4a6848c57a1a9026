"""Paths that nobody expects: each works, or is one line and the right exit code; never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from launch_kit import ROOT, environment, fake_nsys

NAMES: Final = {
    "a space": b"a b",
    "percent signs": b"100%d%%s %n",
    "a newline": b"a\nb",
    "no UTF-8": b"a\xff\xfeb",
    "a terminal's escape": b"\x1b[31mred",
    "a leading dash": b"-rf",
    "300 characters": b"x" * 300,
    "5,000 characters": b"/".join([b"y" * 200] * 25),
    "a file": b"file",
    "a dangling link": b"dangling",
    "read-only": b"read-only/new",
}
"""Kind → the path in a folder of its own."""

WELL: Final = 0
_LONG: Final = {"300 characters", "5,000 characters"}
_NOT_THERE: Final = {"a dangling link", "read-only"}


class Place:
    """The folder, with what the kinds need."""

    def __init__(self, folder: Path, kind: str, may: list[str]) -> None:
        self.folder = folder / "place"
        self.folder.mkdir()
        self.kind = kind
        self._may = may
        (self.folder / "file").write_text("a text")
        (self.folder / "dangling").symlink_to("/nowhere/at/all")
        (self.folder / "read-only").mkdir()
        (self.folder / "read-only").chmod(0o555)
        self.path = Path(os.fsdecode(os.fsencode(self.folder) + b"/" + NAMES[kind]))
        # Absolute, a leading dash would be none.
        self.given = NAMES[kind] if kind == "a leading dash" else bytes(self.path)

    def do(self, package: str, *arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*self._may, sys.executable, "-P", "-m", f"{package}.cli", *arguments],
            cwd=self.folder,
            env=environment(DSOCR_LOCK_DIR=str(self.folder.parent / "locks"), DSOCR_HISTORY="off"),
            capture_output=True,
            timeout=300,
            check=False,
        )
        said = done.stderr.decode("utf-8")
        assert "Traceback" not in said
        assert "\x1b" not in said
        if done.returncode:
            errors = [line for line in said.splitlines() if line.removeprefix("dsocr-analyze: ").startswith("error: ")]
            assert len(errors) == 1, said
            assert said.rstrip("\n").splitlines()[-1] == errors[0], said
        assert not list(self.folder.rglob("*.tmp"))
        return done


@pytest.fixture(params=NAMES)
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    may = []
    if os.getuid() == 0:  # else nothing is read-only
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("the tests run as root, and setpriv is not there to give root's rights away")
        without = "-dac_override,-dac_read_search"
        may = [setpriv, f"--inh-caps={without}", f"--bounding-set={without}"]
    return Place(tmp_path, request.param, may)


def wanted(kind: str, codes: Mapping[str, int], otherwise: int = WELL) -> int:
    return codes.get(kind, otherwise)


def test_out_of_the_analysis(place: Place, real_trace: Callable[[str], Path]) -> None:
    names = ("markdown", "json", "html", "parquet", "csv", "perfetto")
    formats = [word for name in names for word in ("--format", name)]
    trace = real_trace("deepseek-ocr_h100_small")
    done = place.do("analysis", "report", str(trace), "--out", place.given, *formats)
    refused = dict.fromkeys((*_LONG, *_NOT_THERE, "a file"), 2)
    assert done.returncode == wanted(place.kind, refused), done.stderr
    if not done.returncode:
        assert (place.path / "report.json").stat().st_size
        assert (place.path / "kernels.parquet").stat().st_size


def test_a_trace(place: Place, real_trace: Callable[[str], Path]) -> None:
    missing = {*_LONG, *_NOT_THERE, "a file"}
    if place.kind not in missing:
        shutil.copy(real_trace("deepseek-ocr_h100_small"), place.path)
    # Too long a name is no trace that is not there, but a path that cannot be one.
    codes = {**dict.fromkeys(missing, 3), **dict.fromkeys(_LONG, 2)}
    assert place.do("analysis", "table", "--", place.given).returncode == wanted(place.kind, codes)
    for _ in range(2):  # the second report of a trace goes where the first one is
        assert place.do("analysis", "report", "--format", "json", "--", place.given).returncode == wanted(
            place.kind, codes
        )
    if place.kind not in missing:
        assert len(list((place.folder / "reports").iterdir())) == 1


def test_images(place: Place) -> None:
    from PIL import Image

    missing = {*_LONG, *_NOT_THERE, "a file"}
    if place.kind not in missing:
        place.path.mkdir(parents=True)
        Image.new("RGB", (64, 64), "white").save(place.folder / "page.png")
        shutil.copy(place.folder / "page.png", place.path / "page.png")
    codes = {**dict.fromkeys(missing, 6), **dict.fromkeys(_LONG, 2)}
    assert place.do("runner", "inputs", "--", place.given).returncode == wanted(place.kind, codes)
    run = ("run", "deepseek-ocr-tiny", "--device", "cpu", "--dry-run", "--out", "reports", "--images")
    assert place.do("runner", *run, place.given).returncode == wanted(place.kind, codes)


def test_a_store(place: Place) -> None:
    run = str(ROOT / "reports" / "examples" / "deepseek-ocr_h100")
    refused = dict.fromkeys((*_LONG, *_NOT_THERE), 16)
    assert place.do("runner", "history", "import", run, "--store", place.given).returncode == wanted(
        place.kind, refused
    )
    listed = place.do("runner", "history", "list", "--store", place.given)
    assert listed.returncode == wanted(place.kind, refused)
    if place.kind in _LONG:
        assert listed.stderr.endswith(b"the path or a name in it is too long; choose another place with --store\n")
    if not listed.returncode:
        assert b"deepseek-ocr" in listed.stdout
    if place.kind == "a file":  # what was there is kept
        (aside,) = place.folder.glob("file.damaged-*")
        assert aside.read_text() == "a text"


def test_out_of_a_run(place: Place) -> None:
    tool = fake_nsys(place.folder.parent / "nsys")
    done = place.do("runner", "exec", "--nsys", tool.path, "--out", place.given, "--", "sleep", "0.3")
    refused = dict.fromkeys((*_LONG, *_NOT_THERE, "a file", "no UTF-8"), 2)
    assert done.returncode == wanted(place.kind, refused), done.stderr
    if not done.returncode:
        assert (place.path / "latest" / "trace.sqlite").stat().st_size
