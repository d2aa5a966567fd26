"""The tables of a trajectory store.

::

    store_meta  one row: which layout this is, and who made it
    runs        one row per rollout, evaluation or training run
    trajectories  one row per episode, in the order in which they were appended
    steps       one row per policy response, under its trajectory

`sequence` numbers count appends and are never used twice, so they order pages and cursors. A
trajectory's `run_id` is not a foreign key: an imported trajectory may name a run of another store.
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

__all__ = ["STORE", "runs", "steps", "trajectories"]

SCHEMA_VERSION = 1
"""The layout that this software reads and writes."""

metadata = MetaData()

# SQLite numbers rows by itself only in a column declared INTEGER.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

store_meta = meta_table("store_meta", metadata)

STORE = Layout("store", SCHEMA_VERSION, metadata, store_meta)
"""What a trajectory store holds."""

runs = Table(
    "runs",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("config", Text, nullable=False),  # JSON
    Column("seed", BigInteger, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("env_versions", Text, nullable=False),  # JSON
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", Text),
    sqlite_autoincrement=True,  # else the number of a deleted last row is given out again
)

trajectories = Table(
    "trajectories",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("trajectory_id", Text, nullable=False, unique=True),
    Column("group_id", Text, nullable=False),
    Column("env_id", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("split", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("policy", Text, nullable=False),
    Column("run_id", Text),
    Column("stop_reason", Text, nullable=False),
    Column("success", Boolean),
    Column("error", Text),
    Column("labels", Text, nullable=False),  # JSON
    Column("options", Text, nullable=False),  # JSON
    Column("tools", Text, nullable=False),  # JSON
    Column("final_messages", Text),  # JSON
    Column("final_prompt_ids", LargeBinary),  # int32
    Column("parent_trajectory_id", Text),
    Column("parent_step_index", BigInteger),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double, nullable=False),
    # Derived, so that filters and aggregates never read steps.
    Column("trainable", Boolean, nullable=False),
    Column("num_steps", Integer, nullable=False),
    Column("return_", Double, nullable=False),
    Index("ix_trajectories_run", "run_id", "sequence"),
    Index("ix_trajectories_group", "group_id", "sequence"),
    Index("ix_trajectories_task", "env_id", "task_id", "sequence"),
    sqlite_autoincrement=True,
)

steps = Table(
    "steps",
    metadata,
    Column(
        "trajectory_sequence",
        _Sequence,
        ForeignKey("trajectories.sequence", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("step_index", Integer, primary_key=True, autoincrement=False),
    Column("messages", Text, nullable=False),  # JSON
    Column("response_text", Text, nullable=False),
    Column("reward", Double, nullable=False),
    Column("reward_terms", Text, nullable=False),  # JSON
    Column("terminated", Boolean, nullable=False),
    Column("truncated", Boolean, nullable=False),
    Column("state_key", Text, nullable=False),
    Column("trace_key", Text, nullable=False),
    Column("tool_calls", Text, nullable=False),  # JSON
    Column("observation_text", Text, nullable=False),
    Column("info", Text, nullable=False),  # JSON
    Column("prompt_ids", LargeBinary),  # int32
    Column("response_ids", LargeBinary),  # int32
    Column("response_logprobs", LargeBinary),  # float32
    Column("policy_version_before", Text),
    Column("policy_version_after", Text),
    Column("model", Text),
    Column("temperature", Double),
    Column("finish_reason", Text),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("queue_s", Double, nullable=False),
    Column("generate_s", Double, nullable=False),
    Column("environment_s", Double, nullable=False),
)
