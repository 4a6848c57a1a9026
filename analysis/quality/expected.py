"""Is everything there that the run was meant to do? What the manifest says against what the trace holds."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.domain.annotations import DECODE, MODULE_DOMAIN, PREFILL, STAGE_DOMAIN, STAGES
from analysis.domain.figures import counted
from analysis.domain.manifest import RunManifest
from analysis.quality.findings import PARTIAL, Finding
from analysis.sums.partial import images_held, images_wanted
from analysis.trace.distinct import present
from analysis.trace.manifest import find_program_end
from analysis.trace.reader import Trace

__all__ = ["check"]

_REMEDY: Final = "capture again; if it happens again, compare the nsys version with the driver's CUDA"


def check(trace: Trace, attribution: Attribution, manifest: RunManifest | None) -> list[Finding]:
    """All checks on what should be there."""
    ended_by = find_program_end(trace.path) if manifest is None else None
    of_a_program = [] if ended_by is None else [_partial_program(ended_by)]
    if not len(attribution.ranges):
        return [*of_a_program, _no_ranges(trace, manifest)]
    return [*of_a_program, *_with_ranges(attribution, manifest)]


def _with_ranges(attribution: Attribution, manifest: RunManifest | None) -> list[Finding]:
    if manifest is not None and manifest.partial is not None:
        return [_partial(attribution, manifest, manifest.partial), *_vocabulary(attribution)]
    findings = [*_missing_stages(attribution, manifest), *_vocabulary(attribution)]
    if manifest is None:
        findings.append(
            Finding(
                code="no-manifest",
                severity="info",
                title="no run manifest",
                evidence="neither a mark inside the trace nor a run.json beside it says what the run was meant to do",
                remedy="give the model's config.json with --config: FLOPs and bytes come from it"
                if attribution.choice.vocabulary.has_step_kinds
                else "profile with dsocr-profile run, or name the manifest with --manifest: counts, FLOPs and the "
                "unprofiled times come from it",
            )
        )
    elif not any(finding.code == "missing-stages" for finding in findings):
        findings += _counts(attribution, manifest)
    return findings


def _partial(attribution: Attribution, manifest: RunManifest, ended_by: str) -> Finding:
    """What is missing is missing for a reason that is known: whole images can be reported, part of one cannot."""
    held, wanted = images_held(attribution, manifest), images_wanted(manifest)
    of = "" if wanted is None else f" of {wanted:,}"
    title = f"partial capture: ended by {ended_by}; {held.whole:,}{of} {'image' if wanted == 1 else 'images'}"
    if not held.whole:
        return Finding(
            code=PARTIAL,
            severity="unfit",
            title=title,
            evidence="the program was ended before its first image was through",
            remedy="run it again, with more time or fewer tokens per image",
        )
    cut = "; the image that it was ended in is in sums of GPU time, but in no median and no verdict"
    return Finding(
        code=PARTIAL,
        severity="warning",
        title=title,
        evidence="figures hold for what was captured" + (cut if held.cut.size else ""),
        remedy="run it again for the whole input",
    )


def _partial_program(ended_by: str) -> Finding:
    return Finding(
        code=PARTIAL,
        severity="warning",
        title=f"partial capture: ended by {ended_by}",
        evidence="figures hold for what was captured until then",
        remedy="run it again if it was to come to its end",
    )


def _no_ranges(trace: Trace, manifest: RunManifest | None) -> Finding:
    """Our own runs write ranges, so they were lost there; a stranger's program may have none: its report is of the whole."""
    return Finding(
        code="no-nvtx",
        severity="warning" if manifest is None else "unfit",
        title="no NVTX ranges",
        evidence="the table NVTX_EVENTS " + ("holds no range" if trace.has_ranges_table else "is missing"),
        remedy="trace NVTX too (nsys profile -t cuda,nvtx) and annotate the program (docs/any-program.md); this report is of the "
        "whole capture",
    )


def _missing_stages(attribution: Attribution, manifest: RunManifest | None) -> list[Finding]:
    ranges, choice = attribution.ranges, attribution.choice
    seen = {stage for stage in attribution.stages if attribution.stage_rows(stage).size}
    if choice.vocabulary.has_step_kinds:
        return [] if seen else [_nothing_matches(attribution)]
    no_decode = manifest is not None and (_expected(manifest)["decode"] == 0 or manifest.request.max_new_tokens == 1)
    wanted = [PREFILL] if no_decode else [PREFILL, DECODE]
    missing = [name for name in wanted if name not in seen]
    if not missing:
        return []
    where = "in any domain"
    if choice.vocabulary.own_domains:
        where = f"in domain {STAGE_DOMAIN}" if STAGE_DOMAIN in ranges.domains else f"(domain {STAGE_DOMAIN} is absent)"
    there = [f"{name or 'the default one'}" for name in ranges.domains]
    modules = MODULE_DOMAIN in ranges.domains
    return [
        Finding(
            code="missing-stages",
            severity="unfit" if manifest is not None or (modules and not seen) else "warning",
            title=f"no range named {' or '.join(missing)}",
            evidence=f"none {where}, although {counted(len(ranges), 'range is', 'ranges are')} there (domains: {', '.join(there)})",
            remedy="if the program writes these ranges, they were lost: "
            + _REMEDY
            + "; nvtx 0.2.12 and later lose domain ranges under nsys 2022.4 and 2023.4",
        )
    ]


