"""Two settings in turns: order, records, noise, failures; tests/integration has it with a real model."""

from __future__ import annotations

import json
import math
import signal
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.domain.bands import Bands
from analysis.domain.convert import from_json_file, to_json
from analysis.domain.errors import BusyError, ChildFailedError, DsocrError, InterruptedRunError, RequestError
from analysis.domain.manifest import ControlPass
from launch_kit import device_held, environment, fake_nsys, prepare, scripted
from runner.collectors.choosing import Choice
from runner.collectors.nsys.tool import NsysTool
from runner.launcher import ab
from runner.launcher.ab import AbResult, AbRound, AbSide, PreparedSide, lines_of, run_in_turns
from runner.launcher.device_lock import LOCK_FOLDER_VARIABLE
from runner.launcher.setting_file import RunSetting, read_setting
from runner.plan.settings import Settings


@pytest.fixture
def tool(tmp_path: Path) -> NsysTool:
    return fake_nsys(tmp_path / "nsys")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(**{LOCK_FOLDER_VARIABLE: str(tmp_path / "locks"), "DSOCR_HISTORY": "off"})


def side(name: Any, out: Path, tool: NsysTool, behaviour: str = "well", **settings: Any) -> PreparedSide:
    run = prepare(out, tool, behaviour, **settings)
    return PreparedSide(name, run.directory, Choice(run.collector, "test"), scripted)


def in_turns(
    folder: Path, sides: tuple[PreparedSide, PreparedSide], environ: dict[str, str], said: list[str], **changes: Any
) -> AbResult:
    folder.mkdir(exist_ok=True)
    options = {"rounds": 3, "capture": False, "wait": False, **changes}
    return run_in_turns(folder, sides, (Path("a.json"), Path("b.json")), environ, said.append, **options)


def test_rounds_alternate_and_every_repetition_is_kept(tmp_path: Path, tool: NsysTool, environ: dict[str, str]) -> None:
    said: list[str] = []
    sides = side("A", tmp_path, tool), side("B", tmp_path, tool)
    result = in_turns(tmp_path / "ab", sides, environ, said)
    assert [(done.number, done.side) for done in result.rounds] == [
        (1, "A"), (1, "B"), (2, "B"), (2, "A"), (3, "A"), (3, "B"),
    ]  # fmt: skip
    assert [line for line in said if line.startswith("round ")][:3] == [
        "round 1 of 3: A", "round 1 of 3: B", "round 2 of 3: B",
    ]  # fmt: skip
    for one_side in sides:
        manifest = one_side.directory.read_manifest()
        assert (manifest.status, manifest.error) == ("complete", None)
        assert [timed.pass_index for timed in manifest.control] == [0, 1, 2]
        control = one_side.directory.read_result("control.json")
        assert control is not None
        assert control.passes == manifest.control
        assert control.peak_memory_bytes == manifest.peak_memory_bytes == 5_000
        assert not one_side.directory.trace_file.exists()
    assert result.unchanged
    assert result.finished_at is not None
    assert from_json_file(AbResult, tmp_path / "ab" / "ab.json") == result
    bands = from_json_file(Bands, tmp_path / "ab" / "bands.json")
    assert bands.rounds == 3
    assert bands.decode == "eager"
    assert bands.bands["prefill"].source == "6 rounds of the same setting"
    assert "--no-costs" not in sides[0].command(sides[0].directory, "control")


def test_costs_are_counted_in_the_first_round_only(tmp_path: Path, tool: NsysTool, environ: dict[str, str]) -> None:
    calls: list[str] = []

    def noting(directory: Any, role: str) -> list[str]:
        script = f"import sys; open({str(tmp_path / 'argv')!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10)); "
        command = scripted(directory, role)
        script += f"sys.argv = {command[1:]!r}; import runpy; runpy.run_path({command[1]!r}, run_name='__main__')"
        calls.append(role)
        return [command[0], "-c", script, *command[2:]]

    sides = side("A", tmp_path, tool), side("B", tmp_path, tool)
    in_turns(tmp_path / "ab", (evolve(sides[0], command=noting), sides[1]), environ, [], rounds=2)
    assert calls == ["control", "control"]
    assert ["--no-costs" in line for line in (tmp_path / "argv").read_text().splitlines()] == [False, True]


