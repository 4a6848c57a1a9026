r"""Secrets taken out of a text: keys, tokens, passwords, by their form or by the name that they are given.

What a key of which service looks like is detect-secrets' knowledge; `_OURS` has what that does not know. Its plugins are
chosen one by one: those for random strings and for names alone would blank hashes, kernel names and paths, and those for
short patterns without a mark of their own (Twilio, Discord, Artifactory, IBM, Cloudant, SoftLayer) mangled names.

A text is looked at if it holds one of `_MARKS` or `_FOLDED_MARKS`: each pattern needs one of them. The detector takes a
sixth of a second to import, so it is asked about what `_MAYBE` finds when ours have been taken out: each of its patterns
needs a part of that.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus

__all__ = [
    "REDACTED",
    "encoded_forms",
    "is_secret_name",
    "redacted",
    "redacted_each",
    "redacted_plain",
    "secret_values",
    "written_forms",
]

REDACTED: Final = "***"
"""What stands in a secret's place."""

_SECRET_NAME: Final = (
    r"(?i)token(?!s\b|iz)|(?-i:^(?:\w*(?:API|ACCESS|AUTH|HF|HUB|SECRET|USER)_)?TOKENS$)|secret|passw|passphrase|passcode"
    r"|(?<!forward)(?<!backward)(?<!first)(?<!second)(?<!single)(?<!multi)(?<!one)(?<!two)[_-]pass\b|(?-i:^PASS$)"
    r"|[_-](?:pwd|pw|dsn)\b|\bdsn\b|credential|api_?key|_key(?:_?\d{1,3})?\b|\bkey(?:_?\d{1,3})?\b|_pat\b|auth(?!or)|cookie"
    r"|webhook|access[_-]?code|(?:database|db|redis|mongo(?:db)?|postgres(?:ql)?|mysql|amqp|broker)[_-]ur[li]\b"
)
"""Not names that count: ``max_new_tokens``, ``forward_pass``; nor ``PWD``, a folder."""
_HARMLESS_NAME: Final = (
    r"(?i)(?<![a-z0-9])(?:eos|bos|pad|unk|sep|cls|mask|image|img|video|audio|special|stop|first|next|last|per|num|max|min|draft"
    r"|prompt|thinking)[_-]?token(?![a-z])|token[_-]?(?:id|idx|index|num|count|budget|limit|len|length|type|pos|position"
    r"|latency|rate|ratio|embedding|pruning|merging)s?(?![a-z])"
)
"""Parts of names that are a model's own: ``eos_token_id``, ``token_ids``."""
_NAME_OF_A_PLACE: Final = r"(?i)(?:file|path|dir|folder)s?\Z"
"""What says where a secret lies, such as ``--password-file``, holds none."""
_STRICT_NAME: Final = r"(?i)pass|secret|token|[_-]pwd?\b"
"""Of what is named so, a word of small letters may be the secret itself."""
_PLAIN_WORDS: Final = frozenset({
    "anonymous", "automatic", "changeme", "development", "disabled", "external", "insecure", "internal", "localhost",
    "optional", "password", "placeholder", "production", "required", "tokenizer", "undefined", "username", "whatever",
})  # fmt: skip
"""Values of eight letters and more that no variable makes a secret: to blank them would blank ordinary texts."""

