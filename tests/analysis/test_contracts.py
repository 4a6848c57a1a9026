import json
from typing import Any

import attrs
import pytest

from analysis.domain.contracts import (
    LLMProfileAccepted,
    LLMProfileReportSummary,
    LLMProfileRequest,
    OperatorSummary,
    Stats,
)
from analysis.domain.convert import from_json
from analysis.domain.errors import RequestError

REQUEST: dict[str, Any] = {"model_path": "/models/ocr", "input_dir": "/pages"}


def test_contracts_have_exactly_these_fields() -> None:
    """The wire is fixed: nothing may be added, not even an optional field."""
    fields = {
        kind: [one.name for one in attrs.fields(kind)]
        for kind in (LLMProfileRequest, LLMProfileAccepted, LLMProfileReportSummary, OperatorSummary, Stats)
    }
    assert fields == {
        LLMProfileRequest: ["model_path", "input_dir", "repeats", "use_flash_attn", "device", "max_new_tokens"],
        LLMProfileAccepted: ["run_id", "status", "artifacts_dir"],
        LLMProfileReportSummary: [
            "run_id", "mfu_model_level", "mfu_per_stage", "top_operators", "aggregates", "notes",
        ],
        OperatorSummary: ["op_name", "total_time_ms", "cuda_time_ms", "calls"],
        Stats: ["mean", "std"],
    }  # fmt: skip


def test_defaults_of_a_request() -> None:
    request = from_json(LLMProfileRequest, json.dumps(REQUEST))
    assert request == LLMProfileRequest(
        model_path="/models/ocr",
        input_dir="/pages",
        repeats=3,
        use_flash_attn=True,
        device="cuda:0",
        max_new_tokens=64,
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_path": "models/ocr/x"}, "$.model_path: must be an absolute path or a model id, not 'models/ocr/x'"),
        ({"model_path": "./ocr"}, "$.model_path: must be an absolute path or a model id"),
        ({"input_dir": "pages"}, "$.input_dir: must be an absolute path, not 'pages'"),
        ({"input_dir": "../pages"}, "$.input_dir: must be an absolute path"),
        ({"input_dir": ""}, "$.input_dir: must be an absolute path"),
        ({"repeats": 0}, "$.repeats: must be >= 1: 0"),
        ({"repeats": -3}, "$.repeats: must be >= 1: -3"),
        ({"max_new_tokens": 0}, "$.max_new_tokens: must be >= 1: 0"),
        ({"device": "tpu"}, "$.device: must match"),
        ({"device": "cuda:x"}, "$.device: must match"),
        ({"device": "cuda:0; rm"}, "$.device: must match"),
        ({"repeat": 3}, "$.repeat: unknown field"),
        ({"flash": True, "warmup": 1}, "$.flash: unknown field; $.warmup: unknown field"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as raised:
        from_json(LLMProfileRequest, json.dumps(REQUEST | change), source="request.json")
    message = str(raised.value)
    assert message.startswith("request.json: $.")
    assert said in message
    assert "\n" not in message
    assert "Attribute(" not in message
    assert RequestError.exit_code == 2


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:15"])
def test_devices(device: str) -> None:
    assert from_json(LLMProfileRequest, json.dumps(REQUEST | {"device": device})).device == device


def test_an_answer() -> None:
    for status in ("queued", "running"):
        answer = LLMProfileAccepted(run_id="r", status=status, artifacts_dir="/runs/r")
        assert answer.status == status
    with pytest.raises(ValueError, match="status"):
        LLMProfileAccepted(run_id="r", status="done", artifacts_dir="/runs/r")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="artifacts_dir must be an absolute path"):
        LLMProfileAccepted(run_id="r", status="queued", artifacts_dir="runs/r")


@pytest.mark.parametrize(
    "change", [{"mfu_model_level": 1.6}, {"mfu_model_level": -1}, {"mfu_per_stage": {"decode": 2.0}}]
)
def test_a_summary_keeps_the_guardrails(change: dict[str, Any]) -> None:
    plain: dict[str, Any] = {
        "run_id": "r", "mfu_model_level": 0.1, "mfu_per_stage": {"prefill": 0.2, "decode": None},
        "top_operators": [], "aggregates": {}, "notes": "",
    }  # fmt: skip
    assert from_json(LLMProfileReportSummary, json.dumps(plain)).mfu_per_stage == {"prefill": 0.2, "decode": None}
    with pytest.raises(RequestError, match=r"must lie in 0\.\.1\.5"):
        from_json(LLMProfileReportSummary, json.dumps(plain | change))
