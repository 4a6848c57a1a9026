"""The table of a run's energy: a row per stage, and one for the page."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from analysis.domain.energy import Energy
from analysis.domain.figures import decimal, duration, significant
from analysis.render.spec.specification import DURATION, SIGNIFICANT, TEXT, Column, Specification, Style
from analysis.render.spec.text import visible

__all__ = ["ENERGY", "JOULES", "WATTS", "EnergyLine", "energy_lines", "energy_note"]

JOULES: Final = Style("significant", significant, "J")
WATTS: Final = Style("significant", significant, "W")


@frozen
class EnergyLine:
    """A stage, or the whole page."""

    stage: str
    joules_per_page: float | None
    joules_per_token: float | None
    joules_per_page_above_idle: float | None
    joules_per_token_above_idle: float | None
    mean_w: float | None
    loop_ns: float | None
    pages: float | None
    unknown_because: str | None


def energy_lines(energy: Energy) -> tuple[EnergyLine, ...]:
    """The stages and their sum; nothing where nothing was measured."""
    if not energy.stages:
        return ()
    stages = [
        EnergyLine(
            stage.stage,
            stage.joules_per_page,
            stage.joules_per_token,
            stage.joules_per_page_above_idle,
            stage.joules_per_token_above_idle,
            stage.mean_w,
            None if stage.loop_s is None else stage.loop_s * 1e9,
            stage.pages,
            stage.unknown_because,
        )
        for stage in energy.stages
    ]
    missing = next((stage.unknown_because for stage in energy.stages if stage.unknown_because), None)
    whole = EnergyLine(
        "page",
        energy.joules_per_page,
        energy.joules_per_token,
        energy.joules_per_page_above_idle,
        energy.joules_per_token_above_idle,
        None,
        None,
        None,
        missing or "a page is no loop of its own",
    )
    return (*stages, whole)


def energy_note(energy: Energy) -> str:
    """Idle power, how it was measured, or why it was not."""
    if energy.unknown_because is not None:
        return f"Energy n/a: {visible(energy.unknown_because)}."
    idle = (
        f"Idle, model loaded: {decimal(energy.idle_w, 1)} W over {duration((energy.idle_s or 0) * 1e9)}."
        if energy.idle_w is not None
        else "Idle power n/a."
    )
    how = visible(energy.how or "")
    period = f" New readings about every {duration(round(energy.sampling_s * 1e3) * 1e6)}." if energy.sampling_s else ""
    return f"{idle} Measured by {how}.{period}" if how else f"{idle}{period}"


_E = Column[EnergyLine]
_WHY: Final = "its loop could not be measured"

ENERGY: Final = Specification[EnergyLine](
    key="energy",
    title="Energy",
    rows="A stage of a page, from a loop of it alone outside the profiler, or the whole page.",
    columns=(
        _E("stage", "Stage", "string", TEXT, "Prefill, decode, or the page: both.", priority=0),
        _E("joules_per_page", "Per page", "float64", JOULES, "Energy of the board per page, idle power included.",
           nullable=True, priority=0, why=lambda row: row.unknown_because or _WHY),
        _E("joules_per_token", "Per output token", "float64", JOULES,
           "The same ÷ output tokens of a page, so that the stages add up.", nullable=True, priority=0,
           why=lambda row: row.unknown_because or _WHY),
        _E("joules_per_page_above_idle", "Per page above idle", "float64", JOULES, "Less idle power × the loop's time.",
           nullable=True, priority=2, why=lambda row: row.unknown_because or "idle power is not known"),
        _E("joules_per_token_above_idle", "Per token above idle", "float64", JOULES, "Less idle power × the loop's time.",
           nullable=True, priority=3, why=lambda row: row.unknown_because or "idle power is not known"),
        _E("mean_w", "Mean power", "float64", WATTS, "Of the board in the loop.", nullable=True, priority=1,
           why=lambda row: row.unknown_because or _WHY),
        _E("loop_ns", "Loop", "float64", DURATION, "How long the loop ran.", nullable=True, priority=4,
           why=lambda row: row.unknown_because or _WHY),
        _E("pages", "Pages in it", "float64", SIGNIFICANT, "Pages' worth of the stage in the loop, the batch counted.",
           nullable=True, priority=5, why=lambda row: row.unknown_because or _WHY),
    ),
)  # fmt: skip
