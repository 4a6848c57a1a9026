r"""Secrets taken out of a text: keys, tokens, passwords, by their form or by the name that they are given.

What a key of which service looks like is detect-secrets' knowledge; `_OURS` has what that does not know. Its plugins are
chosen one by one: those for random strings and for names alone would blank hashes, kernel names and paths, and those for
short patterns without a mark of their own (Twilio, Discord, Artifactory, IBM, Cloudant, SoftLayer) mangled names.

A text is looked at if it holds one of `_MARKS`: each pattern needs one of them. The detector takes a sixth of a second to
import, so it is asked about what `_MAYBE` finds when ours have been taken out: each of its patterns needs a part of that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

__all__ = ["REDACTED", "is_secret_name", "redacted", "redacted_each", "redacted_plain", "secret_values"]

REDACTED: Final = "***"
"""What stands in a secret's place."""

_SECRET_NAME: Final = (
    r"(?i)token(?!s\b|iz)|secret|passw|passphrase|credential|api_?key|_key\b|_pat\b|auth(?!or)|cookie|\bkey\b"
)
_MARKS: Final = (
    "AKIA", "ASIA", "ABIA", "ACCA", "A3T", "aws", "AWS", "FwoGZXIvYXdz", "IQoJb3JpZ2lu", "AccountKey", "SharedAccess",
    "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "GR1348941",
    "glcbt-", "glimt-", "glptt-", "glagent-", "gloas-", "AIza", "ya29.", "GOCSPX-", "sk_", "rk_", "whsec_", "sk-", "npm_",
    "_authToken", "pypi-", "PRIVATE KEY", "PuTTY-User-Key", "eyJ", "hf_", "nvapi-", "gsk_", "xai-", "r8_", "pplx-", "xox",
    "xapp-", "hooks.slack.com", "SG.", "sq0csp-", "-us", ":AA", ":/", "earer", "EARER", "uthorization", "UTHORIZATION",
    "_TOKEN", "_KEY", "_SECRET", "_PASS", "_CREDENTIAL", "TOKEN=", "KEY=", "SECRET=", "PASSWORD=", "pi_key", "pikey",
    "pi-key", "piKey", "assword", "asswd", "assphrase", "ecret", "ccess_token", "ccess-token", "ccessToken",
    "efresh_token", "uth_token", "ession_token", "dop_v1_",
)  # fmt: skip
"""Parts, one of which is in every text in which something can be found. A test holds this to the patterns."""

_PLUGINS: Final = (
    ("aws", "AWSKeyDetector"),
    ("azure_storage_key", "AzureStorageKeyDetector"),
    ("basic_auth", "BasicAuthDetector"),
    ("github_token", "GitHubTokenDetector"),
    ("gitlab_token", "GitLabTokenDetector"),
    ("jwt", "JwtTokenDetector"),
    ("mailchimp", "MailchimpDetector"),
    ("npm", "NpmDetector"),
    ("openai", "OpenAIDetector"),
    ("pypi_token", "PypiTokenDetector"),
    ("sendgrid", "SendGridDetector"),
    ("slack", "SlackDetector"),
    ("square_oauth", "SquareOAuthDetector"),
    ("stripe", "StripeDetector"),
    ("telegram_token", "TelegramBotTokenDetector"),
)
"""Modules and classes of detect-secrets."""

_MAYBE: Final = (
    r"A3T[A-Z0-9]|A[KS]IA|ABIA|ACCA|(?i:aws).{0,60}['\"][0-9a-zA-Z/+]{40}|AccountKey=|://[^\s/:]*:[^\s/@]*@|gh[pousr]_[A-Za-z0-9]{9}"
    r"|gl[a-z]{2,6}-[\w-]{16}|GR1348941|[0-9a-z]{32}-us\d|_authToken|T3BlbkFJ|PRIVATE KEY|PuTTY-User-Key|pypi-Ag|SG\.[\w-]{22}\."
    r"|xox[a-z]-|hooks\.slack|sq0csp-|[rs]k_live_|\d:AA|(?<![\w-])eyJ[\w-]{4,}\."
)
"""What stands in every text in which one of `_PLUGINS` finds something."""

