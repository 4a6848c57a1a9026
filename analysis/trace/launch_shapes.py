"""Launch shapes of kernels – grid, block, registers, shared memory – packed into two integers by SQLite itself.

A trace has few distinct shapes and many launches: so each launch keeps one small code, and what a shape means for an
SM is computed once per shape.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from sqlalchemy import Integer, cast, column, func
from sqlalchemy.sql.expression import ColumnElement

from analysis.trace.packing import joined, packed
from analysis.trace.schema import TableSpec

__all__ = ["BLOCK", "COLUMNS", "GRID", "MOST_THREADS", "LaunchShapes", "packed_columns"]

GRID: Final = ("gridX", "gridY", "gridZ")
BLOCK: Final = ("blockX", "blockY", "blockZ", "registersPerThread", "staticSharedMemory", "dynamicSharedMemory")
COLUMNS: Final = (*GRID, *BLOCK)
MOST_THREADS: Final = 1024
"""Of a block, x × y × z, on every device (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")."""

# CUDA's limits: grid 2**31-1 × 65535 × 65535, block 1024 × 1024 × 64, 255 registers, 228 KiB of shared memory.
_GRID_Y, _GRID_Z = 31, 47
_BLOCK_Y, _BLOCK_Z, _REGISTERS, _SHARED = 11, 22, 29, 38
_SHARED_UNKNOWN = 1 << 24
"""More than any GPU has: a capture may know block and registers and not this."""


def packed_columns(spec: TableSpec) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """SQL for the two packed integers, labelled ``grid`` and ``block``; NULL if a part but shared memory is NULL."""
    there = set(COLUMNS)
    grid = joined([("gridX", 0, 0), ("gridY", _GRID_Y, 0), ("gridZ", _GRID_Z, 0)], there=there, nulls=False)
    threads = joined(
        [("blockX", 0, 0), ("blockY", _BLOCK_Y, 0), ("blockZ", _BLOCK_Z, 0), ("registersPerThread", _REGISTERS, 0)],
        there=there,
        nulls=False,
    )
    static: ColumnElement[Any] = column("staticSharedMemory")
    dynamic: ColumnElement[Any] = column("dynamicSharedMemory")
    shared: ColumnElement[Any] = static.op("+")(dynamic)
    # Where one of them is NULL, a fraction in the other is still to be seen: what it has behind the point is added.
    rest = func.coalesce(static, 0) + func.coalesce(dynamic, 0)
    unknown = _SHARED_UNKNOWN + (rest - cast(rest, Integer))
    block, block_with_nulls = (threads + size * (1 << _SHARED) for size in (shared, func.coalesce(shared, unknown)))
    return (
        packed(spec, list(GRID), grid, grid).label("grid"),
        packed(spec, list(BLOCK), block, block_with_nulls).label("block"),
    )


def _threads(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Threads of a block, x × y × z, by packed block."""
    threads: NDArray[np.int64] = (packed & 0x7FF) * (packed >> _BLOCK_Y & 0x7FF) * (packed >> _BLOCK_Z & 0x7F)
    return threads


@frozen(eq=False)
class LaunchShapes:
    """Distinct launch shapes. A launch's code c means grid ``c // len(blocks)`` and block ``c % len(blocks)``."""

    grids: NDArray[np.int64]
    """Packed, [g]."""
    blocks: NDArray[np.int64]
    """Packed, [b]; -1: not recorded, or impossible."""
    too_large: NDArray[np.bool_]
    """Whether a block has more than `MOST_THREADS`, [b]; it reads as not recorded."""

    @classmethod
    def unpack(cls, grids: list[Any], blocks: list[Any]) -> LaunchShapes:
        """From the distinct packed integers, in code order."""
        packed = np.array(blocks, dtype=np.int64)
        too_large = (packed >= 0) & (_threads(packed) > MOST_THREADS)
        return cls(np.array(grids, dtype=np.int64), np.where(too_large, -1, packed), too_large)

    def __len__(self) -> int:
        return int(self.grids.size * self.blocks.size)

    def grid(self, code: int) -> tuple[int, int, int] | None:
        """Blocks in x, y, z."""
        packed = int(self.grids[code // self.blocks.size])
        if packed < 0:
            return None
        return packed & (2**_GRID_Y - 1), packed >> _GRID_Y & 0xFFFF, packed >> _GRID_Z

    def block(self, code: int) -> tuple[int, int, int] | None:
        """Threads in x, y, z."""
        packed = int(self.blocks[code % self.blocks.size])
        if packed < 0:
            return None
        return packed & 0x7FF, packed >> _BLOCK_Y & 0x7FF, packed >> _BLOCK_Z & 0x7F

    def registers(self, code: int) -> int | None:
        """Registers per thread."""
        packed = int(self.blocks[code % self.blocks.size])
        return None if packed < 0 else packed >> _REGISTERS & 0x1FF

    def shared_bytes(self, code: int) -> int | None:
        """Shared memory per block, static and dynamic."""
        packed = int(self.blocks[code % self.blocks.size])
        shared = packed >> _SHARED
        return None if packed < 0 or shared == _SHARED_UNKNOWN else shared

    def have_too_large_blocks(self, codes: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each launch has a block of more than `MOST_THREADS`, [n].

        Args:
            codes: launch codes, [n], -1 allowed.
        """
        if not self.too_large.any():
            return np.zeros(codes.size, dtype=bool)
        of_launch: NDArray[np.bool_] = self.too_large[np.maximum(codes, 0) % self.blocks.size]
        return of_launch & (codes >= 0)

    def need_more_than(self, registers: int | None, shared_bytes: int | None) -> NDArray[np.bool_]:
        """Whether each block needs more of an SM than it has, [b].

        Args:
            registers: of an SM; None: not known.
            shared_bytes: of an SM; None: not known.
        """
        packed, more = self.blocks, np.zeros(self.blocks.size, dtype=bool)
        if registers is not None:
            more |= _threads(packed) * (packed >> _REGISTERS & 0x1FF) > registers
        if shared_bytes is not None:
            shared = packed >> _SHARED
            more |= (shared != _SHARED_UNKNOWN) & (shared > shared_bytes)
        of_known: NDArray[np.bool_] = more & (packed >= 0)
        return of_known

    def grid_blocks(self, codes: NDArray[Any]) -> NDArray[np.int64]:
        """Number of blocks of each launch, [n]; -1 where the shape is not recorded.

        Args:
            codes: launch codes, [n], -1 allowed.
        """
        packed = self.grids
        blocks = np.where(
            packed >= 0, (packed & (2**_GRID_Y - 1)) * (packed >> _GRID_Y & 0xFFFF) * (packed >> _GRID_Z), -1
        )
        if not packed.size:
            return np.full(codes.size, -1, dtype=np.int64)
        return np.where(codes >= 0, blocks[np.maximum(codes, 0) // max(1, self.blocks.size)], -1)
