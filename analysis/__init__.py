"""Read an Nsight Systems SQLite export and say where the time went. Needs no torch.

>>> import analysis
>>> profile = analysis.load("trace.sqlite")
>>> profile.kernels().head()

Nothing heavy is imported before `load` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.api.profile import Profile, load

__all__ = ["Profile", "load"]


def __getattr__(name: str) -> Any:
    """Import the programmatic surface when it is first asked for: commands and the runner need none of it."""
    if name in __all__:
        from analysis.api import profile

        return getattr(profile, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
