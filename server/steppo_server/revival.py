"""From the journal back to a session: what to replay, and whether its lease still runs."""

import json
from dataclasses import dataclass

from steppo_env.errors import SessionExpired, SteppoError, error_from_problem
from steppo_env.wire import CreateSession
from steppo_server.episode import EpisodeStart
from steppo_server.journal import Journalled, SessionRow
from steppo_server.session import Session, id_of

__all__ = ["Clock", "episode_start", "expired", "failure_of", "restore"]


@dataclass(frozen=True, slots=True)
class Clock:
    """How leases are measured over a restart: the time in which no server ran does not count.

    Attributes:
        started_at: When this process began to serve, Unix time.
        alive_until: The last sign of life of any server on this journal before that.
    """

    started_at: float
    alive_until: float

    def expires_at(self, row: SessionRow) -> float:
        """Return the Unix time at which a journalled lease runs out."""
        was_set_here = row.lease_expires_at - row.lease_s >= self.started_at
        if was_set_here or row.lease_expires_at < self.alive_until:
            return row.lease_expires_at
        return max(row.lease_expires_at, self.started_at + row.lease_s)


def episode_start(key: str, journalled: Journalled, num_steps: int | None = None) -> EpisodeStart:
    """Return what rebuilds an episode, up to so many of its steps (None: all that did not fail)."""
    row = journalled.row
    steps = [step for step in journalled.steps if step.problem is None][:num_steps]
    request = CreateSession.model_validate_json(row.request)
    return EpisodeStart(
        key=key,
        session_id=id_of(row.session_id),
        env_name=request.env_id,
        options=request.options,
        task_id=request.task_id,
        split=request.split,
        index=request.index,
        seed=request.seed,
        actions=tuple(json.loads(step.action) for step in steps),
        trace_keys=(row.trace_key, *(step.trace_key for step in steps)),
        env_version=row.env_version,
        has_failed=num_steps is None and len(steps) < len(journalled.steps),
    )


def restore(session: Session, journalled: Journalled) -> None:
    """Make the session what the journal knows of it; its environment is still to be rebuilt."""
    row = journalled.row
    session.request = CreateSession.model_validate_json(row.request)
    session.fingerprint = row.fingerprint
    session.lease_s = row.lease_s
    session.env_version = row.env_version
    session.created_at = row.created_at
    session.first_reply = None
    session.journalled_lease = row.lease_expires_at
    session.num_steps = len(journalled.steps)
    session.terminated = session.truncated = False
    session.failure = None
    session.last_reply = b""
    if journalled.steps:
        last = journalled.steps[-1]
        session.last_key = last.action_key
        session.terminated, session.truncated = last.terminated, last.truncated
        if last.problem is not None:
            session.failure = session.last_reply = failure_of(last.problem)


def failure_of(problem: bytes) -> SteppoError:
    """Return the error that a journalled step ended in."""
    return error_from_problem(json.loads(problem))


def expired(session_id: str, num_steps: int) -> SessionExpired:
    """Return what a session whose lease ran out answers."""
    return SessionExpired(
        f"the lease of session {session_id} ran out after {num_steps} steps; POST /v1/leases with "
        '"revive": true takes it up again',
        num_steps=num_steps,
        last_step_index=num_steps - 1,
        trainable=False,
    )
