"""Environments leave an export without a trace, and nothing else does."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.domain.errors import ExportError
from analysis.domain.redaction import is_secret_name, written_forms
from leak_search import leaks
from planted_secrets import PLANTED, encodings
from runner.collectors.nsys.scrub import SCRUBBED, scrub, variable_names
from runner.process.environment import (
    RUN_MARK,
    child_environment,
    clean_log,
    left_out,
    looks_secret,
    program_environment,
    redact,
    secrets_of,
)
from runner.process.variables import ALLOWED, ENGINES

SECRET = "planted-7f3a"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "trace.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
        CREATE TABLE NVTX_EVENTS (start INTEGER, textId INTEGER);
        CREATE TABLE META_DATA_CAPTURE (name TEXT, value TEXT);
        CREATE TABLE TARGET_INFO_SYSTEM_ENV (globalVid INTEGER, name TEXT, value TEXT);
        INSERT INTO NVTX_EVENTS VALUES (1, 4);
        """
    )
    strings = [
        (1, f"PATH=/bin\0HF_TOKEN={SECRET}\0X=a\nb"),
        (2, f"ONLY={SECRET}"),
        (3, "void kernel<a=b>(int)"),
        (4, "batch=4"),
        (5, "a\0b"),
        (6, f"{RUN_MARK}=mine\0PATH=/bin"),
    ]
    connection.executemany("INSERT INTO StringIds VALUES (?, ?)", strings)
    connection.execute(
        "INSERT INTO META_DATA_CAPTURE VALUES ('PROCESS_0:ENVIRONMENT', ?), ('RATE_HZ', '0')", (f"A={SECRET}",)
    )
    connection.execute(
        "INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES (0, 'DeviceEnvironment', ?), (0, 'Hostname', 'vm')",
        (f"A=1\0B={SECRET}",),
    )
    # Deleted rows leave their bytes in free pages.
    connection.execute("CREATE TABLE gone (text TEXT)")
    connection.executemany("INSERT INTO gone VALUES (?)", [(SECRET * 300,)] * 50)
    connection.execute("DROP TABLE gone")
    connection.commit()
    connection.close()
    return path


def test_every_block_goes_and_every_byte_of_it(export: Path) -> None:
    assert SECRET.encode() in export.read_bytes()
    result = scrub(export, own_marks=("mine",))
    assert SECRET.encode() not in export.read_bytes()
    assert (result.blocks, result.foreign_blocks) == (5, 4)
    assert "HF_TOKEN" in result.secret_names
    connection = sqlite3.connect(export)
    strings = dict(connection.execute("SELECT id, value FROM StringIds"))
    assert (strings[1], strings[2], strings[6]) == (SCRUBBED, SCRUBBED, SCRUBBED)
    assert (strings[3], strings[4], strings[5]) == ("void kernel<a=b>(int)", "batch=4", "a\0b")
    assert dict(connection.execute("SELECT name, value FROM TARGET_INFO_SYSTEM_ENV"))["Hostname"] == "vm"
    assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert scrub(export).blocks == 0


def test_rows_of_one_variable_each_are_one_environment(tmp_path: Path) -> None:
    path = tmp_path / "trace.sqlite"
    rows = [("PROCESS_0:ENVIRONMENT_VARIABLE", f'{name}="{SECRET}"') for name in ("A", "B")]
    rows += [("PROCESS_0:ENVIRONMENT_VARIABLE", f'{RUN_MARK}="mine"'), ("PROCESS_0:PID", "0")]
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE META_DATA_CAPTURE (name TEXT, value TEXT)")
    connection.executemany("INSERT INTO META_DATA_CAPTURE VALUES (?, ?)", rows)
    connection.commit()
    connection.close()
    result = scrub(path, own_marks=("mine",))
    assert (result.blocks, result.foreign_blocks, result.secret_names) == (1, 0, ())
    assert SECRET.encode() not in path.read_bytes()


def test_names_in_the_devices_environment_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "trace.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE TARGET_INFO_SYSTEM_ENV (name TEXT, value TEXT)")
    connection.execute("INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES ('DeviceEnvironment', 'A=1;HF_TOKEN=x;B=2')")
    connection.commit()
    connection.close()
    result = scrub(path, own_marks=("mine",))
    assert (result.foreign_blocks, result.secret_names) == (1, ("HF_TOKEN",))


