"""Write a trace that is large in one way alone: what grows faster than its input shows here first.

python benchmarks/growth.py names OUT.sqlite      114,744 launches, each of a kernel with a name of its own
python benchmarks/growth.py depth OUT.sqlite      900 launches, each inside 1,000 ranges around one another
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from trace_builder import TraceBuilder

NAMES: Final = 114_744
TOWERS: Final = 900
DEPTH: Final = 1_000
"""Ranges around a launch, the stage included."""
_LAUNCH: Final = 10_007
"""Nanoseconds from a launch to the next."""
_TOWER: Final = 1_000_003
"""Nanoseconds from a launch with its ranges to the next."""


def names(out: Path) -> None:
    """A quarter in prefill, the rest in decode; durations of a real GPU, or the trace would be unfit."""
    builder, border = TraceBuilder().gpu(), NAMES * _LAUNCH // 4
    builder.range("prefill", 0, border, domain="dsocr")
    builder.range("decode", border + 1, NAMES * _LAUNCH, domain="dsocr")
    for number in range(NAMES):
        at = number * _LAUNCH
        name = f"void at::native::kernel_{number}<int, float, {number % 977}>(float*, int)"
        builder.launch(at + 211, at + 3_217, kernel=(name, at + 4_000, at + 6_000 + number % 3_001))
    builder.write(out)


def depth(out: Path) -> None:
    """Modules inside modules."""
    builder = TraceBuilder().gpu().range("decode", 0, TOWERS * _TOWER + 100, domain="dsocr")
    for tower in range(TOWERS):
        begin = tower * _TOWER
        for level in range(1, DEPTH):
            builder.range(f"m{level}", begin + level * 101, begin + _TOWER - level * 101, domain="dsocr-modules")
        builder.launch(begin + 200_000, begin + 203_007, kernel=("gemm", begin + 204_000, begin + 214_000 + tower % 97))
    builder.write(out)


KINDS: Final[dict[str, Callable[[Path], None]]] = {"names": names, "depth": depth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.unlink(missing_ok=True)
    KINDS[arguments.kind](arguments.out)


if __name__ == "__main__":
    main()
