"""What came of what an earlier run of the same work predicted: the manifest's predictions against this run's times."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.domain.manifest import RunManifest
from analysis.domain.predictions import WHOLE, Came, Prediction, Scored, score
from analysis.efficiency.records import UnitTimes
from analysis.verdict.ranking import Ranking

__all__ = ["scored_predictions"]


def scored_predictions(
    manifest: RunManifest | None, unit_times: Sequence[UnitTimes], ranking: Ranking
) -> tuple[Scored, ...]:
    """Score the predictions of a manifest, in its order; none: no earlier run is known.

    Args:
        manifest: of the run.
        unit_times: of its stages, from the control run where there is one.
        ranking: of the run: what a unit of work takes end to end.
    """
    if manifest is None:
        return ()
    return tuple(score(prediction, _came(prediction, unit_times, ranking)) for prediction in manifest.predictions)


def _came(prediction: Prediction, unit_times: Sequence[UnitTimes], ranking: Ranking) -> Came | None:
    if prediction.stage == WHOLE:
        return Came(ranking.time_ns, ranking.unit, ranking.time_base)
    times = next((times for times in unit_times if times.stage == prediction.stage), None)
    return None if times is None else Came(times.time_ns, times.per, times.busy_share_base)