def test_a_real_trace_keeps_all_its_events(real_trace: Callable[[str], Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(real_trace("deepseek-ocr_h100_small").read_bytes())
    tables = ("NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "StringIds")

    def content() -> list[object]:
        connection = sqlite3.connect(copy)
        rows: list[object] = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
        connection.close()
        return rows

    before = content()
    scrub(copy)
    assert content() == before


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(ExportError, match=r"x\.sqlite"):
        scrub(tmp_path / "x.sqlite")
    with pytest.raises(ExportError):
        scrub(tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(names, values, min_size=1))
def test_any_environment_is_recognised(environment: dict[str, str]) -> None:
    block = "\0".join(f"{name}={value}" for name, value in environment.items()).encode()
    assert variable_names(block) == list(environment)


def test_the_child_gets_an_allow_list() -> None:
    environ = {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/libs",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_TOKEN": "hf_abcdefghijkl",
        "NVIDIA_API_KEY": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "MY_VARIABLE": "x",
        "TORCH_URL": "https://user:pass@host/",
        "TOKENIZERS_PARALLELISM": "false",
    }
    chosen = child_environment(environ, keep=["MY_VARIABLE"], extra={"TMPDIR": "/t"})
    assert {"PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "MY_VARIABLE", "TOKENIZERS_PARALLELISM"} <= set(chosen)
    assert not {"HF_TOKEN", "NVIDIA_API_KEY", "AWS_SECRET_ACCESS_KEY", "TORCH_URL"} & set(chosen)
    assert (chosen["TMPDIR"], chosen["HF_HUB_OFFLINE"]) == ("/t", "1")
    assert child_environment(environ, keep=["HF_TOKEN"])["HF_TOKEN"] == "hf_abcdefghijkl"


@pytest.mark.parametrize(
    "argv",
    [
        ["--hf-token", SECRET],
        [f"--api-key={SECRET}"],
        [f"HF_TOKEN={SECRET}"],
        [f"--env-var=A=1,MY_PASSWORD={SECRET}"],
        [f"https://me:{SECRET}@host/x"],
        ["curl", "-u", f"me:{SECRET}"],
        ["curl", "--user", f"me:{SECRET}"],
        ["curl", f"--user=me:{SECRET}"],
        ["curl", f"-ume:{SECRET}"],
        ["curl", "-H", f"X-API-Key: {SECRET}"],
        ["curl", "--header", f"X-Custom-Token: {SECRET}"],
        ["curl", f"--header=Cookie: {SECRET}"],
        ["curl", f"-HX-Secret: {SECRET}"],
        ["/usr/bin/mysql", "-u", "root", f"-p{SECRET}"],
        ["mysqldump", f"-p{SECRET}", "shop"],
        ["sshpass", "-p", SECRET, "ssh", "host"],
        ["redis-cli", "-a", SECRET],
        ["x", "--password", f"-{SECRET}"],
        ["x", "--api-key", f"-{SECRET}", "--verbose"],
        ["x", "--hf-token", f"--7{SECRET}"],
        ["curl", "--user", f"me:two words {SECRET}"],
        [f"postgres://u:p@{SECRET}@h/d"],
        [f"postgres://u:p/{SECRET}@h/d"],
        ["x", "hf_abcdefghijklmnop" + SECRET.replace("-", "")],
    ],
)
def test_secrets_in_arguments_are_blanked(argv: list[str]) -> None:
    shown = " ".join(redact(argv))
    assert SECRET not in shown
    assert "abcdefghijklmnop" not in shown
    assert "***" in shown


def test_plain_arguments_stay() -> None:
    argv = ["nsys", "profile", "--trace=cuda,nvtx", "-o", "/runs/a", "--max-new-tokens", "64", "python"]
    assert list(redact(["--trace=cuda,nvtx", "-o", "/runs/a", "python", "-m", "x"])) == [
        "--trace=cuda,nvtx", "-o", "/runs/a", "python", "-m", "x",
    ]  # fmt: skip
    assert "64" in redact(argv)
    for line in (
        "docker run -u 1000:1000 --user app:app image:1 -v host:/path",
        "psql -p 5432 -u somebody",
        "python -u serve.py -port 8000 --tokens 64 -H Accept:json --header Content-Type:text/html",
        "ssh host:/a/b -u",
        "serve --password-file /run/secrets/db --token-file=/run/hf --eos-token-id 128001 --token-ids 1,2 --num-tokens 64",
        "serve --use-auth-token --verbose --secret -v --print-token - --cookie -abc",
    ):
        assert " ".join(redact(line.split(" "))) == line


def test_a_secret_leaves_texts_and_bytes_in_every_encoding(tmp_path: Path) -> None:
    """One that is known, and one that the export itself shows by its form."""
    path = tmp_path / "trace.sqlite"
    known, shown = f"{SECRET}-and-more", PLANTED["github"][1]
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE NVTX_EVENTS (start INTEGER, text TEXT, binaryData TEXT)")
    for secret in (known, shown):
        for number, form in enumerate(encodings(secret)):
            header = number.to_bytes(8, "little") * 4
            text = None if b"\0" in form else f"range {form.decode()} ends"
            connection.execute("INSERT INTO NVTX_EVENTS VALUES (?, ?, ?)", (number, text, header + form + b"\1"))
    connection.execute("INSERT INTO NVTX_EVENTS VALUES (99, 'layers.12.mlp', ?)", (b"\0" * 40 + b"128 tokens",))
    connection.commit()
    connection.close()
    assert leaks([path], {"known": known, "shown": shown})
    assert scrub(path, secrets=sorted(written_forms([known]), key=len, reverse=True)).texts > 0
    assert leaks([path], {"known": known, "shown": shown}) == []
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT start, text, length(binaryData), binaryData FROM NVTX_EVENTS").fetchall()
    connection.close()
    assert rows[-1] == (99, "layers.12.mlp", 50, b"\0" * 40 + b"128 tokens")
    # Of what is known the bytes keep their length, by which others find their places in them.
    assert [row[2] for row in rows[:4]] == [32 + len(form) + 1 for form in list(encodings(known))[:4]]


def test_a_log_keeps_no_secret_in_any_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, shown = f"{SECRET}-and-more", PLANTED["github"][1]
    monkeypatch.setenv("MY_TOKEN", known)
    log = tmp_path / "server.log"
    lines = [f"12:00 {shown}".encode(), b"model layers.12.mlp, 128 tokens"]
    lines += [b"said " + form + b" here" for secret in (known, shown) for form in encodings(secret)]
    log.write_bytes(b"\n".join(lines))
    clean_log(log)
    assert leaks([log], {"known": known, "shown": shown}) == []
    assert b"\nmodel layers.12.mlp, 128 tokens\nsaid " in log.read_bytes()
    assert log.read_bytes().count(b"\n") == len(lines) - 1


def test_what_is_blanked_of_a_command_line_is_known_in_every_form_in_which_it_is_printed() -> None:
    known = secrets_of(["x", "--password", 'pa"ss\\word99'], {})
    assert {'pa"ss\\word99', json.dumps('pa"ss\\word99')[1:-1]} <= set(known)


def test_secret_names() -> None:
    assert looks_secret("GITHUB_TOKEN")
    assert looks_secret("DB_PASSWORD")
    assert looks_secret("X", "ghp_abcdefghijklmnopqrst")
    assert not looks_secret("PATH", "/usr/bin")


@pytest.mark.parametrize(
    "name",
    ["NVIDIA_API_KEY", "NVIDIA_ANYTHING", "TRITON_SECRET", "NCCL_PLUGIN_LICENCE", "TORCH_HUB_LOGIN", "VLLM_API_KEY"],
)
@pytest.mark.parametrize("choose", [child_environment, program_environment])
def test_a_variable_passes_by_its_name_not_by_how_it_begins(
    choose: Callable[[dict[str, str]], dict[str, str]], name: str
) -> None:
    assert name not in choose({name: "anything", "PATH": "/bin"})


def test_no_name_on_the_list_is_named_like_a_secret() -> None:
    assert not [name for name in ALLOWED | ENGINES if is_secret_name(name)]
    assert not [name for name in ALLOWED | ENGINES if "*" in name or name.endswith("_")]


def test_what_is_left_out_of_a_known_family_is_said() -> None:
    environ = {"NCCL_NEWEST": "1", "NCCL_DEBUG": "INFO", "NCCL_TOKEN": "x", "EDITOR": "vi", "CUDA_NEWEST": "1"}
    assert left_out(environ, child_environment(environ)) == ("CUDA_NEWEST", "NCCL_NEWEST")
    assert left_out(environ, child_environment(environ, keep=["NCCL_NEWEST"])) == ("CUDA_NEWEST",)
