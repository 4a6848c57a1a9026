"""From what somebody collected with Nsight Compute to counters: a CSV as it is, a report through ncu or ncu-report."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from analysis.api.tool_run import run_tool
from analysis.domain.annotations import MODULE_DOMAIN, STAGE_DOMAIN
from analysis.domain.ended import ended_in_words
from analysis.domain.errors import RequestError
from analysis.domain.programs import find_program
from analysis.efficiency.counters.file import CounterFile, NvtxState, is_wanted, nvtx_state, read_counters

__all__ = ["counter_paths", "find_ncu", "import_argv", "open_counters"]

_IMPORT_TIMEOUT_S: Final = 3600.0
_REPORTS: Final = (".ncu-rep", ".ncu-repz")
_COUNTER_FILES: Final = (".csv", ".csv.xz", ".csv.gz", *_REPORTS)


def open_counters(path: Path, environ: Mapping[str, str] | None = None) -> CounterFile:
    """Read a file of counters.

    Args:
        path: a CSV of the raw page (``.csv``, or packed ``.csv.xz``, ``.csv.gz``), or a ``.ncu-rep``.
        environ: for NCU and PATH; None: of this process.

    Raises:
        RequestError: there is no such file, it is no such file, or a report cannot be read.
    """
    if not path.is_file():
        raise RequestError(f"{path}: {'is no regular file' if path.exists() else 'is not there'}")
    if path.suffix not in _REPORTS:
        return read_counters(path)
    environ = os.environ if environ is None else environ
    ncu = find_ncu(path, environ)
    if ncu is not None:
        return _imported(path, ncu, environ)
    reader = _reader()
    if reader is not None:
        return _read_by(reader, path)
    raise RequestError(
        f"{path}: is a report of Nsight Compute, and no ncu was found to read it with ($NCU, PATH, .ncu/, the CUDA toolkit's "
        "folders); install the extra: pip install 'dsocr-profiler[ncu]'; or where there is an ncu, make a CSV of it: "
        f"ncu --import {path.name} --page raw --csv --print-units base > {path.stem}.csv"
    )


def counter_paths(named: Iterable[Path]) -> tuple[Path, ...]:
    """The files to read: those named, and those in the folders named, such as the ``counters/`` of a run; each once.

    Raises:
        RequestError: a folder holds no such file.
    """
    files: dict[Path, Path] = {}
    for path in named:
        inside = [path]
        if path.is_dir():
            inside = sorted(
                entry for entry in path.iterdir() if entry.name.endswith(_COUNTER_FILES) and entry.is_file()
            )
            if not inside:
                raise RequestError(f"{path}: is a directory without counters ({', '.join(_COUNTER_FILES)})")
        for file in inside:
            files.setdefault(file.resolve(), file)
    return tuple(files.values())


def import_argv(ncu: Path, report: Path) -> list[str]:
    """The command that prints a report as the CSV that `read_counters` reads."""
    return [str(ncu), "--import", str(report), "--page", "raw", "--csv", "--print-units", "base"]


def find_ncu(report: Path, environ: Mapping[str, str]) -> Path | None:
    """The ncu to import with: ``$NCU``, else the one on PATH, under ``.ncu/`` beside the report or here, of the toolkit.

    Raises:
        RequestError: $NCU names no program.
    """
    named = environ.get("NCU")
    program = find_program(named or "ncu", environ)
    if program is not None:
        return Path(program)
    if named:
        raise RequestError(f"{report}: cannot be read: $NCU names {named}, which is no program")
    places = [
        *(path for folder in (report.absolute().parent, Path.cwd()) for path in _newest_first(folder / ".ncu")),
        Path("/usr/local/cuda/bin/ncu"),
        *_newest_first(Path("/opt/nvidia/nsight-compute")),
    ]
    return next((path for path in places if path.is_file() and os.access(path, os.X_OK)), None)


def _newest_first(folder: Path) -> list[Path]:
    places = [
        folder / "ncu",
        folder / "usr/bin/ncu",
        *folder.glob("*/ncu"),
        *folder.glob("usr/lib/nsight-compute*/ncu"),
    ]
    return sorted(places, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)


def _imported(report: Path, ncu: Path, environ: Mapping[str, str]) -> CounterFile:
    with tempfile.TemporaryDirectory(prefix="dsocr-ncu-") as folder:
        made = Path(folder) / "counters.csv"
        try:
            with made.open("wb") as out:
                done = run_tool(import_argv(ncu, report), environ, timeout_s=_IMPORT_TIMEOUT_S, output=out)
        except subprocess.TimeoutExpired as error:
            raise RequestError(f"{report}: {ncu} did not read it in {_IMPORT_TIMEOUT_S / 60:.0f} min") from error
        except OSError as error:
            raise RequestError(f"{report}: cannot be read: {ncu} cannot be run ({error.strerror})") from error
        if done.returncode:
            with made.open(encoding="utf-8", errors="replace") as said:
                words = (done.stderr.decode("utf-8", "replace") + said.read(4096)).strip().splitlines()
            raise RequestError(
                f"{report}: {ncu} did not read it: it {ended_in_words(done.returncode)}: {words[-1] if words else 'no message'}"
            )
        return read_counters(made, str(report))


# --- without ncu: NVIDIA's package for reading reports --------------------------------------------------------------


def _reader() -> ModuleType | None:
    """The package ``ncu-report`` (the extra ``ncu``), imported only where a report has to be read without ncu."""
    if importlib.util.find_spec("ncu_report") is None:
        return None
    return importlib.import_module("ncu_report")


def _read_by(reader: Any, report: Path) -> CounterFile:
    """Read a report through ``ncu_report``, whose values are in base units.

    Args:
        reader: the module.
        report: the file.
    """
    try:
        context = reader.load_report(str(report))
    except (OSError, RuntimeError, ValueError) as error:
        raise RequestError(f"{report}: ncu-report did not read it: {error}") from error
    if context is None:
        raise RequestError(f"{report}: ncu-report did not read it: it is no report, or one of a newer version")
    actions = [
        context.range_by_idx(span).action_by_idx(place)
        for span in range(context.num_ranges())
        for place in range(context.range_by_idx(span).num_actions())
    ]
    if not actions:
        # The package opens any file, and finds nothing in what is no report.
        raise RequestError(f"{report}: holds no kernel: nothing was profiled, or it is no report of Nsight Compute")
    wanted = sorted({name for action in actions for name in action.metric_names() if is_wanted(name)})
    if not wanted:
        raise RequestError(f"{report}: has none of the metrics that a review is made from; collect them")
    shared = [
        (
            _number(action, "launch__shared_mem_per_block_static"),
            _number(action, "launch__shared_mem_per_block_dynamic"),
        )
        for action in actions
    ]
    return CounterFile(
        source=str(report),
        names=tuple(action.name(action.NameBase_DEMANGLED) for action in actions),
        process=np.zeros(len(actions), dtype=np.int64),
        state=tuple(_state(action.nvtx_state()) for action in actions),
        grid=tuple(_dims(action, "grid") for action in actions),
        block=tuple(_dims(action, "block") for action in actions),
        shared_bytes=np.array([-1 if np.isnan(sum(sizes)) else int(sum(sizes)) for sizes in shared], dtype=np.int64),
        metrics={name: np.array([_number(action, name) for action in actions]) for name in wanted},
        devices=frozenset(filter(None, (_text(action, "device__attribute_display_name") for action in actions))),
        compute_capabilities=frozenset(),
    )


def _number(action: Any, name: str) -> float:
    metric = action.metric_by_name(name)
    value = metric.value() if metric is not None else None
    return float(value) if isinstance(value, int | float) else float("nan")


def _text(action: Any, name: str) -> str:
    metric = action.metric_by_name(name)
    value = metric.value() if metric is not None else None
    return value if isinstance(value, str) else ""


def _dims(action: Any, what: str) -> tuple[int, int, int]:
    x, y, z = (_number(action, f"launch__{what}_dim_{axis}") for axis in "xyz")
    return (0, 0, 0) if np.isnan(x + y + z) else (int(x), int(y), int(z))


def _state(state: Any) -> NvtxState:
    """The same as the CSV's column of push/pop ranges says; ranges of one domain are sorted from the outermost in."""
    if state is None:
        return nvtx_state("")
    parts = []
    for domain_id in state.domains():
        domain = state.domain_by_id(domain_id)
        for place, name in enumerate(domain.push_pop_ranges()):
            payload = _payload(domain.push_pop_range(place)) if domain.name() == STAGE_DOMAIN else None
            kind = "none:none" if payload is None else f"Int64:{payload}"
            if domain.name() in (STAGE_DOMAIN, MODULE_DOMAIN) and '"' not in name and ":" not in name:
                parts.append(f'"{domain.name()}:{name}:{kind}"')
            else:
                parts.append('"other:other:none:none"')
    return nvtx_state(" ".join(parts))


def _payload(payload: Any) -> int | None:
    integers = (payload.PayloadType_PAYLOAD_INT64, payload.PayloadType_PAYLOAD_UINT64,
                payload.PayloadType_PAYLOAD_INT32, payload.PayloadType_PAYLOAD_UINT32)  # fmt: skip
    return payload.payload_as_uint64() if payload.payload_type() in integers else None
