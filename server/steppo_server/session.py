"""One session: what the server itself remembers of an episode. The environment lives in a worker."""

import asyncio
import copy
import time
from dataclasses import dataclass, field

from steppo_env.errors import (
    EpisodeEnded,
    InvalidInput,
    StepConflict,
    StepIndexMismatch,
    SteppoError,
)
from steppo_env.keys import canonical_json, digest
from steppo_env.wire import ActionModel, CreateSession
from steppo_server.engines import Worker

__all__ = [
    "MAX_ACTION_CHARS",
    "Session",
    "action_json",
    "creation_key",
    "id_of",
    "key_of",
    "owner_of",
]

MAX_ACTION_CHARS = 1_000_000
"""Longest action; a dict counts as its JSON text."""


def action_json(action: ActionModel) -> bytes:
    """Return the one JSON text of an action; its digest is what a repeated action is known by.

    Raises:
        InvalidInput: The action is too long, or holds a number that JSON does not have.
    """
    try:
        text = canonical_json(action)
    except ValueError as error:
        raise InvalidInput(f"action: {error}; numbers are finite in JSON") from None
    num_chars = len(action) if isinstance(action, str) else len(text)
    if num_chars > MAX_ACTION_CHARS:
        raise InvalidInput(
            f"an action has at most {MAX_ACTION_CHARS} characters, this one has {num_chars}"
        )
    return text


def creation_key(request: CreateSession) -> str:
    """Return the digest by which a repeated creation is known, whatever lease it asks for.

    Raises:
        InvalidInput: The options hold a number that JSON does not have.
    """
    try:
        return digest(request.model_dump(mode="json", exclude={"lease_s"}))
    except ValueError as error:
        raise InvalidInput(f"options: {error}; numbers are finite in JSON") from None


def key_of(owner: str, session_id: str) -> str:
    """Return what the journal and the workers know a session by; it tells owners apart."""
    return f"{owner}:{session_id}"


def owner_of(key: str) -> str:
    """Return the owner in a session's key."""
    return key.partition(":")[0]


def id_of(key: str) -> str:
    """Return the id in a session's key, which its client knows."""
    return key.partition(":")[2]


@dataclass(slots=True)
class Session:
    """The book-keeping of one episode.

    Only the latest reply is kept: an earlier one, which hardly anybody asks for again, is made anew by
    replaying the actions up to it.

    Attributes:
        key: Owner and id: what the journal and the workers know it by.
        lock: Held by whoever uses the session.
        num_waiting: Number of those who wait for the lock, or are about to get it.
        is_closed: True when it is no longer served; whoever waited for the lock must look first.
        request: What it was made of; None until it has begun or was found in the journal.
        fingerprint: Digest of that request; the same request again is a retry.
        worker: Where the environment lives, if anywhere.
        generation: The worker's when the environment was made: a later one has lost it.
        created_at: When it was begun, Unix time: tells it from an earlier one that had its id.
        first_reply: What its creation was answered, until the first step is taken.
        num_steps: Number of steps taken, one that failed included.
        last_key: Digest of the latest action.
        last_reply: Its reply, or the error that it ended in.
        failure: Why the episode takes no further step, when that is nobody's action.
        expires_at: Monotonic clock, seconds.
        lease_expires_at: Unix time, seconds.
        journalled_lease: The latest lease_expires_at that the journal has.
    """

    key: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    num_waiting: int = 0
    is_closed: bool = False
    request: CreateSession | None = None
    fingerprint: str = ""
    lease_s: float = 0.0
    env_version: str = ""
    created_at: float = 0.0
    worker: Worker | None = None
    generation: int = 0
    first_reply: bytes | None = None
    num_steps: int = 0
    last_key: str = ""
    last_reply: bytes | SteppoError = b""
    terminated: bool = False
    truncated: bool = False
    failure: SteppoError | None = None
    expires_at: float = 0.0
    lease_expires_at: float = 0.0
    journalled_lease: float = 0.0

    @property
    def session_id(self) -> str:
        """The id that its client knows."""
        return id_of(self.key)

    @property
    def has_ended(self) -> bool:
        """True when the episode takes no further step."""
        return self.terminated or self.truncated or self.failure is not None

    @property
    def has_expired(self) -> bool:
        """True when the lease ran out. A session in the middle of a step is in use, however long."""
        return self.expires_at < time.monotonic() and not self.lock.locked()

    @property
    def is_homeless(self) -> bool:
        """True when no worker has the environment: it was never built here, or was lost."""
        return self.worker is None or self.worker.generation != self.generation

    def renew(self) -> None:
        """Start the lease anew."""
        self.expires_at = time.monotonic() + self.lease_s
        self.lease_expires_at = time.time() + self.lease_s

    def check_same(self, step_index: int, key: str, taken_key: str) -> None:
        """Check that a step that was taken before is asked for with the same action.

        Raises:
            StepConflict: It was taken with another one.
        """
        if taken_key != key:
            raise StepConflict(
                f"step {step_index} of session {self.session_id} was taken with another action; "
                "fork the session there to try this one",
                step_index=step_index,
            )

    def check_next(self, step_index: int) -> None:
        """Check that the step with this index can be taken now.

        Raises:
            EpisodeEnded: The episode takes no further step.
            StepIndexMismatch: It is not the next one.
        """
        if self.has_ended:
            raise EpisodeEnded(
                f"session {self.session_id} ended after {self.num_steps} steps",
                num_steps=self.num_steps,
                trainable=self.failure is None,
            )
        if step_index != self.num_steps:
            raise StepIndexMismatch(
                f"the next step of session {self.session_id} is {self.num_steps}, not {step_index}",
                expected=self.num_steps,
            )

    def last_answer(self) -> bytes:
        """Return the latest reply, or raise the error, as the first time."""
        if isinstance(self.last_reply, SteppoError):
            raise copy.copy(self.last_reply)  # the kept one would grow its traceback each time
        return self.last_reply

    def record(self, key: str, reply: bytes | SteppoError) -> None:
        """Keep what the next step was answered."""
        self.num_steps += 1
        self.last_key = key
        self.last_reply = reply
        self.first_reply = None

    def fail(self, key: str, error: SteppoError) -> None:
        """Keep that the next step failed, and with it the episode."""
        error.members.setdefault("trainable", False)
        self.failure = copy.copy(error)  # without the traceback, which would keep every frame
        self.record(key, copy.copy(error))