def test_each_side_is_captured_once_at_the_end(tmp_path: Path, tool: NsysTool, environ: dict[str, str]) -> None:
    sides = side("A", tmp_path, tool), side("B", tmp_path, tool)
    said: list[str] = []
    with pytest.raises(DsocrError, match="unfit for conclusions"):  # the fake nsys' trace is no trace of ours
        in_turns(tmp_path / "ab", sides, environ, said, rounds=2, capture=True)
    assert said.count("capture of A") == 1
    manifest = sides[0].directory.read_manifest()
    assert sides[0].directory.trace_file.is_file()
    assert [timed.pass_index for timed in manifest.control] == [0, 1]
    assert len(manifest.profiled) == 1
    assert (manifest.exit_codes.control, manifest.exit_codes.child, manifest.exit_codes.export) == (0, 0, 0)
    result = from_json_file(AbResult, tmp_path / "ab" / "ab.json")
    assert result.finished_at is not None
    assert len(result.rounds) == 4


def test_a_side_that_fails_ends_both_and_what_was_measured_stays(
    tmp_path: Path, tool: NsysTool, environ: dict[str, str]
) -> None:
    sides = side("A", tmp_path, tool), side("B", tmp_path, tool, "crash in control")
    with pytest.raises(ChildFailedError, match="made of cheese"):
        in_turns(tmp_path / "ab", sides, environ, [])
    first, second = (one_side.directory.read_manifest() for one_side in sides)
    assert (first.status, second.status) == ("failed", "failed")
    assert first.error is not None
    assert first.error.startswith("ended with the other side: the program failed with exit code 7")
    assert len(first.control) == 1
    result = from_json_file(AbResult, tmp_path / "ab" / "ab.json")
    assert [(done.side, list(done.samples)) for done in result.rounds] == [("A", ["prefill", "decode"])]
    assert result.finished_at is None


def test_a_later_round_that_fails_keeps_the_earlier_ones(
    tmp_path: Path, tool: NsysTool, environ: dict[str, str]
) -> None:
    sides = side("A", tmp_path, tool), side("B", tmp_path, tool)
    behaviour = sides[0].directory.path / "behaviour"

    def say(line: str) -> None:
        if line == "round 2 of 3: A":
            behaviour.write_text("crash in control")

    (tmp_path / "ab").mkdir()
    with pytest.raises(ChildFailedError):
        run_in_turns(tmp_path / "ab", sides, (Path("a"), Path("b")), environ, say, rounds=3, capture=False, wait=False)
    manifest = sides[0].directory.read_manifest()
    control = sides[0].directory.read_result("control.json")
    assert control is not None
    assert len(manifest.control) == len(control.passes) == 1
    assert len(sides[1].directory.read_manifest().control) == 2


def test_ctrl_c_ends_both_and_keeps_what_was_measured(tmp_path: Path, tool: NsysTool, environ: dict[str, str]) -> None:
    sides = side("A", tmp_path, tool), side("B", tmp_path, tool, "hang in control")
    at_work = sides[1].directory.path / "control is at work"

    def interrupt() -> None:
        while not at_work.exists():
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(InterruptedRunError):
        in_turns(tmp_path / "ab", sides, environ, [])
    thread.join()
    assert [one_side.directory.read_manifest().status for one_side in sides] == ["interrupted", "interrupted"]
    assert len(sides[0].directory.read_manifest().control) == 1


def test_a_device_that_is_held_is_not_shared(tmp_path: Path, tool: NsysTool, environ: dict[str, str]) -> None:
    sides = side("A", tmp_path, tool), side("B", tmp_path, tool)
    with device_held("cpu", environ), pytest.raises(BusyError):
        in_turns(tmp_path / "ab", sides, environ, [])
    assert [one_side.directory.read_manifest().status for one_side in sides] == ["failed", "failed"]
    assert not (tmp_path / "ab" / "ab.json").exists()


