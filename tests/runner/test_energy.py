"""Energy of stages. NVML is played by a stand-in: this machine has no GPU; the board's physics are known here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from attrs import evolve

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json_file, to_json
from analysis.domain.energy import LEAST_LOOP_S, energy_of, stage_energy
from analysis.domain.errors import ModelError
from runner.child import energy, workload
from runner.child.energy import measure_energy
from runner.plan.plan import RunPlan, WorkloadResult
from runner.plan.settings import Settings

IDLE_W, PREFILL_W, DECODE_W = 80.0, 600.0, 300.0
PREFILL_S, STEP_S = 0.05, 0.01
BATCH, NEW_TOKENS = 4, 11


class Board:
    """A GPU whose energy is known: it draws what its program makes it draw, and its counter advances every 100 ms."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.joules = 1_000.0
        self.watts = IDLE_W
        self.shown = self.joules
        self.next_s = 0.1

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.work(seconds, IDLE_W)

    def work(self, seconds: float, watts: float) -> None:
        self.watts = watts
        while self.next_s <= self.time_s + seconds:
            self.joules += watts * (self.next_s - self.time_s)
            seconds -= self.next_s - self.time_s
            self.time_s = self.next_s
            self.shown = self.joules
            self.next_s += 0.1
        self.joules += watts * seconds
        self.time_s += seconds
        self.watts = watts


class Worker:
    """A decoder on that board."""

    def __init__(self, board: Board, can_rewind: bool = True) -> None:
        self.board, self.can_rewind = board, can_rewind
        self.prefills = self.steps = self.place = self.farthest = 0

    def begin(self) -> None:
        self.place = 0

    def prefill(self, inputs: Any) -> torch.Tensor:
        self.board.work(PREFILL_S, PREFILL_W)
        self.prefills += 1
        return torch.zeros(BATCH, 1, dtype=torch.int64)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        self.board.work(STEP_S, DECODE_W)
        self.steps += 1
        self.place += 1
        self.farthest = max(self.farthest, self.place)
        return token

    def rewind(self, steps: int) -> None:
        if not self.can_rewind:
            raise ModelError("it keeps no past")
        self.place -= steps

    def cached_bytes(self) -> int:
        return 0


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    made = Board()
    answers: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetMigMode": lambda _: [0, 0],
        "nvmlDeviceGetTotalEnergyConsumption": lambda _: round(made.shown * 1000),
        "nvmlDeviceGetPowerUsage": lambda _: round(made.watts * 1000),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return made


def refuse(*_: Any) -> Any:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def measured(
    board: Board, decoder: Worker, *, device: str = "cuda:0", clock: Any = None, tokens: int = NEW_TOKENS
) -> Any:
    model: Any = SimpleNamespace(device=torch.device(device))
    inputs: Any = None
    return measure_energy(model, decoder, inputs, batch_size=BATCH, new_tokens=tokens, clock=clock or board)


def test_joules_are_those_of_the_board(board: Board) -> None:
    decoder = Worker(board)
    found = measured(board, decoder)
    prefill, decode = found.stages
    assert (found.source, found.unknown_because, found.new_tokens) == ("energy counter", None, NEW_TOKENS)
    assert found.sampling_s == pytest.approx(0.1, rel=0.06)
    assert found.idle_w == pytest.approx(IDLE_W, rel=0.05)
    # The counter is 100 ms behind at either end of a loop.
    blur = 0.1 / LEAST_LOOP_S
    assert prefill.loop_s >= LEAST_LOOP_S
    assert decode.loop_s >= LEAST_LOOP_S
    assert prefill.mean_w == pytest.approx(PREFILL_W, rel=blur)
    assert decode.mean_w == pytest.approx(DECODE_W, rel=blur)
    assert prefill.joules_per_page == pytest.approx(PREFILL_W * PREFILL_S / BATCH, rel=blur)
    assert decode.joules_per_page == pytest.approx(DECODE_W * STEP_S * (NEW_TOKENS - 1) / BATCH, rel=blur)
    assert decode.joules_per_page_above_idle == pytest.approx(
        (DECODE_W - IDLE_W) * STEP_S * (NEW_TOKENS - 1) / BATCH, rel=3 * blur
    )
    assert found.joules_per_page == pytest.approx(prefill.joules_per_page + decode.joules_per_page)
    assert found.joules_per_token == pytest.approx(found.joules_per_page / NEW_TOKENS)


def test_decode_is_taken_back_so_that_it_works_on_the_contexts_of_a_page(board: Board) -> None:
    decoder = Worker(board)
    _, decode = measured(board, decoder).stages
    assert decoder.farthest == NEW_TOKENS - 1
    assert decoder.steps % (NEW_TOKENS - 1) == 0
    assert decode.pages == decoder.steps * BATCH / (NEW_TOKENS - 1)


