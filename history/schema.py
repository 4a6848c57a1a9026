"""The tables, as SQLAlchemy knows them. `history.migrations` makes them; a test holds the two to each other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from history.records import (
    Artefact,
    Ceiling,
    DeviceMoment,
    KernelClass,
    Module,
    Sample,
    StageRow,
    VerdictRow,
)

__all__ = ["HEAD", "METADATA", "PARTS", "RUNS", "VERSION_TABLE", "Moment"]

HEAD: Final = "r0002"
"""The newest revision; a test holds it to the migrations, so that a store of today is told without Alembic."""
VERSION_TABLE: Final = "dsocr_history_version"
"""Not Alembic's own name: a PostgreSQL database may hold another program's tables, with migrations of their own."""

METADATA: Final = sa.MetaData()


class Moment(TypeDecorator[datetime]):
    """A moment in UTC. SQLite has no time zones: there it is kept without one."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Turn it into UTC."""
        if value is None:
            return None
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Give it its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _text(name: str, *, empty: bool = True) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=empty)


def _whole(name: str, *, empty: bool = True) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=empty)


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double)


def _part(name: str, *columns: sa.Column[Any], key: tuple[str, ...]) -> sa.Table:
    """Make a table whose rows belong to a run and go with it."""
    run_id = sa.Column("run_id", sa.Text, sa.ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False)
    return sa.Table(name, METADATA, run_id, *columns, sa.PrimaryKeyConstraint("run_id", *key, name=f"{name}_pkey"))


RUNS: Final = sa.Table(
    "runs",
    METADATA,
    sa.Column("run_id", sa.Text, nullable=False),
    _text("kind", empty=False),
    _text("status", empty=False),
    sa.Column("recorded_at", Moment, nullable=False),
    sa.Column("started_at", Moment),
    sa.Column("finished_at", Moment),
    *(_text(name) for name in ("model", "model_path", "weights", "dtype")),
    _whole("parameters"),
    *(_text(name) for name in ("attn_implementation", "experts_implementation", "decode_mode")),
    *(_whole(name) for name in ("batch_size", "ranks")),
    _text("input_mode"),
    _whole("inputs"),
    *(_text(name) for name in ("images_hash", "inputs_hash")),
    *(_whole(name) for name in ("prompt_tokens", "new_tokens", "max_new_tokens", "repeats")),
    *(_text(name) for name in ("collector", "preset", "annotation_level", "device", "gpu_name", "driver")),
    *(_text(name) for name in ("git_commit", "command", "headline", "unit", "time_base")),
    *(_whole(name) for name in ("time_ns", "best_ns")),
    *(_text(name) for name in ("folder", "error")),
    sa.Column("versions", sa.JSON(none_as_null=True)),
    sa.Column("options", sa.JSON(none_as_null=True)),
    sa.PrimaryKeyConstraint("run_id", name="runs_pkey"),
    sa.Index("runs_by_model", "model", "started_at"),
)
SAMPLES: Final = _part(
    "samples",
    _whole("sequence", empty=False),
    _text("stage", empty=False),
    _text("per", empty=False),
    _whole("units", empty=False),
    _whole("ns", empty=False),
    _whole("pass_index"),
    _whole("image_index"),
    sa.Column("step_ns", sa.JSON(none_as_null=True)),
    key=("sequence",),
)
STAGES: Final = _part(
    "stages",
    _text("stage", empty=False),
    _text("per"),
    *(_whole(name) for name in ("units", "instances")),
    *(_real(name) for name in ("unprofiled_ns", "profiled_ns", "busy_ns", "busy_share")),
    _text("busy_share_base"),
    *(_whole(name) for name in ("kernel_sum_ns", "launches", "synchronises", "synchronise_ns", "idle_ns")),
    *(_real(name) for name in ("mfu", "mbu")),
    _text("utilisation_base"),
    key=("stage",),
)
CLASSES: Final = _part(
    "classes",
    _text("stage", empty=False),
    _text("kernel_class", empty=False),
    _whole("calls", empty=False),
    _whole("total_ns", empty=False),
    key=("stage", "kernel_class"),
)
MODULES: Final = _part(
    "modules",
    _text("stage", empty=False),
    _text("module", empty=False),
    _whole("calls", empty=False),
    _whole("total_ns", empty=False),
    key=("stage", "module"),
)
VERDICTS: Final = _part(
    "verdicts",
    _text("stage", empty=False),
    _text("bound", empty=False),
    _text("sentence", empty=False),
    *(_text(name) for name in ("action", "per", "time_base")),
    *(_whole(name) for name in ("time_ns", "ceiling_ns", "best_ns")),
    _text("ceiling"),
    key=("stage",),
)
CEILINGS: Final = _part(
    "ceilings",
    _whole("sequence", empty=False),
    _text("stage"),
    _whole("rank", empty=False),
    sa.Column("kinds", sa.JSON, nullable=False),
    _text("action", empty=False),
    _text("unit", empty=False),
    _text("time_base"),
    _whole("time_ns", empty=False),
    _whole("best_ns", empty=False),
    _text("sentence"),
    key=("sequence",),
)
ARTEFACTS: Final = _part(
    "artefacts",
    _text("name", empty=False),
    _text("path", empty=False),
    _whole("bytes", empty=False),
    key=("name",),
)
DEVICE_MOMENTS: Final = _part(
    "device_moments",
    _text("moment", empty=False),
    *(_whole(name) for name in ("sm_clock_mhz", "memory_clock_mhz", "temperature_c")),
    _real("power_w"),
    key=("moment",),
)

PARTS: Final[dict[str, tuple[sa.Table, type[Any]]]] = {
    "samples": (SAMPLES, Sample),
    "stages": (STAGES, StageRow),
    "classes": (CLASSES, KernelClass),
    "modules": (MODULES, Module),
    "verdicts": (VERDICTS, VerdictRow),
    "ceilings": (CEILINGS, Ceiling),
    "artefacts": (ARTEFACTS, Artefact),
    "device_moments": (DEVICE_MOMENTS, DeviceMoment),
}
"""Field of `RecordedRun` → its table, and the record that a row of it is."""
