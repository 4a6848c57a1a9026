"""What is taken for a secret, and what is not."""

from __future__ import annotations

import json
import lzma
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.domain import redaction
from analysis.domain.redaction import REDACTED, is_secret_name, redacted, redacted_each, secret_values
from planted_secrets import NAMED, PLANTED

ROOT = Path(__file__).parents[2]

AROUND = {
    "alone": "{}",
    "sentence": "Read the page with {} and answer.",
    "argument": "--opt={}",
    "list": "--env-var=A=1,B={},C=2",
    "range": "step[3]: {}",
    "log": "12:00:01 INFO connecting ({})\nnext line",
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("kind", PLANTED)
def test_secrets_of_every_kind_are_found(kind: str, around: str) -> None:
    text, secret = PLANTED[kind]
    shown = redacted(around.format(text))
    assert secret not in shown
    assert REDACTED in shown
    assert secret[8:20] not in shown
    assert redacted(shown) == shown


def test_there_are_as_many_kinds_as_promised() -> None:
    assert len(PLANTED) >= 29


@pytest.mark.parametrize("kind", PLANTED)
def test_the_marks_let_no_pattern_go_by(kind: str) -> None:
    """A text without a mark is not looked at: each kind must have one, whatever stands around."""
    assert any(mark in PLANTED[kind][0] for mark in redaction._MARKS)


@pytest.mark.parametrize("kind", PLANTED)
def test_the_detector_is_asked_where_it_would_find_something(kind: str) -> None:
    text = PLANTED[kind][0]
    finds = [pattern for pattern, _ in redaction._detector() if pattern.search(text)]
    assert not finds or re.search(redaction._MAYBE, text)


def test_the_detector_finds_what_our_rules_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"sendgrid", "mailchimp", "square", "telegram"}
    assert all(PLANTED[kind][1] not in redacted(PLANTED[kind][0]) for kind in kinds)
    monkeypatch.setattr(redaction, "_detector", tuple)
    assert {kind for kind, (text, secret) in PLANTED.items() if secret in redacted(text)} == kinds


@pytest.mark.parametrize("name", ["password", "api_key", "refresh_token", "MY_TOKEN", "Authorization"])
def test_a_named_value_is_found_with_and_without_quotes(name: str) -> None:
    """In JSON that is a text inside of JSON too, where strokes stand before its quotes."""
    value = "dr9wxBplcn9iHo"
    text = json.dumps({name: value})
    texts = [f"{name}: {value}", f"{name}={value}", f"{name} = '{value}'"]
    for _ in range(4):
        texts.append(text)
        text = json.dumps([text, "and more"])
    for text in texts[:6]:
        assert value not in redacted(text), text
        assert len(redacted(text)) == len(text) - len(value) + len("***")


@pytest.mark.parametrize(
    "text",
    [
        "d1f0a7be29c54f3bb6c0ab1c58e6bfa4",  # a run's id
        "9feda4f8b1d3c7e2a4f6b8d0c2e4f6a8b0c2d4e6",  # a commit
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "2026-11-25T04:22:34.123456+00:00",
        "deepseek-ai/DeepSeek-OCR",
        "hf_transformers.models.deepseek_ocr",
        "sk-learn-estimators-of-something",
        "task-5f2a-runs-on-the-second-device",
        "/home/user/.cache/huggingface/hub/models--deepseek-ai--DeepSeek-OCR/snapshots/2c968b433af61a059311cbf8997765023806a24d",
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>>",
        "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT",
        "max_new_tokens=64, eos_token_id=128001, pad_token=<|endoftext|>, tokenizer=AutoTokenizer",
        "key=value; KEYS=1,2,3; cache_key: none",
        "git@github.com:user/repository.git",
        "postgresql://profiler@db.example/history",
        "https://example.org/page?monkey=banana&keyboard=qwerty",
        "HF_TOKEN=$HF_TOKEN",
        "MY_TOKEN=***",
        "authored by somebody: 2026",
        "password: required, secret: whatever",
        "execute_context_1(1024)_generation_3(3)",
        "{'Module': 'Qwen3MoeForCausalLM.model.layers.0.mlp', 'Inputs': [[1024, 2048]]}",
    ],
)
def test_ordinary_texts_stay(text: str) -> None:
    assert redacted(text) is text or redacted(text) == text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def test_no_kernel_name_holds_a_secret() -> None:
    packed = (ROOT / "tests" / "data" / "kernel_names.json.xz").read_bytes()
    names = list(_texts(json.loads(lzma.decompress(packed))))
    assert len(names) > 1000
    assert list(redacted_each(names)) == names


