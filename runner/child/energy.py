"""Joules of prefill and of decode: each stage alone in a loop outside the profiler, by what NVML says of the board.

First the idle board, with the model loaded, from 1 s after the last kernel on; then a loop of prefills, then a loop of decode steps
that is taken back behind the prompt whenever a page's steps are over, so that it works on the contexts of a real page. Before and
after each loop the driver's counter of the board's energy is read (`nvmlDeviceGetTotalEnergyConsumption`, mJ, Volta and later).
Where a board has none that advances, its power is sampled while the loop runs and integrated (trapezoids); readings of
`nvmlDeviceGetPowerUsage` are means over the second before on Ampere and later (GA100 excepted), so that such a loop runs for a
second before its samples count.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import torch
from attrs import frozen

from analysis.domain.annotations import Stage
from analysis.domain.energy import (
    LEAST_LOOP_S,
    Energy,
    EnergySource,
    StageEnergy,
    energy_of,
    stage_energy,
    unknown_energy,
)
from analysis.domain.errors import ModelError
from runner.child.device import nvml_answer, nvml_handle, open_nvml
from runner.child.generate import Decoder
from runner.child.models.family import LoadedModel, ModelInputs

__all__ = ["Clock", "measure_energy"]

_SETTLE_S: Final = 1.0
"""Between the last kernel and the first reading of the idle board; and the lead of a loop whose readings are means of a second."""
_IDLE_S: Final = 1.0
_MOST_IDLE_S: Final = 3.0
"""A counter that has not advanced twice in this time is none."""
_MOST_LOOP_S: Final = 10.0
"""A decode loop goes on to the end of a page's steps, so that all its contexts count, within this time."""
_POLL_S: Final = 0.005
_SAMPLE_S: Final = 0.02
_ANSWER_S: Final = 10.0


class Clock(Protocol):
    """Time, and how to let it pass; a test brings its own."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class _Time:
    def now(self) -> float:
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@frozen
class _Reading:
    at_s: float
    value: float
    """J of the counter, W of a power sample."""


class _Board:
    """One GPU as NVML sees it."""

    def __init__(self, nvml: Any, handle: Any, clock: Clock) -> None:
        self._nvml = nvml
        self._handle = handle
        self._clock = clock

    def joules(self) -> float | None:
        """The board's energy since the driver was loaded, J; None: it does not count it."""
        millijoules = nvml_answer(self._nvml, self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._handle)
        return None if millijoules is None else millijoules / 1000

    def watts(self) -> float | None:
        """The board's power; None: it does not measure it."""
        milliwatts = nvml_answer(self._nvml, self._nvml.nvmlDeviceGetPowerUsage, self._handle)
        return None if milliwatts is None else milliwatts / 1000

    @property
    def divided(self) -> bool:
        """Whether MIG divides the GPU."""
        mode = nvml_answer(self._nvml, self._nvml.nvmlDeviceGetMigMode, self._handle)
        return mode is not None and mode[0] == self._nvml.NVML_DEVICE_MIG_ENABLE

    def changes(self, read: Callable[[], float | None], least_s: float, most_s: float) -> list[_Reading]:
        """Each new value that ``read`` gives, until there were three of them and ``least_s`` has passed, within ``most_s``.

        The value at the beginning is left out: nobody knows how old it is.
        """
        before, began = read(), self._clock.now()
        changes: list[_Reading] = []
        while (passed := self._clock.now() - began) < most_s and not (passed >= least_s and len(changes) >= 3):
            self._clock.sleep(_POLL_S)
            value = read()
            if value is not None and value != before:
                changes.append(_Reading(self._clock.now(), value))
                before = value
        return changes


@frozen
class _Loop:
    """What a loop did, and what the board took meanwhile."""

    seconds: float
    joules: float
    rounds: int


