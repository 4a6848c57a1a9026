"""Charts as SVG that needs no script: on the pages, in print, and as files beside the Markdown reports."""

from __future__ import annotations

from analysis.render.pictures.budget import budget_picture
from analysis.render.pictures.categories import category_picture
from analysis.render.pictures.steps import histogram_picture, step_picture

__all__ = ["budget_picture", "category_picture", "histogram_picture", "step_picture"]
