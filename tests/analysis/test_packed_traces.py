"""Compressed exports are read like plain ones, leave nothing behind, and never fill a disk."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

import analysis
from analysis.api.export import find_nsys, find_trace
from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.api.unpacking import unpacked
from analysis.domain.errors import TraceError
from trace_builder import TraceBuilder

ROOT = Path(__file__).resolve().parents[2]
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def export(folder: Path) -> bytes:
    """A small export, as bytes."""
    builder = TraceBuilder()
    for number, name in enumerate(("prefill", "decode")):
        start = number * 100_000
        builder.range(name, start, start + 90_000, domain="dsocr")
        builder.launch(start + 10_000, start + 20_000, kernel=(f"{name}_kernel", start + 30_000, start + 40_000))
    path = builder.write(folder / "plain.db")
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, to look into afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.parametrize("ending", PACK)
def test_a_packed_export_is_read_like_a_plain_one(tmp_path: Path, temporary: Path, ending: str) -> None:
    content = export(tmp_path)
    (plain := tmp_path / "llama.sqlite").write_bytes(content)
    (packed := tmp_path / f"llama.sqlite{ending}").write_bytes(PACK[ending](content))
    wanted, profile = analysis.load(plain), analysis.load(packed)
    assert profile.kernels().equals(wanted.kernels())
    assert profile.report().capture.trace_path == str(packed)
    assert not list(temporary.iterdir())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["llama.sqlite", packed.name, "temporary"]


def test_the_report_is_named_after_it_and_its_run_json_is_found(tmp_path: Path, temporary: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (packed := folder / "trace.sqlite.xz").write_bytes(lzma.compress(export(tmp_path)))
    (folder / "run.json").write_text(json.dumps({"manifest_version": 1}))
    assert find_trace(folder) == packed
    with (
        pytest.raises(analysis.domain.errors.RequestError, match=r"run\.json"),
        opened(packed, AnalysisOptions()) as trace,
    ):
        trace.report()
    (folder / "run.json").unlink()
    for _ in range(2):  # the second one replaces the first: it is of the same trace
        argv = [sys.executable, "-m", "analysis.cli", "report", str(packed), "--format", "json"]
        done = subprocess.run(
            argv, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert [one.name for one in (tmp_path / "reports").iterdir()] == ["run"]


@pytest.mark.parametrize("ending", PACK)
def test_what_is_damaged_says_so(tmp_path: Path, temporary: Path, ending: str) -> None:
    whole = PACK[ending](export(tmp_path) + os.urandom(100_000))
    for content in (whole[: len(whole) // 2], whole[:4] + b"garbage" * 40, b""):
        (path := tmp_path / f"bad.sqlite{ending}").write_bytes(content)
        with pytest.raises(TraceError, match=r"bad\.sqlite") as caught, unpacked(path):
            pass
        assert len(str(caught.value).splitlines()) == 1
    assert not list(temporary.iterdir())


def test_errors_of_the_export_name_the_packed_file(tmp_path: Path, temporary: Path) -> None:
    content = bytearray(export(tmp_path))
    content[28:32] = (10_000).to_bytes(4, "big")  # the header says more pages than there are
    (path := tmp_path / "cut.sqlite.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(TraceError, match=r"^\S*/cut\.sqlite\.gz: is truncated"), opened(path, AnalysisOptions()):
        pass
    assert not list(temporary.iterdir())


def test_a_bomb_is_not_unpacked(tmp_path: Path, temporary: Path) -> None:
    """What unpacks to more than the export's header says is no export."""
    (path := tmp_path / "bomb.sqlite.xz").write_bytes(lzma.compress(export(tmp_path) + bytes(1 << 24)))
    with pytest.raises(TraceError, match="more than the"), unpacked(path):
        pass
    (path := tmp_path / "zeros.sqlite.xz").write_bytes(lzma.compress(bytes(1 << 24)))
    with pytest.raises(TraceError, match="holds no SQLite export"), unpacked(path):
        pass
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("ending", PACK)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, temporary: Path, ending: str) -> None:
    os.mkfifo(fifo := tmp_path / f"fifo.sqlite{ending}")
    (device := tmp_path / f"device.sqlite{ending}").symlink_to("/dev/zero")
    for path in (fifo, device):
        with pytest.raises(TraceError, match=r"sqlite.* is no file but a pipe, a socket or a device"), unpacked(path):
            pass
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("ending", PACK)
def test_no_export_is_packed_to_a_thousandth(tmp_path: Path, temporary: Path, ending: str) -> None:
    """A header that agrees with its content: 1 MB of it would fill 100 GB of a disk that has them free."""
    content = bytearray(export(tmp_path))
    content[28:32] = (100 * 2**30 // int.from_bytes(content[16:18], "big")).to_bytes(4, "big")
    (path := tmp_path / f"bomb.sqlite{ending}").write_bytes(PACK[ending](bytes(content) + bytes(1 << 20)))
    with (
        pytest.raises(TraceError, match=r"bomb.*: says that it unpacks to 107,374,182,400 bytes, .*; copy it"),
        unpacked(path),
    ):
        pass
    assert not list(temporary.iterdir())


def test_a_dictionary_of_four_gigabytes_is_refused(tmp_path: Path, temporary: Path) -> None:
    content = bytearray(lzma.compress(export(tmp_path)))
    assert content[14:16] == b"\x21\x01"  # LZMA2 and the size of its properties (the .xz file format, § 5.3.1)
    content[16] = 40
    content[20:24] = zlib.crc32(content[12:20]).to_bytes(4, "little")
    (path := tmp_path / "wide.sqlite.xz").write_bytes(content)
    with pytest.raises(TraceError, match=r"wide.*: is damaged \(Memory usage limit exceeded\)"), unpacked(path):
        pass


def test_streams_of_xz_in_a_row_are_one_file(tmp_path: Path, temporary: Path) -> None:
    content = export(tmp_path)
    streams = lzma.compress(content[:5000]) + lzma.compress(b"") + lzma.compress(content[5000:])
    (path := tmp_path / "rows.sqlite.xz").write_bytes(streams + bytes(8))
    with unpacked(path) as plain:
        assert plain.read_bytes() == content
    path.write_bytes(streams[:-20])
    with pytest.raises(TraceError, match="ends before the end of its stream"), unpacked(path):
        pass


def test_a_full_disk_is_seen_before_it_is_full(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path := tmp_path / "large.sqlite.xz").write_bytes(lzma.compress(export(tmp_path)))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=1 << 20))
    with pytest.raises(TraceError, match=r"1 MiB free.*TMPDIR"), unpacked(path):
        pass
    assert not list(temporary.iterdir())


