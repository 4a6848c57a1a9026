"""What a policy asks and what a gate answers."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from analysis.compare.records import SettingChange, SideSummary

__all__ = [
    "TABLES",
    "Amount",
    "Check",
    "Figure",
    "GateResult",
    "Limit",
    "Outcome",
    "Policy",
    "TableName",
    "Undecided",
    "UnitName",
]

TableName: TypeAlias = Literal[
    "stage", "module", "class", "kernel", "launches", "synchronises", "copies", "memory", "mfu", "mbu"
]
UnitName: TypeAlias = Literal["ns", "count", "bytes", "share"]
Outcome: TypeAlias = Literal["passed", "failed", "cannot judge"]
Undecided: TypeAlias = Literal["report", "fail", "pass"]
"""What a gate says where a limit cannot be judged: exit code of its own, failed, or passed with a note."""

TABLES: Final[dict[TableName, UnitName]] = {
    "stage": "ns",
    "module": "ns",
    "class": "ns",
    "kernel": "ns",
    "launches": "count",
    "synchronises": "count",
    "copies": "count",
    "memory": "bytes",
    "mfu": "share",
    "mbu": "share",
}
"""Table of a policy → what its figures are measured in."""


@frozen
class Amount:
    """A value of a limit."""

    value: float
    """ns, a count, bytes or a share, by the limit's table; of a relative one the share, 0.03 for 3 %."""
    relative: bool
    text: str
    """As the policy writes it."""


@frozen
class Limit:
    """One entry of a policy."""

    table: TableName
    number: int
    """Counted from 1 among those of its table."""
    stage: str = "*"
    """Pattern."""
    name: str = "*"
    """Pattern of module, class or kernel."""
    max: Amount | None = None
    """Of the new side."""
    min: Amount | None = None
    max_increase: Amount | None = None
    """From the base to the new side, of the base where it is relative."""
    max_decrease: Amount | None = None
    ignore_below: Amount | None = None
    """Figures that are smaller on both sides are passed over."""
    optional: bool = False
    """Whether it may match nothing."""

    @property
    def where(self) -> str:
        """For messages: ``[[module]] 2``."""
        return f"[[{self.table}]] {self.number}"


@frozen
class Policy:
    """A policy as it was read."""

    path: str
    limits: tuple[Limit, ...]
    on_cannot_judge: Undecided = "report"
    bands: dict[str, Amount] = field(factory=dict)
    """Stage → A/A band, relative to the base or in ns."""


@frozen
class Figure:
    """What a limit can be held against, on both sides. Per unit of the stage's work, but memory and shares."""

    table: TableName
    stage: str
    name: str
    """Of module, class or kernel; empty: the figure is the stage's."""
    base: float | None
    new: float | None
    per: str = ""
    aliases: tuple[str, ...] = ()
    """Other names that a pattern may match."""
    unknown_because: str = ""


@frozen
class Check:
    """One limit held against one figure."""

    table: TableName
    stage: str
    name: str
    limit: str
    """In words: ``at most +3 %``."""
    unit: UnitName
    per: str
    base: float | None
    new: float | None
    difference: float | None
    ratio: float | None
    """new ÷ base."""
    outcome: Outcome
    because: str
    """The reason in one sentence, with its numbers."""

    @property
    def subject(self) -> str:
        """What was held against the limit: ``decode · layers.*.mlp``, ``launches of decode``."""
        if self.table == "stage":
            return self.stage
        if self.name:
            return f"{self.stage} · {self.name}"
        return f"{self.table} of {self.stage}" if self.stage else self.table


@frozen
class GateResult:
    """What ``gate.json`` holds."""

    headline: str
    outcome: Outcome
    on_cannot_judge: Undecided
    policy: str
    """Its path."""
    base: SideSummary
    new: SideSummary
    checks: tuple[Check, ...]
    settings: tuple[SettingChange, ...]
    """In which the sides differ."""
    notes: tuple[str, ...] = ()

    def of(self, outcome: Outcome) -> tuple[Check, ...]:
        """The checks that ended so."""
        return tuple(check for check in self.checks if check.outcome == outcome)
