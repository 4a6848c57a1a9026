"""Files that a user names may be anything: a device without an end, a FIFO, a gigabyte of brackets. One line each, at once."""

from __future__ import annotations

import ast
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from adbc_driver_manager import AdbcConnection

from analysis.api.sides import read_side
from analysis.attribution.vocabulary import load_vocabulary
from analysis.compare.bands import read_bands
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json, from_json_file
from analysis.domain.errors import DsocrError, RequestError
from analysis.domain.manifest import RunManifest
from analysis.domain.reading import DEEPEST, json_of, read_bounded, toml_of
from analysis.efficiency.decoder_config import read_decoder_config
from analysis.gate.policy import read_policy
from analysis.sums.kernel_classes import load_rules
from analysis.trace.reader import Trace
from import_graph import ROOT
from runner.launcher.setting_file import read_setting

READERS: dict[str, Callable[[Path], Any]] = {
    "manifest": lambda path: from_json_file(RunManifest, path),
    "request": lambda path: from_json_file(LLMProfileRequest, path),
    "report": read_side,
    "bands": lambda path: read_bands(path, ()),
    "policy": read_policy,
    "rules": load_rules,
    "vocabulary": lambda path: load_vocabulary(str(path)),
    "config": read_decoder_config,
    "setting": read_setting,
}


def make_fifo(folder: Path) -> Path:
    os.mkfifo(path := folder / "report.json")
    return path


def make_folder(folder: Path) -> Path:
    (path := folder / "report.json").mkdir()
    return path


def make_sparse(folder: Path) -> Path:
    with (path := folder / "report.json").open("wb") as file:
        file.truncate(1 << 40)
    return path


@pytest.mark.parametrize("make", [make_fifo, lambda _: Path("/dev/zero"), make_sparse], ids=["FIFO", "device", "1 TiB"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_of_ours_is_refused_at_once(reader: str, make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(DsocrError) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000 + "]" * 200_000,
        '{"a":' * 3_000 + "1" + "}" * 3_000,
        "[" * 200_000,
        '{"a": 1, "a": 2}',
        f'{{"a": {10**400}}}',
        f'{{"a": {2**63}}}',
        '{"a": 1e999}',
        '{"a": -1E+400}',
        '{"a": NaN}',
        '{"a": ' + "7" * 5000 + "}",
        "\ufeff\ufeff{}",
    ],
    ids=["deep", "deep objects", "unclosed", "twice", "10**400", "2**63", "1e999", "-1E+400", "NaN", "digits", "marks"],
)
def test_json_that_no_record_can_hold(text: str) -> None:
    for content in (text, text.encode()):
        with pytest.raises(RequestError, match=r"^file: not valid JSON \([^\n]{1,200}\)$"):
            json_of(content, "file")


@pytest.mark.parametrize(
    "text",
    [
        f"a = {'[' * 3000}{']' * 3000}",
        f"a{'.a' * 2000} = 1",
        f"[a{'.a' * 2000}]",
        f"a = {2**64}",
        f"a = {'7' * 5000}",
        "a = ",
    ],
    ids=["deep", "dotted", "dotted table", "2**64", "digits", "nothing"],
)
def test_toml_that_no_record_can_hold(text: str) -> None:
    with pytest.raises(RequestError, match=r"^file: not valid TOML \([^\n]{1,220}\)$"):
        toml_of(text, "file")
    with pytest.raises(RequestError, match="UTF-8"):
        toml_of(b"a = '\xff'", "file")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "inf", "+inf", "-inf", "nan"])
def test_toml_numbers_that_are_not_finite_are_told_with_their_key(number: str) -> None:
    for text, key in (
        (f"a = {number}", "a"),
        (f"[trace]\nlong = 1\nshare = {number}", "trace.share"),
        (f"[[rules]]\nx = 1\n[[rules]]\nx = [2, {number}]", r"\[\[rules\]\] 2: x, item 2,"),
    ):
        with pytest.raises(
            RequestError, match=rf"^file: not valid TOML \({key} is (-?inf|nan), which is no finite number\)$"
        ):
            toml_of(text, "file")
    with pytest.raises(RequestError, match=r"^file: not valid TOML \(…k{80} is inf, [^\n]*\)$"):
        toml_of(f"{'k' * 4000} = inf", "file")