def test_no_example_and_no_recorded_run_holds_a_secret() -> None:
    files = [*(ROOT / "reports" / "examples").rglob("*"), *(ROOT / "tests" / "data" / "runs").glob("*.json")]
    texts = [file for file in files if file.suffix in (".json", ".md", ".html", ".csv")]
    assert len(texts) > 10
    for file in texts:
        text = file.read_text(encoding="utf-8")
        assert redacted(text) == text, file


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_small", "deepseek-ocr_h200_cuda-graph"])
def test_no_real_trace_holds_a_secret(name: str) -> None:
    """Every byte of the file, as text: names, paths, command lines, NVTX texts."""
    packed = (ROOT / "tests" / "data" / f"{name}.sqlite.xz").read_bytes()
    text = lzma.decompress(packed).decode("utf-8", "replace")
    assert redacted(text) == text


@pytest.mark.parametrize("name", NAMED)
def test_values_of_variables_named_like_secrets_are_blanked_wherever_they_stand(name: str) -> None:
    values = secret_values({**NAMED, "PATH": "/usr/bin", "AUTHOR": "somebody-else"})
    assert NAMED[name] not in redacted(f"the program prints {NAMED[name]} alone", values)
    assert is_secret_name(name)


def test_the_longest_known_value_goes_first() -> None:
    values = secret_values({"A_TOKEN": "abcdefg1", "B_TOKEN": "abcdefg1-longer"})
    assert redacted("x abcdefg1-longer y abcdefg1", values) == "x *** y ***"


@pytest.mark.parametrize(
    "value", ["1", "true", "/run/user/0/keyring", "12345678", "disabled", "unix:path=/run/bus", "~/.netrc-file"]
)
def test_values_that_are_no_secrets_are_left(value: str) -> None:
    assert secret_values({"MY_TOKEN": value}) == ()


def test_a_variable_that_was_named_is_a_secret_whatever_it_is_called() -> None:
    assert secret_values({"SOMETHING": "abcde"}, ["SOMETHING"]) == ("abcde",)


def test_the_detector_is_imported_where_there_is_something_to_detect() -> None:
    code = (
        "import sys; from analysis.domain.redaction import redacted\n"
        "redacted('nothing here'); assert 'detect_secrets' not in sys.modules\n"
        "redacted('sq0csp-' + 'a1' * 22); assert 'detect_secrets' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_long_text_with_one_secret_is_looked_at_line_by_line() -> None:
    line = "".join(chr(97 + place % 26) for place in range(200))
    text = "\n".join([line] * 50_000 + [PLANTED["github"][0]])
    assert redacted(text) == "\n".join([line] * 50_000 + [REDACTED])


@pytest.mark.parametrize(
    "part",
    [
        "eyJ", "eyJ-", "token", ";token", "secret:", "secret", "a-", "a.", "glab", ":/a", "://a:", "://::", "//", "_authToken",
        "-----BEGIN A ", "PRIVATE KEY", "Bearer ", "AWS", "sk-", "MY_KEY", "?sig", "npm_", "authorization:", "AKIA", "SG.a",
        "password=", "xoxb-", "hf_a", "gla-", "api_key", "1:AA", "https://a:b",
    ],
)  # fmt: skip
def test_no_text_makes_a_pattern_look_again_and_again(part: str) -> None:
    """A range's name may be as long as this; a pattern that is quadratic in it would take hours."""
    text = part * (300_000 // len(part))
    for made in (text, f"{text} ghp_", f"//{text}/:_authToken={text}"):
        redacted(made)
