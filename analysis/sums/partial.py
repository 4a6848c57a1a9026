"""What a capture holds whole whose program was ended before it was through: images, and the one that it was ended in."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from analysis.attribution.attribution import Attribution
from analysis.attribution.range_tree import Indices
from analysis.domain.annotations import IMAGE_NAME, PREFILL
from analysis.domain.manifest import RunManifest
from analysis.trace.distinct import present

__all__ = ["ImagesHeld", "images_held", "images_wanted"]


@frozen
class ImagesHeld:
    """Images, each as often as it ran, of a capture of our own ranges."""

    whole: int
    """Those that every process that writes stages went through."""
    cut: Indices
    """Rows of the image ranges that their program was ended in, one per process at most."""


def images_wanted(manifest: RunManifest) -> int | None:
    """How many images, each as often as it was to run, the capture was to hold; None: the manifest does not say."""
    images = len(manifest.prompts) or (manifest.input_set.count if manifest.input_set is not None else 0)
    return images * manifest.capture_passes or None


def images_held(attribution: Attribution, manifest: RunManifest) -> ImagesHeld:
    """Tell whole images from the one that the program was ended in.

    Images run one after the other, so only the last one of a process can have been cut. A program that is ended in order
    closes its ranges, so that a closed range proves nothing: the last image is whole if it has a prefill and as many steps
    as the control run had.

    Args:
        attribution: of the trace.
        manifest: of its run; ``prompts`` say how many tokens each image gives.
    """
    ranges = attribution.ranges
    is_image = attribution.is_level("image")
    rows = np.flatnonzero(is_image)
    process = attribution.thread_process[ranges.thread[rows]]
    around = attribution.tree.nearest(is_image)
    steps = np.bincount(around[attribution.is_level("step")] + 1, minlength=len(ranges) + 1)[1:]
    prefills = np.bincount(around[attribution.stage_rows(PREFILL)] + 1, minlength=len(ranges) + 1)[1:]
    tokens = {prompt.image_index: prompt.expected_new_tokens for prompt in manifest.prompts}
    stages = present(attribution.thread_process[ranges.thread[np.flatnonzero(attribution.is_level("stage"))]])
    whole, cut = [], []
    for code in stages:
        mine = rows[process == code]
        if not mine.size:
            whole.append(0)
            continue
        last = int(mine[np.argmax(ranges.start[mine])])
        name = IMAGE_NAME.fullmatch(ranges.names[ranges.name[last]])
        expected = None if name is None else tokens.get(int(name[1]))
        through = not ranges.unclosed[last] and prefills[last] and expected is not None and steps[last] >= expected - 1
        whole.append(mine.size - (0 if through else 1))
        if not through:
            cut.append(last)
    return ImagesHeld(min(whole, default=0), np.array(cut, dtype=np.int32))
