"""What is taken for a secret, and what is not."""

from __future__ import annotations

import base64
import html
import json
import lzma
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

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


JOINED = [
    kind for kind, (text, secret) in PLANTED.items()
    if text == secret and kind not in ("square", "telegram", "web token", "aws session", "rsa key", "ssh key", "pgp key")
]  # fmt: skip


@pytest.mark.parametrize("kind", JOINED)
def test_a_key_is_found_that_is_joined_to_a_name(kind: str) -> None:
    """As in the names of files and ranges."""
    assert redacted(f"step_{PLANTED[kind][0]} of 3") == "step_*** of 3"


def test_there_are_as_many_kinds_as_promised() -> None:
    assert len(PLANTED) >= 29


@pytest.mark.parametrize("kind", PLANTED)
def test_the_marks_let_no_pattern_go_by(kind: str) -> None:
    """A text without a mark is not looked at: each kind must have one, whatever stands around."""
    assert redaction._has_a_mark(PLANTED[kind][0])


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
        "token=5",
        "tokens: 64, 1234.5 tokens per second, token: 128001, token=torch.bfloat16, token=float32",
        "pad_token='<|endoftext|>' image_token=\"<image>\" token=100000012",
        '{"num_key_value_heads": 8, "eos_token_id": 128001, "max_new_tokens": 64}',
        "Cookie",
        "cookie: none",
        "FORWARD_PASS=prefill_1024_tokens two_pass: radix_sort_16",
        "docker run -u 1000:1000 --user app:app image:2024-11",
        "docker://registry.example:5000/team/image@sha256:0123456789abcdef",
        "LD_LIBRARY_PATH=/opt/x/lib:/usr/lib:/srv/lib@2 /opt:/usr:/srv/lib@2",
        "https://medium.example/@somebody/12 ssh://git@github.com/user/repository.git",
        "python -u -m serve --max-num-batched-tokens 8192000 --tokenizer meta/Llama-3.1-8B",
        "password=$MY_PASSWORD api_key='<your key here 1>' secret=\"${SECRET_1}\"",
        "PWD=/home/somebody/work/2024 OLDPWD=/root/abcdefgh1 SCRIPT_PWD=/home/somebody/2",
        "\x1b[33mtokens\x1b[0m: \x1b[1m64\x1b[0m",
        "{'Module': 'Qwen3MoeForCausalLM.model.layers.0.mlp', 'Inputs': [[1024, 2048]]}",
        "model.layers.12.mlp.experts.63.down_proj token_ids: tensor([100000, 185, 128815]) num_tokens: 128",
        "serve --password-file /run/secrets/db1 --token-file=/run/secrets/hf2 --api-key-path /srv/key3",
        "api_key='<your key>' password=\"{password}\" secret='(none given)' token: '[redacted here]'",
        "(embed_tokens): Embedding(129280, 1280) token=Embedding(129280) next_token: int64[1,1] token=tokens[0]",
        "commit 2f3a9c1e5b7d8f0a1b2c3d4e5f60718293a4b5c6, cubin 9d5ed678fe57bcca610140957afab571",
        "request 123e4567-e89b-12d3-a456-426614174000 of session 9feda4f8b1d3c7e2",
        "run --use-token --fp16-kv 1 --print-secret --beta1=0.9",
        'docker run --user "1000:1000" -u \'app:appgroup\' image; curl --user "$USER:$PASSWORD"',
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
    "value", ["1", "true", "/usr/bin/env", "1234567", "disabled", "LocalHost", "unix:path=/run/bus", "~/", str(ROOT)]
)
def test_values_that_are_no_secrets_are_left(value: str) -> None:
    assert secret_values({"MY_TOKEN": value}) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MY_TOKEN", "/aB3dE5gH"),  # begins like a path
        ("MY_TOKEN", "~hunter2222"),
        ("MY_TOKEN", "12345678"),
        ("DB_PASSWORD", "correcthorse"),
        ("MYSQL_PWD", "correcthorse"),
        ("DB_PASS", "correcthorse"),
    ],
)
def test_values_of_eight_characters_are_blanked_unless_they_are_a_path_that_is_there(name: str, value: str) -> None:
    assert redacted(f"it says {value}.", secret_values({name: value})) == "it says ***."


@pytest.mark.parametrize("name", ["MY_KEY", "COOKIE_NAME"])
def test_a_word_is_no_secret_unless_its_variable_says_so(name: str) -> None:
    assert secret_values({name: "language"}) == ()


