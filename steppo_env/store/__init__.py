"""A durable store of step-tagged trajectories."""

from steppo_env.store.query import (
    GroupSummary,
    TrajectoryFilter,
    TrajectoryPage,
    TrajectorySummary,
)
from steppo_env.store.runs import Run
from steppo_env.store.store import TrajectoryStore, open_store
from steppo_env.store.transcript import digest_of, fingerprint, transcript

__all__ = [
    "GroupSummary",
    "Run",
    "TrajectoryFilter",
    "TrajectoryPage",
    "TrajectoryStore",
    "TrajectorySummary",
    "digest_of",
    "fingerprint",
    "open_store",
    "transcript",
]
