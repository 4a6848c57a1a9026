"""What the runner writes into a trace and the analysis looks for: the only vocabulary that both sides share.

``dsocr``         ``image[i]`` ⊃ ``prefill`` | ``decode`` ⊃ ``decode_step`` – push/pop ranges on the launching thread.
                  Payloads (int64): prefill's is the number of prompt tokens, decode_step's the context length that the
                  step attends over (cached tokens plus the one that it adds). ``graph_record`` is no stage: in it the
                  decode step is recorded as a CUDA graph, with module ranges on, and replayed once.
``dsocr.module``  one range per module call, named by the module's path (``vision.sam``, ``layers.3.mlp``, ``lm_head``).
``dsocr.meta``    one mark whose text is ``MANIFEST_MARK_PREFIX`` + the run manifest as JSON.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

__all__ = [
    "DECODE",
    "DECODE_STEP",
    "GRAPH_RECORD",
    "IMAGE_NAME",
    "MANIFEST_MARK_PREFIX",
    "META_DOMAIN",
    "MODULE_DOMAIN",
    "PREFILL",
    "STAGES",
    "STAGE_DOMAIN",
    "Stage",
    "image_name",
]

Stage: TypeAlias = Literal["prefill", "decode"]

STAGE_DOMAIN: Final = "dsocr"
MODULE_DOMAIN: Final = "dsocr.module"
META_DOMAIN: Final = "dsocr.meta"

PREFILL: Final = "prefill"
DECODE: Final = "decode"
DECODE_STEP: Final = "decode_step"
GRAPH_RECORD: Final = "graph_record"
"""In a trace with ``CUDA_GRAPH_NODE_EVENTS`` the module ranges inside are those of the kernels that a graph replays."""
STAGES: Final[tuple[Stage, ...]] = ("prefill", "decode")

IMAGE_NAME: Final = re.compile(r"image\[(\d+)\]")
MANIFEST_MARK_PREFIX: Final = "dsocr-manifest "


def image_name(index: int) -> str:
    """Name of the range around one image: ``image[3]`` for index 3 of the input set, counted from 0."""
    return f"image[{index}]"
