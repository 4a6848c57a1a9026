"""`analysis.load`: from files to what a notebook works with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.api.profile import Profile
from analysis.api.rank_profiles import RankProfiles, load_ranks

__all__ = ["load"]


@overload
def load(path: str | os.PathLike[str], **stated: Any) -> Profile: ...


@overload
def load(path: Sequence[str | os.PathLike[str]], **stated: Any) -> RankProfiles: ...


def load(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], **stated: Any) -> Profile | RankProfiles:
    """Read a trace and analyse it, as ``dsocr-analyze`` does; of a list, the ranks of one run together.

    >>> profile = load("trace.sqlite", model="deepseek-ocr", tiles=6, prompt_tokens=916)
    >>> load(["rank0.sqlite", "rank1.sqlite"]).kernels("decode").groupby("rank")["total_ns"].sum()

    Args:
        path: a SQLite export, a run folder, or a ``.nsys-rep``, which is exported beside itself if there is an nsys. A list: each
            rank's trace, a folder of them, or one trace of which each rank is wanted.
        **stated: fields of `analysis.api.options.AnalysisOptions`: ``manifest``, ``cross_thread``, ``accept_lossy``,
            ``skip_first``, ``model``, ``config``, ``input_mode``, ``tiles``, ``prompt_tokens``, ``peak_tflops``, ``peak_gbps``,
            ``vocabulary``, ``rank`` and ``kernel_rules`` mean what the options of the command mean.

    Raises:
        TypeError: there is no such option.
        RequestError: an option says what it must not.
        TraceError: the trace cannot be found, exported or read.
        UnfitTraceError: by its own evidence the capture must not be trusted; ``accept_lossy=True`` reads it all the same.
    """
    if not isinstance(path, str | os.PathLike):
        return load_ranks([Path(each) for each in path], AnalysisOptions(**stated))
    with opened(Path(path), AnalysisOptions(**stated)) as trace:
        return Profile(trace.report(), trace.attribution)
