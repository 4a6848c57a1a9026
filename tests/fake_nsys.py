#!/usr/bin/env python3
"""An nsys that fails in ways that the real one cannot be made to fail in. ``$NSYS_FAKE`` says how.

So does a file ``how`` beside it, for commands that pass no such variable on; it exports the ``trace.sqlite`` that lies there.
"""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
HOW = os.environ.get("NSYS_FAKE", "") or ((HERE / "how").read_text() if (HERE / "how").is_file() else "")
PROFILE_HELP = """
usage: nsys profile [<args>] [application] [<application args>]

    -c, --capture-range=
       Possible values are none, cudaProfilerApi, nvtx, hotkey.
    --capture-range-end=
       Possible values are 'none' or 'stop'.
    -o, --output=
       Output report filename.
    --session-new=
       Start the collection in a new named session.
    -s, --sample=
       Possible values are 'process-tree' or 'none'.
    --gpu-metrics-device=
       Collect GPU Metrics from specified devices.
    -t, --trace=
       Possible values are 'cuda', 'nvtx', 'osrt' or 'none'. Select the API(s) to trace.
       Default is 'cuda'.
"""
EXPORT_HELP = """
usage: nsys export [<args>] [nsys-rep-file]

    -f, --force-overwrite=
       Possible values are 'true' or 'false'.
    -o, --output=
       Path to results file.
    -t, --type=
       Possible values are: sqlite, hdf, text.
"""


def value(name: str) -> str:
    given = next(one.split("=", 1)[1] for one in sys.argv if one.startswith(f"--{name}="))
    if name == "output" and sys.argv[1] == "profile":
        given = re.sub("%(.)", lambda mark: "%" if mark[1] == "%" else f"expanded {mark[1]}", given)
    return given


FAILURE = """FATAL ERROR: Throw location unknown (consider using BOOST_THROW_EXCEPTION)
Dynamic exception type: boost::wrapexcept<boost::exception_detail::current_exception_std_exception_wrapper<std::runtime_error> >
std::exception::what: pipe(2) failed: Too many open files
boost::process::process_error
Generating '/run/tmp/nsys-report-34c5.qdstrm'
"""
"""As nsys 2022.4 prints where only 24 files may be open."""
LAUNCHER = """#!/bin/sh
"$@"
echo $? > "$ENDED"
"""


def with_a_launcher() -> int:
    """As the real one: a process between it and the program says that this has ended; on Ctrl-C it writes what it has."""
    script = Path(__file__).with_name("nsys-launcher")
    script.write_text(LAUNCHER)
    script.chmod(0o755)
    ended = Path(value("output") + ".ended")
    interrupted: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.append(number))
    target = next(index for index, one in enumerate(sys.argv[2:], 2) if not one.startswith("--"))
    subprocess.Popen([str(script), *sys.argv[target:]], env={**os.environ, "ENDED": str(ended)})
    while not interrupted and not ended.exists():
        time.sleep(0.02)
    Path(value("output") + ".nsys-rep").write_bytes(b"report")
    return 0 if interrupted else int(ended.read_text())


def main() -> int:
    if "--version" in sys.argv:
        sys.stdout.write("NVIDIA Nsight Systems version 2099.1.0\n")
        return 0
    if "--help" in sys.argv:
        sys.stdout.write(PROFILE_HELP if sys.argv[1] == "profile" else EXPORT_HELP)
        return 0
    if sys.argv[1] == "profile":
        if HOW == "refuses":
            sys.stderr.write("error: the option is not allowed" + "\n")
            return 1
        if HOW.startswith("fails of itself"):
            failed = Path(value("output")).parent / "nsys has failed"
            if HOW.endswith("always") or not failed.exists():
                failed.touch()
                sys.stderr.write(
                    "WARNING: --cuda-graph-trace=graph requires CUDA driver version 11.7 or higher.\n"
                    + ("Agent launcher failed.\n" if "agent" in HOW else FAILURE)
                )
                return 1
        if HOW == "with a launcher":
            return with_a_launcher()
        if HOW == "hangs at start":
            (Path(value("output")).parent / "nsys hangs").touch()
            time.sleep(300)
        target = next(index for index, one in enumerate(sys.argv[2:], 2) if not one.startswith("--"))
        code = subprocess.run(sys.argv[target:], check=False).returncode
        if HOW == "hangs at the end":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            (Path(value("output")).parent / "nsys hangs").touch()
            time.sleep(300)
        if HOW == "loses its agent":
            sys.stderr.write("Connection to the Agent lost." + "\n")
            return 0
        code = 128 - code if code < 0 else code  # as the real one says a signal
        if HOW == "waits at the end":
            at_work = Path(value("output")).parent / "nsys is at work"
            at_work.touch()
            while at_work.exists():
                time.sleep(0.02)
        if HOW == "stream only":
            Path(value("output") + ".qdstrm").write_bytes(b"stream")
        elif HOW != "no report":
            Path(value("output") + ".nsys-rep").write_bytes(b"report")
        return 0 if HOW == "hides the exit code" else code
    partial = value("output")
    if HOW in ("hangs in the export", "waits in the export"):
        Path(partial).write_bytes(b"SQLite format 3\0")
        at_work = Path(partial).parent / "export is at work"
        at_work.touch()
        while HOW == "hangs in the export" or at_work.exists():
            time.sleep(0.02)
    if HOW == "half an export":
        Path(partial).write_bytes(b"SQLite format 3\0" + b"\1" * 5000)
        return 0
    if HOW == "no space":
        sys.stderr.write("error: No space left on device" + "\n")
        return 1
    if (HERE / "trace.sqlite").is_file():
        shutil.copyfile(HERE / "trace.sqlite", partial)
        return 0
    connection = sqlite3.connect(partial)
    connection.execute("CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT)")
    connection.execute(
        "CREATE TABLE NVTX_EVENTS (start INTEGER, end INTEGER, eventType INTEGER, text TEXT, textId INTEGER)"
    )
    if HOW != "no events":
        connection.execute("INSERT INTO NVTX_EVENTS VALUES (1, 2, 59, 'image[0]', NULL)")
    block = "PATH=/bin\0" + "\0".join(f"{k}={v}" for k, v in os.environ.items())
    if HOW == "foreign environment":
        block = "PATH=/bin\0HF_TOKEN=planted-elsewhere"
    connection.execute("INSERT INTO StringIds VALUES (1, ?)", (block,))
    if HOW == "stores what was printed":
        connection.execute("INSERT INTO StringIds VALUES (2, 'my key is planted-on-the-line')")
    connection.commit()
    connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
