"""Models: one file per family. This package's own names need no torch; `runner.child.models.loading` does."""

from runner.child.models.registry import DEFAULT_PRESET, PRESETS, FamilyName, ModelSource, Preset, resolve_model

__all__ = ["DEFAULT_PRESET", "PRESETS", "FamilyName", "ModelSource", "Preset", "resolve_model"]