_MARKS: Final = (
    "AKIA", "ASIA", "ABIA", "ACCA", "A3T", "FwoGZXIvYXdz", "IQoJb3JpZ2lu", "ghp_", "gho_", "ghu_", "ghs_", "ghr_",
    "github_pat_", "glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "GR1348941", "glcbt-", "glimt-", "glptt-", "glagent-",
    "gloas-", "AIza", "ya29.", "GOCSPX-", "sk_", "rk_", "whsec_", "sk-", "npm_", "pypi-", "PuTTY-User-Key",
    "eyJ", "hf_", "nvapi-", "gsk_", "xai-", "r8_", "pplx-", "xox", "xapp-", "hooks.slack.com", "SG.", "sq0csp-", "-us",
    ":AA", ":/", "dop_v1_", "dckr_pat_", "dapi", "hvs.", "shp", "ATATT3", "lin_api_", "-u ", "KEY",
    "_PAT", "_AUTH", "_PW", "WEBHOOK", "ACCESS_CODE",
)  # fmt: skip
"""Parts, one of which is in every text in which something can be found, unless one of `_FOLDED_MARKS` is.

A test holds both to the patterns.
"""
_FOLDED_MARKS: Final = (
    "aws", "bearer", "authorization", "secret", "pass", "pi_key", "pikey", "pi-key", "ntkey", "nt_key", "nt-key", "redaccess",
    "red_access", "red-access", "token", "cookie", "subscription", "pwd", "credential", "signature=",
)  # fmt: skip
"""The same of patterns that take capitals and small letters for the same: looked for in the text in small letters."""

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

