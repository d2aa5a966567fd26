"""Sessions: episodes that clients drive one step at a time."""

import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from steppo_env.env import AnyEnv
from steppo_env.errors import (
    CapacityExceeded,
    DeadlineExceeded,
    EnvError,
    EpisodeEnded,
    SessionExists,
    SessionExpired,
    StepConflict,
    StepIndexMismatch,
    SteppoError,
    UnknownSession,
    boundary,
)
from steppo_env.keys import digest
from steppo_env.mdp import Outcome
from steppo_env.registry import Catalogue
from steppo_env.wire import (
    ActionModel,
    CreateSession,
    ExpertReply,
    ObservationModel,
    SessionReply,
    StepReply,
    StepRequest,
    read_action,
)
from steppo_server.settings import ServerSettings
from steppo_server.workers import InlineWorker, ThreadWorker, Worker

__all__ = ["SessionManager"]

MAX_REMEMBERED_EXPIRIES = 100_000

ResultT = TypeVar("ResultT")

logger = logging.getLogger("steppo.server")


@dataclass(slots=True)
class Session:
    """One episode and what was answered so far.

    Attributes:
        fingerprint: Digest of the request that made it; the same request again is a retry.
        taken: Digest of each action taken, and its reply as bytes or the error it ended in.
        expires_at: Monotonic clock, seconds.
    """

    session_id: str
    env_name: str
    fingerprint: str
    lease_s: float
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    env: AnyEnv | None = None
    worker: Worker | None = None
    first_reply: bytes | None = None
    seed: int = 0
    taken: list[tuple[str, bytes | SteppoError]] = field(default_factory=list)
    failure: SteppoError | None = None
    is_abandoned: bool = False
    expires_at: float = 0.0
    lease_expires_at: float = 0.0

    def renew(self) -> None:
        """Start the lease anew."""
        self.expires_at = time.monotonic() + self.lease_s
        self.lease_expires_at = time.time() + self.lease_s

    @property
    def running(self) -> tuple[AnyEnv, Worker]:
        """The episode and where its code runs; only after the session has begun."""
        assert self.env is not None
        assert self.worker is not None
        return self.env, self.worker