def _nothing_matches(attribution: Attribution) -> Finding:
    title = attribution.choice.vocabulary.title
    return Finding(
        code="missing-stages",
        severity="warning",
        title=f"no range is a step by the names of {title}",
        evidence=f"{counted(len(attribution.ranges), 'range is', 'ranges are')} there, and none matches",
        remedy="leave --vocabulary out, so that the names themselves decide, or correct its rules (docs/annotate.md)",
    )


def _vocabulary(attribution: Attribution) -> list[Finding]:
    """Say by whose names the trace was read, where they are not ours."""
    choice = attribution.choice
    if choice.vocabulary.own_domains or not choice.reading.matched:
        return []
    why = "as --vocabulary says" if choice.stated else "more than by any other vocabulary"
    others = ", ".join(f"{title} {matched:,}" for title, matched in choice.others)
    kinds = ", ".join(f"{stage} {attribution.stage_rows(stage).size:,}" for stage in attribution.stages)
    return [
        Finding(
            code="vocabulary",
            severity="info",
            title=f"stages and modules are read by the range names of {choice.vocabulary.title}",
            evidence=f"{counted(choice.reading.matched, 'range is', 'ranges are')} a stage or a step by these names, {why}"
            + (f" (others: {others})" if others else "")
            + f": {kinds}",
            remedy="if that is not what the program means, name another vocabulary or a file (--vocabulary, docs/annotate.md)",
        )
    ]


def _expected(manifest: RunManifest) -> dict[str, int | None]:
    """How many ranges of each kind the capture must hold; None: the manifest does not say."""
    if manifest.profiled:
        tokens = [image.new_tokens for image in manifest.profiled]
        images = len(tokens)
    else:
        images = len(manifest.prompts) * manifest.capture_passes
        if not images and manifest.input_set is not None:
            images = manifest.input_set.count * manifest.capture_passes
        known = [prompt.expected_new_tokens for prompt in manifest.prompts if prompt.expected_new_tokens is not None]
        whole = bool(known) and len(known) == len(manifest.prompts)
        tokens = known * manifest.capture_passes if whole else []
    if not images:
        return {"image": None, "prefill": None, "decode": None, "step": None}
    # The first token comes out of the prefill: n tokens take n − 1 steps, and one token no decode at all.
    return {
        "image": images,
        "prefill": images,
        "decode": sum(count > 1 for count in tokens) if tokens else None,
        "step": sum(count - 1 for count in tokens) if tokens else None,
    }


def _counts(attribution: Attribution, manifest: RunManifest) -> list[Finding]:
    """Every process that writes stages must have written all of them (ranks run the same images)."""
    ranges = attribution.ranges
    process = attribution.thread_process[ranges.thread]
    stage = attribution.is_level("stage")
    kinds: dict[str, NDArray[np.bool_]] = {
        "image": attribution.is_level("image"),
        **{name: np.isin(np.arange(len(ranges)), attribution.stage_rows(name)) for name in STAGES},
        "step": attribution.is_level("step"),
    }
    fewer, more, gravely = [], [], False
    for kind, expected in _expected(manifest).items():
        if expected is None:
            continue
        for code in present(process[stage]):
            seen = int((kinds[kind] & (process == code)).sum())
            if seen < expected:
                fewer.append(f"{seen} of {expected} {kind} ranges")
                # Kernels that add in any order may end a text a token sooner than in the control run.
                gravely |= kind != "step" or bool(manifest.profiled)
            elif seen > expected:
                more.append(f"{seen} {kind} ranges, {expected} expected")
    findings = []
    if fewer:
        findings.append(
            Finding(
                code="fewer-ranges-than-expected",
                severity="unfit" if gravely else "warning",
                title="ranges are missing that the run must have written",
                evidence="; ".join(fewer),
                remedy=_REMEDY,
            )
        )
    if more:
        findings.append(
            Finding(
                code="more-ranges-than-expected",
                severity="warning",
                title="more ranges than the run manifest announces",
                evidence="; ".join(more),
                remedy="check that the manifest belongs to this trace, and that the warm-up ran before the capture",
            )
        )
    return findings