_UNSEEN: Final = (
    r"\x1b\[[0-9;:?]{0,40}[A-Za-z]|\x1b[()][0-9A-Z]|\x1b\][^\x07\x1b\n]{0,400}(?:\x07|\x1b\\)"
    r"|[\u00ad\u200b-\u200f\u2060\ufeff]"
)
"""What splits a text without being seen in it: ANSI escapes of colours, sets of letters and links, characters without width."""
_AROUND: Final = 500
"""Characters on both sides of a place of `_MAYBE` that the detector sees; its longest secrets have about 200."""
_SEPARATOR: Final = r"[,;&](?=[^\s\"'\\,;&<>(){}\[\]|])(?!\s?[\w.%-]{1,60}[=:])"
"""Inside of a value; before a blank, a bracket or another name it ends the value."""
_BRACKET: Final = r"(?:[>(){}\[\]|]|<(?![/|]))(?=[<>(){}\[\]|]{0,8}[^\s\"'\\,;&<>(){}\[\]|])"
"""Inside of a value; what closes behind it does not belong to it."""
_PLAIN: Final = (
    rf"(?P<secret>[^\s\"'\\,;&<>(){{}}\[\]$*|](?:[^\s\"'\\,;&<>(){{}}\[\]|]|{_SEPARATOR}|{_BRACKET}){{7,400}})"
)
_QUOTED: Final = (
    r"(?P<quote>\\{0,4}[\"'])(?!\$\{?\w+\}?\\{0,4}[\"']|\*{3}"
    r"|(?:<[\w .:|-]{0,80}>|[{]{1,2}[\w .:!-]{0,80}[}]{1,2}|\[[\w .:-]{0,80}\]|\([\w .:-]{0,80}\))(?P=quote))"
    r"(?P<quoted>(?:(?!(?P=quote)).){8,400})(?=(?P=quote))"
)
"""A value in quotes may be of several words. ``$NAME``, ``<your key>``, ``{key}`` and ``(none)`` are no values."""
_VALUE: Final = rf"(?:{_QUOTED}|(?:\\{{0,4}}[\"'])?{_PLAIN})"
_MIXED: Final = (
    r"(?!(?:torch\.)?(?:b?float|u?int|complex|fp|bf)\d)"
    r"(?=[^\s\"'\\,;&<>(){}\[\]$*|]{0,60}\d)(?=[^\s\"'\\,;&<>(){}\[\]$*|]{0,60}[A-Za-z])"
)
"""Before a value: it has letters and digits, as a number, a word and a special token (``<|image|>``) have not.

Before a bracket, if there is one: ``token=Embedding(128)`` is a call.
"""
_MIXED_WITH_BRACKETS: Final = r"(?!--[A-Za-z])(?=[^\s\"'\\,;&$*]{0,60}\d)(?=[^\s\"'\\,;&$*]{0,60}[A-Za-z])"
"""The same where what stands there can hardly be anything else."""
_QUOTE: Final = r"(?:\\{0,4}[\"'])?"
"""Around a name or its value; with strokes before it where the text is JSON inside of JSON."""
_ALONE: Final = r"(?<![A-Za-z0-9])"
"""Before a key, which may be joined to a name: ``step_ghp_…``."""
_OURS: Final[Mapping[str, str]] = {
    "private key": (
        r"(?s)-{5}BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-{5}.*?"
        r"(?:-{5}END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-{5}|\Z)|PuTTY-User-Key-File-\d:.*"
    ),
    "AWS key": _ALONE + r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}",
    "AWS session token": (r"(?:FwoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9+/=%_-]{16,}"),
    "Google key": _ALONE + r"(?:AIza[\w-]{30,}|ya29\.[\w.-]{16,}|GOCSPX-[\w-]{16,})",
    "Stripe key": _ALONE + r"(?:(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{10,}|whsec_[\w+/=]{16,})",
    "GitHub token": _ALONE + r"(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,})",
    "GitLab token": _ALONE + r"gl(?:pat|dt|ft|soat|rt|ptt)-[\w-]{16,}",
    "npm token": _ALONE + r"npm_[A-Za-z0-9]{30,}",
    "PyPI token": _ALONE + r"pypi-AgE[\w-]{16,}",
    # Names such as hf_transformers have no digit and no capital.
    "Hugging Face token": r"\bhf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{8,}|" + _ALONE + r"hf_[A-Za-z0-9]{30,}",
    # OpenAI, Anthropic, OpenRouter, DeepSeek; words such as sk-learn-estimators have no digit.
    "API key": _ALONE + r"(?<!\w-)sk-(?=[A-Za-z_-]{0,60}\d)[\w-]{16,}",
    "key of an inference service": _ALONE
    + (r"(?:nvapi-[\w-]{8,}|(?:gsk_|xai-|r8_|pplx-)[A-Za-z0-9]{20,}|dop_v1_[a-f0-9]{32,})"),
    "token of a service": _ALONE
    + (
        r"(?:dckr_pat_[\w-]{16,}|dapi[0-9a-f]{32}(?:-\d)?|hvs\.[\w-]{16,}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"
        r"|ATATT3[\w=-]{20,}|AGE-SECRET-KEY-1[0-9A-Z]{20,}|lin_api_[A-Za-z0-9]{20,})"
    ),
    "Slack token": _ALONE + r"(?:xox[a-z]-[\w-]{8,}|xapp-\d-[\w-]{8,})",
    "web token": (r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"),
    "bearer": (r"(?i)(?<![a-z0-9])bearer[ :]+(?P<secret>[\w.~+/-]{8,}=*)"),
    "authorization": (
        rf"(?i)(?<![a-z0-9])(?:proxy-)?authorization{_QUOTE}\s*[:=]\s*{_QUOTE}(?:\w+ +)?(?P<secret>[^\s\"',;\\]{{8,}})"
    ),
    # Not registry:5000/image@sha256:…, where a port stands before the stroke, nor a list of folders (/a:/b:/c@1). One
    # stroke too: what takes an address for a path makes one of two.
    "password with a stroke in a URL": (
        r":/{1,2}(?P<secret>[^/@\s:\"',<>|]{0,100}:(?!/|\d{1,5}[/?#,;])[^\s\"',<>|]{1,200})@(?=[\w-]+[\w.-]*(?:[:/?#\s\"']|\Z))"
    ),
    # A password may hold an @.
    "user and password in a URL": (r":/{1,2}(?P<secret>[^/@\s:\"']*:[^/\s\"']+)@"),
    "token in a URL": (r":/{1,2}(?P<secret>(?=[A-Za-z_-]{0,60}\d)[\w.~%-]{20,})@"),
    "Slack hook": (r"hooks\.slack\.com/services/(?P<secret>T\w+/B\w+/\w+)"),
    "value in a URL's query": (
        r"(?i)(?<=[?&;])(?:[\w.-]{0,60}(?:token|secret|passw|signature|credential|api-?_?key)[\w.-]{0,60}|sig|key|auth)="
        r"(?P<secret>[^&\s#\"'*]+)"
    ),
    "variable": (
        r"(?<![A-Z0-9])(?:[A-Z][A-Z0-9_]{0,80}(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASSCODE|CREDENTIALS?|ACCESS_CODE|WEBHOOK)"
        rf"|ACCESS_CODE|WEBHOOK)(?:_?\d{{1,3}})?{_QUOTE}\s?[=:]\s?{_VALUE}"
    ),
    # FORWARD_PASS is none, and neither is a folder.
    "variable of a password": (
        r"\b[A-Z][A-Z0-9_]*(?<!FORWARD)(?<!BACKWARD)(?<!FIRST)(?<!SECOND)(?<!SINGLE)(?<!MULTI)(?<!ONE)(?<!TWO)"
        rf"_(?:PASS|PWD|PW|AUTH|PAT)(?:_?\d{{1,3}})?=(?![\"']?/){_VALUE}"
    ),
    "named value": (
        r"(?i)(?<![\w.-])[\w.-]*(?:api[_-]?key|secret(?:[_-]?(?:access[_-]?)?key)?|passw(?:or)?d|passphrase|passcode"
        r"|account[_-]?key|subscription[_-]?key|shared[_-]?access[_-]?(?:key|signature)"
        r"|(?:db|mysql|user|root|admin)[_-](?:pass|pwd)"
        r"|(?:access|api|auth|bot|csrf|github|gitlab|hf|hub|jwt|private|refresh|security|session|vault)[_-]?token)"
        rf"{_QUOTE}(?: ?= ?|: ?(?=\\{{0,4}}[\"'])|: ?(?=\S{{0,60}}\d)){_VALUE}"
    ),
    "token": (rf"(?i)(?<![\w.-])token{_QUOTE}\s?[=:]\s?{_QUOTE}{_MIXED}{_PLAIN}"),
    "option": (
        r"(?i)(?<![\w-])-{1,2}(?:[\w-]{0,40}[_-])?(?:token|passw(?:or)?d|passphrase|secret|api[_-]?key)[ =]"
        rf"(?:{_QUOTED}|{_QUOTE}{_MIXED_WITH_BRACKETS}{_PLAIN})"
    ),
    # 1000:1000 and app:app are a user and a group.
    "user and password": (
        r"(?<![\w-])(?:-u|--(?:proxy-)?user)[ =](?:"
        r"(?P<quote>\\{0,4}[\"'])[^\s\"':/\\]{1,60}:(?!\*{3}|\$)"
        r"(?=[^\"']{0,60}[^\w\"'\\.:$-]|(?=[^\"']{0,60}\d)[^\"']{0,60}[A-Za-z])"
        r"(?P<quoted>(?:(?!(?P=quote)).){6,400})(?=(?P=quote))"
        r"|[\"']?[^\s\"':/]{1,60}:(?P<secret>(?=\S{0,60}\d)(?=\S{0,60}[A-Za-z])[^\s\"']{6,400}))"
    ),
    "cookie": (
        rf"(?i)(?<![a-z0-9])(?:set-)?cookie{_QUOTE}: ?{_QUOTE}(?P<secret>[\w.-]{{1,60}}=(?!\*{{3}})[^\r\n\"'\\]{{6,}})"
    ),
}
"""What detect-secrets does not know, or knows by its beginning only. ``secret``: the part to take out, if not all.

A name may have 300,000 characters: no pattern begins at many places of one word and looks at the rest of it from each.
"""