class _Counter:
    """Energy by the board's counter."""

    source: EnergySource = "energy counter"

    def __init__(self, board: _Board, idle: list[_Reading], clock: Clock) -> None:
        self._board, self._clock = board, clock
        first, last = idle[0], idle[-1]
        self.idle_s = last.at_s - first.at_s
        self.idle_w: float | None = (last.value - first.value) / self.idle_s
        self.sampling_s: float | None = self.idle_s / (len(idle) - 1)
        self.how = (
            "the driver's counter of the board's energy (nvmlDeviceGetTotalEnergyConsumption), read before and after each loop, "
            "each end of which is known to the counter's period"
        )

    def measure(self, go_on: Callable[[float], int]) -> _Loop | None:
        """Run a loop; None: the driver does not answer any more."""
        before, began = self._board.joules(), self._clock.now()
        rounds = go_on(LEAST_LOOP_S)
        seconds, after = self._clock.now() - began, self._board.joules()
        return None if before is None or after is None else _Loop(seconds, after - before, rounds)


class _Samples:
    """Energy by power readings, integrated."""

    source: EnergySource = "power samples"

    def __init__(self, board: _Board, clock: Clock) -> None:
        self._board, self._clock = board, clock
        idle = self._sampled(lambda: clock.sleep(_IDLE_S))
        self.idle_s = idle[-1].at_s - idle[0].at_s if idle else 0.0
        self.idle_w: float | None = _integral(idle) / self.idle_s if self.idle_s > 0 else None
        self.sampling_s: float | None = self.idle_s / (len(idle) - 1) if len(idle) > 1 else None
        self.how = (
            "readings of the board's power (nvmlDeviceGetPowerUsage), integrated over each loop after a second's lead; the driver "
            "may give means over the second before, so that a stage that changes its power faster is blurred"
        )

    def measure(self, go_on: Callable[[float], int]) -> _Loop | None:
        """Run a loop behind a lead of the same; None: the driver does not answer any more."""
        go_on(_SETTLE_S)
        began, rounds = self._clock.now(), 0

        def counted() -> None:
            nonlocal rounds
            rounds = go_on(LEAST_LOOP_S)

        samples = self._sampled(counted)
        seconds = self._clock.now() - began
        if len(samples) < 2:
            return None
        covered_s = samples[-1].at_s - samples[0].at_s
        return _Loop(seconds, _integral(samples) / covered_s * seconds, rounds) if covered_s > 0 else None

    def _sampled(self, work: Callable[[], None]) -> list[_Reading]:
        """Power while something runs, read by another thread."""
        samples: list[_Reading] = []
        over = threading.Event()

        def sample() -> None:
            while True:
                watts = self._board.watts()
                if watts is not None:
                    samples.append(_Reading(self._clock.now(), watts))
                if over.wait(_SAMPLE_S):
                    return

        reader = threading.Thread(target=sample, name="power", daemon=True)
        reader.start()
        try:
            work()
        finally:
            over.set()
            reader.join(_ANSWER_S)
        return list(samples)  # a driver that does not answer any more may still add one


def _integral(samples: list[_Reading]) -> float:
    """Joules under power readings, by trapezoids."""
    return sum(
        (after.at_s - before.at_s) * (after.value + before.value) / 2 for before, after in itertools.pairwise(samples)
    )


@contextmanager
def _open_board(device: torch.device, clock: Clock) -> Iterator[_Board | str]:
    """The board of a device, or why there is none to ask."""
    if device.type != "cuda":
        yield "the model runs on the CPU; NVML measures NVIDIA's GPUs"
        return
    with open_nvml() as nvml:
        if nvml is None:
            yield "NVML does not answer on this machine"
            return
        handle = nvml_handle(nvml, device)
        if handle is None:
            yield "NVML does not know this device by its UUID, as with a MIG instance"
            return
        board = _Board(nvml, handle, clock)
        yield "MIG divides the GPU: its energy is that of all instances together" if board.divided else board


