"""Differences of latencies under realistic noise: unchanged runs raise no alarm, real changes do."""

import importlib
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.compare.noise import (
    ASSUMED_SHARE,
    FEWEST_FOR_BOOTSTRAP,
    answer,
    assumed_band,
    band_of,
    interval,
    levelled,
)
from analysis.compare.records import Answer, Interval, SettingChange
from analysis.domain.bands import Band, interleaved_band, student_t, unchanged_band
from analysis.domain.figures import signed_duration
from import_graph import ROOT

MS = 1e6
PAIRS = 20
BATCHES = 10
"""Of 20 pairs: one batch alone would pass or fail by luck."""


def run_of(
    generator: np.random.Generator,
    median_ms: float = 22.0,
    *,
    images: int = 3,
    passes: int = 3,
    drift: float = 0.015,
    scatter: float = 0.02,
) -> tuple[float, ...]:
    """Repetitions of one run, ns: as those of real runs, they follow each other, have outliers, and begin slowly.

    Args:
        generator: of the noise.
        median_ms: of all runs.
        images: per pass.
        passes: of the run.
        drift: standard deviation of the whole run's level, as a share.
        scatter: of the repetitions inside it.
    """
    level = median_ms * (1 + drift * generator.standard_normal())
    number, memory = images * passes, 0.6
    shocks = generator.standard_t(3, number) / np.sqrt(3) * scatter * np.sqrt(1 - memory**2)
    noise: NDArray[np.float64] = np.empty(number)
    state = shocks[0]
    for at in range(number):
        state = memory * state + shocks[at]
        noise[at] = state
    noise[:images] += 4 * scatter  # the first pass
    noise += (generator.random(number) < 0.03) * generator.exponential(0.3, number)  # a neighbour of the machine
    return tuple(float(value) for value in level * (1 + noise) * MS)


def judged(base: Sequence[float], new: Sequence[float], band: Band | None = None) -> tuple[Answer, str]:
    return answer(statistics.median(new) - statistics.median(base), interval(base, new, band), ())