_AROUND: Final = 500
"""Characters on both sides of a place of `_MAYBE` that the detector sees; its longest secrets have about 200."""
_VALUE: Final = r"(?P<secret>[^\s\"'\\,;&<>(){}\[\]$*|]{8,})"
_QUOTE: Final = r"(?:\\{0,4}[\"'])?"
"""Around a name or its value; with strokes before it where the text is JSON inside of JSON."""
_OURS: Final[Mapping[str, str]] = {
    "private key": (
        r"(?s)-{5}BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-{5}.*?"
        r"(?:-{5}END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-{5}|\Z)|PuTTY-User-Key-File-\d:.*"
    ),
    "AWS key": (r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}"),
    "AWS session token": (r"(?:FwoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9+/=%_-]{16,}"),
    "Google key": (r"\bAIza[\w-]{30,}|\bya29\.[\w.-]{16,}|\bGOCSPX-[\w-]{16,}"),
    "Stripe key": (r"\b(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{10,}|\bwhsec_[\w+/=]{16,}"),
    "GitHub token": (r"\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}"),
    "GitLab token": (r"\bgl(?:pat|dt|ft|soat|rt|ptt)-[\w-]{16,}"),
    "npm token": (r"\bnpm_[A-Za-z0-9]{30,}"),
    "PyPI token": (r"\bpypi-AgE[\w-]{16,}"),
    # Names such as hf_transformers have no digit and no capital.
    "Hugging Face token": (r"\bhf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{8,}|\bhf_[a-z]{30,}"),
    # OpenAI, Anthropic, OpenRouter, DeepSeek; words such as sk-learn-estimators have no digit.
    "API key": (r"(?<!\w)(?<!\w-)sk-(?=[A-Za-z_-]*\d)[\w-]{16,}"),
    "key of an inference service": (
        r"\bnvapi-[\w-]{8,}|\bgsk_[A-Za-z0-9]{20,}|\bxai-[A-Za-z0-9]{20,}|\br8_[A-Za-z0-9]{20,}|\bpplx-[a-zA-Z0-9]{20,}"
        r"|\bdop_v1_[a-f0-9]{32,}"
    ),
    "Slack token": (r"\bxox[a-z]-[\w-]{8,}|\bxapp-\d-[\w-]{8,}"),
    "web token": (r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"),
    "bearer": (r"(?i)\bbearer[ :]+(?P<secret>[\w.~+/-]{8,}=*)"),
    "authorization": (
        rf"(?i)\b(?:proxy-)?authorization{_QUOTE}\s*[:=]\s*{_QUOTE}(?:\w+ +)?(?P<secret>[^\s\"',;\\]{{8,}})"
    ),
    # One stroke too: what takes an address for a path makes one of two.
    "user and password in a URL": (r":/{1,2}(?P<secret>[^/@\s:\"']*:[^/@\s\"']+)@"),
    "Slack hook": (r"hooks\.slack\.com/services/(?P<secret>T\w+/B\w+/\w+)"),
    "value in a URL's query": (
        r"(?i)(?<=[?&;])(?:[\w.-]{0,60}(?:token|secret|passw|signature|credential|api-?_?key)[\w.-]{0,60}|sig|key|auth)="
        r"(?P<secret>[^&\s#\"'*]+)"
    ),
    "variable": (
        rf"\b[A-Z][A-Z0-9_]*(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?){_QUOTE}\s?[=:]\s?{_QUOTE}{_VALUE}"
    ),
    "named value": (
        r"(?i)(?<![\w.-])[\w.-]*(?:api[_-]?key|secret(?:[_-]?(?:access[_-]?)?key)?|passw(?:or)?d|passphrase|account[_-]?key"
        r"|shared[_-]?access[_-]?(?:key|signature)|(?:access|auth|refresh|session|security)[_-]?token)"
        rf"{_QUOTE}(?: ?= ?|: ?(?=\\{{0,4}}[\"'])|: ?(?=\S{{0,60}}\d)){_QUOTE}{_VALUE}"
    ),
}
"""What detect-secrets does not know, or knows by its beginning only. ``secret``: the part to take out, if not all.

A name may have 300,000 characters: no pattern begins at many places of one word and looks at the rest of it from each.
"""


def is_secret_name(name: str) -> bool:
    """Whether a variable or an option is named like one that holds a secret."""
    return bool(re.search(_SECRET_NAME, name))


def redacted(text: str, values: Sequence[str] = ()) -> str:
    """Take out what looks like a secret, and what is known to be one.

    Args:
        text: of any length and with any line ends.
        values: secrets that are known, the longest first, as `secret_values` gives them.

    Returns:
        The text with `REDACTED` in their places; the text itself where there is none.
    """
    for value in values:
        if value in text:
            text = text.replace(value, REDACTED)
    if not any(mark in text for mark in _MARKS):
        return text
    if "PRIVATE KEY" in text or "PuTTY-User-Key" in text:  # the only ones of several lines
        text = re.sub(_OURS["private key"], REDACTED, text)
    return "\n".join(
        _redacted_line(line) if any(mark in line for mark in _MARKS) else line for line in text.split("\n")
    )


def _redacted_line(text: str) -> str:
    for pattern in _ours():
        text = _without(text, [_secret_of(match) for match in pattern.finditer(text)])
    # Around each place only: the detector's patterns are not made for lines of any length. From the end, so that the
    # places before stay what they are.
    seen = len(text) + _AROUND
    for place in reversed([match.start() for match in re.finditer(_MAYBE, text)]):
        if place > seen - _AROUND // 2:  # well inside what was looked at before
            continue
        seen = place
        start, end = max(0, place - _AROUND), place + _AROUND
        window = text[start:end]
        for pattern, valid in _detector():
            matches = [match for match in pattern.finditer(window) if valid is None or valid(match.group())]
            window = _without(window, [_secret_of(match) for match in matches])
        text = f"{text[:start]}{window}{text[end:]}"
    return text


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    for start, end in reversed(spans):  # from the end, so that the places before stay what they are
        if text[start:end] != REDACTED:
            text = f"{text[:start]}{REDACTED}{text[end:]}"
    return text


def redacted_plain(value: Any, values: Sequence[str] = ()) -> Any:
    """Take secrets out of every text of what JSON holds; keys are ours."""
    if isinstance(value, str):
        return redacted(value, values)
    if isinstance(value, dict):
        return {key: redacted_plain(inner, values) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted_plain(inner, values) for inner in value]
    return value


def redacted_each(texts: Sequence[str]) -> Sequence[str]:
    """Take secrets out of many texts; the sequence itself where nothing looks like one."""
    together = "\0".join(texts)
    if not any(mark in together for mark in _MARKS):
        return texts
    return [redacted(text) for text in texts]


def secret_values(environ: Mapping[str, str], names: Iterable[str] = ()) -> tuple[str, ...]:
    """Values of variables that are named like secrets, and long and odd enough to be blanked wherever they stand.

    Args:
        environ: an environment.
        names: variables whose values are secrets whatever they are called and look like.

    Returns:
        The longest first, so that none hides inside another. Left out are paths, numbers, and words of small letters:
        to blank them would blank what is no secret.
    """
    certain = {environ[name] for name in names if len(environ.get(name, "")) >= 4}
    likely = {value for name, value in environ.items() if is_secret_name(name) and _is_odd(value)}
    return tuple(sorted(certain | likely, key=lambda value: (-len(value), value)))


def _is_odd(value: str) -> bool:
    if len(value) < 8 or value.startswith(("/", "./", "~", "unix:")) or value.isdecimal():
        return False
    return not value.isalpha() or value.lower() != value or len(value) >= 16


@cache
def _ours() -> tuple[re.Pattern[str], ...]:
    """Compiled at the first text that has a mark: most traces have none."""
    return tuple(map(re.compile, _OURS.values()))


@cache
def _detector() -> tuple[tuple[re.Pattern[str], Callable[[str], bool] | None], ...]:
    """Patterns of detect-secrets, each with its check of a match, if it has one.

    Its ``analyze_string`` gives a match without its place, and of a pattern with groups the groups alone: ``ghp``.
    """
    from importlib import import_module

    patterns: list[tuple[re.Pattern[str], Callable[[str], bool] | None]] = []
    for module, name in _PLUGINS:
        plugin: Any = getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
        patterns += [(pattern, getattr(plugin, "is_formally_valid", None)) for pattern in plugin.denylist]
    return tuple(patterns)


def _secret_of(match: re.Match[str]) -> tuple[int, int]:
    """The group that is a secret by its name or its length, else all that matched."""
    if "secret" in match.re.groupindex and match["secret"] is not None:
        return match.span("secret")
    groups = [number for number, text in enumerate(match.groups(), start=1) if text is not None and len(text) >= 8]
    return match.span(groups[0]) if groups else match.span()
