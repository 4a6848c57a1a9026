"""Two settings in turns on one device: what they take side by side, and by how much rounds of the same thing differ.

Rounds run A B, B A, A B, … : what drifts slowly – clocks, temperature, a neighbour that comes or goes – meets both alike. Each
round is a process of its own, so that what a process has by chance (memory layout, warm caches) differs from round to round,
as it does between runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias

from attrs import evolve, field, frozen, validators

from analysis.domain.bands import Band, Bands, interleaved_band, unchanged_band
from analysis.domain.errors import DsocrError, RequestError
from analysis.domain.figures import counted, duration, signed_duration, signed_ratio
from analysis.domain.manifest import ControlPass, RunManifest, one_input
from analysis.domain.overhead import decode_unit
from runner.collectors.choosing import Choice
from runner.launcher.device_lock import DeviceLock
from runner.launcher.launch import devices_of
from runner.launcher.outside import analyse_beside
from runner.launcher.progress import RunProgress
from runner.launcher.provenance import now
from runner.launcher.run import Run, child_command
from runner.launcher.run_directory import RunDirectory
from runner.process.driver import driver_facts
from runner.process.environment import child_environment
from runner.process.process import Interrupts
from runner.process.python import module_command

__all__ = [
    "AB_FILE",
    "BANDS_FILE",
    "AbResult",
    "AbRound",
    "AbSide",
    "AbStage",
    "PreparedSide",
    "compare_command",
    "compare_sides",
    "lines_of",
    "run_in_turns",
]

SideName: TypeAlias = Literal["A", "B"]

AB_FILE: Final = "ab.json"
BANDS_FILE: Final = "bands.json"
"""What unchanged runs of A differ by: for ``--band`` of later comparisons of single runs."""
TURNS_FILE: Final = "bands-of-these-rounds.json"
"""By how much the medians of these rounds may differ by chance: for the comparison of A and B themselves."""

_STAGES: Final = ("prefill", "decode")


@frozen
class PreparedSide:
    """One of the two runs, its folder made."""

    name: SideName
    directory: RunDirectory
    choice: Choice
    command: Callable[[RunDirectory, str], list[str]] = child_command
    """Command line of the program in a role; tests put one of their own here."""

    def run(self, environ: Mapping[str, str], say: Callable[[str], None], progress: RunProgress) -> Run:
        """Take up the run."""
        return evolve(Run.open(self.directory, self.choice, environ, say, progress), command=self.command)


@frozen
class AbSide:
    """One of the two settings."""

    name: SideName
    setting: str
    """Path of its file."""
    run_id: str
    run_dir: str
    decode: str | None = None
    """How it decodes, such as ``cuda-graph``; None: written by an older release."""


@frozen
class AbRound:
    """One round of one side. Times in ns per unit, by stage."""

    number: int
    """From 1; each has both sides."""
    side: SideName
    started_at: str
    samples: dict[str, tuple[float, ...]]
    """Each image of each pass, in order."""
    medians: dict[str, float]


@frozen
class AbStage:
    """One stage over all rounds, ns per unit."""

    stage: str
    per: str
    a_ns: float
    """Mean of the rounds' medians: what ``band_ns`` is the band of. A median of all repetitions scatters more from one set of
    rounds to the next, and would exceed that band without a cause."""
    b_ns: float
    band_ns: float | None
    """By how much such means may differ by chance, with 95 % confidence; None: too few rounds."""

    @property
    def difference_ns(self) -> float:
        """B − A."""
        return self.b_ns - self.a_ns

    @property
    def exceeds(self) -> bool:
        """Whether chance alone does not make such a difference."""
        return self.band_ns is not None and abs(self.difference_ns) > self.band_ns


@frozen
class AbResult:
    """``ab.json``."""

    a: AbSide
    b: AbSide
    unchanged: bool
    """Both sides are the same setting: what differs is noise."""
    rounds: tuple[AbRound, ...]
    stages: tuple[AbStage, ...]
    """Empty: it was ended before both sides had a round."""
    ab_version: int = field(default=1, validator=validators.in_((1,)))
    model: str | None = None
    device: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    """None: it was ended before its last round."""


def run_in_turns(
    folder: Path,
    sides: tuple[PreparedSide, PreparedSide],
    settings: tuple[Path, Path],
    environ: Mapping[str, str],
    say: Callable[[str], None],
    *,
    rounds: int,
    capture: bool,
    wait: bool,
) -> AbResult:
    """Measure both sides in turns, then capture each once.

    Args:
        folder: gets ab.json and the bands, after each round anew.
        sides: A and B, prepared.
        settings: their files, to be named in ab.json.
        environ: the launcher's environment.
        say: takes one line for the user.
        rounds: of each side.
        capture: whether to capture each side at the end.
        wait: wait for the device while another run holds it.

    Raises:
        BusyError: another run holds the device and ``wait`` is false.
        DsocrError: as `Run.start`; what was measured until then is in ab.json and in the runs' folders.
    """
    plans = [side.directory.read_plan() for side in sides]
    unchanged = plans[0].request == plans[1].request and plans[0].settings == plans[1].settings
    described = [
        AbSide(side.name, str(path), plan.run_id, plan.run_dir, plan.settings.decode_mode)
        for side, path, plan in zip(sides, settings, plans, strict=True)
    ]
    result = AbResult(described[0], described[1], unchanged, (), (), started_at=now())
    with Interrupts() as interrupts, ExitStack() as held:
        for side in sides:
            held.enter_context(side.directory.locked())
            interrupts.listen(side.directory.cancel_file.exists)
        with _both_recorded(sides):
            devices = [devices_of(plan) for plan in plans]
            if devices[0] != devices[1]:
                named = " and B on ".join(", ".join(each) for each in devices)
                raise RequestError(f"A runs on {named}: name the same device in both")
            gpus = driver_facts().gpus if plans[0].request.device != "cpu" else ()
            for device in devices[0]:
                lock = DeviceLock(device, gpus, environ)
                held.enter_context(lock.held(wait=wait, interrupts=interrupts, waiting=say))
            for side in sides:
                manifest = side.directory.read_manifest()
                side.directory.write(side.directory.manifest_file, evolve(manifest, status="running"))
            for number in range(1, rounds + 1):
                for side in sides if number % 2 else sides[::-1]:
                    say(f"round {number} of {rounds}: {side.name}")
                    passes, started = _round(side, environ, say, interrupts)
                    result = _with_round(result, number, side, passes, started, sides)
                    _write(folder, result)
            result = evolve(result, finished_at=now())
            _write(folder, result)
            for side in sides:
                with RunProgress(say) as progress:
                    run = side.run(environ, say, progress)
                    if capture:
                        say(f"capture of {side.name}")
                        run.capture_measured(interrupts)
                    else:
                        run.end_measured()
    return result


def _round(
    side: PreparedSide, environ: Mapping[str, str], say: Callable[[str], None], interrupts: Interrupts
) -> tuple[tuple[ControlPass, ...], str]:
    started = now()
    with RunProgress(say) as progress:
        return side.run(environ, say, progress).measure_once_more(interrupts), started


@contextmanager
def _both_recorded(sides: Sequence[PreparedSide]) -> Iterator[None]:
    """Where one side fails, the other is over too: its run.json says why."""
    try:
        yield
    except DsocrError as error:
        for side in sides:
            left = side.directory.read_manifest()
            if left.status in ("queued", "running"):
                told = f"ended with the other side: {error}"
                status: Literal["interrupted", "failed"] = "interrupted" if error.exit_code == 130 else "failed"
                side.directory.write(
                    side.directory.manifest_file, evolve(left, status=status, error=told, finished_at=now())
                )
        raise


# --- what rounds say --------------------------------------------------------------------------------------------------


def _with_round(
    result: AbResult,
    number: int,
    side: PreparedSide,
    passes: Sequence[ControlPass],
    started: str,
    sides: Sequence[PreparedSide],
) -> AbResult:
    samples = {stage: values for stage in _STAGES if (values := _samples(passes, stage))}
    medians = {stage: statistics.median(values) for stage, values in samples.items()}
    rounds = (*result.rounds, AbRound(number, side.name, started, samples, medians))
    manifest = side.directory.read_manifest()
    return evolve(
        result,
        rounds=rounds,
        stages=_stages(rounds, [each.directory.read_manifest() for each in sides]),
        model=None if manifest.model is None else manifest.model.id,
        device=manifest.meta.gpu_name or manifest.request.device,
    )


def _samples(passes: Sequence[ControlPass], stage: str) -> tuple[float, ...]:
    """Repetitions of a stage, ns per unit, as comparisons take them from run.json."""
    if stage == "prefill":
        return tuple(float(timed.prefill_ns) for timed in passes if timed.prefill_ns > 0)
    return tuple(timed.step_mean_ns for timed in passes if timed.step_mean_ns is not None)


def _stages(rounds: Sequence[AbRound], manifests: Sequence[RunManifest]) -> tuple[AbStage, ...]:
    stages = []
    for stage in _STAGES:
        medians = [_medians(rounds, name, stage) for name in ("A", "B")]
        if all(medians):
            per = one_input(manifests[0]) if stage == "prefill" else decode_unit(manifests[0].batch_size)
            band = interleaved_band(medians[0], medians[1], "these rounds")
            a_ns, b_ns = map(statistics.fmean, medians)
            stages.append(AbStage(stage, per, a_ns, b_ns, None if band is None else band.ns))
    return tuple(stages)


def _all_samples(rounds: Sequence[AbRound], side: str, stage: str) -> list[float]:
    return [value for done in rounds if done.side == side for value in done.samples.get(stage, ())]


def _medians(rounds: Sequence[AbRound], side: str, stage: str) -> list[float]:
    return [done.medians[stage] for done in rounds if done.side == side and stage in done.medians]


def _write(folder: Path, result: AbResult) -> None:
    """Write ab.json and, once there are two rounds, both files of bands."""
    files = RunDirectory(folder)
    files.write(folder / AB_FILE, result)
    number = max(done.number for done in result.rounds)
    single: dict[str, Band] = {}
    turns: dict[str, Band] = {}
    for stage in _STAGES:
        medians = {name: _medians(result.rounds, name, stage) for name in ("A", "B")}
        # Of two settings only rounds of one are unchanged; which of both runs of the same setting one is, says nothing.
        same = [*medians["A"], *medians["B"]] if result.unchanged else medians["A"]
        if band := unchanged_band(same, f"{counted(len(same), 'round')} of the same setting"):
            single[stage] = band
        if band := interleaved_band(medians["A"], medians["B"], f"{counted(number, 'round')} a side in turns"):
            turns[stage] = evolve(band, ns=band.ns + _beside_the_means(result.rounds, stage))
    in_turns = result.a.decode if result.a.decode == result.b.decode else None
    for name, bands, decode in ((BANDS_FILE, single, result.a.decode), (TURNS_FILE, turns, in_turns)):
        if bands:
            files.write(
                folder / name,
                Bands(
                    bands,
                    model=result.model,
                    device=_known(result.device),
                    decode=decode,
                    rounds=number,
                    measured_at=now(),
                ),
            )


def _beside_the_means(rounds: Sequence[AbRound], stage: str) -> float:
    """How far the difference that a comparison of both runs tells is from that of the rounds' means, ns.

    A comparison takes the median of all repetitions of a run. With so much added to the band of the means, its difference
    exceeds the band only where that of the means does.
    """
    base, new = (
        statistics.fmean(_medians(rounds, name, stage)) - statistics.median(_all_samples(rounds, name, stage))
        for name in ("A", "B")
    )
    return abs(new - base)


def _known(device: str | None) -> str | None:
    """A GPU's name; the CPU's is not known, and traces name it differently."""
    return None if device in (None, "cpu") else device


def lines_of(result: AbResult) -> tuple[str, ...]:
    """What was measured, a line per stage."""
    number = counted(max((done.number for done in result.rounds), default=0), "round")
    lines = []
    for stage in result.stages:
        change = signed_duration(stage.difference_ns)
        share = f" ({signed_ratio(stage.difference_ns / stage.a_ns)})"
        if stage.band_ns is None:
            said = "too few rounds to tell it from noise"
        elif stage.exceeds:
            said = f"more than the {duration(stage.band_ns)} that chance makes of {number} a side"
        else:
            said = f"chance makes as much as {duration(stage.band_ns)} of {number} a side"
        times = f"A {duration(stage.a_ns)}, B {duration(stage.b_ns)}"
        lines.append(f"{stage.stage} per {stage.per}: {times}, {change}{share}: {said}")
    return tuple(lines)


# --- the comparison -------------------------------------------------------------------------------------------------------


def compare_command(folder: Path, result: AbResult) -> list[str]:
    """Command line of the comparison of both runs, with the bands of these rounds."""
    band = ("--band", str(folder / TURNS_FILE)) if (folder / TURNS_FILE).is_file() else ()
    return module_command("analysis.cli", "diff", result.a.run_dir, result.b.run_dir, "--out", str(folder), *band)


def compare_sides(folder: Path, result: AbResult, environ: Mapping[str, str]) -> Path:
    """Compare both runs.

    Returns:
        What the comparison printed.

    Raises:
        AnalysisFailedError: it failed; the runs are kept.
        InterruptedRunError: interrupted.
    """
    log = folder / "diff.log"
    with Interrupts() as interrupts:
        analyse_beside(
            compare_command(folder, result),
            child_environment(environ),
            log,
            interrupts,
            "the comparison",
            f"both runs are kept: dsocr-analyze diff {result.a.run_dir} {result.b.run_dir}",
        )
    return log