@pytest.mark.parametrize(
    "name",
    [
        "MYSQL_PWD", "DB_PASS", "DB_PW", "OPENAI_KEY_2", "KEY2", "DATABASE_URL", "SENTRY_DSN", "SLACK_WEBHOOK", "TOKENS",
        "ACCESS_CODE", "PASS", "HF_TOKENS", "TOKEN", "--token", "USER_TOKEN", "BOT_TOKEN", "TOKEN_2",
        "SESSION_TOKEN",
        "--db-pass", "REDISCLI_AUTH", "GITHUB_PAT",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "PWD", "OLDPWD", "PATH", "--max-new-tokens", "max_tokens", "MAX_TOKENS", "--tokens", "FORWARD_PASS", "two_pass",
        "--password-file", "HF_TOKEN_PATH", "SECRETS_DIR", "token_ids", "eos_token_id", "--num-tokens", "num_token", "token_count",
        "image_token", "--pad-token-id", "per_token", "first_token_ms", "--token-budget",
        "AUTHOR", "TOKENIZERS_PARALLELISM", "KEYBOARD", "COMPASS", "num_key_value_heads", "DISPLAY", "BASE_URL",
    ],
)  # fmt: skip
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize("value", ['pa"ss\\word99éX', 'it\'s "mine" 77\n', "a/b c+d&e=77", "tab\tand\x1b[1m77"])
def test_a_known_value_is_found_in_every_form_in_which_it_is_printed(value: str) -> None:
    values = secret_values({"MY_TOKEN": value})
    in_json = json.dumps({"x": value})
    forms = [
        value, repr(value), ascii(value), repr(value.encode()), in_json, json.dumps({"x": value}, ensure_ascii=False),
        json.dumps(in_json), json.dumps({"x": in_json}), quote(value), quote(value, safe=""), quote_plus(value),
    ]  # fmt: skip
    for form in forms:
        shown = redacted(f"<{form}>", values)
        assert REDACTED in shown, form
        assert not {"77", "99"} & {shown[at : at + 2] for at in range(len(shown))}, form


ENCODINGS: dict[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 behind one byte": lambda text: base64.b64encode(b"u" + text.encode() + b"!").decode(),
    "base64 behind two bytes": lambda text: base64.b64encode(b"u:" + text.encode() + b"!?").decode(),
    "base64 of addresses": lambda text: base64.urlsafe_b64encode(b">>" + text.encode() + b"??").decode(),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "UTF-16, little": lambda text: text.encode("utf-16-le").decode("utf-8", "surrogateescape"),
    "UTF-16, big": lambda text: text.encode("utf-16-be").decode("utf-8", "surrogateescape"),
    "address": lambda text: quote(text, safe=""),
    "JSON": lambda text: json.dumps(text),
    "shell": shlex.quote,
    "shell, by strokes": lambda text: re.sub(r"(\W)", r"\\\1", text, flags=re.ASCII),
    "page": html.escape,
}


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize(
    "value", ["hunter22", "correcthorsebattery", 'it\'s <a> "pa$s" & `77`?>~', "pässwörd€1", *NAMED.values()]
)
def test_a_known_value_is_found_however_it_is_encoded(value: str, encoding: Callable[[str], str]) -> None:
    values = secret_values({"MY_PASSWORD": value})
    encoded = encoding(value)
    shown = redacted(f"before {encoded} after", values)
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert REDACTED in shown
    # Of base64 the letters stay that its neighbours have, or share with it.
    assert len(shown.replace(REDACTED, "")) - len("before  after") <= 14, shown


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_no_encoding_of_a_known_value_stands_in_an_ordinary_text(encoding: Callable[[str], str]) -> None:
    """As every word of our own reports were printed in that encoding, and as it is."""
    values = secret_values({**NAMED, "MY_PASSWORD": "correcthorse", "MY_TOKEN": "12345678"})
    report = (ROOT / "README.md").read_text() + (ROOT / "docs" / "capture.md").read_text()
    packed = (ROOT / "tests" / "data" / "kernel_names.json.xz").read_bytes()
    assert redacted(report, values) == report
    for text in (report, lzma.decompress(packed).decode(), packed.hex(), base64.b64encode(packed).decode()):
        encoded = encoding(text)
        assert [value for value in values if value in encoded] == []


def test_a_short_value_has_no_encoded_form() -> None:
    """The seven letters of ``pass`` in base64 or hex stand in many a hash."""
    assert redaction.encoded_forms(["abcdefg"]) == set()
    forms = redaction.encoded_forms(["abcdefgh"])
    assert min(map(len, forms)) >= 9, forms


def test_a_value_that_looks_like_a_secret_is_known_whatever_its_variable_is_called() -> None:
    values = secret_values({"PLANT_1": PLANTED["github"][0], "PLANT_2": PLANTED["url"][0], "PLANT_3": "deepseek-ocr"})
    encoded = base64.b64encode(b"x " + PLANTED["url"][1].encode()).decode()
    shown = redacted(f"{PLANTED['url'][1]} {encoded} deepseek-ocr {PLANTED['github'][1].encode().hex()}", values)
    assert shown.count(REDACTED) == 3
    assert "deepseek-ocr" in shown


