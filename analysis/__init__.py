"""Read an Nsight Systems SQLite export and say where the time went. Needs no torch.

>>> import analysis
>>> profile = analysis.load("trace.sqlite")
>>> profile.kernels().head()
>>> analysis.diff("runs/eager", "runs/cuda-graph").headline
>>> analysis.load(["rank0.sqlite", "rank1.sqlite"]).kernels().groupby("rank")["total_ns"].sum()

Nothing heavy is imported before one of these is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.api.comparing import diff
    from analysis.api.loading import load
    from analysis.api.profile import Profile
    from analysis.api.rank_profiles import RankProfiles

__all__ = ["Profile", "RankProfiles", "diff", "load"]


def __getattr__(name: str) -> Any:
    """Import the programmatic surface when it is first asked for: commands and the runner need none of it."""
    if name == "diff":
        from analysis.api import comparing

        return comparing.diff
    if name in __all__:
        from analysis.api import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
