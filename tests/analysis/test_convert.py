import json
import tracemalloc
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.domain.contracts import LLMProfileReportSummary, LLMProfileRequest
from analysis.domain.convert import from_json, from_json_file, from_plain, json_text, to_json, to_plain
from analysis.domain.entities import (
    InputSet,
    KernelSummary,
    LLMProfileReport,
    ModelUnderTest,
    RunMeta,
    StageTiming,
    Stats,
)
from analysis.domain.errors import RequestError
from analysis.domain.manifest import ControlPass, RunManifest
from record_strategies import CONTRACTS, ENTITIES, MANIFEST, PREDICTIONS, records

REQUEST = {"model_path": "deepseek-ocr-tiny", "input_dir": "/pages"}


def test_every_record_class_is_covered() -> None:
    for module, covered in (
        ("entities", ENTITIES),
        ("contracts", CONTRACTS),
        ("manifest", MANIFEST),
        ("predictions", PREDICTIONS),
    ):
        name = f"analysis.domain.{module}"
        defined = {one for one in vars(import_module(name)).values() if attrs.has(one) and one.__module__ == name}
        assert defined == set(covered)


@pytest.mark.parametrize("kind", [*ENTITIES, *CONTRACTS, *MANIFEST, *PREDICTIONS], ids=lambda kind: kind.__name__)
def test_json_and_back_loses_nothing(kind: type) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(records(kind))
    def check(record: Any) -> None:
        text = to_json(record)
        back: Any = from_json(kind, text)
        assert back == record
        assert to_json(back) == text  # also -0.0 and the zone of a date, which == does not tell apart
        assert from_json(kind, text.encode()) == record
        assert json.loads(to_json(record, indent=None)) == to_plain(record)

    check()


def test_types_survive() -> None:
    stats = from_json(Stats, '{"mean": 3, "std": 0}')
    assert (type(stats.mean), type(stats.std)) == (float, float)
    manifest = {"run_id": "r", "status": "complete", "collector": "torch", "request": REQUEST}
    manifest |= {"meta": {"run_id": "r", "created_at": "2026-01-02T03:04:05+00:00", "repeats": 3}}
    manifest |= {"options": {"a": True, "b": 1, "c": 1.0, "d": "1", "e": None}}
    options = from_json(RunManifest, json.dumps(manifest)).options
    assert {name: type(value) for name, value in options.items()} == {
        "a": bool, "b": int, "c": float, "d": str, "e": type(None),
    }  # fmt: skip


def test_a_date_keeps_its_zone() -> None:
    meta = from_json(RunMeta, '{"run_id": "r", "created_at": "2026-01-02T03:04:05.678901Z", "repeats": 1}')
    assert meta.created_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "plain", "said"),
    [
        (LLMProfileRequest, REQUEST | {"repeat": 1}, "$.repeat: unknown field"),
        (LLMProfileRequest, {"input_dir": "/pages"}, "$.model_path: missing"),
        (LLMProfileRequest, REQUEST | {"repeats": "3"}, '$.repeats: expected int, found a string "3"'),
        (LLMProfileRequest, REQUEST | {"repeats": 3.0}, "$.repeats: expected int, found the number 3.0"),
        (LLMProfileRequest, REQUEST | {"repeats": True}, "$.repeats: expected int, found a boolean true"),
        (LLMProfileRequest, REQUEST | {"repeats": None}, "$.repeats: expected int, found null"),
        (LLMProfileRequest, REQUEST | {"use_flash_attn": 1}, "$.use_flash_attn: expected bool, found the number 1"),
        (LLMProfileRequest, REQUEST | {"input_dir": ["/a"]}, '$.input_dir: expected str, found a list ["/a"]'),
        (LLMProfileRequest, [], "$: expected an object, found a list []"),
        (LLMProfileRequest, "x", '$: expected an object, found a string "x"'),
        (Stats, {"mean": "1", "std": 0}, '$.mean: expected a number, found a string "1"'),
        (Stats, {"mean": True, "std": 0}, "$.mean: expected a number, found a boolean true"),
        (StageTiming, {"stage": "vision"}, "$.stage: expected one of 'prefill', 'decode', found a string \"vision\""),
        (InputSet, {"images": "abc"}, '$.images: expected a list, found a string "abc"'),
        (InputSet, {"images": [{"path": "/a", "width": 1, "height": "9"}]}, "$.images[0].height: expected int"),
        (InputSet, {"images": [{"path": "/a", "width": 1, "height": 2, "x": 0}]}, "$.images[0].x: unknown field"),
        (KernelSummary, {"grid": [1, 2]}, "$.grid: expected 3 items, found 2"),
        (KernelSummary, {"grid": "abc"}, '$.grid: expected a list, found a string "abc"'),
        (LLMProfileReport, {"model": {"dtype": "int8"}}, "$.model.dtype: expected one of 'bf16', 'fp16', 'fp32'"),
        (LLMProfileReport, {"aggregates": {"ttft": {"mean": 1, "std": "x"}}}, "$.aggregates['ttft'].std: expected a"),
        (LLMProfileReport, {"mfu_per_stage": {"vision": 0.1}}, "expected one of 'prefill', 'decode'"),
        (LLMProfileReportSummary, {"mfu_per_stage": [0.1]}, "$.mfu_per_stage: expected an object"),
        (RunMeta, {"created_at": 5}, "$.created_at: expected an ISO 8601 date and time"),
        (RunMeta, {"created_at": "yesterday"}, "$.created_at: expected an ISO 8601 date and time, found 'yesterday'"),
        (RunManifest, {"options": {"a": [1]}}, "$.options['a']: expected bool or int or float or str or null"),
        (RunManifest, {"options": {"a @ b": [1]}}, "$.options['a @ b']: expected bool or int or float or str or null"),
        (RunManifest, {"argv": ["a", 1]}, "$.argv[1]: expected str, found the number 1"),
        (RunManifest, {"request": {"repeats": "x"}}, "$.request.repeats: expected int"),
        (RunManifest, {"control": [{"step_ns": [1, 2.5]}]}, "$.control[0].step_ns[1]: expected int"),
    ],
)
def test_wrong_shapes_are_refused_with_their_place(kind: type, plain: Any, said: str) -> None:
    with pytest.raises(RequestError) as raised:
        from_json(kind, json.dumps(plain), source="request.json")
    assert str(raised.value).startswith("request.json: ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", [*ENTITIES, *CONTRACTS, *MANIFEST, *PREDICTIONS], ids=lambda kind: kind.__name__)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_unknown_key_is_refused_everywhere(kind: type, data: st.DataObject) -> None:
    plain = to_plain(data.draw(records(kind)))
    with pytest.raises(RequestError, match=r"^x: \$\.surprise: unknown field$"):
        from_json(kind, json.dumps(plain | {"surprise": 1}), source="x")