def measure_energy(
    model: LoadedModel,
    decoder: Decoder,
    inputs: ModelInputs,
    *,
    batch_size: int,
    new_tokens: int,
    clock: Clock | None = None,
) -> Energy:
    """Measure the energy of one prompt's stages, in about 7 s.

    Args:
        model: loaded; its device is idle.
        decoder: warmed up; its cache has room for ``new_tokens``.
        inputs: on the device, repeated along the batch.
        batch_size: sequences in ``inputs``.
        new_tokens: that each sequence writes, prefill's counted; EOS is ignored.
        clock: None: the machine's.

    Returns:
        What was measured; else with ``unknown_because``.
    """
    clock = clock or _Time()
    with _open_board(model.device, clock) as board:
        if isinstance(board, str):
            return unknown_energy(board)
        _synchronise(model.device)
        clock.sleep(_SETTLE_S)
        meter = _meter(board, clock)
        if meter is None:
            return unknown_energy("the GPU's driver measures neither its energy nor its power")
        stages = [
            _prefill(meter, decoder, inputs, model.device, batch_size=batch_size, new_tokens=new_tokens, clock=clock)
        ]
        if new_tokens > 1:
            stages.append(
                _decode(meter, decoder, inputs, model.device, batch_size=batch_size, new_tokens=new_tokens, clock=clock)
            )
        decoder.begin()
    return energy_of(
        tuple(stages),
        idle_w=meter.idle_w,
        idle_s=meter.idle_s,
        new_tokens=new_tokens,
        source=meter.source,
        sampling_s=meter.sampling_s,
        how=f"{meter.how}; of the whole board, whoever uses it; the first page, EOS ignored",
    )


def _meter(board: _Board, clock: Clock) -> _Counter | _Samples | None:
    """The better of the two ways that this board has; measures the idle board."""
    if board.joules() is not None:
        idle = board.changes(board.joules, _IDLE_S, _MOST_IDLE_S)
        if len(idle) >= 3:
            return _Counter(board, idle, clock)
    return None if board.watts() is None else _Samples(board, clock)


def _prefill(
    meter: _Counter | _Samples,
    decoder: Decoder,
    inputs: ModelInputs,
    device: torch.device,
    *,
    batch_size: int,
    new_tokens: int,
    clock: Clock,
) -> StageEnergy:
    def go_on(least_s: float) -> int:
        began, prefills = clock.now(), 0
        while clock.now() - began < least_s:
            decoder.begin()
            decoder.prefill(inputs).flatten().tolist()
            prefills += 1
        _synchronise(device)
        return prefills

    loop = meter.measure(go_on)
    return _of_loop("prefill", loop, 0 if loop is None else loop.rounds * batch_size, new_tokens, meter.idle_w)


def _decode(
    meter: _Counter | _Samples,
    decoder: Decoder,
    inputs: ModelInputs,
    device: torch.device,
    *,
    batch_size: int,
    new_tokens: int,
    clock: Clock,
) -> StageEnergy:
    steps_per_page = new_tokens - 1
    decoder.begin()
    token = decoder.prefill(inputs)
    place = 0

    def go_on(least_s: float) -> int:
        nonlocal token, place
        began, steps = clock.now(), 0
        while (passed := clock.now() - began) < least_s or (place and passed < _MOST_LOOP_S):
            if place == steps_per_page:
                decoder.rewind(place)
                place = 0
                continue
            token = decoder.step(token)
            token.flatten().tolist()
            place += 1
            steps += 1
        _synchronise(device)
        return steps

    _synchronise(device)
    try:
        loop = meter.measure(go_on)
    except ModelError as error:
        return StageEnergy("decode", unknown_because=str(error))
    pages = 0.0 if loop is None else loop.rounds * batch_size / steps_per_page
    return _of_loop("decode", loop, pages, new_tokens, meter.idle_w)


def _of_loop(stage: Stage, loop: _Loop | None, pages: float, new_tokens: int, idle_w: float | None) -> StageEnergy:
    if loop is None or loop.joules <= 0:
        return StageEnergy(stage, unknown_because="the driver gave no reading while the loop ran")
    if loop.seconds < LEAST_LOOP_S:
        return StageEnergy(stage, unknown_because=f"its loop lasted {loop.seconds:.1f} s only")
    return stage_energy(
        stage,
        loop_s=loop.seconds,
        loop_joules=loop.joules,
        pages=pages,
        new_tokens=new_tokens,
        idle_w=idle_w,
    )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
