"""The environment that a profiled program gets, and what must not be written down of its command line.

nsys copies the whole environment of what it starts into its report. So the child starts with an allow-list of names
(`runner.process.variables`), and nothing whose value is a secret by its form passes, unless it was asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Final

from analysis.domain.redaction import REDACTED, is_secret_name, redacted, secret_values, written_forms
from runner.process.program_log import redact_log
from runner.process.python import import_path
from runner.process.variables import ALLOWED, ENGINES, FAMILIES

__all__ = [
    "REDACTED",
    "RUN_MARK",
    "child_environment",
    "clean_log",
    "left_out",
    "left_out_note",
    "looks_secret",
    "own_secrets",
    "program_environment",
    "redact",
    "redact_text",
    "secrets_of",
]

RUN_MARK: Final = "DSOCR_PROFILE_RUN"
"""Set to the run's id in everything that a run starts, so that what is left of it can be found and ended."""

_ASSIGNMENT: Final = re.compile(r"(?P<name>-{0,2}[\w.-]*)(?P<equals>=)(?P<value>.*)", re.DOTALL)
_SHORTEST_SECRET: Final = 4
_SHORTEST_ALONE: Final = 8
_TAKES_A_VALUE: Final = r"(?i)(?:passw(?:or)?d|passphrase|passcode|secret|token|key)\Z"
_USER_OPTIONS: Final = frozenset({"-u", "-U", "--user", "--proxy-user"})
_USER: Final = re.compile(
    r"(?P<option>--(?:proxy-)?user=|-[uU](?=[^\s:]+:))?(?P<name>[^\s:/=]*):(?!(?P=name)\Z|\d*\Z)(?P<secret>[^/].*)",
    re.DOTALL,
)
"""Of curl and its like. ``1000:1000`` and ``app:app`` are a user and a group, ``host:/path`` is a place."""
_HEADER_OPTIONS: Final = frozenset({"-H", "--header", "--proxy-header"})
_HEADER: Final = re.compile(r"(?P<option>--(?:proxy-)?header=|-H)?(?P<name>[\w.-]+)\s*:\s*(?P<secret>\S.*)", re.DOTALL)
_PASSWORD_OPTIONS: Final = {
    **dict.fromkeys(
        ("mysql", "mysqladmin", "mysqldump", "mariadb", "mariadb-admin", "mariadb-dump"), frozenset({"-p"})
    ),
    "sshpass": frozenset({"-p"}),
    "redis-cli": frozenset({"-a"}),
}
"""Programs whose short option holds a password; that of others is a port or a path."""


def looks_secret(name: str, value: str = "") -> bool:
    """Say whether a variable must be taken for a secret: by its name, or by a value that has a known token's form."""
    return is_secret_name(name) or redacted(value) != value