def is_secret_name(name: str) -> bool:
    """Whether a variable or an option is named like one that holds a secret."""
    if re.search(_NAME_OF_A_PLACE, name):
        return False
    return bool(re.search(_SECRET_NAME, re.sub(_HARMLESS_NAME, "", name)))


def redacted(text: str, values: Sequence[str] = (), taken: set[str] | None = None) -> str:
    """Take out what looks like a secret, and what is known to be one.

    Args:
        text: of any length and with any line ends.
        values: secrets that are known, the longest first, as `secret_values` gives them.
        taken: gets what was taken out because it looks like a secret.

    Returns:
        The text with `REDACTED` in their places; the text itself where there is none.
    """
    for value in values:
        if value in text:
            text = text.replace(value, REDACTED)
    if _has_unseen(text):
        text = _without_split_secrets(text, values, taken)
    if not _has_a_mark(text):
        return text
    if "PRIVATE KEY" in text or "PuTTY-User-Key" in text:  # the only ones of several lines
        text = _without(text, [match.span() for match in re.finditer(_OURS["private key"], text)], taken)
    if "\n" not in text:
        return _redacted_line(text, taken)
    return "\n".join(_redacted_line(line, taken) if _has_a_mark(line) else line for line in text.split("\n"))


def _has_a_mark(text: str) -> bool:
    # Loops: `any` over a generator takes half as long again, and most names are short.
    for mark in _MARKS:
        if mark in text:
            return True
    lowered = text.lower()
    for mark in _FOLDED_MARKS:  # noqa: SIM110
        if mark in lowered:
            return True
    return False


