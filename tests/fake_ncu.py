#!/usr/bin/env python3
"""An ncu for machines without a GPU: it runs the program and says what ncu says. ``$NCU_FAKE`` tells how it fails."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

HOW = os.environ.get("NCU_FAKE", os.environ.get("NSYS_NCU_FAKE", ""))
TOLD = Path(__file__).parent / "told"
"""Texts that it says and stores, with NUL between them."""
HELP = """
General Options:
  -h [ --help ]                         Print this help message.
Profile Options:
  --graph-profiling arg (=node)         CUDA graph profiling mode.
  --rename-kernels arg (=1)             Perform kernel renaming.
  --filter-mode arg (=global)           Set the filter mode. Available modes: global, per-gpu, per-launch-config
  --nvtx-include arg                    Adds include statement to the NVTX filter.
"""
METRICS = [
    "dram__bytes_read",
    "dram__bytes_write",
    "lts__t_bytes",
    "sm__warps_active",
    "sm__ops_path_tensor_src_bf16_dst_fp32",
    *(f"sm__sass_thread_inst_executed_op_{name}_pred_on" for name in ("fadd", "fmul", "ffma", "hadd", "hmul", "hfma")),
]
HEADER = ["ID", "Process ID", "Process Name", "Host Name"]
HEADER += ["thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg", "Kernel Name", "Block Size"]
HEADER += ["Grid Size", "Device", "CC", "device__attribute_pci_bus_id", "dram__bytes_read.sum"]
DECODE = '935  "dsocr:decode:none:none:RGB:0xff:R:decode"  "dsocr:decode_step:Int64:911:RGB:0xff:R:decode_step" '
PREFILL = '935  "dsocr:image[0]:none:none:RGB:0xff:R:image[0]"  "dsocr:prefill:Int64:910:RGB:0xff:R:prefill" '
VALUED = {"--export", "--target-processes", "--profile-from-start", "--clock-control", "--cache-control", "--metrics"}
VALUED |= {"--apply-rules", "--graph-profiling", "--rename-kernels", "--nvtx-include", "--kernel-name-base"}
VALUED |= {"--kernel-name", "--filter-mode", "--launch-count", "--section"}


def value(option: str) -> str:
    return sys.argv[sys.argv.index(option) + 1]


def texts_to_tell() -> list[str]:
    return TOLD.read_text().split("\0") if TOLD.is_file() else []


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    if "--version" in sys.argv:
        say("NVIDIA (R) Nsight Compute Command Line Profiler\nVersion 2099.1.0.0 (build 1) (public-release)\n")
    elif "--help" in sys.argv:
        say(HELP)
    elif "--list-chips" in sys.argv:
        say("ad102, ga100, gh100\n")
    elif "--query-metrics" in sys.argv:
        say(
            "Chip gh100\n"
            + "".join(f"{name}    Counter    byte    # of it\n" for name in METRICS)
            + "fe__longest_name Counter    cycle\nsm__short        Ratio\n"
        )
    elif "--import" in sys.argv:
        return show(Path(value("--import")))
    else:
        return profile()
    return 0


def profile() -> int:
    place = 1
    while sys.argv[place].startswith("-"):
        place += 2 if sys.argv[place] in VALUED else 1
    output = Path(value("--export") + ".ncu-rep")
    if HOW == "no permission":
        say(
            "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters "
            "on the target device 0. For instructions on enabling permissions and to get more information see\n"
        )
        say("==WARNING== No kernels were profiled.\n")
        return subprocess.run(sys.argv[place:], check=False).returncode
    if HOW == "sections fail" and "--section" in sys.argv:
        say("==ERROR== Unknown Error on device 0.\n")
        return 1
    say("==WARNING== Note: Running with unmodified GPU clocks.\n==PROF== Connected to process 935 (/usr/bin/python3)\n")
    for text in texts_to_tell():
        say(f"==PROF== ncu tells {text}\n")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(sys.argv[place:])
    passes = 18 if "--section" in sys.argv else 1
    for index in range(3):
        say(f'==PROF== Profiling "kernel_{index}" - {index}: 0%....50%....100% - {passes} passes\n')
    code = child.wait()
    say("==PROF== Disconnected from process 935\n")
    stored = [os.uname().nodename, *sys.argv, *(f"{name}={value}" for name, value in os.environ.items())]
    output.write_bytes(b"\0".join(map(os.fsencode, stored)))
    say(f"==PROF== Report: {output}\n")
    return code


def show(report: Path) -> int:
    if HOW == "cannot import":
        say(f"==ERROR== Could not import {report} {' '.join(texts_to_tell())}\n")
        return 1
    say("==PROF== Some word of its own\n")
    rows = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL, lineterminator="\n")
    rows.writerow(HEADER)
    rows.writerow(["", "", "", "", "", "", "", "", "", "", "", "byte"])
    for index, state in enumerate(
        (DECODE if HOW == "no prefill" else PREFILL, DECODE if HOW == "no prefill" else PREFILL, DECODE)
    ):
        rows.writerow(
            [
                index,
                935,
                "python3",
                "planted-host",
                state,
                f"kernel_{index}",
                "(128, 1, 1)",
                "(1, 1, 1)",
                0,
                "9.0",
                "66",
                "1,024",
            ]
        )
    for text in texts_to_tell():
        state = f'935  "dsocr:{text}:none:none:RGB:0xff:R:x" '
        rows.writerow([9, 935, text, text, state, f"kernel_{text}", "(1, 1, 1)", "(1, 1, 1)", 0, "9.0", "66", "1"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
