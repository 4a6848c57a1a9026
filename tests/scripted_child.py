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
    behaviour = (folder / "behaviour").read_text()
    # Like the real one: ended from outside, it still closes its ranges and lets the profiler inside write.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in behaviour else lambda *_: sys.exit(143))
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
    if role == "capture":
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
        if "stubborn" in behaviour:
            time.sleep(FETCHED_AFTER_S)
        (folder / f"{role} is at work").touch()
        if "hang" in behaviour and (role == "capture" or "control" in behaviour):
            time.sleep(300)
    result = WorkloadResult(
        role=role,
        model=ModelUnderTest("scripted", "deepseek-ocr-tiny", "fp32", "cpu", True, weights="random"),
        prompts=(PromptTokens(0, "text", 0, 0, 3, 3),),
        passes=(ControlPass(0, 0, 2_000_000 if role == "capture" else 1_000_000, 500, 2, (500,)),),
        decode_mode="eager",
        peak_memory_bytes=5_000 if role == "control" else None,
        notes=(f"secret: {os.environ.get('PLANTED', 'not seen')}",) if "tell" in behaviour else (),
    )
    (folder / RESULTS[role]).write_text(to_json(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