def test_names_with_many_brackets_are_no_depth() -> None:
    plain = {"a": ["[" * 500 + '"{\\' * 500] * 3, "b": 2**63 - 1, "c": 1e308}
    assert json_of(json.dumps(plain), "file") == plain
    deep: Any = 1
    for _ in range(DEEPEST):
        deep = [deep]
    assert json_of(json.dumps(deep), "file") == deep


@pytest.mark.parametrize(
    "text", ['"' + '\\"[' * 400_000, '"' + "[" * 2_000_000, '{"a": "' + "\\" * 999_999, '"' * 999_999]
)
def test_strings_without_an_end_are_looked_through_once(text: str) -> None:
    """Each of n quotes was taken for the begin of a string without an end: n² steps, hours for 64 MiB."""
    with pytest.raises(RequestError, match="not valid JSON"):
        json_of(text, "file")


def test_a_file_of_just_the_size_is_read(tmp_path: Path) -> None:
    (path := tmp_path / "x.toml").write_bytes(b"x" * 100)
    assert len(read_bounded(path, 100)) == 100
    with pytest.raises(RequestError, match=r"x\.toml: larger than 99 bytes, which no such file is; do that$"):
        read_bounded(path, 99, follow="do that")
    with pytest.raises(RequestError, match="cannot be read"):
        read_bounded(Path("a\0b"), 1)


def test_whole_numbers_of_records_have_64_bits() -> None:
    request = {"model_path": "m", "input_dir": "/x", "repeats": 2**64}
    with pytest.raises(RequestError, match="more than 64 bits"):
        from_json(LLMProfileRequest, json.dumps(request))


RAW = {"json.load", "json.loads", "tomllib.load", "tomllib.loads"}
ALLOWED = {
    "analysis/domain/reading.py": "the one place",
    "analysis/efficiency/hardware.py": "a file of the package",
    "runner/cli/output.py": "a document that was just made",
    "runner/collectors/torch_profiler/events.py": "text of this process's own profiler",
    "runner/inputs/inputs.py": "text that was just made",
    "runner/launcher/program.py": "what a server answered, bounded there",
    "runner/process/supervise.py": "an argument of our own",
}
"""File → why it reads JSON or TOML by itself."""


def test_nothing_else_reads_json_or_toml() -> None:
    found = set()
    for package in ("analysis", "history", "runner"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in RAW:
                    found.add(str(path.relative_to(ROOT)))
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    ("read", "text"), [(json_of, '{"a": %s}'), (json_of, "[-%s]"), (toml_of, "a = %s"), (toml_of, "a = -%s")]
)
def test_a_number_of_thousands_of_digits_is_told_in_our_words(read: Callable[[str, str], object], text: str) -> None:
    with pytest.raises(RequestError, match=r"whole number .*more than 64 bits") as raised:
        read(text % ("9" * 5_000), "here")
    assert "sys." not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_ctrl_c_while_reading_begins_is_not_hidden_by_a_trace_that_cannot_be_closed(
    real_trace: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread reads already when its future is not known yet."""
    submit = ThreadPoolExecutor.submit
    reads = Event()

    def read(self: Trace) -> Any:
        with AdbcConnection(self.database._database):
            reads.set()
            time.sleep(0.5)
        raise KeyError

    def interrupted(self: ThreadPoolExecutor, *given: Any, **more: Any) -> Any:
        submit(self, *given, **more)
        assert reads.wait(30)
        raise KeyboardInterrupt

    trace = Trace(real_trace("deepseek-ocr_h100_small"))
    monkeypatch.setattr(Trace, "_read", read)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt), trace:
        trace.begin()
