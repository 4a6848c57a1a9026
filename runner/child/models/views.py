"""From a page to the pictures that a DeepSeek-OCR model sees: one global view, and tiles of it in the gundam mode.

Sizes and rules are those of DeepSeek-OCR (arXiv:2510.18234, section 3.2.2, and the inference code beside the released
weights): bicubic resampling, grey padding, pixel values scaled to -1..1, and a grid of tiles of the nearest aspect
ratio.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from attrs import frozen
from PIL import Image, ImageOps

from analysis.domain.errors import ModelError

__all__ = ["GRID_CELL", "InputMode", "Views", "input_mode", "tile_grid", "views_of"]

GRID_CELL: Final = 64
"""Pixels per side that become one vision token: 16 of a SAM patch × 4 of its convolutions' strides."""

_PADDING: Final = (127, 127, 127)


@frozen
class InputMode:
    """One way to show a page."""

    name: str
    side: int
    """Of the global view, pixels."""
    tile_side: int = 0
    """Of a local view, pixels; 0: none."""
    min_tiles: int = 2
    max_tiles: int = 9


@frozen(eq=False)
class Views:
    """A page as tensors, float32."""

    overview: torch.Tensor
    """[1, 3, side, side]."""
    tiles: torch.Tensor | None
    """[columns × rows, 3, tile_side, tile_side], row by row; None: the page is shown as a whole only."""
    columns: int
    rows: int

    @property
    def tile_count(self) -> int:
        """Number of local views."""
        return 0 if self.tiles is None else len(self.tiles)


def input_mode(modes: dict[str, InputMode], name: str) -> InputMode:
    """Look a mode up by name.

    Raises:
        ModelError: this model has none of that name.
    """
    if name not in modes:
        raise ModelError(f"input mode {name!r} is none of this model's: {', '.join(modes)}")
    return modes[name]


def tile_grid(width: int, height: int, mode: InputMode) -> tuple[int, int] | None:
    """Choose columns and rows for a page by its aspect ratio.

    Among all grids of ``min_tiles`` to ``max_tiles`` tiles the one whose aspect ratio is nearest; of equally near ones
    the larger, as long as the page has more than half of its pixels.

    Returns:
        (columns, rows), or None where the page is not tiled: no tiles in this mode, or it fits into a single one.
    """
    side = mode.tile_side
    if side == 0 or (width <= side and height <= side):
        return None
    grids = [
        (columns, rows)
        for columns in range(1, mode.max_tiles + 1)
        for rows in range(1, mode.max_tiles + 1)
        if mode.min_tiles <= columns * rows <= mode.max_tiles
    ]
    best, best_distance = grids[0], float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = abs(width / height - columns / rows)
        roomy = width * height > 0.5 * side * side * columns * rows
        if distance < best_distance or (distance == best_distance and roomy):
            best, best_distance = (columns, rows), distance
    return best


def views_of(page: Image.Image, mode: InputMode, *, stretch_up_to: int = 0) -> Views:
    """Cut and scale a page.

    Args:
        page: RGB.
        mode: the sizes.
        stretch_up_to: untiled views of at most this side are stretched to a square; larger ones keep their aspect
            ratio and are padded.
    """
    grid = tile_grid(page.width, page.height, mode)
    size = (mode.side, mode.side)
    if mode.tile_side == 0 and mode.side <= stretch_up_to:
        overview = page.resize(size, Image.Resampling.BICUBIC)
    else:
        overview = ImageOps.pad(page, size, Image.Resampling.BICUBIC, color=_PADDING)
    if grid is None:
        return Views(_pixels([overview]), None, 1, 1)
    columns, rows = grid
    side = mode.tile_side
    canvas = page.resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    tiles = [
        canvas.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
        for row in range(rows)
        for column in range(columns)
    ]
    return Views(_pixels([overview]), _pixels(tiles), columns, rows)


def _pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """RGB pictures of one size → float32 [n, 3, height, width] in -1..1."""
    stacked = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])
    return torch.from_numpy(stacked / 127.5 - 1.0).permute(0, 3, 1, 2).contiguous()
