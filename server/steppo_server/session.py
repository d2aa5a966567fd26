"""One session: an episode, the replies it gave, and its lease. Nothing here waits."""

import copy
import time
import zlib
from dataclasses import dataclass, field

import anyio

from steppo_env.env import AnyEnv
from steppo_env.errors import (
    EpisodeEnded,
    InvalidInput,
    StepConflict,
    StepIndexMismatch,
    SteppoError,
)
from steppo_env.keys import canonical_json, digest
from steppo_env.mdp import Observation, Outcome
from steppo_env.wire import (
    ActionModel,
    CreateSession,
    ObservationModel,
    SessionReply,
    StepReply,
    StepRequest,
)
from steppo_server.workers import Worker

__all__ = ["MAX_ACTION_CHARS", "Session", "action_key", "creation_key"]

MAX_ACTION_CHARS = 1_000_000
"""Longest action; a dict counts as its JSON text."""

COMPRESS_FROM_BYTES = 4_096
"""Replies from this size on are compressed once a later step has been answered."""


def action_key(action: ActionModel) -> tuple[str, int]:
    """Return the digest by which a repeated action is known, and the action's length.

    Raises:
        InvalidInput: The action is too long, or holds a number that JSON does not have.
    """
    try:
        num_chars = len(action) if isinstance(action, str) else len(canonical_json(action))
    except ValueError as error:
        raise InvalidInput(f"action: {error}; numbers are finite in JSON") from None
    if num_chars > MAX_ACTION_CHARS:
        raise InvalidInput(
            f"an action has at most {MAX_ACTION_CHARS} characters, this one has {num_chars}"
        )
    return digest(action), num_chars


def creation_key(request: CreateSession) -> str:
    """Return the digest by which a repeated creation is known, whatever lease it asks for.

    Raises:
        InvalidInput: The options hold a number that JSON does not have.
    """
    try:
        return digest(request.model_dump(mode="json", exclude={"lease_s"}))
    except ValueError as error:
        raise InvalidInput(f"options: {error}; numbers are finite in JSON") from None


@dataclass(slots=True)
class _Taken:
    """A step that was taken.

    Attributes:
        key: Digest of its action.
        reply: The StepReply as bytes, or the error that it ended in.
    """

    key: str
    reply: bytes | SteppoError
    is_compressed: bool = False

    def compress(self) -> None:
        """Take less memory: only the last reply is likely to be asked for again."""
        if isinstance(self.reply, bytes) and len(self.reply) >= COMPRESS_FROM_BYTES:
            self.reply, self.is_compressed = zlib.compress(self.reply, 1), True

    def again(self) -> bytes:
        """Return the reply, or raise the error, as the first time."""
        if isinstance(self.reply, SteppoError):
            raise copy.copy(self.reply)  # raising the kept one would grow its traceback each time
        return zlib.decompress(self.reply) if self.is_compressed else self.reply


