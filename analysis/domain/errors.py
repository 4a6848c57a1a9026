"""The errors that a user can cause or meet, each with the exit code that the commands end with.

One tree for both packages. A command prints ``str(error)`` on one line and exits with ``exit_code``; anything that
is not a `DsocrError` is a bug in this project and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AnalysisFailedError",
    "BusyError",
    "CaptureError",
    "ChildFailedError",
    "ConservationError",
    "DsocrError",
    "ExportError",
    "GateFailedError",
    "GateUndecidedError",
    "InputImagesError",
    "InterruptedRunError",
    "ModelError",
    "NoEventsError",
    "NothingMatchesError",
    "OutputError",
    "RequestError",
    "ResultError",
    "StoreError",
    "TimeoutExceededError",
    "TraceError",
    "TraceSchemaError",
    "UnfitTraceError",
]


class DsocrError(Exception):
    """Base of all errors that are told to the user in one line."""

    exit_code: ClassVar[int] = 1


class NothingMatchesError(DsocrError):
    """What was asked for by a pattern or a stage is not in the trace; the exit code is that of grep."""

    exit_code = 1


class RequestError(DsocrError):
    """A request, an option or a file of ours (manifest, preset, rules) does not say what it must."""

    exit_code = 2


class TraceError(DsocrError):
    """A trace file cannot be opened or read."""

    exit_code = 3


class TraceSchemaError(TraceError):
    """A trace opens, but lacks the tables or columns that the question needs."""


class UnfitTraceError(DsocrError):
    """The trace is readable, but by its own evidence it must not be trusted."""

    exit_code = 4


class ModelError(DsocrError):
    """A model cannot be found, read, built or held in memory."""

    exit_code = 5


class InputImagesError(DsocrError):
    """The input images are missing, unreadable or too large."""

    exit_code = 6


class CaptureError(DsocrError):
    """The profiler is missing, cannot do what was asked, or left no usable report."""

    exit_code = 10


class NoEventsError(CaptureError):
    """The capture is whole and holds nothing: what ran marked no range and used no GPU."""


class ChildFailedError(DsocrError):
    """The profiled program failed."""

    exit_code = 11


class ExportError(DsocrError):
    """The report was captured, but its export failed or is incomplete."""

    exit_code = 12


class AnalysisFailedError(DsocrError):
    """Capture and export succeeded, the analysis did not."""

    exit_code = 13


class TimeoutExceededError(DsocrError):
    """The run was ended by its time limit; what had been captured is kept."""

    exit_code = 14


class BusyError(DsocrError):
    """Another run holds the device or the run directory."""

    exit_code = 15


class StoreError(DsocrError):
    """The history cannot be opened, read or written: not there, locked, full, damaged, or of a newer version."""

    exit_code = 16


class GateFailedError(DsocrError):
    """A limit of the gate's policy is exceeded."""

    exit_code = 20


class GateUndecidedError(DsocrError):
    """No limit of the gate's policy is exceeded, and at least one cannot be judged."""

    exit_code = 21


class ResultError(DsocrError):
    """A figure that was worked out cannot be: a bug of ours, never a fact about the input. Nothing is written."""

    exit_code = 70


class ConservationError(ResultError):
    """Rows do not add up to the trace's total."""


class OutputError(DsocrError):
    """The work was done, and standard output, where its result belongs, cannot be written: closed, or on a full disk.

    A reader that has gone (`| head`) is none: the exit code is 141 then, as of a program that SIGPIPE ended.
    """

    exit_code = 74


class InterruptedRunError(DsocrError):
    """The user ended the run (Ctrl-C or SIGTERM)."""

    exit_code = 130
