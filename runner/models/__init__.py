"""Models: one file per family. This package's own names need no torch; `runner.models.loading` does."""

from runner.models.registry import DEFAULT_PRESET, PRESETS, FamilyName, ModelSource, Preset, resolve_model

__all__ = ["DEFAULT_PRESET", "PRESETS", "FamilyName", "ModelSource", "Preset", "resolve_model"]