def _has_unseen(text: str) -> bool:
    return ("\x1b" in text or not text.isascii()) and re.search(_UNSEEN, text) is not None


def _without_split_secrets(text: str, values: Sequence[str], taken: set[str] | None) -> str:
    """Take out secrets that colours or characters without width split; a line with one loses all of these."""
    lines = text.split("\n")
    for place, line in enumerate(lines):
        plain = re.sub(_UNSEEN, "", line)
        if plain == line:
            continue
        # What is found as the line is need not lose its colours.
        shown = re.sub(_UNSEEN, "", redacted_line) if (redacted_line := _redacted_line(line)) != line else plain
        cleaned = redacted(shown, values, taken)
        if cleaned != shown:
            lines[place] = cleaned
    return "\n".join(lines)


def _redacted_line(text: str, taken: set[str] | None = None) -> str:
    for pattern in _ours():
        text = _without(text, [_secret_of(match) for match in pattern.finditer(text)], taken)
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
            window = _without(window, [_secret_of(match) for match in matches], taken)
        text = f"{text[:start]}{window}{text[end:]}"
    return text


def _without(text: str, spans: Sequence[tuple[int, int]], taken: set[str] | None) -> str:
    for start, end in reversed(spans):  # from the end, so that the places before stay what they are
        if text[start:end] != REDACTED:
            if taken is not None:
                secret = text[start:end]
                taken.add(secret)
                if ":" in secret:  # a user and a password: that is one by itself
                    taken.add(secret.partition(":")[2])
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
    if _has_unseen(together):
        return [redacted(text) for text in texts]
    if not _has_a_mark(together):
        return texts
    # Few marks stand in all of a trace's names: each name is asked for those alone.
    lowered = together.lower()
    marks = [mark for mark in _MARKS if mark in together]
    folded = [mark for mark in _FOLDED_MARKS if mark in lowered]
    return [
        redacted(text)
        if any(mark in text for mark in marks) or (folded and any(mark in text.lower() for mark in folded))
        else text
        for text in texts
    ]


def secret_values(environ: Mapping[str, str], names: Iterable[str] = ()) -> tuple[str, ...]:
    """Values of variables that are named or look like secrets, in the forms in which they may be printed.

    Args:
        environ: an environment.
        names: variables whose values are secrets whatever they are called and look like.

    Returns:
        The longest first, so that none hides inside another. Left out are values below eight characters, paths that are
        there, plain words, and words of small letters in what is not named like a password, secret or token: to blank
        them would blank what is no secret.
    """
    return _secret_values(frozenset(environ.items()), frozenset(names))


