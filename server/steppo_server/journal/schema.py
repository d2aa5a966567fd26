"""The tables of a journal.

::

    journal_meta      one row: which layout this is, and who made it
    journal_sessions  one row per session
    journal_steps     one row per accepted step, under its session
    journal_beat      one row: when a server that uses this journal was last known to be alive

The names carry a prefix because a PostgreSQL database may hold other tables, those of a trajectory
store among them. Leases are kept where they were written, in the session's row and in its steps'
rows: the latest of them counts, so that a step costs one insert and no update. Steps are under the
number of their session and not its random id: so the steps of the sessions that are live now lie
together in the index, and a commit changes few of its pages.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

from steppo_env.store.layout import Layout, meta_table

__all__ = ["JOURNAL", "beat", "sessions", "steps"]

metadata = MetaData()

JOURNAL = Layout("journal", 1, metadata, meta_table("journal_meta", metadata))
"""What a journal's database holds."""

# SQLite numbers rows by itself only in a column declared INTEGER.
_Number = BigInteger().with_variant(Integer, "sqlite")

sessions = Table(
    "journal_sessions",
    metadata,
    Column("session_number", _Number, primary_key=True),
    Column("session_id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("request", LargeBinary, nullable=False),  # JSON
    Column("env_version", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("trace_key", Text, nullable=False),
    Column("lease_s", Double, nullable=False),
    Column("lease_expires_at", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("group_id", Text),
    Column("parent_id", Text),  # no foreign key: a parent may be purged first
    Column("parent_step", Integer),
    Index("ix_journal_sessions_lease", "lease_expires_at"),
)

steps = Table(
    "journal_steps",
    metadata,
    Column(
        "session_number",
        _Number,
        ForeignKey("journal_sessions.session_number", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("step_index", Integer, primary_key=True, autoincrement=False),
    Column("action", LargeBinary, nullable=False),  # JSON
    Column("action_key", Text, nullable=False),
    Column("trace_key", Text, nullable=False),
    Column("terminated", Boolean, nullable=False),
    Column("truncated", Boolean, nullable=False),
    Column("lease_expires_at", Double, nullable=False),
    Column("problem", LargeBinary),  # JSON
)

beat = Table(
    "journal_beat",
    metadata,
    Column("beat_id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("at", Double, nullable=False),
)
