"""Twelve generated pages that look like documents: four of text, four of mixed layout, four of pictures.

Every byte follows from a fixed seed, Pillow's bundled font and the code below, so a sample set made twice is the same
set. (Another version of Pillow may place glyphs or compress differently; the hashes in the run manifest say which
bytes ran.)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from analysis.domain.entities import Category

__all__ = ["PAGE_SIZE", "SAMPLE_PAGES", "draw_page"]

PAGE_SIZE: Final = (1240, 1754)
"""Pixels, width by height: A4 at 150 dots per inch."""

_MARGIN = 110
_INK = (28, 28, 32)
_VOCABULARY = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an which "
    "one you were all her she there would their we him been has when who will more no if out so said what up its "
    "about into than them can only other new some could time these two may then do first any my now such like our "
    "over man me even most made after also did many before must through years where much your way well down "
    "should because each just those people how too little state good very make world still own see men work long "
    "here between both life being under never day same another know year might great old against place second "
    "account measure result method sample report value surface current pressure section volume record series "
    "estimate observed interval material average reference temperature structure analysis process standard"
)
_WORDS = _VOCABULARY.split()

_Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


class _Page:
    """A white page with a pen that moves down."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.image = Image.new("RGB", PAGE_SIZE, "white")
        self.draw = ImageDraw.Draw(self.image)
        self.top = _MARGIN

    def sentence(self, count: int) -> str:
        words = [self.random.choice(_WORDS) for _ in range(count)]
        return " ".join(words).capitalize() + "."

    def heading(self, size: int = 34, left: int = _MARGIN) -> None:
        title = " ".join(self.random.choice(_WORDS) for _ in range(self.random.randint(3, 5))).title()
        self.draw.text((left, self.top), title, _INK, font=_font(size))
        self.top += int(size * 1.9)

    def paragraphs(self, left: int, right: int, bottom: int, size: int = 20) -> None:
        """Fill a column from the pen down to ``bottom`` with paragraphs."""
        font, step = _font(size), int(size * 1.45)
        while self.top + step <= bottom:
            words = " ".join(
                self.sentence(self.random.randint(8, 18)) for _ in range(self.random.randint(3, 6))
            ).split()
            line: list[str] = []
            for word in words:
                if line and self.draw.textlength(" ".join([*line, word]), font=font) > right - left:
                    self.draw.text((left, self.top), " ".join(line), _INK, font=font)
                    self.top += step
                    line = []
                    if self.top + step > bottom:
                        return
                line.append(word)
            self.draw.text((left, self.top), " ".join(line), _INK, font=font)
            self.top += step + size // 2

    def columns(self, count: int, bottom: int, size: int = 18) -> None:
        width = (PAGE_SIZE[0] - 2 * _MARGIN + 40) // count
        top = self.top
        for column in range(count):
            self.top = top
            left = _MARGIN + column * width
            self.paragraphs(left, left + width - 40, bottom, size)
        self.top = bottom + 30

    def table(self, rows: int, columns: int) -> None:
        width, height = (PAGE_SIZE[0] - 2 * _MARGIN) // columns, 44
        for row in range(rows + 1):
            y = self.top + row * height
            self.draw.line((_MARGIN, y, _MARGIN + columns * width, y), _INK, 3 if row in (0, 1, rows) else 1)
            for column in range(columns if row < rows else 0):
                text = self.random.choice(_WORDS) if row == 0 or column == 0 else f"{self.random.uniform(0, 999):.2f}"
                self.draw.text((_MARGIN + column * width + 12, y + 10), text, _INK, font=_font(19))
        self.top += rows * height + 30

    def caption(self, left: int, number: int) -> None:
        self.draw.text((left, self.top), f"Figure {number}. {self.sentence(7)}", _INK, font=_font(17))
        self.top += 44

    def photograph(self, box: _Box) -> None:
        """A scene: graded sky, ridges of hills, film grain over all."""
        width, height = box[2] - box[0], box[3] - box[1]
        noise = np.random.default_rng(self.random.getrandbits(32))
        y, x = np.mgrid[0:height, 0:width] / max(width, height)
        top, low = noise.uniform(60, 170, 3), noise.uniform(130, 235, 3)
        scene = top + (low - top) * (y / y.max())[..., None]
        sun_x, sun_y = noise.uniform(0.2, 0.8), noise.uniform(0.05, 0.3)
        scene += 90 * np.exp(-((x - sun_x) ** 2 + (y - sun_y) ** 2) / 0.01)[..., None]
        for ridge in range(4):
            level = y.max() * (0.42 + 0.15 * ridge)
            skyline = level + sum(
                noise.uniform(0.01, 0.05) * np.sin(x * noise.uniform(4, 22) + noise.uniform(0, 7)) for _ in range(4)
            )
            shade = noise.uniform(30, 150, 3) * (1 - 0.15 * ridge)
            scene = np.where((y > skyline)[..., None], shade * (1 + 0.5 * (y - skyline))[..., None], scene)
        scene += noise.normal(0, 9, (height, width, 1))
        self.image.paste(Image.fromarray(scene.clip(0, 255).astype(np.uint8), "RGB"), box[:2])

    def chart(self, box: _Box) -> None:
        """A bar chart with axes and labels."""
        left, top, right, bottom = box
        self.draw.line((left + 50, top, left + 50, bottom - 40), _INK, 3)
        self.draw.line((left + 50, bottom - 40, right, bottom - 40), _INK, 3)
        bars = 8
        width = (right - left - 70) // bars
        for bar in range(bars):
            height = self.random.randint(60, bottom - top - 80)
            x = left + 65 + bar * width
            tint = (60 + 15 * bar, 110, 190 - 12 * bar)
            self.draw.rectangle((x, bottom - 40 - height, x + width - 16, bottom - 42), tint, _INK)
            self.draw.text((x, bottom - 32), str(2010 + bar), _INK, font=_font(17))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


