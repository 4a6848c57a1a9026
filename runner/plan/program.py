"""What is asked of a run of any program: the options of ``dsocr-profile exec``, and its ``plan.json``."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from attrs import field, frozen, validators

from runner.plan.options import Panel, option, variable_names
from runner.plan.plan import trace_names
from runner.plan.settings import FINISH_S

__all__ = ["ExecPlan", "ExecSettings"]

_RUN: Final[Panel] = "The run"
_CAPTURE: Final[Panel] = "The capture"
_SERVER: Final[Panel] = "A server"
_PROFILER: Final[Panel] = "The profiler"

_CAPTURE_VALUE: Final = re.compile(r"all|cuda-profiler-api|nvtx:.+")


def _capture(record: Any, attribute: Any, value: str | None) -> None:
    if value is not None and not _CAPTURE_VALUE.fullmatch(value):
        raise ValueError(f"'{attribute.name}' must be all, cuda-profiler-api or nvtx:RANGE, not {value}")


def _address(record: Any, attribute: Any, value: str | None) -> None:
    if value is not None and not re.match(r"https?://[^/\s]", value):
        raise ValueError(f"'{attribute.name}' must be an address that begins with http:// or https://")


@frozen
class ExecSettings:
    """What is asked of a run of any program beyond its command."""

    # -- the run ----------------------------------------------------------------------------------------------------
    control: int = option(
        0, "Runs of the same command with nothing attached, before the capture: wall time.", _RUN,
        validator=validators.ge(0),
    )  # fmt: skip
    timeout_s: float | None = option(
        None, "Seconds for the whole run, waiting for the device included; what was captured by then is still exported.",
        _RUN, flag="--timeout", validator=validators.optional(validators.gt(0)),
    )  # fmt: skip
    grace_s: float = option(
        30.0, "Seconds that the program may take to end after a signal, before a harder one.", _RUN, flag="--grace",
        validator=validators.gt(0),
    )  # fmt: skip
    finish_s: float = option(
        FINISH_S,
        "Seconds that nsys may take to write its report after the program's end (one that does nothing gets 60), and that "
        "processes may live that the program leaves running.",
        _RUN, flag="--finish", validator=validators.gt(0),
    )  # fmt: skip

    # -- the capture ------------------------------------------------------------------------------------------------
    capture: str | None = option(
        None,
        "all, cuda-profiler-api (cudaProfilerStart to …Stop) or nvtx:RANGE[@DOMAIN] (default: all; with --start-url "
        "cuda-profiler-api).",
        _CAPTURE,
        validator=_capture,
    )
    delay_s: float | None = option(
        None, "Seconds from the start of the program to that of the capture.", _CAPTURE, flag="--delay",
        validator=validators.optional(validators.ge(0)),
    )  # fmt: skip
    duration_s: float | None = option(
        None, "Seconds of the capture; the program is ended after it.", _CAPTURE, flag="--duration",
        validator=validators.optional(validators.gt(0)),
    )  # fmt: skip
    ranks: int = option(
        1, "Processes that the command starts with torchrun: one report for each.", _CAPTURE, validator=validators.ge(1)
    )

    # -- a server ---------------------------------------------------------------------------------------------------
    ready_url: str | None = option(
        None, "Asked until it answers with success; then the load begins.", _SERVER, validator=_address
    )
    ready_timeout_s: float = option(
        600.0, "Seconds that the server may take to answer there.", _SERVER, flag="--ready-timeout",
        validator=validators.gt(0),
    )  # fmt: skip
    load: str | None = option(None, "Command that makes the load. When it has ended, the server is ended too.", _SERVER)
    start_url: str | None = option(
        None, "Posted to before the load, such as an engine's /start_profile.", _SERVER, validator=_address
    )
    start_body: str | None = option(None, "JSON to post there.", _SERVER)
    stop_url: str | None = option(
        None, "Posted to after the load, such as an engine's /stop_profile.", _SERVER, validator=_address
    )

    # -- the profiler -----------------------------------------------------------------------------------------------
    preset: str = option("default", "What nsys collects; docs/capture.md lists them.", _PROFILER)
    nsys: str | None = option(None, "The nsys to use (default: $NSYS, else the newest usable one).", _PROFILER)
    nsys_args: tuple[str, ...] = option((), "Passed to nsys as it is; may be repeated.", _PROFILER, flag="--nsys-arg")
    keep_env: tuple[str, ...] = option(
        (), "Name of an environment variable that the program needs; may be repeated.", _PROFILER, metavar="NAME",
        validator=variable_names,
    )  # fmt: skip
    keep_report: bool = option(
        False, "Keep the .nsys-rep even if nsys stored secrets or other processes' environments in it.", _PROFILER
    )

    @property
    def captured(self) -> str:
        """What is captured, resolved."""
        return self.capture or ("cuda-profiler-api" if self.start_url else "all")

    @property
    def traces(self) -> tuple[str, ...]:
        """Names of the reports and exports, without their endings."""
        return trace_names(self.ranks)

    @property
    def is_server(self) -> bool:
        """The program is ended when the load has ended."""
        return self.load is not None


@frozen
class ExecPlan:
    """One run of a program. ``plan.json`` in the run directory."""

    run_id: str
    run_dir: str
    """Absolute; artefacts go here."""
    command: tuple[str, ...]
    """Secrets redacted: to go on with a capture, the command is not needed."""
    kind: Literal["exec"] = field(default="exec", validator=validators.in_(("exec",)))
    device: str = "cpu"
    settings: ExecSettings = field(factory=ExecSettings)
    """As they were asked for; addresses and the load's command redacted."""
