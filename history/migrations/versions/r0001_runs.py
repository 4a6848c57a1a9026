"""Runs, their samples, and what their reports said: the first schema."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "r0001"
down_revision: Final = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("model", sa.Text),
        sa.Column("model_path", sa.Text),
        sa.Column("weights", sa.Text),
        sa.Column("dtype", sa.Text),
        sa.Column("parameters", sa.BigInteger),
        sa.Column("attn_implementation", sa.Text),
        sa.Column("experts_implementation", sa.Text),
        sa.Column("decode_mode", sa.Text),
        sa.Column("batch_size", sa.BigInteger),
        sa.Column("ranks", sa.BigInteger),
        sa.Column("input_mode", sa.Text),
        sa.Column("inputs", sa.BigInteger),
        sa.Column("images_hash", sa.Text),
        sa.Column("inputs_hash", sa.Text),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("new_tokens", sa.BigInteger),
        sa.Column("max_new_tokens", sa.BigInteger),
        sa.Column("repeats", sa.BigInteger),
        sa.Column("collector", sa.Text),
        sa.Column("preset", sa.Text),
        sa.Column("annotation_level", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("gpu_name", sa.Text),
        sa.Column("driver", sa.Text),
        sa.Column("git_commit", sa.Text),
        sa.Column("command", sa.Text),
        sa.Column("headline", sa.Text),
        sa.Column("unit", sa.Text),
        sa.Column("time_base", sa.Text),
        sa.Column("time_ns", sa.BigInteger),
        sa.Column("best_ns", sa.BigInteger),
        sa.Column("folder", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("versions", sa.JSON),
        sa.Column("options", sa.JSON),
        sa.PrimaryKeyConstraint("run_id", name="runs_pkey"),
    )
    op.create_index("runs_by_model", "runs", ["model", "started_at"])
    _part(
        "samples",
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("per", sa.Text, nullable=False),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.Column("ns", sa.BigInteger, nullable=False),
        sa.Column("pass_index", sa.BigInteger),
        sa.Column("image_index", sa.BigInteger),
        key=("sequence",),
    )
    _part(
        "stages",
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("per", sa.Text),
        sa.Column("units", sa.BigInteger),
        sa.Column("instances", sa.BigInteger),
        sa.Column("unprofiled_ns", sa.Double),
        sa.Column("profiled_ns", sa.Double),
        sa.Column("busy_ns", sa.Double),
        sa.Column("busy_share", sa.Double),
        sa.Column("busy_share_base", sa.Text),
        sa.Column("kernel_sum_ns", sa.BigInteger),
        sa.Column("launches", sa.BigInteger),
        sa.Column("synchronises", sa.BigInteger),
        sa.Column("synchronise_ns", sa.BigInteger),
        sa.Column("idle_ns", sa.BigInteger),
        sa.Column("mfu", sa.Double),
        sa.Column("mbu", sa.Double),
        sa.Column("utilisation_base", sa.Text),
        key=("stage",),
    )
    for table, name in (("classes", "kernel_class"), ("modules", "module")):
        _part(
            table,
            sa.Column("stage", sa.Text, nullable=False),
            sa.Column(name, sa.Text, nullable=False),
            sa.Column("calls", sa.BigInteger, nullable=False),
            sa.Column("total_ns", sa.BigInteger, nullable=False),
            key=("stage", name),
        )
    _part(
        "verdicts",
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("bound", sa.Text, nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("action", sa.Text),
        sa.Column("per", sa.Text),
        sa.Column("time_base", sa.Text),
        sa.Column("time_ns", sa.BigInteger),
        sa.Column("ceiling_ns", sa.BigInteger),
        sa.Column("best_ns", sa.BigInteger),
        sa.Column("ceiling", sa.Text),
        key=("stage",),
    )
    _part(
        "ceilings",
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("stage", sa.Text),
        sa.Column("rank", sa.BigInteger, nullable=False),
        sa.Column("kinds", sa.JSON, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("time_base", sa.Text),
        sa.Column("time_ns", sa.BigInteger, nullable=False),
        sa.Column("best_ns", sa.BigInteger, nullable=False),
        sa.Column("sentence", sa.Text),
        key=("sequence",),
    )
    _part(
        "artefacts",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        key=("name",),
    )


def _part(name: str, *columns: sa.Column[object], key: tuple[str, ...]) -> None:
    op.create_table(
        name,
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("run_id", *key, name=f"{name}_pkey"),
    )
