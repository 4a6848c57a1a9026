"""What the last run of the same work before a run predicted, and what came of it.

A run's predictions are its first ceilings: of the whole run, and of each stage. They are read from the history when the next
run's report is about to be made, and go into its ``run.json``; so the history is needed once, and a report that is made anew
says the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast, get_args

from analysis.domain.predictions import WHOLE, Came, Prediction, Scored, TimeBase, score
from history.records import Ceiling, RecordedRun, RunQuery, RunRow
from history.store import Store
from history.workload import changes, workload_of

__all__ = ["predictions_for", "scored_run"]

_SAVES_NOTHING: Final = "hidden kernels"
"""The kind of action that shows what there is to save, and saves nothing by itself."""
_LOOKED_AT: Final = 20
"""Earlier runs of the same work that are asked whether they predicted anything; an unfit capture predicts nothing."""


def predictions_for(store: Store, run: RunRow) -> tuple[Prediction, ...]:
    """What the last run of the same work before this one said could be gained at best; of the whole run first.

    Args:
        store: of earlier runs.
        run: the later one; it need not be recorded.

    Returns:
        None at all where no earlier run did the same work, or where this run does not tell what it worked on.

    Raises:
        StoreError: the history cannot be read.
    """
    work = workload_of(run)
    if work is None or run.started_at is None:
        return ()
    query = RunQuery(
        model=run.model,
        weights=run.weights,
        gpu_name=run.gpu_name,
        inputs_hash=run.inputs_hash,
        until=run.started_at,
        statuses=("complete",),
    )
    alike = [row for row in store.runs(query) if row.run_id != run.run_id and workload_of(row) == work]
    for earlier in store.recorded([row.run_id for row in reversed(alike[-_LOOKED_AT:])]):
        made = tuple(_predictions(earlier, run))
        if made:
            return made
    return ()


def scored_run(store: Store, recorded: RecordedRun) -> tuple[Scored, ...]:
    """Set a recorded run's times against what the last run of the same work before it predicted.

    Raises:
        StoreError: the history cannot be read.
    """
    return tuple(score(prediction, _came(recorded, prediction)) for prediction in predictions_for(store, recorded.run))


def _predictions(earlier: RecordedRun, run: RunRow) -> Iterable[Prediction]:
    bounds = {verdict.stage: verdict.bound for verdict in earlier.verdicts}
    differing = changes(earlier.run, run)
    before, after = earlier.run.new_tokens, run.new_tokens
    other_tokens = None
    if before is not None and after is not None and before != after:
        other_tokens = f"its inputs made {before:,} tokens in all, and this run's {after:,}"
    for ceiling in _first_of_each(earlier.ceilings):
        base = ceiling.time_base
        if base not in get_args(TimeBase):
            continue
        whole = ceiling.stage is None
        yield Prediction(
            run_id=earlier.run.run_id,
            made_at="" if earlier.run.started_at is None else earlier.run.started_at.isoformat(),
            stage=ceiling.stage or WHOLE,
            unit=ceiling.unit,
            cause=bounds.get(ceiling.stage or "", ", ".join(ceiling.kinds)),
            action=ceiling.action,
            was_ns=ceiling.time_ns,
            best_ns=ceiling.best_ns,
            time_base=cast(TimeBase, base),
            changed=differing,
            not_comparable=other_tokens if whole else None,
        )


def _first_of_each(ceilings: Iterable[Ceiling]) -> Iterable[Ceiling]:
    """The first action that saves anything, of the whole run and of each stage."""
    told: set[str | None] = set()
    for ceiling in sorted(ceilings, key=lambda ceiling: (ceiling.stage is not None, ceiling.sequence)):
        saves = 0 <= ceiling.best_ns < ceiling.time_ns and ceiling.kinds != [_SAVES_NOTHING]
        if saves and ceiling.stage not in told:
            told.add(ceiling.stage)
            yield ceiling


def _came(recorded: RecordedRun, prediction: Prediction) -> Came | None:
    """As the report counts it: see `analysis.verdict.predictions`."""
    run = recorded.run
    if prediction.stage == WHOLE:
        if run.unit is None or run.time_base not in get_args(TimeBase):
            return None
        return Came(run.time_ns, run.unit, cast(TimeBase, run.time_base))
    row = next((row for row in recorded.stages if row.stage == prediction.stage), None)
    if row is None or row.per is None:
        return None
    if row.unprofiled_ns is not None and row.busy_share_base != "profiled":
        return Came(row.unprofiled_ns, row.per, "unprofiled")
    return Came(row.profiled_ns, row.per, "profiled")
