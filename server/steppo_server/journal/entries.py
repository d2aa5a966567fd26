"""What is asked of a journal's database, one object each. A StepRow is its own entry."""

from collections.abc import Mapping
from dataclasses import dataclass

from steppo_server.journal.rows import SessionRow, StepRow

__all__ = ["AddSession", "Beat", "Entry", "Load", "Purge", "RemoveSession", "Renew", "Write"]


@dataclass(frozen=True, slots=True)
class AddSession:
    """Add a session, and the steps that it begins with; all of it or nothing."""

    row: SessionRow
    steps: tuple[StepRow, ...]


@dataclass(frozen=True, slots=True)
class RemoveSession:
    """Remove a session and its steps, if it is there."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Put leases off to these times, by session id; never to an earlier one."""

    leases: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Beat:
    """Note that a server is alive at this time."""

    at: float


@dataclass(frozen=True, slots=True)
class Load:
    """Read a session with all its steps."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Purge:
    """Remove a batch of the sessions that expired before this time."""

    before: float


Write = StepRow | AddSession | RemoveSession | Renew | Beat
Entry = Write | Load | Purge
