"""What the imports of a report take.

python benchmarks/imports.py list NAMES.txt TRACE.sqlite   write the report, and into NAMES.txt the modules that it imported
python benchmarks/imports.py import NAMES.txt              import those, in the same order, and end
python benchmarks/imports.py preloaded NAMES.txt TRACE.sqlite   import those, write the report in a fork of the process, and
                                                           print the fork's seconds: a report without its imports
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import time
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


def report_preloaded(names: Path, trace: str) -> None:
    import_modules(names)
    sys.argv = ["dsocr-analyze", trace, "--out", "report"]
    from analysis.cli import main

    begin = time.perf_counter()
    child = os.fork()
    if not child:
        os.dup2(2, 1)  # what the report prints is not the answer
        main()
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(os.waitstatus_to_exitcode(status))
    print(time.perf_counter() - begin)


if __name__ == "__main__":
    if sys.argv[1] == "list":
        list_modules(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1] == "preloaded":
        report_preloaded(Path(sys.argv[2]), sys.argv[3])
    else:
        import_modules(Path(sys.argv[2]))
