"""``python -m fuzz --seed S [--cases N | --case N]``: damage inputs, and see what the commands make of them."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def main() -> int:
    """Run a campaign, or one case of it; exit 1 if something is at fault."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seed", default=None, help="any text; default: the time")
    parser.add_argument("--cases", type=int, default=500, help="cases 0 to N-1")
    parser.add_argument("--case", type=int, default=None, help="this one alone, its files kept")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--report", type=Path, default=None, help="file for the report, Markdown; default: printed")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the files of cases at fault")
    parser.add_argument("--kind", action="append", help="only cases of this kind; repeatable")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    # Before numpy is imported anywhere.
    from fuzz.campaign import run_campaign, write_report
    from fuzz.cases import kind_of

    seed = given.seed or str(int(time.time()))
    folder = given.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    numbers: Sequence[int] = range(given.first, given.first + given.cases) if given.case is None else [given.case]
    if given.kind:
        numbers = [number for number in numbers if kind_of(seed, number) in given.kind]
    begun = time.monotonic()
    results = run_campaign(seed, numbers, folder, workers=given.workers if given.case is None else 1)
    text = write_report(seed, results, time.monotonic() - begun)
    if given.report is not None:
        given.report.write_text(text, encoding="utf-8")
    at_fault = sum(bool(result.failures) for result in results)
    print(text if given.report is None else f"{given.report}: {len(results)} cases, {at_fault} at fault")  # noqa: T201
    if given.case is not None:
        print(f"argv: {' '.join(results[0].argv)}\nstderr: {results[0].said}\nfiles: {folder}")  # noqa: T201
    elif at_fault:
        print(f"files of the cases at fault: {folder}")  # noqa: T201
    return int(at_fault > 0)


if __name__ == "__main__":
    sys.exit(main())