class SessionManager:
    """Owns every live session. Used from one event loop."""

    def __init__(self, catalogue: Catalogue, settings: ServerSettings) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self._sessions: dict[str, Session] = {}
        self._expired: OrderedDict[str, int] = OrderedDict()
        self._workers: dict[str, Worker] = {}
        self._loader = ThreadWorker()
        self._inline = InlineWorker()

    @property
    def num_sessions(self) -> int:
        """Number of live sessions."""
        return len(self._sessions)

    async def create(self, request: CreateSession) -> bytes:
        """Begin an episode and return its SessionReply; a repeated request gets the first reply.

        Raises:
            SessionExists: The client-chosen id is in use for another request.
            CapacityExceeded: There are as many sessions as allowed.
            UnknownEnvironment, UnknownTask, InvalidOptions, EnvError, DeadlineExceeded: As they say.
        """
        session = self._claim(request)
        async with session.lock:
            if session.is_abandoned:
                raise SessionExists(
                    f"session {session.session_id} was being made by another request, which failed; "
                    "send the request again"
                )
            if session.first_reply is None:
                try:
                    await self._begin(session, request)
                except BaseException:
                    session.is_abandoned = True
                    del self._sessions[session.session_id]
                    raise
            session.renew()
            assert session.first_reply is not None
            return session.first_reply

    async def step(self, session_id: str, request: StepRequest) -> bytes:
        """Take a step and return its StepReply; a repeated step gets its first reply again.

        Raises:
            UnknownSession, SessionExpired: There is no live session under this id.
            StepConflict: The step was taken with another action.
            StepIndexMismatch: The index is past the next one.
            EpisodeEnded: The episode takes no further step.
            EnvError, DeadlineExceeded: The step failed; so does the same request again.
        """
        session = self._get(session_id)
        async with session.lock:
            session.renew()
            if request.step_index < len(session.taken):
                return _replayed(session, request)
            self._check_next(session, request.step_index)
            try:
                reply = await self._advance(session, request.action)
            except SteppoError as error:
                error.members.setdefault("trainable", False)
                session.failure = error
                session.taken.append((_action_digest(request.action), error))
                raise
            session.taken.append((_action_digest(request.action), reply))
            session.renew()
            return reply

    async def get(self, session_id: str) -> bytes:
        """Return the session's current state as a SessionReply."""
        session = self._get(session_id)
        async with session.lock:
            session.renew()
            return _session_reply(session).model_dump_json().encode()

    async def delete(self, session_id: str) -> None:
        """Close a session and free its memory."""
        session = self._get(session_id)
        async with session.lock:
            self._sessions.pop(session_id, None)
            await self._close(session)

    async def expert(self, session_id: str) -> ExpertReply:
        """Return the next expert action of a session; no action after its end."""
        session = self._get(session_id)
        async with session.lock:
            session.renew()
            env, worker = session.running
            if session.failure is not None or env.has_ended:
                return ExpertReply(action=None, distance=None)
            action, distance = await worker.run(
                lambda: (env.expert(), env.distance()), self.settings.step_deadline_s
            )
            return ExpertReply(action=None if action is None else action.content, distance=distance)

    async def sweep(self) -> int:
        """Free the sessions whose lease ran out; return how many there were."""
        now = time.monotonic()
        # A session in the middle of a step is in use, however long the step takes.
        expired = [
            session
            for session in self._sessions.values()
            if session.expires_at < now and not session.lock.locked()
        ]
        for session in expired:
            del self._sessions[session.session_id]
            self._expired[session.session_id] = len(session.taken)
        for session in expired:
            await self._close(session)
        while len(self._expired) > MAX_REMEMBERED_EXPIRIES:
            self._expired.popitem(last=False)
        return len(expired)

    async def close(self) -> None:
        """Close every session."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await self._close(session)

    async def load(self, work: Callable[[], ResultT]) -> ResultT:
        """Run something that may load an environment's data, off the event loop."""
        return await self._loader.run(work, self.settings.begin_deadline_s)

    def _get(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is not None and session.first_reply is not None:
            return session
        if session_id in self._expired:
            num_steps = self._expired[session_id]
            raise SessionExpired(
                f"the lease of session {session_id} ran out after {num_steps} steps",
                num_steps=num_steps,
                last_step_index=num_steps - 1,
                trainable=False,
            )
        raise UnknownSession(f"there is no session {session_id[:128]!r}")

    def _claim(self, request: CreateSession) -> Session:
        """Return the session that the request is a retry of, or a new one with nothing in it."""
        fingerprint = digest(request.model_dump(mode="json", exclude={"lease_s"}))
        session_id = request.session_id or secrets.token_hex(16)
        existing = self._sessions.get(session_id)
        if existing is not None:
            if existing.fingerprint != fingerprint:
                raise SessionExists(f"session {session_id} exists and was made by another request")
            return existing
        if len(self._sessions) >= self.settings.max_sessions:
            raise CapacityExceeded(
                f"there are {len(self._sessions)} sessions, as many as this server takes; close some "
                "or try again",
                retry_after_s=5,
            )
        lease_s = request.lease_s or self.settings.default_lease_s
        session = Session(session_id, request.env_id, fingerprint, lease_s)
        session.renew()
        self._expired.pop(session_id, None)
        self._sessions[session_id] = session
        return session

    async def _begin(self, session: Session, request: CreateSession) -> None:
        spec = self.catalogue.get(request.env_id)
        known = self._workers.get(spec.name, self._loader)
        deadline_s = self.settings.begin_deadline_s
        env = await known.run(lambda: spec.make(request.options), deadline_s)
        worker = self._workers.setdefault(
            spec.name, ThreadWorker() if env.is_blocking else self._inline
        )

        def begin() -> None:
            if request.task_id is not None:
                env.start(request.task_id, request.seed)
            else:
                assert request.split is not None
                assert request.index is not None
                env.start(env.tasks.at(request.split, request.index), request.seed)

        try:
            await worker.run(begin, deadline_s)
        except BaseException:
            env.close()
            raise
        session.env, session.worker, session.seed = env, worker, request.seed
        session.first_reply = _session_reply(session).model_dump_json().encode()

    def _check_next(self, session: Session, step_index: int) -> None:
        env, _ = session.running
        num_steps = len(session.taken)
        if session.failure is not None or env.has_ended:
            raise EpisodeEnded(
                f"session {session.session_id} ended after {num_steps} steps",
                num_steps=num_steps,
            )
        if step_index != num_steps:
            raise StepIndexMismatch(
                f"the next step_index of session {session.session_id} is {num_steps}, "
                f"not {step_index}",
                expected=num_steps,
            )

    async def _advance(self, session: Session, action: ActionModel) -> bytes:
        env, worker = session.running
        parsed = read_action(action)
        outcome = await worker.run(lambda: env.advance(parsed), self.settings.step_deadline_s)
        reply = _step_reply(session, env, outcome)
        return reply.model_dump_json().encode()

    async def _close(self, session: Session) -> None:
        if session.env is None or session.worker is None:
            return
        if isinstance(session.failure, DeadlineExceeded):
            return  # its thread may still be inside the environment
        try:
            with boundary(EnvError, f"closing session {session.session_id}"):
                await session.worker.run(session.env.close, self.settings.step_deadline_s)
        except SteppoError:
            # The session is gone either way; the client's answer does not depend on it.
            logger.exception("session %s did not close cleanly", session.session_id)


def _action_digest(action: ActionModel) -> str:
    return digest(action)


def _replayed(session: Session, request: StepRequest) -> bytes:
    taken, reply = session.taken[request.step_index]
    if taken != _action_digest(request.action):
        raise StepConflict(
            f"step {request.step_index} of session {session.session_id} was taken with another "
            "action; fork the session or make a new one",
            step_index=request.step_index,
        )
    if isinstance(reply, SteppoError):
        raise reply
    return reply


def _session_reply(session: Session) -> SessionReply:
    env, _ = session.running
    last = env.observation
    return SessionReply(
        session_id=session.session_id,
        env_id=session.env_name,
        task_id=env.task.task_id,
        split=env.task.split,
        labels=dict(env.task.labels),
        seed=session.seed,
        step_index=len(session.taken),
        observation=ObservationModel.of(last),
        state_key=last.state_key,
        trace_key=env.trace_key,
        terminated=env.has_terminated,
        truncated=env.has_truncated,
        trainable=session.failure is None,
        lease_expires_at=session.lease_expires_at,
    )


def _step_reply(session: Session, env: AnyEnv, outcome: Outcome) -> StepReply:
    return StepReply(
        session_id=session.session_id,
        env_id=session.env_name,
        task_id=env.task.task_id,
        seed=session.seed,
        step_index=env.num_steps - 1,
        observation=ObservationModel.of(outcome.observation),
        state_key=outcome.observation.state_key,
        trace_key=env.trace_key,
        reward=outcome.reward,
        reward_terms=dict(outcome.reward_terms),
        terminated=outcome.terminated,
        truncated=outcome.truncated,
        trainable=True,
        info=dict(outcome.info),
        lease_expires_at=session.lease_expires_at,
    )
