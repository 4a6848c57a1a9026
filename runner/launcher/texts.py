"""What the model read, beside the pages that it read: ``text.html`` and ``text.md`` in the run's folder."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from analysis.domain.entities import InputImage
from analysis.domain.errors import CaptureError
from analysis.domain.files import WriteOptions, write_text
from analysis.domain.manifest import RunManifest
from analysis.domain.names import visible
from runner.plan.plan import WorkloadResult

__all__ = ["NO_TEXT", "TEXT_PAGE", "write_texts"]

TEXT_PAGE: Final = "text.html"
NO_TEXT: Final = "The weights were random, so what the model wrote means nothing: there is no text to show."

_WIDTH: Final = 900
"""Pixels of a page beside its text."""
_FILE: Final = WriteOptions(error=CaptureError)
_HEAD: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Text of the run</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; }
section { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem; margin: 0 0 2rem; }
h2 { grid-column: 1 / -1; margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
img { width: 100%; border: 1px solid #8888; }
pre { margin: 0; padding: .5rem; border: 1px solid #8888; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 50rem) { section { grid-template-columns: minmax(0, 1fr); } }
</style>
"""


def write_texts(folder: Path, manifest: RunManifest, control: WorkloadResult) -> bool:
    """Write both files; nothing for a model that reads no images.

    Args:
        folder: of the run.
        manifest: has the pages.
        control: the control run's result; its texts are those of its last pass.

    Returns:
        Whether there is a text to look at.

    Raises:
        CaptureError: a file cannot be written.
    """
    pages = manifest.input_set.images if manifest.input_set is not None else ()
    if not any(prompt.image_tokens for prompt in control.prompts):
        return False
    if control.model.weights != "checkpoint":
        write_text(folder / "text.md", f"{NO_TEXT}\n", _FILE)
        return False
    if not control.texts or len(control.texts) != len(pages):
        write_text(folder / "text.md", "The checkpoint brings no tokenizer: there is no text to show.\n", _FILE)
        return False
    write_text(folder / "text.md", _markdown(pages, control.texts), _FILE)
    write_text(folder / TEXT_PAGE, _html(manifest, pages, control.texts), _FILE)
    return True


def _markdown(pages: Sequence[InputImage], texts: Sequence[str]) -> str:
    """Each text in a fence that nothing inside it can close: it is the model's own words."""
    parts = []
    for page, text in zip(pages, texts, strict=True):
        longest = max((len(line) - len(line.lstrip("`")) for line in text.splitlines()), default=0)
        fence = "`" * max(3, longest + 1)
        parts.append(f"## {escape(_name(page))}\n\n{fence}text\n{text}\n{fence}\n")
    return "\n".join(parts)


def _html(manifest: RunManifest, pages: Sequence[InputImage], texts: Sequence[str]) -> str:
    model = "" if manifest.model is None else escape(manifest.model.id)
    parts = [_HEAD, f"<h1>What {model} read</h1>\n"]
    for page, text in zip(pages, texts, strict=True):
        name = escape(_name(page))
        parts.append(
            f'<section>\n<h2>{name}</h2>\n<img alt="{name}" src="{_picture(Path(page.path))}">\n'
            f"<pre>{escape(text)}</pre>\n</section>\n"
        )
    return "".join(parts)


def _name(page: InputImage) -> str:
    name = Path(page.path).name
    return visible(name)


def _picture(path: Path) -> str:
    """The page as a data URI, so that the file can be moved; empty if the page is gone by now."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            page = opened.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return ""
    page.thumbnail((_WIDTH, 4 * _WIDTH))
    file = io.BytesIO()
    page.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