def test_both_sides_must_mean_the_same_device(tmp_path: Path, tool: NsysTool, environ: dict[str, str]) -> None:
    sides = side("A", tmp_path, tool), side("B", tmp_path, tool)
    plan = sides[1].directory.read_plan()
    elsewhere = evolve(plan, request=evolve(plan.request, device="cuda:1"))
    sides[1].directory.write(sides[1].directory.plan_file, elsewhere)
    with pytest.raises(RequestError, match="A runs on cpu and B on cuda:1: name the same device in both"):
        in_turns(tmp_path / "ab", sides, environ, [])


# --- noise ------------------------------------------------------------------------------------------------------------


def result_of(tmp_path: Path, tool: NsysTool, a_ms: list[float], b_ms: list[float], *, unchanged: bool) -> AbResult:
    """A result of rounds of two passes, 1 % around these medians; decode a tenth of it per token."""
    sides = side("A", tmp_path, tool), side("B", tmp_path, tool)
    result = AbResult(AbSide("A", "a", "1", "/a"), AbSide("B", "b", "2", "/b"), unchanged, (), ())
    for number, pair in enumerate(zip(a_ms, b_ms, strict=True), start=1):
        for one_side, ms in zip(sides, pair, strict=True):
            passes = [
                ControlPass(0, 0, round(ms * 1e6 * factor), round(ms * 1e6 * factor), 11) for factor in (0.99, 1.01)
            ]
            result = ab._with_round(result, number, one_side, passes, "now", sides)
    return result


def test_of_two_settings_rounds_of_one_make_the_band(tmp_path: Path, tool: NsysTool) -> None:
    result = result_of(tmp_path, tool, [10.0, 11.0, 12.0], [20.0, 21.0, 22.0], unchanged=False)
    (tmp_path / "ab").mkdir()
    ab._write(tmp_path / "ab", result)
    single = from_json_file(Bands, tmp_path / "ab" / "bands.json").bands["prefill"]
    turns = from_json_file(Bands, tmp_path / "ab" / "bands-of-these-rounds.json").bands["prefill"]
    assert single.ns == pytest.approx(4.303 * 1e6 * math.sqrt(2))  # t of 2 degrees, s = 1 ms
    assert turns.ns == pytest.approx(2.776 * 1e6 * math.sqrt(2 / 3))  # t of 4 degrees
    prefill, decode = result.stages
    assert (prefill.a_ns, prefill.b_ns, prefill.band_ns) == (11.0e6, 21.0e6, turns.ns)
    assert decode.per == "token"
    assert decode.a_ns == pytest.approx(1.1e6)
    assert prefill.exceeds
    assert lines_of(result)[0] == (
        "prefill per image: A 11.0 ms, B 21.0 ms, +10.0 ms (+90.9 %): more than the 2.27 ms that chance makes of 3 rounds a side"
    )


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_twenty_unchanged_rounds_on_a_gpu_raise_no_alarm(mode: str, tmp_path: Path, tool: NsysTool) -> None:
    given = json.loads((Path(__file__).parents[1] / "data" / "unchanged" / f"{mode}.json").read_text())
    sides = side("A", tmp_path, tool), side("B", tmp_path, tool)
    rounds = tuple(
        AbRound(
            row["number"], row["side"], "now", row["samples"],
            {stage: statistics.median(values) for stage, values in row["samples"].items()},
        )
        for row in given["rounds"]
    )  # fmt: skip
    stages = ab._stages(rounds, [each.directory.read_manifest() for each in sides])
    assert [(stage.stage, stage.exceeds) for stage in stages] == [("prefill", False), ("decode", False)]
    (tmp_path / "ab").mkdir()
    ab._write(tmp_path / "ab", AbResult(AbSide("A", "a", "1", "/a"), AbSide("B", "b", "2", "/b"), True, rounds, stages))
    turns = from_json_file(Bands, tmp_path / "ab" / "bands-of-these-rounds.json").bands
    for stage in ("prefill", "decode"):
        base, new = (statistics.median(ab._all_samples(rounds, name, stage)) for name in ("A", "B"))
        assert abs(new - base) < turns[stage].ns


