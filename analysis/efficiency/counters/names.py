"""One key for a kernel's name as Nsight Systems and as Nsight Compute write it.

Both demangle the same symbol, and print it differently: Nsight Systems writes ``(int)4`` and ``(anonymous namespace)``
or ``<unnamed>``; Nsight Compute writes ``4``, shortens the namespaces that the kernels of a report have in common, and
sometimes cuts a bracket with them (``void unnamed>::indexSelectSmallIndex<…``). The key is therefore what no spelling
changes: the identifiers and numbers of the name in their order, without namespaces, casts and punctuation.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["function_of", "name_key"]

_ANONYMOUS: Final = re.compile(r"(?:\(anonymous namespace\)|<?\bunnamed>)(?:\s*::)?")
_NAMESPACE: Final = re.compile(r"[A-Za-z_]\w*\s*::")
_CAST: Final = re.compile(r"\([A-Za-z_][\w\s:]*\)(?=\s*-?\d)")
"""Before a number: ``(int)4``, ``(unsigned long)2``, ``(cute::SM90::GMMA::Major)0``."""
_WORD: Final = re.compile(r"-?\d+|[A-Za-z_$]\w*")
_LONGEST: Final = 100_000
"""Characters of a name that are looked at: template arguments may go on for ever."""


def name_key(name: str) -> str:
    """What both tools' spellings of a kernel's name have in common.

    Two kernels may share a key where only their namespaces differ; a match needs launch shape and place besides.

    Args:
        name: demangled, mangled or a function's base name.
    """
    text = _ANONYMOUS.sub(" ", name[:_LONGEST])
    text = _CAST.sub(" ", text)
    return " ".join(_WORD.findall(_NAMESPACE.sub(" ", text)))


def function_of(key: str) -> str:
    """Name of the function in a key, without template arguments: all that ``--print-kernel-base function`` prints."""
    words = key.split(" ", 2)
    return words[1] if words[0] == "void" and len(words) > 1 else words[0]
