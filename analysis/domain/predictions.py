"""What an earlier run said that could be gained at best, and what a later run of the same work came to.

An earlier run's ceiling is a claim that the next run tests: the launcher puts the claims into ``run.json``, the analysis sets
against them what came. A bound that was beaten is said to be beaten.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import field, frozen, validators

from analysis.domain.figures import counted, reached

__all__ = ["WHOLE", "Came", "Outcome", "Prediction", "Scored", "TimeBase", "score"]

TimeBase: TypeAlias = Literal["unprofiled", "profiled", "mixed"]
Outcome: TypeAlias = Literal["partly", "better than at best", "slower", "not comparable"]

WHOLE: Final = "all"
"""Stands for the stage where all stages of one unit of work are meant: a page, with its prefill and all its decode steps."""

_VOWELS: Final = tuple("aeiou")
_NAMED: Final = 3
"""Changes that a sentence names."""


@frozen
class Prediction:
    """What a run said that removing one cause would leave at best. Kept in the manifest of a later run of the same work."""

    run_id: str
    """Of the run that said it."""
    made_at: str
    """When that run was made, ISO 8601."""
    stage: str
    """A stage, or `WHOLE`."""
    unit: str
    """``image``, ``prompt``, ``token``, ``step``; of `WHOLE` ``page``, ``request`` or ``batch``."""
    cause: str
    """What bound it: ``host-bound in Python``."""
    action: str
    """What was to be done, in a few words: ``replay it from a CUDA graph``."""
    was_ns: int = field(validator=validators.gt(0))
    """Time of one unit then."""
    best_ns: int = field(validator=validators.ge(0))
    """What the action would leave of it at best."""
    time_base: TimeBase
    changed: tuple[str, ...] = ()
    """What is recorded to differ between that run and this one, in words: decode mode, options, versions, commit."""
    not_comparable: str | None = None
    """Why what came cannot be set against it although the work is the same; None: it can."""

    @property
    def what(self) -> str:
        """``decode``, or ``a page``."""
        return self.one_unit if self.stage == WHOLE else self.stage

    @property
    def one_unit(self) -> str:
        """``a token``, ``an image``."""
        return f"{'an' if self.unit[:1] in _VOWELS else 'a'} {self.unit}"


@frozen
class Came:
    """What a run's unit of work takes."""

    time_ns: float | None
    """None: not known."""
    unit: str
    time_base: TimeBase


@frozen
class Scored:
    """A prediction, and what came of it."""

    prediction: Prediction
    came_ns: float | None
    """Of the same unit, on the same time base; None: not known, or not comparable."""
    share: float | None
    """Of the predicted gain: 1 is all of it, more than 1 better than at best, below 0 slower than before; None: not known."""
    outcome: Outcome
    sentence: str


def score(prediction: Prediction, came: Came | None) -> Scored:
    """Set what came against what was predicted.

    Args:
        prediction: of an earlier run of the same work.
        came: what the unit takes now; None: this run has no such stage, or its capture is unfit.

    Returns:
        ``share`` = (was − came) ÷ (was − best).
    """
    because = _not_comparable(prediction, came)
    if because is not None or came is None or came.time_ns is None:
        said = f"{_said(prediction, *_alone(prediction))} What came cannot be set against it: {because}."
        return Scored(prediction, None, None, "not comparable", said)
    was, best, now = prediction.was_ns, prediction.best_ns, came.time_ns
    gain = was - best
    share = (was - now) / gain if gain else None
    shown = reached(was, best, now)
    said = f"{_said(prediction, shown.was, shown.best)} {shown.came} came: "
    if now < best:
        outcome: Outcome = "better than at best"
        said += f"better than at best, so the bound was wrong or something else changed too{_changed(prediction)}."
    elif now > was:
        outcome = "slower"
        said += f"slower than before{_changed(prediction)}."
    else:
        outcome = "partly"
        part = f"{shown.share} of the predicted gain" if share is not None else "no gain was predicted"
        said += f"{part}{_changed(prediction)}."
    return Scored(prediction, now, share, outcome, said)


def _not_comparable(prediction: Prediction, came: Came | None) -> str | None:
    if prediction.not_comparable is not None:
        return prediction.not_comparable
    if came is None or came.time_ns is None:
        return f"this run does not tell what {prediction.what} takes"
    if came.unit != prediction.unit:
        return f"it was per {prediction.unit}, and this run tells it per {came.unit}"
    if came.time_base != prediction.time_base:
        return f"it was {prediction.time_base}, and this run's time is {came.time_base}"
    return None


def _said(prediction: Prediction, was: str, best: str) -> str:
    where = "" if prediction.stage == WHOLE else f" in {prediction.stage}"
    base = {"unprofiled": "", "profiled": ", profiled", "mixed": ", in part profiled"}[prediction.time_base]
    run, day = prediction.run_id[:8], prediction.made_at[:10]
    return f"Run {run} of {day} said: {prediction.action}{where}, {was} → {best} {prediction.one_unit} at best{base}."


def _alone(prediction: Prediction) -> tuple[str, str]:
    shown = reached(prediction.was_ns, prediction.best_ns, prediction.best_ns)
    return shown.was, shown.best


def _changed(prediction: Prediction) -> str:
    """What differs since; of several things it is not known which of them brought it."""
    first, more = prediction.changed[:_NAMED], len(prediction.changed) - _NAMED
    if not first:
        return " (no recorded setting was changed since)"
    rest = f" and {counted(more, 'setting')} more" if more > 0 else ""
    return f" (changed since: {'; '.join(first)}{rest})"
