"""Many cases, two at a time: run, judge, tally."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, field, frozen

from fuzz.bases import Bases, make_bases
from fuzz.cases import Case, kind_of, make_case
from fuzz.oracle import Failure, judge
from fuzz.running import Limits, Outcome, run_command, warm, warm_runner

__all__ = ["Result", "run_campaign", "run_case", "write_report"]


@frozen
class Result:
    """What came of one case."""

    number: int
    kind: str
    command: str
    claim: str
    what: str
    argv: tuple[str, ...]
    code: int
    said: str
    """Beginning of standard error."""
    wall_s: float
    cpu_s: float
    peak_mib: int
    replay: str
    failures: tuple[Failure, ...] = field(default=())


class _Undamaged:
    """Outcomes of commands on undamaged files, each run once in a worker."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._known: dict[tuple[Any, ...], tuple[Outcome, Path]] = {}

    def __call__(self, case: Case) -> tuple[Outcome, Path]:
        packed = {f"{name}.{ending}": name for name, _ in case.undamaged for ending in ("xz", "gz", "zst")}
        argv = tuple(packed.get(word, word) for word in case.argv)
        key = (case.program, argv)
        if key not in self._known:
            (folder := self._folder / f"undamaged-{len(self._known)}").mkdir(parents=True)
            for name, source in case.undamaged:
                shutil.copyfile(source, folder / name)
            outcome = run_command(case.program, argv, folder, limits=self._limits)
            if outcome.code not in (0, 20, 21):
                raise RuntimeError(f"the undamaged files are refused: {argv}: {outcome.stderr}")
            self._known[key] = outcome, folder
        return self._known[key]


def run_case(
    seed: str,
    number: int,
    bases: Bases,
    folder: Path,
    limits: Limits,
    undamaged: Callable[[Case], tuple[Outcome, Path]],
) -> Result:
    """Make a case, run it, judge it; its files stay only where something is wrong."""
    (place := folder / f"case-{number}").mkdir(parents=True)
    case = make_case(seed, number, bases, place)
    outcome = run_command(case.program, case.argv, place, preset=case.preset, limits=limits)
    failures = judge(case, outcome, undamaged, limits)
    if not failures:
        shutil.rmtree(place)
    return Result(
        number=number,
        kind=case.kind,
        command=" ".join(case.argv[: 2 if case.argv[0] == "history" else 1]),
        claim=case.claim,
        what=case.what[:600],
        argv=case.argv,
        code=outcome.code,
        said=outcome.stderr[:600],
        wall_s=round(outcome.wall_s, 3),
        cpu_s=round(outcome.cpu_s, 3),
        peak_mib=outcome.peak_bytes >> 20,
        replay=case.replay,
        failures=tuple(evolve(failure, detail=failure.detail[:600]) for failure in failures),
    )


def _work(seed: str, numbers: Sequence[int], bases: Bases, folder: Path, limits: Limits, target: Path) -> None:
    """One worker: its cases one after the other, a line of JSON each."""
    undamaged = _Undamaged(folder / f"worker-{numbers[0] if numbers else 0}", limits)
    late = [number for number in numbers if kind_of(seed, number) == "runner"]
    with target.open("w", encoding="utf-8") as lines:
        for number in (*(number for number in numbers if number not in set(late)), *late):
            if late and number == late[0]:
                warm_runner()  # after the others: a fork of torch's pages costs each of them
            result = run_case(seed, number, bases, folder, limits, undamaged)
            lines.write(json.dumps(asdict(result)) + "\n")
            lines.flush()


