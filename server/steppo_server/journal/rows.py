"""What a journal keeps of a session: how it was begun, and each step that was accepted."""

from dataclasses import dataclass

__all__ = ["Journalled", "SessionRow", "StepExists", "StepRow"]


@dataclass(frozen=True, slots=True)
class SessionRow:
    """How a session was begun. Times are Unix time, durations seconds.

    Attributes:
        session_id: At most 128 characters; unique among all sessions of the journal.
        owner: Whose session it is.
        fingerprint: Digest by which a repeated creation is known.
        request: JSON of the CreateSession without its `lease_s`.
        env_version: Names the environment's code, data and resolved options.
        task_id: The task, also where the request names a place in a split.
        trace_key: The trace key of the beginning.
        lease_s: By how much each use renews the lease.
        lease_expires_at: Until when the session may be left alone.
        created_at: When it was begun.
        group_id: The group it was begun in, or None.
        parent_id: The session it was forked from, or None.
        parent_step: The number of steps that it shares with its parent, or None.
    """

    session_id: str
    owner: str
    fingerprint: str
    request: bytes
    env_version: str
    task_id: str
    trace_key: str
    lease_s: float
    lease_expires_at: float
    created_at: float
    group_id: str | None = None
    parent_id: str | None = None
    parent_step: int | None = None


@dataclass(frozen=True, slots=True)
class StepRow:
    """One accepted step.

    Attributes:
        session_id: The session; it is in the journal already.
        step_index: Counted from 0, without gaps.
        action: JSON of the ActionModel.
        action_key: Digest by which a repeated action is known.
        trace_key: The trace key after the step.
        terminated: The step ended the episode.
        truncated: The step was cut off by a limit.
        lease_expires_at: The session's lease as the step renewed it (Unix time).
        problem: The RFC 9457 problem of a step that ended in an error, as JSON; None for others.
    """

    session_id: str
    step_index: int
    action: bytes
    action_key: str
    trace_key: str
    terminated: bool
    truncated: bool
    lease_expires_at: float
    problem: bytes | None = None


@dataclass(frozen=True, slots=True)
class Journalled:
    """All that a journal has of one session.

    Attributes:
        row: How it was begun; its `lease_expires_at` is the latest that any use wrote.
        steps: Its steps, from 0 on without gaps.
    """

    row: SessionRow
    steps: tuple[StepRow, ...]


class StepExists(Exception):
    """The step is journalled already: another replica was faster, or this is a retry.

    It never leaves the server: whoever adds the step compares `existing` with it and goes on.

    Attributes:
        existing: What the journal has.
    """

    def __init__(self, existing: StepRow) -> None:
        super().__init__(
            f"step {existing.step_index} of session {existing.session_id} is in the journal already"
        )
        self.existing = existing