_RIGHT, _BOTTOM = PAGE_SIZE[0] - _MARGIN, PAGE_SIZE[1] - _MARGIN


def _report(page: _Page) -> None:
    page.heading(44)
    for part in (1, 2, 3):
        page.heading(28)
        page.paragraphs(_MARGIN, _RIGHT, _MARGIN + part * 510)
        page.top += 10


def _journal(page: _Page) -> None:
    page.heading(40)
    page.columns(2, _BOTTOM)


def _newspaper(page: _Page) -> None:
    page.heading(52)
    page.columns(3, _BOTTOM, size=16)


def _letter(page: _Page) -> None:
    page.heading(26, left=_RIGHT - 420)
    page.heading(24)
    page.paragraphs(_MARGIN, _RIGHT, _BOTTOM, size=23)


def _article_with_photograph(page: _Page) -> None:
    page.heading(40)
    page.columns(2, 800)
    page.photograph((_MARGIN, page.top, _RIGHT, page.top + 420))
    page.top += 430
    page.caption(_MARGIN, 1)
    page.columns(2, _BOTTOM)


def _paper_with_chart(page: _Page) -> None:
    page.heading(36)
    page.paragraphs(_MARGIN, _RIGHT, 560)
    page.chart((_MARGIN, 600, _RIGHT, 1080))
    page.top = 1100
    page.caption(_MARGIN, 2)
    page.columns(2, _BOTTOM)


def _tables_and_picture(page: _Page) -> None:
    page.heading(36)
    page.table(9, 5)
    page.photograph((_MARGIN, page.top, _MARGIN + 560, page.top + 520))
    bottom = page.top + 520
    page.paragraphs(_MARGIN + 600, _RIGHT, bottom)
    page.top = bottom + 20
    page.caption(_MARGIN, 3)
    page.paragraphs(_MARGIN, _RIGHT, _BOTTOM)


def _brochure(page: _Page) -> None:
    page.heading(48)
    for side in (0, 1):
        top = page.top
        left = _MARGIN + side * 520
        page.photograph((left, top, left + 490, top + 480))
    page.top += 500
    page.columns(3, 1180, size=17)
    page.table(6, 4)


def _photograph_page(page: _Page) -> None:
    page.photograph((0, 0, *PAGE_SIZE))


def _album(page: _Page) -> None:
    page.heading(32)
    for row in range(3):
        for side in (0, 1):
            left, top = _MARGIN + side * 520, page.top + row * 490
            page.photograph((left, top, left + 500, top + 470))


def _cover(page: _Page) -> None:
    page.photograph((0, 260, PAGE_SIZE[0], PAGE_SIZE[1]))
    page.top = 90
    page.heading(64)


def _plate(page: _Page) -> None:
    page.photograph((60, 60, PAGE_SIZE[0] - 60, 1480))
    page.top = 1510
    page.caption(60, 4)
    page.paragraphs(60, PAGE_SIZE[0] - 60, PAGE_SIZE[1] - 90)


SAMPLE_PAGES: Final[tuple[tuple[str, Category, Callable[[_Page], None]], ...]] = (
    ("report", "text_heavy", _report),
    ("journal", "text_heavy", _journal),
    ("newspaper", "text_heavy", _newspaper),
    ("letter", "text_heavy", _letter),
    ("article", "mixed_layout", _article_with_photograph),
    ("paper", "mixed_layout", _paper_with_chart),
    ("tables", "mixed_layout", _tables_and_picture),
    ("brochure", "mixed_layout", _brochure),
    ("photograph", "image_rich", _photograph_page),
    ("album", "image_rich", _album),
    ("cover", "image_rich", _cover),
    ("plate", "image_rich", _plate),
)
"""Name, the category meant, and how to draw it. The category is a claim that tests hold the rule of
`runner.inputs.inputs` to; nothing reads it at run time."""


def draw_page(index: int) -> Image.Image:
    """Draw page ``index`` (0–11) of the sample set, RGB, ``PAGE_SIZE``."""
    page = _Page(seed=20_240 + index)
    SAMPLE_PAGES[index][2](page)
    return page.image