@pytest.mark.parametrize("kind", [*ENTITIES, *CONTRACTS, *MANIFEST, *PREDICTIONS], ids=lambda kind: kind.__name__)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_value_of_a_foreign_type_is_refused_everywhere(kind: type, data: st.DataObject) -> None:
    plain = to_plain(data.draw(records(kind)))
    for name in plain:
        foreign: Any = [[]] if name not in ("options", "versions") else 5
        with pytest.raises(RequestError) as raised:
            from_json(kind, json.dumps(plain | {name: foreign}))
        assert f"$.{name}" in str(raised.value)


def test_all_faults_are_told_at_once() -> None:
    plain = {"model_path": 5, "input_dir": "/pages", "repeats": "3", "colour": "red"}
    with pytest.raises(RequestError) as raised:
        from_json(LLMProfileRequest, json.dumps(plain))
    for said in ("$.model_path: ", "$.repeats: ", "$.colour: unknown field"):
        assert said in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "nonsense", b"\xff\xfe\x00", "[" * 100_000, '{"mean": NaN, "std": 0}'])
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(RequestError, match=r"^request: not valid JSON"):
        from_json(Stats, text, source="request")


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    with pytest.raises(RequestError, match=r"not a JSON number|no finite number"):
        from_json(Stats, f'{{"mean": {number}, "std": 0}}')


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(RequestError, match=r'not valid JSON \(the key "repeats" is given twice'):
        from_json(LLMProfileRequest, '{"model_path": "m", "input_dir": "/p", "repeats": 1, "repeats": 2}')


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.json: cannot be read \(No such file"):
        from_json_file(LLMProfileRequest, tmp_path / "none.json")
    with pytest.raises(RequestError, match=r"cannot be read \(Is a directory"):
        from_json_file(LLMProfileRequest, tmp_path)


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps(REQUEST | {"repeats": 0}))
    with pytest.raises(RequestError, match=r"request\.json: \$\.repeats: must be >= 1: 0$"):
        from_json_file(LLMProfileRequest, path)
    path.write_text(json.dumps(REQUEST))
    assert from_json_file(LLMProfileRequest, path) == LLMProfileRequest("deepseek-ocr-tiny", "/pages")


def test_umlauts_stay_readable() -> None:
    model = ModelUnderTest("Grüße", "m", "bf16", "cpu", False)
    assert "Grüße" in to_json(model)
    assert from_json(ModelUnderTest, to_json(model)) == model


def test_the_place_of_a_fault_far_down_a_list() -> None:
    timed = {"pass_index": 0, "image_index": 0, "prefill_ns": 1, "decode_ns": 1, "new_tokens": 2, "step_ns": [1] * 1234}
    timed["step_ns"] = [*[1] * 1234, "x", 1]
    with pytest.raises(RequestError, match=r"\$\.step_ns\[1234\]: expected int, found a string \"x\"$"):
        from_json(ControlPass, json.dumps(timed))


@pytest.mark.parametrize(
    "value", [[0] * 300_000, ["x" * 50] * 300_000, [[0] * 1000] * 300, {str(key): 0 for key in range(300_000)}]
)
def test_of_many_faults_some_are_told_in_little_memory(value: Any) -> None:
    """64 MiB of wrong items took 20 GB: an exception each."""
    for plain in (value, {"manifest_version": 1, "control": value}, {"run": value}):
        tracemalloc.start()
        with pytest.raises(RequestError) as raised:
            from_plain(RunManifest, plain)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 23
        assert len(str(raised.value)) < 2000


@pytest.mark.parametrize("indent", [None, 1])
def test_json_holds_nothing_that_turns_text_around(indent: int | None) -> None:
    """Read in a terminal or an editor, a name of a trace could show another text than it has."""
    names = ["a\u202eb", "\x7f\x9b31m", "\x1b[31m", "\u2066x\u2069", "\udcff", "\U000e0041", "größe 模型 🙂 –"]
    text = json_text({"names": names}, indent=indent)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "größe 模型 🙂 –" in text
    assert "a\\u202eb" in text
    assert json.loads(text) == {"names": names}
    assert json_text(["\x7f"]) == '["\\u007f"]'  # ASCII alone is looked at in another way
