"""The environment that a profiled program gets, and what must not be written down of its command line.

nsys copies the whole environment of what it starts into its report. So the child starts with an allow-list, and what
a variable is called decides: nothing that is named like a secret passes, whatever its prefix, unless it was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from runner.process.python import import_path

__all__ = [
    "REDACTED",
    "RUN_MARK",
    "child_environment",
    "looks_secret",
    "program_environment",
    "redact",
    "redact_text",
    "secrets_of",
]

RUN_MARK: Final = "DSOCR_PROFILE_RUN"
"""Set to the run's id in everything that a run starts, so that what is left of it can be found and ended."""

_ALLOWED: Final = frozenset(
    {
        "CC", "CONDA_PREFIX", "CUDA", "CXX", "HF_DATASETS_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_MODULES_CACHE", "HOME",
        "HUGGINGFACE_HUB_CACHE", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "LOGNAME", "MALLOC_ARENA_MAX",
        "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONPATH", "PYTHONPYCACHEPREFIX",
        "PYTHONUTF8", "PYTHONWARNINGS", "SHELL", "TERM", "TMPDIR", "TOKENIZERS_PARALLELISM", "TRANSFORMERS_CACHE",
        "TZ", "USER", "VIRTUAL_ENV", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR",
    }
)  # fmt: skip
_ALLOWED_PREFIXES: Final = (
    "CUBLAS_", "CUBLASLT_", "CUDA_", "CUDNN_", "GOMP_", "KMP_", "LC_", "MKL_", "NCCL_", "NSYS_", "NVIDIA_", "NVTX_",
    "OMP_", "OPENBLAS_", "PYTORCH_", "TORCH_", "TORCHINDUCTOR_", "TRITON_",
)  # fmt: skip
_ENGINE_PREFIXES: Final = (
    "ACCELERATE_", "DEEPSPEED_", "FLASHINFER_", "GLOO_", "HF_", "MODELSCOPE_", "OMPI_", "RAY_", "SGLANG_", "SGL_",
    "TLLM_", "TRTLLM_", "UCX_", "VLLM_",
)  # fmt: skip
"""Beside `_ALLOWED_PREFIXES`, for programs that are not ours."""
_SECRET_NAME: Final = re.compile(
    r"(?i)token(?!s\b|iz)|secret|passw|passphrase|credential|api_?key|_key\b|_pat\b|auth|cookie|\bkey\b"
)
_CREDENTIALS_IN_URL: Final = re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]*(?=@)")
_SECRET_VALUE: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}"
    r"|nvapi-[\w-]{8,}|AKIA[A-Z0-9]{12,}|xox[abprs]-[\w-]{8,}|eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?)"
)
_ASSIGNMENT: Final = re.compile(r"(?P<name>-{0,2}[\w.-]*)(?P<equals>=)(?P<value>.*)", re.DOTALL)
REDACTED: Final = "***"
"""What stands in a secret's place."""
_SHORTEST_SECRET: Final = 4


def looks_secret(name: str, value: str = "") -> bool:
    """Say whether a variable must be taken for a secret: by its name, or by a value that has a known token's form."""
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value) or _CREDENTIALS_IN_URL.search(value))


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
    chosen = _chosen(environ, keep, _ALLOWED_PREFIXES)
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
    chosen = _chosen(environ, keep, (*_ALLOWED_PREFIXES, *_ENGINE_PREFIXES))
    chosen.setdefault("PYTHONUNBUFFERED", "1")  # a log that ends where the program did
    return {**chosen, **(extra or {})}


def _chosen(environ: Mapping[str, str], keep: Iterable[str], prefixes: tuple[str, ...]) -> dict[str, str]:
    asked_for = set(keep)
    return {
        name: value
        for name, value in environ.items()
        if name in asked_for
        or (name in _ALLOWED and not _SECRET_VALUE.search(value))
        or (name.startswith(prefixes) and not looks_secret(name, value))
    }


def secrets_of(argv: Sequence[str], environ: Mapping[str, str], keep: Iterable[str] = ()) -> tuple[str, ...]:
    """List the texts that must not be written down: what `redact` blanks in ``argv``, and kept variables named like secrets.

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
    return tuple(sorted((text for text in texts if len(text) >= _SHORTEST_SECRET), key=len, reverse=True))


def redact_text(text: str, secrets: Sequence[str]) -> str:
    """Blank known secrets in a text."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return text


def redact(argv: Sequence[str]) -> tuple[str, ...]:
    """Blank what looks like a secret in a command line: by its option's or variable's name, or by its form.

    Example: ``["--hf-token", "x", "A_KEY=1"]`` gives ``("--hf-token", "***", "A_KEY=***")``.
    """
    shown: list[str] = []
    value_follows = False
    for argument in argv:
        if value_follows and not argument.startswith("-"):
            shown.append(REDACTED)
            value_follows = False
            continue
        match = _ASSIGNMENT.fullmatch(argument)
        if match and _SECRET_NAME.search(match["name"]):
            shown.append(f"{match['name']}={REDACTED}")
            continue
        value_follows = argument.startswith("--") and "=" not in argument and bool(_SECRET_NAME.search(argument))
        argument = _CREDENTIALS_IN_URL.sub(REDACTED, argument)
        # --env-var=A=1,HF_TOKEN=x: an assignment inside a value.
        argument = re.sub(
            r"(\w+)=([^,\s]+)", lambda m: f"{m[1]}={REDACTED}" if _SECRET_NAME.search(m[1]) else m[0], argument
        )
        shown.append(_SECRET_VALUE.sub(REDACTED, argument))
    return tuple(shown)