@lru_cache(maxsize=8)
def _secret_values(variables: frozenset[tuple[str, str]], names: frozenset[str]) -> tuple[str, ...]:
    """Asked for before each line that is printed, and an environment seldom changes."""
    values: set[str] = set()
    for name, value in variables:
        if name in names and len(value) >= 4:
            values.add(value)
        elif is_secret_name(name):
            if _is_odd(name, value):
                values.add(value)
        else:
            looking_like_one: set[str] = set()
            redacted(value, taken=looking_like_one)
            values |= {text for text in looking_like_one if len(text) >= _SHORTEST_ENCODED}
    return tuple(sorted(written_forms(values), key=lambda value: (-len(value), value)))


def written_forms(values: Iterable[str]) -> set[str]:
    """Texts, and how each is printed as JSON, by ``repr``, in an address, in a page, for a shell; and `encoded_forms`."""
    import html  # here, for its table of entities takes a millisecond, and most processes know no secret

    values = set(values)
    forms = values | encoded_forms(values)
    for value in values:
        if value.isalnum() and value.isascii():
            continue
        for in_json in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
            forms |= {in_json[1:-1], json.dumps(in_json)[3:-3]}
        encoded = _bytes_of(value)
        forms |= {repr(value)[1:-1], ascii(value)[1:-1], repr(encoded)[2:-1]}
        for address in (quote(encoded, safe=""), quote(encoded), quote_plus(encoded)):
            forms |= {address, re.sub(r"%[0-9A-F]{2}", lambda match: match.group().lower(), address)}
        forms |= {
            html.escape(value),
            html.escape(value, quote=False),
            html.escape(value, quote=False).replace('"', "&quot;"),
        }
        quoted = shlex.quote(value)
        forms |= {
            quoted[1:-1] if quoted != value else value,
            value.replace("'", r"'\''"),
            re.sub(r"([\\\"$`])", r"\\\1", value),
            re.sub(r"([^\w@%+=:,./-])", r"\\\1", value, flags=re.ASCII),
        }
    return forms


_SHORTEST_ENCODED: Final = 8
"""Bytes; of fewer, base64 has eight letters or less, which stand in many a random text."""


def encoded_forms(values: Iterable[str]) -> set[str]:
    """How texts of eight bytes and more stand in base64, in hexadecimal digits, and as UTF-16.

    Base64 packs three bytes into four letters, so a text looks in three ways, as it stands behind 0, 1 or 2 others: of
    each, those letters that no neighbour changes. Bytes that are no UTF-8 are written as ``surrogateescape`` does.
    """
    forms: set[str] = set()
    for value in values:
        plain = _bytes_of(value)
        if len(plain) < _SHORTEST_ENCODED:
            continue
        forms |= {plain.hex(), plain.hex().upper()}
        for before in range(3):
            end = (before + len(plain)) * 8 // 6
            letters = base64.b64encode(b"\0" * before + plain).decode()[-(-before * 8 // 6) : end]
            forms |= {letters, letters.translate(str.maketrans("+/", "-_"))}
        if value.isascii():
            forms.add("\0".join(value))  # of both byte orders
        else:
            wide = value.encode("utf-16-le", "surrogatepass"), value.encode("utf-16-be", "surrogatepass")
            forms |= {text.decode("utf-8", "surrogateescape") for text in wide}
    return forms


def _bytes_of(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _is_odd(name: str, value: str) -> bool:
    if len(value) < 8 or value.startswith("unix:") or value.lower() in _PLAIN_WORDS:
        return False
    # os.path, for Path.expanduser raises where there is no such user.
    if ("/" in value or value.startswith("~")) and os.path.exists(os.path.expanduser(value)):  # noqa: PTH110, PTH111
        return False
    return not (value.isalpha() and value.islower()) or len(value) >= 16 or bool(re.search(_STRICT_NAME, name))


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
    for name in ("secret", "quoted"):
        if name in match.re.groupindex and match[name] is not None:
            return match.span(name)
    groups = [number for number, text in enumerate(match.groups(), start=1) if text is not None and len(text) >= 8]
    return match.span(groups[0]) if groups else match.span()
