"""A percentile as numpy's, to the last bit.

`numpy.percentile` loads `numpy.ma`, which takes 30 ms: no other part of a report needs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["percentile"]


def percentile(values: NDArray[Any], percent: float) -> float:
    """Interpolated linearly between neighbours.

    Args:
        values: numbers, none of them NaN, [n], n > 0.
        percent: 0 to 100.
    """
    at = (values.size - 1) * (percent / 100)
    below = int(at)
    above = min(below + 1, values.size - 1)
    low, high = np.partition(values, (below, above))[[below, above]].tolist()
    part = at - below
    # From the nearer neighbour, as numpy does.
    return float(high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part)
