"""The pages of a run: find, check and categorise them, and open them for the model.

A page is an image, or a page of a PDF file, which is rendered (see `runner.inputs.pdf`).

A page may have up to ``MAX_PIXELS`` (100 megapixels; a 50-megapixel scan is fine) and is refused beyond, before its
pixels are decoded. A page of more than ``DOWNSCALE_ABOVE_PIXELS`` is opened at a half, a third … of its size: no input
mode looks at more than a few megapixels. ``InputImage.width`` and ``height`` stay those of the file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import __version__ as pillow_version

from analysis.domain.convert import from_json, to_json
from analysis.domain.entities import Category, InputImage, InputSet
from analysis.domain.errors import InputImagesError, RequestError
from analysis.domain.files import WriteOptions, write_text, write_with
from analysis.domain.reading import LARGEST_SETTINGS, json_of, open_regular, read_bounded
from analysis.domain.redaction import redacted
from runner.inputs import sample_pages
from runner.inputs.pdf import LARGEST_PAGES, PDF_SUFFIX, PdfPages, rendered, split_selection
from runner.inputs.sample_pages import SAMPLE_PAGES, draw_page
from runner.process.environment import own_secrets
from runner.process.own_file import is_own

__all__ = [
    "CATEGORY_RULE",
    "DEFAULT_DPI",
    "DOWNSCALE_ABOVE_PIXELS",
    "FEW_PAGES",
    "MAX_PIXELS",
    "SUFFIXES",
    "categorise",
    "check_unchanged",
    "discover",
    "open_image",
    "sample_set",
]

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
MAX_PIXELS: Final = 100_000_000
DOWNSCALE_ABOVE_PIXELS: Final = 25_000_000
DEFAULT_DPI: Final = 150
"""Of a rendered PDF page: A4 becomes 1240 × 1754 pixels, as the sample pages have."""

FEW_PAGES: Final = (0, 4, 8)
"""Of the sample pages, those of a first result: one of text, one of mixed layout, one of pictures."""

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height are swapped

_RULE_EDGE = 1024
_CELL = 16
_TONE = 24
_PAPER_SHARE = 0.3
_BLANK, _COVERED = 0.97, 0.25
_IMAGE_RICH, _MIXED_AT_MOST, _MIXED_AT_LEAST, _TEXT_AT_MOST = 0.5, 0.45, 0.05, 0.02
_INK_OF_TEXT, _INK_OF_MIXED = 0.1, 0.05
_FEWEST_CELLS = 100

CATEGORY_RULE: Final = (
    f"The page is scaled to {_RULE_EDGE} pixels along its longer edge and cut into cells of {_CELL} × {_CELL}. Paper "
    f"is the most common grey tone ± {_TONE} of 255, if at least {_PAPER_SHARE:.0%} of the page has it (otherwise "
    f"there is no paper, and every cell is picture). A cell is blank if at least {_BLANK:.0%} of it is paper, picture "
    f"if less than {_COVERED:.0%} is, and ink otherwise. image_rich: at least {_IMAGE_RICH:.0%} of the cells are "
    f"picture. mixed_layout: {_MIXED_AT_LEAST:.0%} to {_MIXED_AT_MOST:.0%} are picture and at least "
    f"{_INK_OF_MIXED:.0%} ink. text_heavy: at most {_TEXT_AT_MOST:.0%} are picture and at least {_INK_OF_TEXT:.0%} "
    f"ink. unknown: anything between or beside these, and pages of fewer than {_FEWEST_CELLS} cells."
)
"""How `categorise` decides, in words."""

_FILE: Final = WriteOptions(error=InputImagesError)

_log = logging.getLogger(__name__)


def discover(path: Path, *, rendered_into: Path | None = None, dpi: int = DEFAULT_DPI) -> InputSet:
    """Find the pages in a folder (not in its subfolders), or take one file.

    Every page is decoded once, so that a broken one is found before the model is loaded.

    Args:
        path: an image, a PDF file (``scan.pdf``, ``scan.pdf#1-3``), or a folder with PNG, JPEG, TIFF, WebP or PDF
            files. Other files in it are skipped with a warning, hidden ones silently.
        rendered_into: gets the pages of PDF files as images; None: only images are taken. Where it is another user's
            or a link, a folder beside it does, as in `sample_set`.
        dpi: at which PDF pages are rendered.

    Returns:
        The pages sorted by name, with absolute paths, SHA-256, and width and height as they are seen (EXIF rotation
        applied).

    Raises:
        InputImagesError: no such path; no image in the folder; a page that cannot be read whole or is too large.
        RequestError: the name of a page looks like a secret.
    """
    path, selection = split_selection(path.expanduser().absolute())
    try:
        if path.is_dir():
            suffixes = SUFFIXES if rendered_into is None else (*SUFFIXES, PDF_SUFFIX)
            name, root, files = path.name or "/", path, _images_in(path, suffixes)
        elif not path.exists():
            raise InputImagesError(
                f"{path}: no such file or folder; name a PDF file, or a folder of PNG, JPEG, TIFF or WebP images"
            )
        else:
            name, root, files = path.stem, path.parent, [path]
    except PermissionError as error:
        raise InputImagesError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    for file in files:
        if (shown := redacted(str(file), own_secrets())) != str(file):
            raise RequestError(
                f"{shown}: the name of this page holds what looks like a secret, and a run's folder would keep it: rename it"
            )
    pages: list[Path] = []
    for file in files:
        if rendered_into is not None and file.suffix.lower() == PDF_SUFFIX:
            home = _of_ones_own(rendered_into.expanduser().absolute())
            pages += rendered(PdfPages(file, selection), home, dpi=dpi, max_pixels=MAX_PIXELS)
        else:
            pages.append(file)
    return _input_set(name, root, pages)


def sample_set(folder: Path, pages: Sequence[int] = tuple(range(len(SAMPLE_PAGES)))) -> InputSet:
    """Draw generated pages into ``folder`` as PNG and take them as input set; what was drawn before is taken as it is.

    The same version of Pillow writes the same bytes each time.

    Args:
        folder: gets the pages, and ``.drawn.json``, which says what they are and by what they were drawn. Where it is
            another user's or a link, one beside it does, whose name ends with this user's number.
        pages: numbers of the pages, such as `FEW_PAGES`; all twelve if not given.

    Raises:
        InputImagesError: the folder cannot be written.
    """
    folder = _of_ones_own(folder.expanduser().absolute())
    record = folder / ".drawn.json"
    drawn_by = _drawn_by(pages)
    before = _drawn_before(record, drawn_by)
    if before is not None:
        return before
    paths = [folder / f"{index:02d}-{SAMPLE_PAGES[index][0]}.png" for index in pages]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, path in zip(pages, paths, strict=True):
            _save(draw_page(index), path)
    except OSError as error:
        raise InputImagesError(f"{folder}: the sample pages cannot be written ({error.strerror})") from error
    made = _input_set("sample-pages", folder, paths)
    write_text(record, json.dumps({"by": drawn_by, "set": json.loads(to_json(made))}), _FILE)
    return made


def _of_ones_own(folder: Path) -> Path:
    """The folder, or one beside it where somebody else made it, or where it is a link.

    Not a link of one's own either: whoever may rename in the folder above can put there one that was made for another
    purpose, and pages would be written where that leads.

    Raises:
        InputImagesError: that is somebody else's or a link too.
    """
    for place in (folder, folder.with_name(f"{folder.name}.{os.geteuid()}")):
        try:
            facts = place.lstat()
        except OSError:
            return place
        if not stat.S_ISLNK(facts.st_mode) and is_own(facts.st_uid, place.parent):
            return place
    raise InputImagesError(f"{folder}: belongs to another user, or is a link; choose another --out")


def check_unchanged(pages: InputSet) -> None:
    """Compare the files with what was found before.

    Raises:
        InputImagesError: one is gone or holds something else now.
    """
    for page in pages.images:
        if page.sha256 is not None and _digest(Path(page.path)) != page.sha256:
            raise InputImagesError(f"{page.path}: changed since the run was planned; start the run again")


def open_image(image: InputImage) -> Image.Image:
    """Open a page for the model.

    Returns:
        RGB, 8 bits per channel, upright; of the file's size, or of an integer fraction of it where the file has more
        than ``DOWNSCALE_ABOVE_PIXELS``. Transparency is laid on white; of several pages the first is taken.

    Raises:
        InputImagesError: the file cannot be read whole, or is too large.
    """
    with _opened(Path(image.path)) as opened:
        return _to_rgb(opened, DOWNSCALE_ABOVE_PIXELS)


def categorise(page: Image.Image) -> Category:
    """Tell what a page mostly holds by ``CATEGORY_RULE``; its name plays no part.

    Text lets paper through in every cell, a picture covers whole cells: that is the evidence used.
    """
    grey = page.convert("L")
    scale = _RULE_EDGE / max(grey.size)
    if scale < 1:
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        grey = grey.resize(size, Image.Resampling.BOX)
    tones = np.asarray(grey).astype(np.int16)
    rows, columns = tones.shape[0] // _CELL, tones.shape[1] // _CELL
    if rows * columns < _FEWEST_CELLS:
        return "unknown"
    is_paper = _is_paper(tones[: rows * _CELL, : columns * _CELL])
    paper = is_paper.reshape(rows, _CELL, columns, _CELL).mean(axis=(1, 3))
    picture = float((paper < _COVERED).mean())
    ink = float(((paper >= _COVERED) & (paper < _BLANK)).mean())
    if picture >= _IMAGE_RICH:
        return "image_rich"
    if _MIXED_AT_LEAST <= picture <= _MIXED_AT_MOST and ink >= _INK_OF_MIXED:
        return "mixed_layout"
    if picture <= _TEXT_AT_MOST and ink >= _INK_OF_TEXT:
        return "text_heavy"
    return "unknown"


def _is_paper(tones: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Mark the pixels of the page's own paper; none where no tone is common enough. [height, width] → same shape."""
    histogram = np.bincount(tones.ravel(), minlength=256)
    around = np.convolve(histogram, np.ones(9, dtype=np.int64), "same")
    is_paper: npt.NDArray[np.bool_] = np.abs(tones - int(around.argmax())) <= _TONE
    return is_paper if is_paper.mean() >= _PAPER_SHARE else np.zeros_like(is_paper)


def _images_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputImagesError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
    images = [entry for entry in entries if entry.suffix.lower() in suffixes and not entry.is_dir()]
    skipped = [entry.name for entry in entries if entry not in images]
    kinds = "PNG, JPEG, TIFF, WebP or PDF" if PDF_SUFFIX in suffixes else "PNG, JPEG, TIFF or WebP"
    if not images:
        holds = f"it holds {len(skipped)} other entries" if skipped else "it is empty"
        raise InputImagesError(
            f"{folder}: no images ({holds}); put PNG, JPEG, TIFF, WebP or PDF files directly into it"
        )
    if skipped:
        shown = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
        _log.warning("%s: skipped %d that are no %s file: %s", folder, len(skipped), kinds, shown)
    return images


def _input_set(name: str, root: Path, paths: Sequence[Path]) -> InputSet:
    images = []
    faults = []
    for path in paths:
        try:
            images.append(_inspect(path))
        except InputImagesError as error:
            faults.append(str(error))
    if faults:
        more = f" (and {len(faults) - 1} more such images)" if len(faults) > 1 else ""
        raise InputImagesError(f"{faults[0]}{more}")
    return InputSet(id=name, root_dir=str(root), count=len(images), images=tuple(images))


def _inspect(path: Path) -> InputImage:
    with _opened(path) as opened:
        width, height = opened.size
        if opened.getexif().get(_ORIENTATION, 1) >= 5:
            width, height = height, width
        pages = getattr(opened, "n_frames", 1)
        category = categorise(_to_rgb(opened, 4 * _RULE_EDGE**2))
    if pages > 1:
        _log.warning("%s: has %d pages or frames; only the first is used", path, pages)
    return InputImage(path=str(path), width=width, height=height, category=category, sha256=_digest(path))


def _digest(path: Path) -> str:
    try:
        with _file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputImagesError(f"{path}: cannot be read ({error.strerror}); check path and permissions") from error


def _file(path: Path) -> BufferedReader:
    try:
        return open_regular(path, LARGEST_PAGES, follow="check path and permissions")
    except RequestError as error:
        raise InputImagesError(str(error)) from error


def _drawn_by(pages: Sequence[int]) -> str:
    """What the bytes of drawn pages follow from: which pages, Pillow, and the code that draws."""
    code = hashlib.sha256(Path(sample_pages.__file__).read_bytes()).hexdigest()
    return f"pages {','.join(map(str, pages))}, Pillow {pillow_version}, code {code}"


def _drawn_before(record: Path, drawn_by: str) -> InputSet | None:
    """The pages of an earlier run, if they are what would be drawn now, untouched since."""
    try:
        content = json_of(read_bounded(record, LARGEST_SETTINGS), str(record))
        if content["by"] != drawn_by:
            return None
        drawn = from_json(InputSet, json.dumps(content["set"]), source=str(record))
        check_unchanged(drawn)
    except (OSError, ValueError, KeyError, TypeError, RequestError, InputImagesError):
        return None  # whatever is wrong with them, drawing anew sets it right
    return drawn if drawn.root_dir == str(record.parent) else None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open lazily; an error until the end of the body becomes one line that names the file."""
    try:
        with _file(path) as file:
            with warnings.catch_warnings():
                # The limit below gives a clear error; Pillow's own is a warning, then an exception.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                opened = Image.open(file, formats=_FORMATS)
            with opened:
                width, height = opened.size
                if width * height > MAX_PIXELS:
                    raise InputImagesError(_too_large(path, f"{width} × {height} pixels"))
                yield opened
    except Image.DecompressionBombError as error:
        raise InputImagesError(_too_large(path, "far too many pixels")) from error
    except UnidentifiedImageError as error:
        raise InputImagesError(
            f"{path}: not a PNG, JPEG, TIFF or WebP image that can be read; repair, convert or remove it"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # What Pillow's decoders raise on truncated or damaged data.
        raise InputImagesError(f"{path}: cannot be decoded ({error}); repair or remove it") from error


def _too_large(path: Path, size: str) -> str:
    return f"{path}: {size}, but at most {MAX_PIXELS // 1_000_000} megapixels are taken; scale it down"


def _to_rgb(opened: Image.Image, most_pixels: int) -> Image.Image:
    """Decode to upright RGB, reduced by an integer factor to at most ``most_pixels``."""
    width, height = opened.size
    factor = 1
    while width * height > most_pixels * factor**2:
        factor += 1
    if factor > 1:
        opened.draft("RGB", (width // factor, height // factor))  # JPEG: decodes at a half, a quarter or an eighth
    opened.load()
    left = 1
    while opened.width * opened.height > most_pixels * left**2:
        left += 1
    page = ImageOps.exif_transpose(_eight_bits(opened).reduce(left) if left > 1 else _eight_bits(opened))
    if page.has_transparency_data:
        page = page.convert("RGBA")
        white = Image.new("RGBA", page.size, "white")
        return Image.alpha_composite(white, page).convert("RGB")
    return page.convert("RGB")


def _eight_bits(opened: Image.Image) -> Image.Image:
    """Scale 16 bits per channel to 8 (Pillow would clip), and make palettes fit for averaging."""
    if opened.mode.startswith("I"):
        exif = opened.getexif()
        values = np.asarray(opened).astype(np.int64)
        scaled = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
        if _ORIENTATION in exif:
            scaled.getexif()[_ORIENTATION] = exif[_ORIENTATION]
        return scaled
    if opened.mode in ("1", "P", "PA"):
        return opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    if opened.mode == "F":
        raise ValueError("floating-point pixels have no defined white")
    return opened


def _save(page: Image.Image, path: Path) -> None:
    def write(target: Path) -> None:
        with target.open("wb") as file:
            page.save(file, "PNG", compress_level=4)

    write_with(path, write, _FILE)