def test_the_idle_board_is_measured_a_second_after_the_last_kernel(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    counter: Callable[[Any], int] = pynvml.nvmlDeviceGetTotalEnergyConsumption

    def noted(handle: Any) -> int:
        asked.append(board.time_s)
        return counter(handle)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", noted)
    found = measured(board, Worker(board))
    assert min(asked) >= 1.0
    assert found.idle_s >= 0.8


class Hastened:
    """The machine's clock, so many times as fast."""

    def now(self) -> float:
        return time.perf_counter() * 20

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 20)


@pytest.mark.parametrize("counter", ["missing", "stuck"])
def test_power_is_integrated_where_no_counter_advances(
    board: Board, counter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = refuse if counter == "missing" else lambda _: 123_456
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", answer)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda _: 250_000)
    monkeypatch.setattr(energy, "_SAMPLE_S", 0.0001)
    found = measured(board, Worker(board), clock=Hastened())
    assert found.source == "power samples"
    assert "nvmlDeviceGetPowerUsage" in found.how
    assert [stage.mean_w for stage in found.stages] == pytest.approx([250.0, 250.0])
    assert found.idle_w == pytest.approx(250.0)
    assert found.joules_per_page_above_idle == pytest.approx(0.0, abs=1e-6)


def test_a_cache_that_cannot_be_taken_back_leaves_decode_unknown(board: Board) -> None:
    found = measured(board, Worker(board, can_rewind=False))
    prefill, decode = found.stages
    assert prefill.joules_per_page is not None
    assert (decode.joules_per_page, decode.unknown_because) == (None, "it keeps no past")
    assert found.joules_per_page is None


def test_one_token_is_all_prefill(board: Board) -> None:
    found = measured(board, Worker(board), tokens=1)
    assert [stage.stage for stage in found.stages] == ["prefill"]
    assert found.joules_per_token == found.joules_per_page == found.stages[0].joules_per_page


@pytest.mark.parametrize(
    ("broken", "answer", "reason"),
    [
        ("nvmlInit", refuse, "NVML does not answer"),
        ("nvmlDeviceGetHandleByUUID", refuse, "MIG instance"),
        ("nvmlDeviceGetMigMode", lambda _: [1, 1], "MIG divides the GPU"),
        ("both", refuse, "neither its energy nor its power"),
    ],
)
def test_what_cannot_be_measured_says_why(
    board: Board, broken: str, answer: Callable[..., Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    for name in both if broken == "both" else (broken,):
        monkeypatch.setattr(pynvml, name, answer)
    found = measured(board, Worker(board))
    assert reason in found.unknown_because
    assert (found.stages, found.idle_w, found.joules_per_page) == ((), None, None)


def test_a_run_on_a_cpu_says_that_it_has_no_energy(tmp_path: Path) -> None:
    from PIL import Image

    Image.linear_gradient("L").convert("RGB").save(tmp_path / "page.png")
    request = LLMProfileRequest("deepseek-ocr-tiny", str(tmp_path), repeats=1, device="cpu", max_new_tokens=2)
    plan = RunPlan("test", request, str(tmp_path), "torch", settings=Settings(measure_energy=True, warmup_passes=0))
    for asked in (True, False):
        file = tmp_path / "plan.json"
        file.write_text(to_json(evolve(plan, settings=evolve(plan.settings, measure_energy=asked))))
        assert workload.main([str(file), "--role", "control", "--no-costs"]) == 0
        found = from_json_file(WorkloadResult, tmp_path / "control.json").energy
        assert found is None if not asked else found is not None and "CPU" in (found.unknown_because or "")


def test_stages_add_up_and_the_unknown_stays_unknown() -> None:
    prefill = stage_energy("prefill", loop_s=2.0, loop_joules=800.0, pages=40, new_tokens=64, idle_w=100.0)
    decode = stage_energy("decode", loop_s=2.5, loop_joules=750.0, pages=10, new_tokens=64, idle_w=None)
    assert (prefill.joules_per_page, prefill.joules_per_page_above_idle, prefill.mean_w) == (20.0, 15.0, 400.0)
    assert decode.joules_per_page_above_idle is None
    whole = energy_of(
        (prefill, decode), idle_w=None, idle_s=None, new_tokens=64, source="power samples", sampling_s=0.02, how=""
    )
    assert whole.joules_per_page == 95.0
    assert whole.joules_per_token == 95.0 / 64
    assert whole.joules_per_page_above_idle is None