def test_without_a_library_for_zstandard(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "trace.sqlite.zst").write_bytes(zstandard.compress(export(tmp_path)))
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TraceError, match=r"dsocr-profiler\[zst\].*zstd -dk trace\.sqlite\.zst"), unpacked(path):
        pass


def test_an_nsys_in_the_usual_places_is_found_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("2024.6.1", "2025.11.2", "2025.3.1"):
        tool = tmp_path / "opt" / version / "bin" / "nsys"
        tool.parent.mkdir(parents=True)
        tool.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.api.export.NSYS_PLACES", (f"{tmp_path}/opt/*/bin/nsys",))
    assert find_nsys(tmp_path / "a.nsys-rep", {"PATH": ""}) == tmp_path / "opt" / "2025.11.2" / "bin" / "nsys"


def test_payloads_are_exported_where_nsys_can(tmp_path: Path) -> None:
    (ready := tmp_path / "ready.db").write_bytes(export(tmp_path))
    (report := tmp_path / "nccl.nsys-rep").write_bytes(b"report")
    tool = tmp_path / "nsys"
    tool.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--help*) echo "  --include-blobs="; exit;; esac\n'
        "for a; do case $a in --output=*) out=${a#--output=};; esac; done\n"
        f'echo "$*" >"{tmp_path}/asked"; cp "{ready}" "$out"\n'
    )
    tool.chmod(0o755)
    find_trace(report, {**os.environ, "NSYS": str(tool)})
    assert "--include-blobs=true" in (tmp_path / "asked").read_text()