def test_of_the_same_setting_twice_all_rounds_make_the_band(tmp_path: Path, tool: NsysTool) -> None:
    a_ms, b_ms = [10.0, 11.0, 12.0], [10.5, 11.0, 11.5]
    result = result_of(tmp_path, tool, a_ms, b_ms, unchanged=True)
    (tmp_path / "ab").mkdir()
    ab._write(tmp_path / "ab", result)
    single = from_json_file(Bands, tmp_path / "ab" / "bands.json").bands["prefill"]
    assert single.ns == pytest.approx(2.571 * statistics.stdev(a_ms + b_ms) * 1e6 * math.sqrt(2))
    assert not result.stages[0].exceeds
    assert "chance makes as much as" in lines_of(result)[0]


def test_one_round_a_side_tells_nothing_of_noise(tmp_path: Path, tool: NsysTool) -> None:
    result = result_of(tmp_path, tool, [10.0], [20.0], unchanged=False)
    assert result.stages[0].band_ns is None
    assert lines_of(result)[0].endswith("too few rounds to tell it from noise")


def test_the_comparison_gets_the_band_of_its_rounds(tmp_path: Path) -> None:
    result = AbResult(
        AbSide("A", "a", "1", "/a"), AbSide("B", "b", "2", "/b"), False, (AbRound(1, "A", "", {}, {}),), ()
    )
    assert "--band" not in ab.compare_command(tmp_path, result)
    (tmp_path / "bands-of-these-rounds.json").touch()
    command = ab.compare_command(tmp_path, result)
    assert command[command.index("diff") :][:3] == ["diff", "/a", "/b"]
    assert command[command.index("--band") + 1] == str(tmp_path / "bands-of-these-rounds.json")


# --- settings from files ------------------------------------------------------------------------------------------------


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_a_setting_is_options_of_run_by_their_names(tmp_path: Path) -> None:
    document = {
        "model": "llama-tiny",
        "--decode": "cuda-graph",
        "max-new-tokens": 9,
        "ignore_eos": True,
        "images": "p.png",
    }
    assert read_setting(write(tmp_path / "a.json", document)) == RunSetting(
        model="llama-tiny",
        images=str(tmp_path / "p.png"),
        max_new_tokens=9,
        settings=Settings(decode_mode="cuda-graph", ignore_eos=True),
    )
    assert read_setting(write(tmp_path / "b.json", {})) == RunSetting()


def test_a_setting_is_what_a_run_left(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool, decode_mode="static")
    wanted = RunSetting(
        model="deepseek-ocr-tiny",
        images="/pages",
        repeats=1,
        max_new_tokens=2,
        device="cpu",
        settings=Settings(decode_mode="static", grace_s=1.0),
    )
    for path in (run.directory.path, run.directory.plan_file, run.directory.manifest_file):
        assert read_setting(path) == wanted
    request = tmp_path / "request.json"
    request.write_text(to_json(run.plan.request))
    assert read_setting(request) == evolve(wanted, settings=Settings())
    run.directory.plan_file.unlink()
    with pytest.raises(RequestError, match=r"plan\.json: is not there"):
        read_setting(run.directory.manifest_file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"decod": "static"}', "no option of run is called 'decod'; did you mean decode?"),
        ('{"zzz": 1}', "`dsocr-profile run --help` lists them"),
        ('{"repeats": "3"}', r"\$\.repeats: expected int, found a string"),
        ('{"decode": "fast"}', r"\$\.settings\.decode_mode: expected one of 'eager'"),
        ('{"repeats": 0}', "repeats"),
        ("[]", "is no object of settings"),
        ("{", "not valid JSON"),
    ],
)
def test_a_setting_that_is_none_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(RequestError, match=message) as raised:
        read_setting(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
