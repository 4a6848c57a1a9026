"""Several traces of one run, or one that holds several ranks, as DataFrames with a column ``rank``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.api.profile import Place, Profile
from analysis.api.ranks import rank_files, rank_part, ranks_in, together
from analysis.domain.errors import DsocrError
from analysis.ranks.records import RanksReport
from analysis.render.arrow import frame
from analysis.render.spec.ranks import LATENESS, RANK_STAGES, RANK_STEPS, RANKS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RankProfiles", "load_ranks"]


class RankProfiles:
    """What the traces of several ranks say, as DataFrames. Made by `analysis.load` of several files or a folder of them.

    `profiles` are the ranks' own, by number; each DataFrame here is theirs, one after the other, with the number of the rank
    in the first column, ``rank``. Where theirs has a column of that name, this takes its place; that of ``actions`` is called
    ``place`` here.
    """

    def __init__(self, profiles: Mapping[int, Profile], combined: RanksReport) -> None:
        self.profiles = dict(profiles)
        self._combined = combined

    def __repr__(self) -> str:
        return f"<RankProfiles of ranks {', '.join(map(str, self.profiles))} on {self._combined.devices}>"

    def __getitem__(self, rank: int) -> Profile:
        """The profile of one rank.

        Raises:
            KeyError: there is no such rank.
        """
        return self.profiles[rank]

    def __iter__(self) -> Iterator[int]:
        """The numbers of the ranks."""
        return iter(self.profiles)

    def __len__(self) -> int:
        return len(self.profiles)

    def report(self) -> RanksReport:
        """The ranks side by side as a frozen record: what the combined report.json holds."""
        return self._combined

    def ranks(self) -> pd.DataFrame:
        """The ranks side by side, a row each."""
        return frame(RANKS, self._combined.ranks)

    def rank_stages(self) -> pd.DataFrame:
        """Stages of each rank, with transfer and waiting in their collectives."""
        return frame(RANK_STAGES, self._combined.stages)

    def lateness(self) -> pd.DataFrame:
        """Who waits for whom, and why."""
        return frame(LATENESS, self._combined.lateness)

    def rank_steps(self) -> pd.DataFrame:
        """Waiting in collectives, step by step."""
        return frame(RANK_STEPS, self._combined.places)

    def findings(self) -> pd.DataFrame:
        """`Profile.findings` of every rank."""
        return self._all(lambda profile: profile.findings())

    def stages(self) -> pd.DataFrame:
        """`Profile.stages` of every rank."""
        return self._all(lambda profile: profile.stages())

    def unit_times(self) -> pd.DataFrame:
        """`Profile.unit_times` of every rank."""
        return self._all(lambda profile: profile.unit_times())

    def instances(self) -> pd.DataFrame:
        """`Profile.instances` of every rank."""
        return self._all(lambda profile: profile.instances())

    def steps(self) -> pd.DataFrame:
        """`Profile.steps` of every rank."""
        return self._all(lambda profile: profile.steps())

    def step_kinds(self) -> pd.DataFrame:
        """`Profile.step_kinds` of every rank."""
        return self._all(lambda profile: profile.step_kinds())

    def modules(self, stage: str | None = None) -> pd.DataFrame:
        """`Profile.modules` of every rank."""
        return self._all(lambda profile: profile.modules(stage))

    def kernels(self, stage: str | None = None, *, by_shape: bool = False) -> pd.DataFrame:
        """`Profile.kernels` of every rank."""
        return self._all(lambda profile: profile.kernels(stage, by_shape=by_shape))

    def kernel_modules(
        self, stage: str | None = None, *, fold_layers: bool = True, by_shape: bool = True
    ) -> pd.DataFrame:
        """`Profile.kernel_modules` of every rank."""
        return self._all(lambda profile: profile.kernel_modules(stage, fold_layers=fold_layers, by_shape=by_shape))

    def launches(self) -> pd.DataFrame:
        """`Profile.launches` of every rank."""
        return self._all(lambda profile: profile.launches())

    def ranges(self) -> pd.DataFrame:
        """`Profile.ranges` of every rank."""
        return self._all(lambda profile: profile.ranges())

    def host_calls(self, by: Place = "stage") -> pd.DataFrame:
        """`Profile.host_calls` of every rank."""
        return self._all(lambda profile: profile.host_calls(by))

    def gaps(self) -> pd.DataFrame:
        """`Profile.gaps` of every rank."""
        return self._all(lambda profile: profile.gaps())

    def metrics(self) -> pd.DataFrame:
        """`Profile.metrics` of every rank."""
        return self._all(lambda profile: profile.metrics())

    def latencies(self) -> pd.DataFrame:
        """`Profile.latencies` of every rank."""
        return self._all(lambda profile: profile.latencies())

    def overhead(self) -> pd.DataFrame:
        """`Profile.overhead` of every rank."""
        return self._all(lambda profile: profile.overhead())

    def utilisation(self) -> pd.DataFrame:
        """`Profile.utilisation` of every rank."""
        return self._all(lambda profile: profile.utilisation())

    def verdicts(self) -> pd.DataFrame:
        """`Profile.verdicts` of every rank."""
        return self._all(lambda profile: profile.verdicts())

    def budget(self) -> pd.DataFrame:
        """`Profile.budget` of every rank."""
        return self._all(lambda profile: profile.budget())

    def predictions(self) -> pd.DataFrame:
        """`Profile.predictions` of every rank."""
        return self._all(lambda profile: profile.predictions())

    def actions(self) -> pd.DataFrame:
        """`Profile.actions` of every rank."""
        return self._all(lambda profile: profile.actions())

    def _all(self, table: Callable[[Profile], pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        frames = []
        for rank, profile in self.profiles.items():
            made = table(profile)
            definitions = made.attrs["definitions"]
            if "rank" in made and definitions["rank"].startswith("Place among"):
                made = made.rename(columns={"rank": "place"})
                definitions = {"place" if name == "rank" else name: told for name, told in definitions.items()}
            made = made.drop(columns="rank", errors="ignore")
            made.insert(0, "rank", rank)
            frames.append(made)
        joined = pd.concat(_with_common_categories(frames), ignore_index=True)
        joined.attrs["definitions"] = {**definitions, "rank": "Number of the rank."}
        return joined


def _with_common_categories(frames: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Frames whose text columns of dtype category stay such when they are put together."""
    import pandas as pd

    told = [str(name) for name, kind in frames[0].dtypes.items() if isinstance(kind, pd.CategoricalDtype)]
    common = {
        name: pd.Index(dict.fromkeys(text for made in frames for text in made[name].cat.categories)) for name in told
    }
    return [made.assign(**{name: made[name].cat.set_categories(common[name]) for name in told}) for made in frames]


def load_ranks(paths: Sequence[Path], options: AnalysisOptions) -> RankProfiles:
    """Read traces one after the other, in this process: the DataFrames need them.

    Args:
        paths: as the command takes them.
        options: what the user states about each.

    Raises:
        DsocrError: as `analysis.load`; it names the file.
    """
    parts, attributions = [], []
    files = rank_files(paths)
    for path in files:
        try:
            with opened(path, options) as whole:
                for number, (rank, place) in enumerate(ranks_in(whole)):
                    parts.append(rank_part(rank, number, place))
                    attributions.append(rank.attribution)
        except DsocrError as error:
            if path.name in str(error):
                raise
            raise type(error)(f"{path}: {error}") from None
    ranks = together(parts, one_clock=len(files) == 1)
    numbers = [row.rank for row in ranks.combined.ranks]
    profiles = zip(numbers, ranks.reports, attributions, strict=True)
    return RankProfiles(
        {number: Profile(report, attribution) for number, report, attribution in profiles}, ranks.combined
    )
