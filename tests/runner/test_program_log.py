"""Logs of any size are read and cleaned with little memory, and no secret in them is cut in two."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.domain.errors import CaptureError
from analysis.domain.redaction import redacted
from launch_kit import ROOT, environment
from runner.process import program_log
from runner.process.program_log import log_text, redact_log, redacted_pieces

KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join("MIIEpQ" + "x7" * 29 for _ in range(12))
    + "\n-----END RSA PRIVATE KEY-----"
)
KNOWN = "a secret of\ntwo lines, known"
PLANTED = (
    "HF_TOKEN=hf_" + "aB3" * 12,
    "FwoGZXIvYXdz" + "Qz8/" * 200,
    "https://me:pass/word1@host/x",
    "password = 'two words of it'",
    KEY,
    KNOWN,
)
FILLING = (
    "layers.12.mlp, 128 tokens\n",
    "Generating… 17 %\r",
    "é" * 50 + "\n",
    "x" * 700,
    "\0" * 900,
    "token=Embedding(128) ",
)


def text_of(seed: int) -> str:
    chosen = random.Random(seed)
    return "".join(
        chosen.choice(PLANTED) + chosen.choice(("\n", " ", "\n\n")) if chosen.random() < 0.2 else chosen.choice(FILLING)
        for _ in range(300)
    )


def chunks(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


@pytest.mark.parametrize("seed", range(12))
def test_pieces_come_out_as_the_whole_does(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(program_log, "_PIECE", 3000)
    monkeypatch.setattr(program_log, "_MARGIN", 2000)
    text = text_of(seed)
    pieces = list(redacted_pieces(chunks(text, 97 + seed), (KNOWN,)))
    assert "".join(before for before, _ in pieces) == text
    assert "".join(after for _, after in pieces) == redacted(text, (KNOWN,))
    assert len(pieces) > 5


def test_a_key_without_an_end_does_not_hold_the_text_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_log, "_PIECE", 3000)
    monkeypatch.setattr(program_log, "_MARGIN", 2000)
    monkeypatch.setattr(program_log, "_MOST_PIECE", 20_000)
    text = KEY[:700] + "\nlayers.12.mlp, 128 tokens" * 10_000
    pieces = list(redacted_pieces(chunks(text, 1000), ()))
    assert max(len(before) for before, _ in pieces) < 30_000
    assert "MIIEpQ" not in "".join(after for _, after in pieces)


LARGE = 300 << 20
SECRETS = ("ghp_" + "aB3dE6" * 6, "known-to-us-and-two\nlines-of-it")
READ = """
import resource, sys
from pathlib import Path
from runner.collectors.ncu.output import fault
from runner.launcher.log_words import last_line
from runner.process.environment import clean_log
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (160 << 20),) * 2)
log = Path(sys.argv[1])
clean_log(log, (sys.argv[2],))
print(last_line(log), fault(log), sep="|")
"""


def test_a_program_that_printed_300_mb(tmp_path: Path) -> None:
    """Within 160 MiB: of the log's own size is nothing held at once."""
    log = tmp_path / "capture.log"
    with log.open("wb") as file:
        file.write(b"begins\n")
        for place in (0, LARGE // 2 - 17, (1 << 20) - 20, LARGE - 5000):
            file.seek(100 + place)
            file.write("\n".join(("", *SECRETS, "")).encode())
        file.seek(LARGE)
        file.write(b"\nRuntimeError: out of cheese\n==ERROR== no device\n")
    log.chmod(0o600)
    size = log.stat().st_size
    argv = [sys.executable, "-c", READ, str(log), SECRETS[1]]
    done = subprocess.run(argv, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("==ERROR== no device|ncu says: no device")
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.stat().st_size == size - 4 * sum(len(secret) - 3 for secret in SECRETS)
    before = b""
    with log.open("rb") as file:
        while chunk := file.read(1 << 20):
            assert not any(secret.encode() in before + chunk for secret in SECRETS)
            before = chunk[-100:]
    assert [path.name for path in tmp_path.iterdir()] == ["capture.log"]


def test_of_a_long_log_the_beginning_and_the_end_are_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %07d\n" % number for number in range(300_000)))
    text = log_text(log)
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("line 0000000", "line 0299999")
    assert all(len(line) == 12 for line in lines if "bytes" not in line)
    (left_out,) = [line for line in lines if "bytes" in line]
    assert int(left_out.split()[1].replace(",", "")) == log.stat().st_size - len(text) + len(left_out) + 1
    assert len(text) < 2 << 20
    log.write_bytes(b"short\xff\n")
    assert log_text(log) == "short�\n"


def test_a_log_is_cleaned_where_there_is_no_room_for_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> Path:
        raise CaptureError(f"{path}: the disk is full")

    monkeypatch.setattr(program_log, "_PIECE", 3000)
    monkeypatch.setattr(program_log, "_MARGIN", 2000)
    monkeypatch.setattr(program_log, "write_with", full)
    log = tmp_path / "log"
    text = text_of(99)
    log.write_text(text, encoding="utf-8", newline="")
    identity = log.stat().st_ino
    redact_log(log, (KNOWN,))
    assert log.read_bytes().decode() == redacted(text, (KNOWN,))
    assert log.stat().st_ino == identity


def test_a_log_without_secrets_stays_the_file_that_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"layers.12.mlp \xff\n")
    before = log.stat()
    redact_log(log, ())
    assert (log.stat().st_ino, log.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    redact_log(tmp_path / "none", ())
