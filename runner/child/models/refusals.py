"""What libraries raise where a model cannot be built, read or held in memory, and how that is told from our own bugs."""

from __future__ import annotations

from typing import Final

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

__all__ = ["REFUSED", "out_of_memory", "reason"]

REFUSED: Final = (
    ValueError,
    ImportError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    OSError,
    SafetensorError,
    StrictDataclassError,
)
"""What transformers and torch raise inside of them about a configuration or weights that are not what they must be."""

_NO_MEMORY: Final = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",  # of the driver itself, such as where it instantiates a graph
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What a RuntimeError says where memory ran out elsewhere than in torch's allocator of a GPU, which alone has a class for it."""


def out_of_memory(error: BaseException) -> str | None:
    """Why an error means that memory ran out, in one line; None: it means something else.

    What torch raises may stand behind another error: a recording of a CUDA graph that ran out of memory also fails to end.
    """
    seen: BaseException | None = error
    while seen is not None:
        said = isinstance(seen, RuntimeError) and any(words in str(seen) for words in _NO_MEMORY)
        if said or isinstance(seen, (torch.OutOfMemoryError, MemoryError)):
            return next((line.strip() for line in str(seen).splitlines() if line.strip()), "no memory is left")
        seen = seen.__cause__ or seen.__context__
    return None


def reason(error: BaseException) -> str:
    """An error's words on one line."""
    return " ".join(str(error).split())[:240] or type(error).__name__
