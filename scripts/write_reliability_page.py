"""Write docs/reliability.md: the table of faults, from the rows that tests/reliability declares and asserts."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from fault_table import PAGE, page

    PAGE.write_text(page(), encoding="utf-8")
