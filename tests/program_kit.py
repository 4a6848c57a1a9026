"""What tests of ``exec`` share: small programs, and a run around them."""

from __future__ import annotations

import sqlite3
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from launch_kit import environment
from runner.collectors.nsys.tool import NsysTool
from runner.launcher.program import ProgramRun, prepare_program
from runner.plan.program import ExecSettings
from runner.process.driver import DriverFacts

RANGES = """
    import nvtx, sys, time
    with nvtx.annotate("prefill"):
        time.sleep(0.01)
    for step in range(3):
        with nvtx.annotate("decode"):
            time.sleep(0.01)
"""
"""A program with plain ranges in the default domain, as a stranger writes them."""

SERVER = """
    import http.server, json, os, signal, sys, time
    import nvtx
    port_file, said = sys.argv[1], open(sys.argv[2], "a", buffering=1)
    started = time.monotonic()
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, code):
            self.send_response(code); self.send_header("Content-Length", "0"); self.end_headers()
        def do_GET(self):
            self.answer(200 if time.monotonic() - started > 0.5 or self.path != "/health" else 503)
            if self.path == "/generate":
                with nvtx.annotate("prefill"):
                    time.sleep(0.01)
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            said.write(f"{self.path} {body}\\n")
            self.answer(404 if self.path == "/nothing" else 200)
        def log_message(self, *_):
            pass
    server = http.server.HTTPServer(("127.0.0.1", int(open(port_file).read())), Handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        said.write("ended by Ctrl-C\\n")
        sys.exit(3)
"""
"""A server that is ready after half a second, and ends on Ctrl-C with an exit code of its own."""

CLIENT = """
    import sys, urllib.request
    for _ in range(4):
        urllib.request.urlopen(sys.argv[1]).read()
    sys.exit(int(sys.argv[2]))
"""


def program(folder: Path, text: str, name: str = "program.py") -> list[str]:
    """Write a program and give its command line."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return [sys.executable, str(file)]


def program_run(
    out: Path,
    command: Sequence[str],
    tool: NsysTool,
    *,
    environ: Mapping[str, str] | None = None,
    said: list[str] | None = None,
    **settings: Any,
) -> ProgramRun:
    """A run of a program, prepared as the command line does it, on a machine without a GPU."""
    environ = environment(DSOCR_LOCK_DIR=str(out / "locks")) if environ is None else environ
    lines = [] if said is None else said
    asked = ExecSettings(**{"grace_s": 5.0, **settings})
    return prepare_program(command, asked, tool, DriverFacts(None, None), out, environ, lines.append)


def range_names(database: Path) -> list[str]:
    """Names of the ranges of an export, in the order of their starts."""
    query = """SELECT coalesce(text, value) FROM NVTX_EVENTS LEFT JOIN StringIds ON id = textId
               WHERE eventType = 59 ORDER BY start"""
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute(query)]