def run_campaign(
    seed: str, numbers: Iterable[int], folder: Path, *, workers: int = 2, limits: Limits | None = None
) -> list[Result]:
    """Run cases of a seed.

    Args:
        seed: of all of them.
        numbers: of the cases.
        folder: for their files; those of a case at fault stay.
        workers: processes that run one command at a time each.
        limits: of a command.

    Raises:
        RuntimeError: a worker of the fuzzer itself failed.
    """
    warm()
    bases = make_bases(folder / "bases")
    chosen = list(numbers)
    limits = limits or Limits()
    targets = {}
    for worker in range(workers):
        target = folder / f"results-{worker}.jsonl"
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _work(seed, chosen[worker::workers], bases, folder, limits, target)
                code = 0
            finally:
                if code:
                    import traceback

                    traceback.print_exc()
                os._exit(code)
        targets[child] = target
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in targets]
    if any(codes):
        raise RuntimeError(f"the fuzzer itself failed (seed {seed!r}); its traceback is above")
    results = []
    for target in targets.values():
        for line in target.read_text(encoding="utf-8").splitlines():
            plain = json.loads(line)
            failures = tuple(Failure(**failure) for failure in plain.pop("failures"))
            results.append(Result(**plain | {"argv": tuple(plain["argv"]), "failures": failures}))
    return sorted(results, key=lambda result: result.number)


def write_report(seed: str, results: Sequence[Result], took_s: float) -> str:
    """The campaign as Markdown: how many of what, what came out, the slowest, the largest, every failure."""
    failed = [result for result in results if result.failures]
    lines = [
        f"# Fuzzing: seed {seed}, {len(results):,} cases",
        "",
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, {took_s / 60:.1f} minutes, two processes on "
        f"{os.cpu_count()} cores, Python {'.'.join(map(str, _python()))}. {len(failed):,} cases at fault.",
        "",
        "| kind | cases | exit codes | median s | slowest s | largest MiB | at fault |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for kind in sorted({result.kind for result in results}):
        own = [result for result in results if result.kind == kind]
        times = sorted(result.wall_s for result in own)
        lines.append(
            f"| {kind} | {len(own):,} | {_codes(own)} | {times[len(times) // 2]:.2f} | {times[-1]:.2f} | "
            f"{max(result.peak_mib for result in own)} | {sum(bool(result.failures) for result in own)} |"
        )
    lines += ["", "| command | cases | exit codes |", "|---|--:|---|"]
    for command in sorted({result.command for result in results}):
        own = [result for result in results if result.command == command]
        lines.append(f"| {command} | {len(own):,} | {_codes(own)} |")
    claims = Counter(result.claim for result in results)
    lines += ["", "Claims: " + ", ".join(f"{claim} {count:,}" for claim, count in sorted(claims.items())) + "."]
    lines += [
        "",
        "## Slowest and largest",
        "",
        "| case | s | CPU s | MiB | kind | damage |",
        "|--:|--:|--:|--:|---|---|",
    ]
    by_time = sorted(results, key=lambda result: -result.cpu_s)[:5]
    by_size = sorted(results, key=lambda result: -result.peak_mib)[:5]
    for result in (*by_time, *(result for result in by_size if result not in by_time)):
        lines.append(
            f"| {result.number} | {result.wall_s:.2f} | {result.cpu_s:.2f} | {result.peak_mib} | {result.kind} | "
            f"{_cell(result.what)} |"
        )
    kinds = Counter((failure.kind, failure.place) for result in failed for failure in result.failures)
    lines += ["", "## Failures", ""]
    if not kinds:
        lines.append("None: no traceback, no hang, nothing over 2 GB, no silent nonsense.")
    for (kind, place), count in kinds.most_common():
        first = next(result for result in failed if any((f.kind, f.place) == (kind, place) for f in result.failures))
        detail = next(f.detail for f in first.failures if (f.kind, f.place) == (kind, place))
        numbers = [r.number for r in failed if any((f.kind, f.place) == (kind, place) for f in r.failures)][:8]
        lines += [
            f"- **{kind}** ({count}): {_cell(place)}",
            f"  - {_cell(first.what)}; exit {first.code}; `{' '.join(first.argv)[:200]}`",
            f"  - {_cell(detail)[:400]}",
            f"  - `{first.replay}` (also {', '.join(map(str, numbers[1:])) or 'no other'})",
        ]
    return "\n".join(lines) + "\n"


def _python() -> tuple[int, int, int]:
    import sys

    return sys.version_info[:3]


def _codes(results: Sequence[Result]) -> str:
    return ", ".join(f"{code}: {count:,}" for code, count in sorted(Counter(r.code for r in results).items()))


def _cell(text: str) -> str:
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown.replace("|", "\\|").replace("`", "'")[:300]