CASELESS = {
    "bearer": "bearer {}",
    "authorization": "authorization: basic {}",
    "api key": "api_key={}",
    "api key, spelt otherwise": "apikey='{}'",
    "header": "x-api-key: {}",
    "azure header": "ocp-apim-subscription-key: {}",
    "cookie": "cookie: sid={}",
    "set-cookie": "set-cookie: sid={}; path=/",
    "password": "password: '{}'",
    "password, unquoted": "db_password: {}",
    "passwd": "passwd={}",
    "passphrase": "passphrase: {}",
    "passcode": "passcode={}",
    "db pass": "db_pass={}",
    "mysql pwd": "mysql_pwd={}",
    "secret": "secret: '{}'",
    "client secret": 'client_secret="{}"',
    "access token": "access-token: '{}'",
    "access token, unquoted": "access_token: {}",
    "account key": "account_key={}",
    "account key, joined": "accountkey={}",
    "shared access": "shared-access-signature={}",
    "private token": "private-token: {}",
    "token": "token={}",
    "token in JSON": '"token": "{}"',
    "token option": "run --token {} now",
    "password option": "run --password {} now",
    "spaced option": "run --hf-token={} now",
    "query": "https://h.example/x?signature={}",
}


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title], ids=["lower", "upper", "title"])
@pytest.mark.parametrize("form", CASELESS.values(), ids=CASELESS)
def test_a_name_is_a_name_in_capitals_too(form: str, change: Callable[[str], str]) -> None:
    for value in ("hunter2222", "0123456789abcdef0123456789abcdef", "Tr0ub4dor&3x"):
        if "cookie" in form or "signature" in form or "basic" in form or "bearer" in form:
            value = value.replace("&", "-")
        shown = redacted(change(form).format(value) if "{}" in change(form) else form.format(value))
        assert not any(part in shown for part in (value, "3x")), shown
        assert REDACTED in shown
        assert redacted(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("api_key=abc,def01234567", "api_key=***"),
        ("A_KEY=abcdefgh1,OTHER=2", "A_KEY=***,OTHER=2"),
        ('password="my pass phrase 123" x', 'password="***" x'),
        ("MY_PASS=hunter2222", "MY_PASS=***"),
        ("REDISCLI_AUTH=hunter2222", "REDISCLI_AUTH=***"),
        ("GITHUB_PAT=hunter2222", "GITHUB_PAT=***"),
        ("OPENAI_KEY_2=hunter2222", "OPENAI_KEY_2=***"),
        ("SLACK_WEBHOOK=hunter2222", "SLACK_WEBHOOK=***"),
        ("ACCESS_CODE=hunter2222", "ACCESS_CODE=***"),
        ("curl -u user:hunter22 http://x", "curl -u user:*** http://x"),
        ("curl --user 'user:hunter 22'", "curl --user 'user:***'"),
        ('curl -u "user:two words" http://x', 'curl -u "user:***" http://x'),
        ("password=abcd|efgh1234", "password=***"),
        ("connecting (password=ab(cd)[ef]{gh}1234)", "connecting (password=***)"),
        ("db_password: abcdefgh>ij<kl1", "db_password: ***"),
        ("run --password ab|cd(ef)1234 now", "run --password *** now"),
        ("run --token -abc12345 now", "run --token *** now"),
        ("password='<abc{def'", "password='***'"),
        ('{"api_key": "{abc)defgh"}', '{"api_key": "***"}'),
        ("api_key='[ab, cd+efgh'", "api_key='***'"),
        ("secret='(abcdefgh'", "secret='***'"),
        ("postgres://u:p@ssw0rd66@h/d", "postgres://***@h/d"),
        ("postgres://user:pa/ss@host/d", "postgres://***@host/d"),
        ("/pages/postgres:/user:p@s/ss77@host/d", "/pages/postgres:/***@host/d"),  # as a path
        ("https://0123456789abcdef0123@git.example/x", "https://***@git.example/x"),
        (
            "\x1b[33mpassword\x1b[0m: \x1b[1mhunter2222\x1b[0m\n\x1b[1mstays\x1b[0m",
            "password: ***\n\x1b[1mstays\x1b[0m",
        ),
        ("hf_aBcD\x1b[0mEfGh1234567", "***"),
        ("hf_aBcD\u200bEfGh1234567", "***"),
        ("\x1b[1m hf_aBcDEfGh1234567 \x1b[0m", "\x1b[1m *** \x1b[0m"),  # not split: the colours stay
    ],
)
def test_what_is_taken_out_of_a_text(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted_each(["a", text]) == ["a", shown]


def test_no_repetition_of_a_pattern_is_taken_for_a_place_of_an_f_string() -> None:
    """``{0,60}`` in one becomes ``(0, 60)``, and the pattern finds nothing."""
    patterns = [*redaction._OURS.values(), redaction._MAYBE, redaction._SECRET_NAME, redaction._UNSEEN]
    assert not [pattern for pattern in patterns if re.search(r"\(\d+, ?\d*\)|\{\{", pattern)]


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
        "password=", "xoxb-", "hf_a", "_hf_", "_sk-", "_nvapi-", "gla-", "api_key", "1:AA", "https://a:b", 'password="',
        "--token ", "-u a:", "token=a1", "://a:a@", "X_PASS=", "cookie: a=", "password=a,", "\x1b[1m", "\u200b",
    ],
)  # fmt: skip
def test_no_text_makes_a_pattern_look_again_and_again(part: str) -> None:
    """A range's name may be as long as this; a pattern that is quadratic in it would take hours."""
    text = part * (300_000 // len(part))
    for made in (text, f"{text} ghp_", f"//{text}/:_authToken={text}"):
        redacted(made)
