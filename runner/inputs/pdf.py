"""Pages of PDF files as images: rendered once per content, page and resolution, and kept beside the runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from analysis.domain.errors import InputImagesError, RequestError
from analysis.domain.files import WriteOptions, write_with
from analysis.domain.reading import read_bounded

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

__all__ = ["LARGEST_PAGES", "PDF_SUFFIX", "PdfPages", "rendered", "split_selection"]

PDF_SUFFIX: Final = ".pdf"
LARGEST_PAGES: Final = 1 << 30
"""Bytes of an image, or of a PDF file, which is held in memory as a whole: an image of 100 megapixels has at most 0.8 GB."""

_POINTS_PER_INCH: Final = 72
_MAX_PAGES: Final = 1000
"""Pages of one file that are taken at once; more is taken for a mistake."""
_RANGE: Final = re.compile(r"(\d+)(?:-(\d*))?")


@frozen
class PdfPages:
    """One PDF file, and which of its pages are meant."""

    path: Path
    """Absolute."""
    selection: str = ""
    """As after ``#``: ``1-3``, ``2,5-``; counted from 1. Empty: all."""


def split_selection(path: Path) -> tuple[Path, str]:
    """Split ``scan.pdf#1-3`` into the file and the pages; a file whose own name is that stays whole."""
    name, mark, selection = path.name.rpartition("#")
    if not mark or path.exists() or not name.lower().endswith(PDF_SUFFIX):
        return path, ""
    return path.with_name(name), selection


def rendered(pdf: PdfPages, folder: Path, *, dpi: int, max_pixels: int) -> list[Path]:
    """Render the pages of a PDF as PNG files, those that are there already excepted.

    Args:
        pdf: the file and its pages.
        folder: gets a folder per content of a file; made if it is missing.
        dpi: dots per inch: A4 at 150 is 1240 × 1754 pixels.
        max_pixels: a page that would be larger is refused.

    Returns:
        One file per page, in the order of the pages: ``scan-p001.png``.

    Raises:
        InputImagesError: the file is missing, encrypted, damaged or has no such page; the folder cannot be written.
    """
    try:
        content = read_bounded(pdf.path, LARGEST_PAGES, follow="check path and permissions")
    except RequestError as error:
        raise InputImagesError(str(error)) from error
    digest = hashlib.sha256(content).hexdigest()
    document = _open(pdf.path, content)
    try:
        numbers = _numbers(pdf, len(document))
        home = folder / f"{digest[:16]}-{dpi}dpi"
        files = [home / f"{pdf.path.stem}-p{number:03d}.png" for number in numbers]
        for number, file in zip(numbers, files, strict=True):
            if not file.is_file():
                _render(pdf.path, document, number, file, dpi=dpi, max_pixels=max_pixels)
    finally:
        document.close()
    return files


def _open(path: Path, content: bytes) -> PdfDocument:
    from pypdfium2 import PdfDocument, PdfiumError, raw  # a library of several MiB, for PDFs only

    try:
        return PdfDocument(content)
    except PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise InputImagesError(f"{path}: encrypted; save it without a password first") from error
        raise InputImagesError(f"{path}: not a PDF that can be read; repair or convert it") from error


def _numbers(pdf: PdfPages, count: int) -> Sequence[int]:
    """Pages that are meant, from 1, in the file's order, each once."""
    if count == 0:
        raise InputImagesError(f"{pdf.path}: has no pages")
    chosen: set[int] = set()
    for part in pdf.selection.split(",") if pdf.selection else ["1-"]:
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise InputImagesError(f"{pdf.path}: {pdf.selection!r} names no pages; write #3, #1-3, #5- or #1,4-6")
        first = int(match[1])
        last = first if match[2] is None else int(match[2] or count)
        if not 1 <= first <= last <= count:
            raise InputImagesError(f"{pdf.path}: has {count} pages, and {part.strip()} asks for others")
        if last - first >= _MAX_PAGES:
            raise InputImagesError(
                f"{pdf.path}: {last - first + 1:,} pages at once, and at most {_MAX_PAGES:,} are taken; choose some, "
                f"such as {pdf.path.name}#1-3"
            )
        chosen.update(range(first, last + 1))
    return sorted(chosen)


def _render(path: Path, document: PdfDocument, number: int, file: Path, *, dpi: int, max_pixels: int) -> None:
    from pypdfium2 import PdfiumError

    try:
        page = document[number - 1]
        scale = dpi / _POINTS_PER_INCH
        width, height = page.get_size()
        if width * scale * height * scale > max_pixels:
            raise InputImagesError(
                f"{path}: page {number} would have {width * scale:.0f} × {height * scale:.0f} pixels at {dpi} dpi, but "
                f"at most {max_pixels // 1_000_000} megapixels are taken; lower --dpi"
            )
        picture: Any = page.render(scale=scale).to_pil().convert("RGB")
    except PdfiumError as error:
        raise InputImagesError(f"{path}: page {number} cannot be rendered ({error}); repair or convert it") from error

    def save(target: Path) -> None:
        with target.open("wb") as opened:
            picture.save(opened, "PNG", compress_level=4)

    write_with(file, save, WriteOptions(error=InputImagesError))
