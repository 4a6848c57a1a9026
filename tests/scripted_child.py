"""Stands in for runner.child.workload where a test needs a child that fails, hangs or is quick: it speaks the same files."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import nvtx

from analysis.domain.convert import to_json
from analysis.domain.entities import ModelUnderTest
from analysis.domain.errors import ChildFailedError
from analysis.domain.files import WriteOptions, write_text
from analysis.domain.manifest import ControlPass, PromptTokens
from runner.plan.plan import WorkloadResult
from runner.process.gate import Gate
from runner.process.progress import ProgressWriter

FETCHED_AFTER_S = 4.0
"""What nsys has not fetched yet dies with a program that is killed; on a busy machine it is slow to fetch."""
RESULTS = {"control": "control.json", "capture": "profiled.json"}


def main() -> int:
    plan = json.loads(Path(sys.argv[1]).read_text())
    role: Any = sys.argv[sys.argv.index("--role") + 1]
    folder = Path(plan["run_dir"])
    # Under the real command line nobody knows the run's folder before it is there.
    behaviour = next(file for file in (folder / "behaviour", folder.parent / "behaviour") if file.exists()).read_text()
    # Like the real one: ended from outside, it still closes its ranges and lets the profiler inside write.
    heard = folder / f"{role} heard SIGTERM"
    signal.signal(signal.SIGTERM, (lambda *_: heard.touch()) if "stubborn" in behaviour else (lambda *_: sys.exit(143)))
    gate, progress = Gate(os.environ), ProgressWriter(folder, role)
    for _ in ("before the model", "before the device"):
        gate.wait(lambda: progress.begin("waiting"))
    if behaviour == f"killed in {role}":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == f"crash in {role}":
        sys.stderr.write("error: the weights are made of cheese" + "\n")
        return 7
    if behaviour == f"model error in {role}":
        sys.stderr.write("workload: error: /models/none: no such folder" + "\n")
        return 5
    if "--manifest" in sys.argv:
        manifest = Path(sys.argv[sys.argv.index("--manifest") + 1]).read_text()
        nvtx.mark("dsocr-manifest " + manifest, domain="dsocr.meta")
    with nvtx.annotate("image[0]", domain="dsocr"):
        with nvtx.annotate("prefill", domain="dsocr"):
            time.sleep(0.01)
        if behaviour == "signal itself" and role == "capture":
            time.sleep(FETCHED_AFTER_S)
            os.kill(os.getpid(), signal.SIGSEGV)
        if behaviour == "late crash" and role == "capture":
            sys.stderr.write("error: out of cheese" + "\n")
            return 9
        if "stubborn" in behaviour and "at once" not in behaviour:  # under a fake nsys nothing is fetched
            time.sleep(FETCHED_AFTER_S)
        (folder / f"{role} is at work").touch()
        while f"waits in {role}" in behaviour and (folder / f"{role} is at work").exists():
            time.sleep(0.02)  # until the file is taken away: that can be done on a full disk too
        if "hang" in behaviour and (role == "capture" or "control" in behaviour):
            time.sleep(300)
    result = WorkloadResult(
        role=role,
        model=ModelUnderTest("scripted", "deepseek-ocr-tiny", "fp32", "cpu", True, weights="random"),
        prompts=(PromptTokens(0, "text", 0, 0, 3, 3, expected_new_tokens=3),),
        passes=(ControlPass(0, 0, 2_000_000 if role == "capture" else 1_000_000, 500, 2, (500,)),),
        decode_mode="eager",
        peak_memory_bytes=5_000 if role == "control" else None,
        notes=(f"secret: {os.environ.get('PLANTED', 'not seen')}",) if "tell" in behaviour else (),
    )
    try:
        write_text(folder / RESULTS[role], to_json(result), WriteOptions(error=ChildFailedError))
    except ChildFailedError as error:
        sys.stderr.write(f"workload: error: {error}" + "\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
