"""From a prompt's text to token ids: the checkpoint's tokenizer, or a deterministic stand-in where there is none."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from analysis.domain.errors import ModelError

__all__ = ["StandInTokens", "Tokens", "load_tokens"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")


class Tokens(Protocol):
    """Turns text into token ids."""

    @property
    def note(self) -> str | None:
        """What a reader of the report must know of these ids."""

    def ids(self, text: str) -> list[int]:
        """Token ids of ``text``, no special tokens added."""

    def text(self, ids: Sequence[int]) -> str | None:
        """The text of generated ids, special tokens left out; None: these ids stand for nothing."""


@frozen
class StandInTokens:
    """One id per word, from the word's CRC-32: the same text gives the same ids on every machine.

    Ids keep away from the lowest 16 and the highest 2% of the vocabulary, where special tokens live.
    """

    vocabulary: int
    note: str | None = (
        "no tokenizer comes with random weights: the text prompt is a deterministic stand-in, one token id per word"
    )

    def ids(self, text: str) -> list[int]:
        """Token ids of the words of ``text``."""
        usable = self.vocabulary * 98 // 100 - 16
        return [16 + zlib.crc32(word.encode()) % usable for word in text.split()]

    def text(self, ids: Sequence[int]) -> str | None:
        """None: one word gives one id, and no id gives a word."""
        return None


class _FileTokens:
    """The checkpoint's ``tokenizer.json``: read without the model's own code."""

    note: str | None = None

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def text(self, ids: Sequence[int]) -> str | None:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


class _LibraryTokens:
    """Any other tokenizer that transformers can read."""

    note: str | None = None

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: Sequence[int]) -> str | None:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def load_tokens(folder: Path | None, vocabulary: int, trust_remote_code: bool) -> Tokens:
    """Load a checkpoint's tokenizer, or make the stand-in where it brings none.

    Raises:
        ModelError: tokenizer files are there, but cannot be read.
    """
    if folder is None:
        return StandInTokens(vocabulary)
    if (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer

        try:
            return _FileTokens(Tokenizer.from_file(str(folder / "tokenizer.json")))
        except Exception as error:
            # tokenizers raises bare Exception for whatever its Rust side refuses.
            if type(error) is not Exception:
                raise
            raise ModelError(f"{folder / 'tokenizer.json'}: not a tokenizer ({_one_line(error)})") from error
    if any((folder / name).exists() for name in _TOKENIZER_FILES):
        from transformers import AutoTokenizer

        try:
            return _LibraryTokens(
                AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(f"{folder}: its tokenizer cannot be read ({_one_line(error)})") from error
    return StandInTokens(
        vocabulary,
        note=f"{folder.name} brings no tokenizer: the text prompt is a deterministic stand-in, one token id per word",
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
