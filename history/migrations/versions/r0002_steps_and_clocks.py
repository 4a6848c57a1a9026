"""Each decode step's time, and clocks, temperature and power of the device: what tells a slow run from a throttled one."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "r0002"
down_revision: Final = "r0001"


def upgrade() -> None:
    """Add a column and a table; runs recorded before have nothing there."""
    op.add_column("samples", sa.Column("step_ns", sa.JSON))
    op.create_table(
        "device_moments",
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False),
        sa.Column("moment", sa.Text, nullable=False),
        sa.Column("sm_clock_mhz", sa.BigInteger),
        sa.Column("memory_clock_mhz", sa.BigInteger),
        sa.Column("temperature_c", sa.BigInteger),
        sa.Column("power_w", sa.Double),
        sa.PrimaryKeyConstraint("run_id", "moment", name="device_moments_pkey"),
    )
