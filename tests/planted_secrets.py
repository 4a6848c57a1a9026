"""Secrets of every kind, none of them real: put together here, so that no file of ours holds one that scanners take for real."""

from __future__ import annotations

import base64
import binascii
import json
import random
import string
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

__all__ = ["FORMS", "NAMED", "PLANTED", "disguises", "encodings"]

_ANY: Final = string.ascii_letters + string.digits
_UPPER: Final = string.ascii_uppercase + string.digits
_HEX: Final = "0123456789abcdef"


def _some(kind: str, count: int, letters: str = _ANY) -> str:
    return "".join(random.Random(kind).choices(letters, k=count))


def _web_token(kind: str) -> str:
    parts = [json.dumps({"alg": "HS256"}), json.dumps({"sub": _some(kind, 12)})]
    encoded = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts]
    return ".".join((*encoded, _some(kind, 43)))


def _private_key(kind: str) -> str:
    lines = [_some(f"{kind}{number}", 64) for number in range(4)]
    return "\n".join((f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----"))


FORMS: Final[dict[str, str]] = {
    "aws": "AKIA" + _some("aws", 16, _UPPER),
    "aws temporary": "ASIA" + _some("asia", 16, _UPPER),
    "aws session": "IQoJb3JpZ2luX2Vj" + _some("session", 120),
    "aws session, older": "FwoGZXIvYXdzE" + _some("session2", 120),
    "google": "AIza" + _some("google", 35),
    "google oauth": "ya29." + _some("oauth", 60),
    "google client": "GOCSPX-" + _some("client", 28),
    "stripe live": "sk_" + "live_" + _some("stripe", 24),
    "stripe restricted": "rk_" + "live_" + _some("restricted", 24),
    "stripe test": "sk_" + "test_" + _some("stripe test", 24),
    "stripe webhook": "whsec_" + _some("webhook", 32),
    "npm": "npm_" + _some("npm", 36),
    "pypi": "pypi-" + "AgEIcHlwaS5vcmc" + _some("pypi", 80),
    "azure": "AccountKey=" + _some("azure", 86) + "==",
    "azure signature": "SharedAccessKey=" + _some("azure2", 43) + "=",
    "github": "ghp_" + _some("github", 36),
    "github app": "ghs_" + _some("github app", 36),
    "github fine": "github_pat_" + _some("fine", 22) + "_" + _some("fine2", 59),
    "gitlab": "glpat-" + _some("gitlab", 20),
    "slack": "xoxb-" + _some("a", 11, string.digits) + "-" + _some("slack", 24),
    "slack app": "xapp-1-" + _some("slack app", 40),
    "slack hook": "https://hooks.slack." + "com/services/T" + _some("t", 8, _UPPER) + "/B" + _some("b", 8, _UPPER)
    + "/" + _some("hook", 24),
    "hugging face": "hf_" + _some("hugging", 34),
    "openai": "sk-" + "proj-1" + _some("openai", 40),
    "openai, older": "sk-" + _some("older", 20) + "T3BlbkFJ" + _some("older2", 20),
    "anthropic": "sk-" + "ant-api03-" + _some("anthropic", 80),
    "nvidia": "nvapi-" + _some("nvidia", 60),
    "groq": "gsk_" + _some("groq", 52),
    "replicate": "r8_" + _some("replicate", 37),
    "sendgrid": "SG." + _some("sg", 22) + "." + _some("sg2", 43),
    "mailchimp": _some("mailchimp", 32, _HEX) + "-us12",
    "square": "sq0csp-" + _some("square", 43),
    "telegram": "123456789" + ":AA" + _some("telegram", 33),
    "web token": _web_token("web token"),
    "bearer": "Bearer " + _some("bearer", 40),
    "rsa key": _private_key("RSA PRIVATE KEY"),
    "ssh key": _private_key("OPENSSH PRIVATE KEY"),
    "pgp key": _private_key("PGP PRIVATE KEY BLOCK"),
    "url": "postgresql://profiler:" + _some("url", 16) + "@db.example/history",
    "url, token alone": "https://" + _some("url token", 40, _HEX) + "@git.example/a.git",
    "url, odd password": "postgres://u:p@ss/" + _some("odd url", 16) + "@db.example/history",
    "docker": "dckr_" + "pat_" + _some("docker", 27),
    "databricks": "da" + "pi" + _some("databricks", 32, _HEX),
    "vault": "hv" + "s." + _some("vault", 90),
    "shopify": "shp" + "at_" + _some("shopify", 32, _HEX),
    "atlassian": "ATA" + "TT3" + _some("atlassian", 180),
    "age": "AGE-SECRET" + "-KEY-1" + _some("age", 58, _UPPER),
    "linear": "lin_" + "api_" + _some("linear", 40),
    "api header": "X-API-Key: 1" + _some("api header", 31),
    "azure header": "Ocp-Apim-Subscription-Key: 1" + _some("azure header", 31, _HEX),
    "cookie": "Cookie: sid=" + _some("cookie", 32),
    "unquoted": "db_password: 1" + _some("unquoted", 19),
    "password variable": "DB_PASS=1" + _some("password variable", 19),
    "query": "https://example.org/load?token=" + _some("query", 16) + "&x=1",
    "signed url": "https://a.blob.example/x?sv=2024&sig=" + _some("signed", 40),
    "header": "Authorization: Basic " + _some("header", 24),
    "variable": "MY_SERVICE_TOKEN=" + _some("variable", 20),
    "named": "password=" + _some("named", 16),
    "json": '{"api_key": "' + _some("json", 24) + '"}',
}  # fmt: skip
"""Kind → a text with a secret of a form that tells what it is."""


def _core(kind: str, text: str) -> str:
    """What of a planted text must be found nowhere: its random part."""
    for mark in (
        "Bearer ",
        "Basic ",
        "sig=",
        "Key=",
        "TOKEN=",
        "password=",
        '"api_key": "',
        "profiler:",
        "token=",
        "Key: ",
        "sid=",
        "password: ",
        "PASS=",
        "p@ss/",
    ):
        if mark in text:
            text = text.partition(mark)[2]
    text = text.partition("@db")[0].partition("&x")[0].partition('"}')[0]
    if "PRIVATE KEY" in text:
        return text.splitlines()[2]
    if kind == "url, token alone":
        return text.partition("//")[2].partition("@")[0]
    return text.rpartition("/")[2] if kind == "slack hook" else text


PLANTED: Final[dict[str, tuple[str, str]]] = {kind: (text, _core(kind, text)) for kind, text in FORMS.items()}
"""Kind → a text that holds a secret, and the secret in it."""

NAMED: Final[dict[str, str]] = {
    "NVIDIA_API_KEY": _some("nvidia key", 24),
    "TRITON_SECRET": _some("triton", 24),
    "NCCL_AUTH_TOKEN": _some("nccl", 24),
    "WANDB_API_KEY": _some("wandb", 40, _HEX),
    "DB_PASSWORD": _some("db", 12),
    "AWS_SECRET_ACCESS_KEY": _some("aws secret", 40),
}
"""Variables whose values have no form: that they are secrets, their names say."""


def encodings(secret: str) -> Iterator[bytes]:
    """The forms in which a program may write a secret; in base64 with other bytes around it."""
    yield from _plain_forms(secret)
    for _, encoded in _in_base64(secret):
        yield encoded


def disguises(secret: str) -> Iterator[bytes]:
    """What a file that holds a secret may hold: of base64 what does not depend on the bytes around the secret."""
    yield from _plain_forms(secret)
    for before, encoded in _in_base64(secret):
        yield encoded.rstrip(b"=")[4 if before else 0 : -5]


def _plain_forms(secret: str) -> Iterator[bytes]:
    plain = secret.encode()
    yield plain
    yield secret.encode("utf-16-le")
    yield secret.encode("utf-16-be")
    yield binascii.hexlify(plain)
    yield binascii.hexlify(plain).upper()
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()


def _in_base64(secret: str) -> Iterator[tuple[int, bytes]]:
    """Of each of the three places at which a secret may begin: the bytes before it, and the whole in base64."""
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield before, encode(b"\0" * before + secret.encode() + b"\0\0")
