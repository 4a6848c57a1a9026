"""What the imports of a report take.

python benchmarks/imports.py list NAMES.txt TRACE.sqlite   write the report, and into NAMES.txt the modules that it imported
python benchmarks/imports.py import NAMES.txt              import those, in the same order, and end
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from pathlib import Path


def list_modules(names: Path, trace: str) -> None:
    from analysis.cli import main

    atexit.register(lambda: names.write_text("\n".join(name for name in sys.modules if name != "__main__")))
    sys.argv = ["dsocr-analyze", trace, "--out", "report"]
    main()


def import_modules(names: Path) -> None:
    # As the command does at its start.
    gc.disable()
    atexit.register(gc.freeze)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name in names.read_text().splitlines():
        if name in sys.modules:
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Modules that another made without a file (numpy's and six's aliases), and ours run as __main__.
            if error.name != name and not name.startswith(f"{error.name}."):
                raise


if __name__ == "__main__":
    if sys.argv[1] == "list":
        list_modules(Path(sys.argv[2]), sys.argv[3])
    else:
        import_modules(Path(sys.argv[2]))
