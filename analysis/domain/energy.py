"""Energy of a model's stages: what is measured of a whole board, and what is made of it, each figure once.

A stage runs alone in a loop of at least `LEAST_LOOP_S`, outside the profiler. The board's energy over the loop (gross: GPU,
memory and the rest of the board, idle power included) is divided by the pages' worth of that stage that the loop did. What the
board takes with the model loaded and nothing running is measured apart and given beside; figures above idle have it taken off.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

from analysis.domain.annotations import Stage

__all__ = ["LEAST_LOOP_S", "Energy", "EnergySource", "StageEnergy", "energy_of", "stage_energy", "unknown_energy"]

LEAST_LOOP_S: Final = 2.0
"""Shortest loop that is measured, s: a driver renews its readings every 20 to 100 ms, so that the ends blur 5 % at most."""

EnergySource: TypeAlias = Literal["energy counter", "power samples"]


@frozen
class StageEnergy:
    """Energy of one stage, from a loop of it alone. A page is one sequence; of a model that reads no images, a prompt."""

    stage: Stage
    loop_s: float | None = None
    """How long the loop ran, s."""
    loop_joules: float | None = None
    """What the board took in it, J."""
    pages: float | None = None
    """Pages' worth of this stage in the loop, the whole batch counted: prefills; decode steps × batch ÷ steps per page."""
    mean_w: float | None = None
    """Mean power in the loop, W."""
    joules_per_page: float | None = None
    """J, gross: idle power included."""
    joules_per_token: float | None = None
    """J per output token: ``joules_per_page`` ÷ tokens that a page writes, so that the stages add up."""
    joules_per_page_above_idle: float | None = None
    """J per page less idle power × time; None: idle power is not known."""
    joules_per_token_above_idle: float | None = None
    unknown_because: str | None = None
    """Why the rest is None; None: it is known."""


@frozen
class Energy:
    """Energy of a model's stages at one batch size, input mode and decode mode."""

    stages: tuple[StageEnergy, ...] = ()
    """One per stage that the run has; empty where nothing could be measured."""
    idle_w: float | None = None
    """Power of the board with the model loaded and nothing running, W, from 1 s after the last kernel on."""
    idle_s: float | None = None
    """Over how long it was measured, s."""
    joules_per_page: float | None = None
    """All stages of a page, gross, J; None: that of a stage is not known."""
    joules_per_token: float | None = None
    """All stages, per output token, gross, J."""
    joules_per_page_above_idle: float | None = None
    joules_per_token_above_idle: float | None = None
    new_tokens: int | None = None
    """Output tokens of a page, prefill's counted."""
    source: EnergySource | None = None
    """The driver's counter of the board's energy, or its power readings integrated over time."""
    sampling_s: float | None = None
    """Time between two new readings of the source, s, as seen while idle: each end of a loop is known to this."""
    how: str | None = None
    """What was asked and what its limits are, in words."""
    unknown_because: str | None = None
    """Why nothing was measured; None: something was."""


def unknown_energy(reason: str) -> Energy:
    """Energy that could not be measured, and why."""
    return Energy(unknown_because=reason)


def stage_energy(
    stage: Stage, *, loop_s: float, loop_joules: float, pages: float, new_tokens: int, idle_w: float | None
) -> StageEnergy:
    """Make a stage's figures of its loop.

    Args:
        stage: that ran in the loop.
        loop_s: its length, s, more than 0.
        loop_joules: what the board took, J.
        pages: pages' worth of the stage, more than 0.
        new_tokens: output tokens of a page, at least 1.
        idle_w: power of the idle board, W; None: not known.
    """
    above = None if idle_w is None else loop_joules - idle_w * loop_s
    return StageEnergy(
        stage=stage,
        loop_s=loop_s,
        loop_joules=loop_joules,
        pages=pages,
        mean_w=loop_joules / loop_s,
        joules_per_page=loop_joules / pages,
        joules_per_token=loop_joules / pages / new_tokens,
        joules_per_page_above_idle=None if above is None else above / pages,
        joules_per_token_above_idle=None if above is None else above / pages / new_tokens,
    )


def energy_of(
    stages: tuple[StageEnergy, ...],
    *,
    idle_w: float | None,
    idle_s: float | None,
    new_tokens: int,
    source: EnergySource,
    sampling_s: float | None,
    how: str,
) -> Energy:
    """Add the stages up to a page; a sum with an unknown part is unknown."""

    def added(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) if known and len(known) == len(values) else None

    return Energy(
        stages=stages,
        idle_w=idle_w,
        idle_s=idle_s,
        joules_per_page=added([stage.joules_per_page for stage in stages]),
        joules_per_token=added([stage.joules_per_token for stage in stages]),
        joules_per_page_above_idle=added([stage.joules_per_page_above_idle for stage in stages]),
        joules_per_token_above_idle=added([stage.joules_per_token_above_idle for stage in stages]),
        new_tokens=new_tokens,
        source=source,
        sampling_s=sampling_s,
        how=how,
    )