def alarms(seed: int, band: Band | None = None, *, drift: float = 0.015, scatter: float = 0.02) -> int:
    generator = np.random.default_rng(seed)

    def run(passes: int) -> tuple[float, ...]:
        return run_of(generator, passes=passes, drift=drift, scatter=scatter)

    answers = [judged(run(passes), run(passes), band)[0] for passes in [3, 5] * (PAIRS // 2)]
    return sum(given in ("regression", "improvement") for given in answers)


@pytest.mark.parametrize(
    ("drift", "scatter"),
    [(0.015, 0.005), (0.015, 0.02), (0.02, 0.05), (0.03, 0.08)],
    ids=["calm", "usual", "busy", "bad"],
)
def test_of_20_unchanged_pairs_at_most_one_raises_an_alarm_where_no_band_was_measured(
    drift: float, scatter: float
) -> None:
    raised = [alarms(seed, drift=drift, scatter=scatter) for seed in range(BATCHES)]
    assert sum(raised) <= BATCHES
    assert statistics.median(raised) <= 1


@pytest.mark.parametrize("rounds", [3, 5, 8])
def test_of_20_unchanged_pairs_at_most_one_raises_an_alarm_with_a_band_from_rounds(rounds: int) -> None:
    raised = []
    for seed in range(BATCHES):
        generator = np.random.default_rng(1000 + seed)
        medians = [statistics.median(run_of(generator)) for _ in range(2 * rounds)]
        raised.append(alarms(seed, unchanged_band(medians, "rounds")))
    assert sum(raised) <= BATCHES


def test_without_a_band_the_drift_of_whole_runs_would_raise_alarms() -> None:
    """What the test above would count if the interval alone decided: the band is needed."""
    assert sum(alarms(seed, Band(0.0, "none"), drift=0.015, scatter=0.005) for seed in range(BATCHES)) > 5 * BATCHES


@pytest.mark.parametrize(("slower", "expected"), [(1.25, "regression"), (0.8, "improvement")])
def test_a_large_change_is_found_without_a_measured_band(slower: float, expected: Answer) -> None:
    generator = np.random.default_rng(7)
    answers = [judged(run_of(generator), run_of(generator, 22 * slower))[0] for _ in range(PAIRS)]
    assert answers.count(expected) >= PAIRS - 1


def test_interleaved_rounds_find_what_single_runs_cannot() -> None:
    """Five rounds a side of a change of 6 %: their band is narrower than that of two runs by √5."""
    generator = np.random.default_rng(8)
    right = 0
    for _ in range(PAIRS):
        base = [run_of(generator, passes=2) for _ in range(5)]
        new = [run_of(generator, 22 * 1.06, passes=2) for _ in range(5)]
        medians = [[statistics.median(samples) for samples in side] for side in (base, new)]
        band = interleaved_band(medians[0], medians[1], "rounds")
        flat = [[value for samples in side for value in samples] for side in (base, new)]
        right += judged(flat[0], flat[1], band)[0] == "regression"
    assert right >= PAIRS - 2


def test_interleaved_rounds_of_unchanged_runs_raise_no_alarm() -> None:
    generator = np.random.default_rng(9)
    raised = 0
    for _ in range(5 * PAIRS):
        base = [run_of(generator, passes=2) for _ in range(4)]
        new = [run_of(generator, passes=2) for _ in range(4)]
        medians = [[statistics.median(samples) for samples in side] for side in (base, new)]
        flat = [[value for samples in side for value in samples] for side in (base, new)]
        raised += judged(flat[0], flat[1], interleaved_band(medians[0], medians[1], "rounds"))[0] in (
            "regression",
            "improvement",
        )
    assert raised <= 5


def samples_of(example: str) -> dict[str, tuple[float, ...]]:
    passes = json.loads((ROOT / "reports/examples" / example / "run.json").read_text())["control"]
    return {
        "prefill": tuple(float(timed["prefill_ns"]) for timed in passes),
        "decode": tuple(timed["decode_ns"] / (timed["new_tokens"] - 1) for timed in passes),
    }


def test_two_real_runs_with_the_same_prefill_raise_no_alarm_and_their_decode_is_faster() -> None:
    """A CUDA graph replays decode alone: the prefill of the two runs on an H100 is the same program."""
    eager, graph = samples_of("deepseek-ocr_h100"), samples_of("deepseek-ocr_h100_cuda-graph")
    assert judged(eager["prefill"], graph["prefill"])[0] in ("equal", "cannot judge")
    given, why = judged(eager["decode"], graph["decode"])
    assert given == "improvement"
    assert why.startswith("−19.8 ms: the 95 % interval −")


def test_passes_of_one_real_run_against_each_other_raise_no_alarm() -> None:
    for example in ("deepseek-ocr_h100", "deepseek-ocr_h100_cuda-graph"):
        for samples in samples_of(example).values():
            assert judged(samples[3:6], samples[6:])[0] in ("equal", "cannot judge")


def test_the_interval_is_the_same_every_time_and_holds_the_difference() -> None:
    generator = np.random.default_rng(1)
    base, new = run_of(generator, passes=5), run_of(generator, 30, passes=5)
    first = interval(base, new, None)
    assert first == interval(base, new, None)
    assert first is not None
    assert first.low_ns <= statistics.median(new) - statistics.median(base) <= first.high_ns
    assert first.low_ns > 5 * MS
    assert (first.resamples, first.confidence, first.base_samples, first.new_samples) == (4000, 0.95, 15, 15)


def test_resampling_in_parts_gives_what_resampling_at_once_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    base, new = run_of(generator, passes=40), run_of(generator, passes=40)
    at_once = interval(base, new, None, resamples=300)
    monkeypatch.setattr("analysis.compare.noise._CELLS", 1000)
    assert interval(base, new, None, resamples=300) == at_once


def test_neighbours_that_are_alike_widen_the_interval() -> None:
    """Values in an order in which neighbours are alike say less than the same values shuffled."""
    generator = np.random.default_rng(3)
    shuffled = generator.standard_normal(125)
    ordered = np.sort(shuffled)

    def width(values: NDArray[np.float64]) -> float:
        measured = interval(tuple(values), tuple(values), None)
        assert measured is not None
        return measured.high_ns - measured.low_ns

    assert width(ordered) > 1.5 * width(shuffled)


@pytest.mark.parametrize(("number", "confidence"), [(3, 0.9), (4, 1 - 2 / 70), (2, 1 - 2 / 6), (1, 0.0)])
def test_fewer_than_five_repetitions_give_their_extremes_and_say_so(number: int, confidence: float) -> None:
    base, new = [10 * MS + at for at in range(number)], [20 * MS + at for at in range(number)]
    measured = interval(base, new, None)
    assert number < FEWEST_FOR_BOOTSTRAP
    assert measured is not None
    assert measured.resamples == 0
    assert measured.confidence == pytest.approx(min(0.95, confidence))
    assert (measured.low_ns, measured.high_ns) == (20 * MS - base[-1], new[-1] - 10 * MS)
    given, why = answer(10 * MS, measured, ())
    if number < 3:
        assert (given, why) == (
            "cannot judge",
            f"{number} and {number} repetition{'' if number == 1 else 's'} are too few; 3 a side are the least.",
        )
    else:
        assert given == "regression"
        assert "too few for a bootstrap" in why


def made(low: float, high: float, band: float, *, measured: bool = True) -> Interval:
    return Interval(low * MS, high * MS, 0.95, 4000, 9, 9, band * MS, "4 rounds", measured)


@pytest.mark.parametrize(
    ("difference", "low", "high", "band", "measured", "expected"),
    [
        (2.0, 1.0, 3.0, 0.5, True, "regression"),
        (-2.0, -3.0, -1.0, 0.5, True, "improvement"),
        (2.0, 1.0, 3.0, 2.5, True, "equal"),
        (2.0, 1.0, 3.0, 2.5, False, "cannot judge"),
        (0.1, -0.4, 0.6, 0.5, True, "equal"),
        (0.1, -0.4, 0.6, 0.5, False, "equal"),
        (0.1, -2.0, 2.0, 0.5, True, "cannot judge"),
        (0.6, -0.1, 0.9, 0.5, True, "cannot judge"),
    ],
    ids=["slower", "faster", "real but as unchanged runs", "small, nobody measured", "equal", "equal unmeasured",
         "wide", "above the band, not sure"],
)  # fmt: skip
def test_the_four_answers(
    difference: float, low: float, high: float, band: float, measured: bool, expected: Answer
) -> None:
    given, why = answer(difference * MS, made(low, high, band, measured=measured), ())
    assert given == expected
    assert signed_duration(difference * MS) in why
    assert "4 rounds" in why


@pytest.mark.parametrize(
    ("difference", "measured", "base", "expected"),
    [(-3.5, False, 22.6, "cannot judge"), (-3.5, True, 22.6, "equal"), (-3.5, False, 226.0, "equal"), (0.0, False, 22.6, "equal")],
    ids=["assumed", "measured", "narrow beside the base", "a run against itself"],
)  # fmt: skip
def test_what_is_only_assumed_makes_a_wide_interval_not_equal(
    difference: float, measured: bool, base: float, expected: Answer
) -> None:
    given, why = answer(difference * MS, made(-9.2, 2.1, 15.7, measured=measured), (), base * MS)
    assert given == expected
    if given == "cannot judge":
        assert "reaches as far as 40.7 % of the base" in why
        assert "dsocr-profile ab" in why


def test_a_setting_that_forbids_comes_before_all_numbers() -> None:
    changes = (
        SettingChange("device", "GPU", ("H100", None), True, "another device has other speeds"),
        SettingChange("versions", "torch", ("2.12", "2.13"), False),
    )
    given, why = answer(2 * MS, made(1, 3, 0.5), changes)
    assert given == "cannot judge"
    assert (
        why
        == "The sides differ in more than the code (GPU: H100 against not recorded), another device has other speeds."
    )
    assert answer(2 * MS, made(1, 3, 0.5), changes[1:])[0] == "regression"


def pages_run(generator: np.random.Generator, factor: float = 1.0) -> tuple[list[float], list[int]]:
    """Three passes over five pages of very different size, 1 % of noise."""
    pages = [50.0, 60.0, 90.0, 150.0, 220.0]
    inputs = list(range(5)) * 3
    return [pages[page] * factor * MS * (1 + 0.01 * generator.standard_normal()) for page in inputs], inputs


def test_pages_of_different_size_are_no_noise() -> None:
    generator = np.random.default_rng(4)
    (base, base_inputs), (new, new_inputs) = pages_run(generator), pages_run(generator, 1.1)
    raw, level = interval(base, new, None), interval(*levelled(base, base_inputs, new, new_inputs), None)
    assert raw is not None
    assert level is not None
    difference = statistics.median(new) - statistics.median(base)
    assert answer(difference, raw, ())[0] != "regression"
    assert answer(difference, level, ())[0] == "regression"
    assert level.low_ns < 9 * MS < level.high_ns


def test_unchanged_pages_of_different_size_raise_no_alarm() -> None:
    generator = np.random.default_rng(5)
    raised = 0
    for _ in range(5 * PAIRS):
        (base, base_inputs), (new, new_inputs) = (
            pages_run(generator),
            pages_run(generator, 1 + 0.015 * generator.standard_normal()),
        )
        measured = interval(*levelled(base, base_inputs, new, new_inputs), None)
        given, _ = answer(statistics.median(new) - statistics.median(base), measured, ())
        raised += given in ("regression", "improvement")
    assert raised <= 5


def test_levelling_changes_nothing_where_it_cannot_help() -> None:
    small, large = [10.0, 11.0, 12.0], [30.0, 31.0, 32.0]
    inputs = [0, 0, 0, 1, 1, 1]
    for base, base_inputs, new_inputs in (
        (small + large, [0] * 6, [0] * 6),  # one input
        (small + large, inputs, [0, 0, 0, 2, 2, 2]),  # others
        (small + large, [0, 0, 1, 1, 1, 1], inputs),  # too few repetitions of one
        ([10.0, 20.0, 30.0, 12.0, 22.0, 32.0], inputs, inputs),  # inputs that are alike
    ):
        first, second = levelled(base, base_inputs, base, new_inputs)
        assert first.tolist() == second.tolist() == base
    first, second = levelled(small + large, inputs, large + small, [1, 1, 1, 0, 0, 0])
    assert first.tolist() == pytest.approx([21 * ms / 11 for ms in small] + [21 * ms / 31 for ms in large])
    assert sorted(second) == pytest.approx(sorted(first))


def test_what_was_not_measured_cannot_be_judged() -> None:
    assert interval((), (1.0,), None) is None
    assert answer(None, None, ())[0] == "cannot judge"


def test_the_assumed_band_is_a_share_of_the_base_or_follows_its_scatter() -> None:
    calm = assumed_band([100.0] * 9, [100.0] * 9)
    assert (calm.ns, calm.measured) == (ASSUMED_SHARE * 100, False)
    restless = assumed_band([80.0, 90.0, 100.0, 110.0, 120.0], [100.0] * 5)
    assert restless.ns == pytest.approx(2 * 1.4826 * 10)
    assert assumed_band([80.0, 90.0, 100.0, 110.0, 900.0], [100.0] * 5) == restless


def test_the_assumed_band_follows_what_the_host_paces() -> None:
    # Both sides take 100, the GPU works 60 and 90 of it.
    band = assumed_band([100.0] * 9, [100.0] * 9, (60.0, 90.0))
    drifts = [math.hypot(0.30 * 40, 0.02 * 60), math.hypot(0.30 * 10, 0.02 * 90)]
    assert band.ns == pytest.approx(2 * math.hypot(*drifts))
    assert "30 % of what the host paces" in band.source
    # A GPU that works longer than the stage takes, as the captured instance may, leaves the host no time.
    assert assumed_band([100.0] * 9, [100.0] * 9, (120.0, 120.0)).ns == pytest.approx(2 * math.hypot(2, 2))


def test_a_band_comes_from_a_mapping_of_bands_or_of_plain_numbers() -> None:
    assert band_of("decode", {"decode": 5}, "history of 12 runs") == Band(5.0, "history of 12 runs")
    given = Band(1.0, "ab")
    assert band_of("decode", {"decode": given}) is given
    assert band_of("prefill", {"decode": given}) is None


def test_bands_of_rounds_by_hand() -> None:
    pair = unchanged_band([10.0, 12.0], "x")
    assert pair is not None
    assert pair.ns == pytest.approx(12.706 * 2)  # t · (12 − 10) / √2 · √2
    assert unchanged_band([10.0], "x") is None
    band = interleaved_band([10.0, 12.0], [20.0, 22.0], "x")
    assert band is not None
    assert band.ns == pytest.approx(4.303 * 2**0.5)  # the sides' own levels, 11 and 21, are no noise
    assert interleaved_band([10.0], [20.0, 22.0], "x") is None
    assert student_t(60) == pytest.approx(2.000, abs=0.003)
    assert student_t(120) == pytest.approx(1.980, abs=0.003)
    with pytest.raises(ValueError, match="two values"):
        student_t(0)


def test_alarms_of_unchanged_rounds_are_counted_from_what_ab_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))  # benchmarks are not installed
    unchanged_pairs = importlib.import_module("benchmarks.unchanged_pairs")
    generator = np.random.default_rng(6)
    rounds = [
        {"number": number, "side": side, "samples": {"decode": run_of(generator)}, "medians": {"decode": 1.0}}
        for number in range(1, PAIRS + 1)
        for side in ("A", "B")
    ]
    document = {"unchanged": True, "rounds": rounds}
    path = tmp_path / "ab.json"
    path.write_text(json.dumps(document))
    monkeypatch.setattr("sys.argv", ["unchanged_pairs", str(path)])
    assert unchanged_pairs.main() == 0
    printed = capsys.readouterr().out
    assert "decode, band assumed: 20 pairs, " in printed
    assert "decode, band of the other rounds: 20 pairs, " in printed
    for done in rounds[1::2]:
        done["samples"] = {"decode": run_of(generator, 30.0)}
    assert (
        unchanged_pairs.answers(document, "decode", measured=True).count("regression") == 0
    )  # the others drift as much
    assert unchanged_pairs.answers(document, "decode", measured=False).count("regression") >= PAIRS - 4
    path.write_text(json.dumps(document))
    assert unchanged_pairs.main() == 1