def child_environment(
    environ: Mapping[str, str], *, keep: Iterable[str] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Choose what a profiled program may see.

    Args:
        environ: the launcher's own environment.
        keep: names that the user asked to keep; they pass even if they look secret.
        extra: set on top.

    Returns:
        The allow-listed variables, and those by which our own packages are found. The Hugging Face hub is switched
        offline: models are resolved before the child starts, so it needs no token.
    """
    chosen = _chosen(environ, keep, ALLOWED)
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_HUB_DISABLE_TELEMETRY", "1"), ("PYTHONUNBUFFERED", "1")):
        chosen.setdefault(name, value)
    chosen.pop("PYTHONPATH", None)
    return {**chosen, **import_path(environ), **(extra or {})}


def program_environment(
    environ: Mapping[str, str], *, keep: Iterable[str] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Choose what a program that is not ours may see: the allow-list, and nothing about where our packages are.

    Args:
        environ: the launcher's own environment.
        keep: names that the user asked to keep; they pass even if they look secret.
        extra: set on top.
    """
    chosen = _chosen(environ, keep, ALLOWED | ENGINES)
    chosen.setdefault("PYTHONUNBUFFERED", "1")  # a log that ends where the program did
    return {**chosen, **(extra or {})}


def _chosen(environ: Mapping[str, str], keep: Iterable[str], allowed: Set[str]) -> dict[str, str]:
    asked_for = set(keep)
    return {
        name: value
        for name, value in environ.items()
        if name in asked_for or (name in allowed and redacted(value) == value)
    }


def left_out(environ: Mapping[str, str], chosen: Mapping[str, str]) -> tuple[str, ...]:
    """Names of variables that would change what the program does, and that it does not get.

    Args:
        environ: the launcher's own environment.
        chosen: what the program gets, of `child_environment` or `program_environment`.
    """
    return tuple(
        sorted(
            name for name in environ if name.startswith(FAMILIES) and name not in chosen and not is_secret_name(name)
        )
    )


def left_out_note(environ: Mapping[str, str], chosen: Mapping[str, str]) -> tuple[str, ...]:
    """What to tell of `left_out`, in no or one sentence."""
    names = left_out(environ, chosen)
    if not names:
        return ()
    return (f"not passed on to the program: {', '.join(names)} (--keep-env NAME passes one on)",)


def secrets_of(argv: Sequence[str], environ: Mapping[str, str], keep: Iterable[str] = ()) -> tuple[str, ...]:
    """List the texts that must not be written down: what `redact` blanks in ``argv``, and kept variables named like secrets.

    Values of other variables that are named so are among them if they stand in ``argv``.

    Returns:
        The longest first, so that none hides inside another. Texts below four characters are left out: to blank them
        wherever they stand would blank other words.
    """
    texts = {value for name in keep if (value := environ.get(name)) and looks_secret(name, value)}
    for argument, shown in zip(argv, redact(argv), strict=True):
        if argument == shown:
            continue
        pattern = "(.*)".join(re.escape(part) for part in shown.split(REDACTED))
        match = re.fullmatch(pattern, argument, re.DOTALL)
        texts.update(match.groups() if match else (argument,))
    # Of a user and a password in an address, the password may be printed without its user.
    texts |= {rest for text in texts if len(rest := text.partition(":")[2]) >= _SHORTEST_ALONE}
    texts.update(value for value in secret_values(environ) if any(value in argument for argument in argv))
    return tuple(sorted(written_forms(text for text in texts if len(text) >= _SHORTEST_SECRET), key=len, reverse=True))


def own_secrets() -> tuple[str, ...]:
    """Values in this process's environment that must be written down nowhere, whoever prints them; the longest first."""
    return secret_values(os.environ)


def clean_log(log: Path, secrets: Sequence[str] = ()) -> None:
    """Take secrets out of what a program printed: its command line, its environment, what looks like one.

    Args:
        log: rewritten only if something is found; may be missing.
        secrets: known ones beside `own_secrets`.
    """
    redact_log(log, sorted({*secrets, *own_secrets()}, key=len, reverse=True))


def redact_text(text: str, secrets: Sequence[str]) -> str:
    """Blank known secrets in a text, and what looks like one."""
    return redacted(text, secrets)


def redact(argv: Sequence[str]) -> tuple[str, ...]:
    """Blank what looks like a secret in a command line: by its option's or variable's name, or by its form.

    Example: ``["--hf-token", "x", "A_KEY=1"]`` gives ``("--hf-token", "***", "A_KEY=***")``.
    """
    shown: list[str] = []
    before = ""
    passwords: frozenset[str] = frozenset()
    value_follows = False
    for argument in argv:
        passwords = _PASSWORD_OPTIONS.get(argument.rpartition("/")[2], passwords)
        is_value, value_follows = value_follows and not _is_option(argument, before), False
        if is_value or before in passwords:
            shown.append(REDACTED)
        elif any(glued := [option for option in passwords if argument.startswith(option) and argument != option]):
            shown.append(f"{glued[0]}{REDACTED}")
        else:
            value_follows = argument.startswith("--") and "=" not in argument and is_secret_name(argument)
            shown.append(_redact_argument(argument, before))
        before = argument
    return tuple(shown)


def _is_option(argument: str, before: str) -> bool:
    """Whether what stands behind an option named like a secret is the next option: ``-abc`` may be a password."""
    if not argument.startswith("-"):
        return False
    return not re.search(_TAKES_A_VALUE, before) or re.fullmatch(r"-\w?|--[A-Za-z].*", argument, re.DOTALL) is not None


def _redact_argument(argument: str, before: str) -> str:
    """An argument behind the one ``before`` it, without what is a secret by its name or its form."""
    match = _ASSIGNMENT.fullmatch(argument)
    if match and is_secret_name(match["name"]):
        return f"{match['name']}={REDACTED}"
    for pattern, options in ((_USER, _USER_OPTIONS), (_HEADER, _HEADER_OPTIONS)):
        if match := pattern.fullmatch(argument):
            given = before if match["option"] is None else match["option"].rstrip("=")
            if given in options and (pattern is _USER or is_secret_name(match["name"])):
                return argument[: match.start("secret")] + REDACTED
    # --env-var=A=1,HF_TOKEN=x: an assignment inside a value.
    argument = re.sub(r"(\w+)=([^,\s]+)", lambda m: f"{m[1]}={REDACTED}" if is_secret_name(m[1]) else m[0], argument)
    return redacted(argument)