@dataclass(slots=True)
class Session:
    """One episode and what was answered so far.

    What replies are made of is kept here and not asked of the environment: after a missed deadline a
    thread may still be inside it.

    Attributes:
        env_name: What the client asked for: a registered id or a variant's name.
        fingerprint: Digest of the request that made it; the same request again is a retry.
        lock: Held by whoever uses the session.
        is_closed: True when it is no longer served; whoever waited for the lock must look first.
        failure: Why the episode takes no further step, when that is nobody's action.
        expires_at: Monotonic clock, seconds.
        lease_expires_at: Unix time, seconds.
    """

    session_id: str
    env_name: str
    fingerprint: str
    lease_s: float
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    is_closed: bool = False
    env: AnyEnv | None = None
    worker: Worker | None = None
    first_reply: bytes | None = None
    seed: int = 0
    observation: Observation | None = None
    trace_key: str = ""
    terminated: bool = False
    truncated: bool = False
    failure: SteppoError | None = None
    expires_at: float = 0.0
    lease_expires_at: float = 0.0
    _taken: list[_Taken] = field(default_factory=list)

    @property
    def num_steps(self) -> int:
        """Number of steps taken, one that failed included."""
        return len(self._taken)

    @property
    def has_ended(self) -> bool:
        """True when the episode takes no further step."""
        return self.terminated or self.truncated or self.failure is not None

    @property
    def has_expired(self) -> bool:
        """True when the lease ran out. A session in the middle of a step is in use, however long."""
        return self.expires_at < time.monotonic() and not self.lock.locked()

    @property
    def running(self) -> tuple[AnyEnv, Worker]:
        """The episode and where its code runs; only after the session has begun."""
        assert self.env is not None
        assert self.worker is not None
        return self.env, self.worker

    def renew(self) -> None:
        """Start the lease anew."""
        self.expires_at = time.monotonic() + self.lease_s
        self.lease_expires_at = time.time() + self.lease_s

    def begin(self, env: AnyEnv, worker: Worker, seed: int) -> bytes:
        """Take over an environment that has started its episode; return the first reply."""
        self.env, self.worker, self.seed = env, worker, seed
        self.observation, self.trace_key = env.observation, env.trace_key
        self.renew()
        self.first_reply = self.reply()
        return self.first_reply

    def replay(self, request: StepRequest, key: str) -> bytes:
        """Answer a step that was taken before as it was answered then.

        Raises:
            StepConflict: It was taken with another action.
        """
        taken = self._taken[request.step_index]
        if taken.key != key:
            raise StepConflict(
                f"step {request.step_index} of session {self.session_id} was taken with another "
                "action; make a new session to try this one",
                step_index=request.step_index,
            )
        return taken.again()

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
                f"the next step_index of session {self.session_id} is {self.num_steps}, "
                f"not {step_index}",
                expected=self.num_steps,
            )

    def record(self, key: str, outcome: Outcome) -> bytes:
        """Keep what the next step did; return its reply."""
        env, _ = self.running
        self.renew()
        reply = self._step_reply(env, outcome).model_dump_json().encode()
        self.observation, self.trace_key = outcome.observation, env.trace_key
        self.terminated, self.truncated = outcome.terminated, outcome.truncated
        self._keep(key, reply)
        return reply

    def fail(self, error: SteppoError) -> None:
        """Keep that infrastructure ended the episode."""
        error.members.setdefault("trainable", False)
        self.failure = copy.copy(error)  # without the traceback, which would keep every frame

    def record_failure(self, key: str, error: SteppoError) -> None:
        """Keep that the next step failed, and with it the episode."""
        self.fail(error)
        self._keep(key, copy.copy(error))

    def reply(self) -> bytes:
        """Return the current state as a SessionReply."""
        env, _ = self.running
        assert self.observation is not None
        reply = SessionReply(
            session_id=self.session_id,
            env_id=self.env_name,
            task_id=env.task.task_id,
            split=env.task.split,
            labels=dict(env.task.labels),
            seed=self.seed,
            step_index=self.num_steps,
            observation=ObservationModel.of(self.observation),
            state_key=self.observation.state_key,
            trace_key=self.trace_key,
            terminated=self.terminated,
            truncated=self.truncated,
            trainable=self.failure is None,
            lease_expires_at=self.lease_expires_at,
        )
        return reply.model_dump_json().encode()

    def _step_reply(self, env: AnyEnv, outcome: Outcome) -> StepReply:
        return StepReply(
            session_id=self.session_id,
            env_id=self.env_name,
            task_id=env.task.task_id,
            seed=self.seed,
            step_index=self.num_steps,
            observation=ObservationModel.of(outcome.observation),
            state_key=outcome.observation.state_key,
            trace_key=env.trace_key,
            reward=outcome.reward,
            reward_terms=dict(outcome.reward_terms),
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            trainable=True,
            info=dict(outcome.info),
            lease_expires_at=self.lease_expires_at,
        )

    def _keep(self, key: str, reply: bytes | SteppoError) -> None:
        if self._taken:
            self._taken[-1].compress()
        self._taken.append(_Taken(key, reply))
