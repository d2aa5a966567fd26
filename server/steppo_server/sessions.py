"""Sessions: episodes that clients drive one step at a time."""

import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.to_thread

from steppo_env.catalogue import Catalogue
from steppo_env.env import AnyEnv
from steppo_env.errors import (
    CapacityExceeded,
    DeadlineExceeded,
    EnvError,
    SessionExists,
    SessionExpired,
    SteppoError,
    UnknownSession,
    boundary,
)
from steppo_env.mdp import Action
from steppo_env.wire import ActionModel, CreateSession, ExpertReply, StepRequest, read_action
from steppo_server.session import Session, action_key, creation_key
from steppo_server.settings import ServerSettings
from steppo_server.workers import InlineWorker, ThreadWorker, Worker

__all__ = ["SessionManager"]

MAX_REMEMBERED_EXPIRIES = 100_000
CLOSE_DEADLINE_S = 2.0
INLINE_ACTION_CHARS = 8_000
"""Longer actions are parsed off the event loop: the worst megabyte takes seconds."""

ResultT = TypeVar("ResultT")

logger = logging.getLogger("steppo.server")


class SessionManager:
    """Owns every live session. Used from one event loop.

    Every use of a session holds its lock. Whoever gets the lock looks at `is_closed` first: the
    session may have been deleted, or its creation may have failed, in the meantime. A session that
    is being made has its id and its place already, so that uses of it wait for its first state.

    Once environment code runs for a session, cancelling the request does not interrupt it: the step
    is recorded, and a retry gets its reply.
    """

    def __init__(self, catalogue: Catalogue, settings: ServerSettings) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self._sessions: dict[str, Session] = {}
        self._expired: OrderedDict[str, int] = OrderedDict()
        self._threads: dict[str, ThreadWorker] = {}
        self._inline = InlineWorker()
        self._made_inline: set[str] = set()

    @property
    def num_sessions(self) -> int:
        """Number of live sessions."""
        return len(self._sessions)

    async def create(self, request: CreateSession) -> bytes:
        """Begin an episode and return its SessionReply; a repeated request gets the first reply.

        Raises:
            SessionExists: The client-chosen id is in use for another request.
            CapacityExceeded: There are as many sessions as allowed, or the environment is busy.
            UnknownEnvironment, UnknownTask, InvalidOptions, EnvError, DeadlineExceeded: As they say.
        """
        fingerprint = creation_key(request)
        while True:
            session = self._claim(request, fingerprint)
            async with session.lock:
                if session.is_closed:
                    continue  # whoever was making it failed, or it was deleted: make it here
                session.renew()
                return session.first_reply or await self._begin(session, request)

    async def step(self, session_id: str, request: StepRequest) -> bytes:
        """Take a step and return its StepReply; a repeated step gets its first reply again.

        Raises:
            InvalidInput: The action is too long or not JSON.
            UnknownSession, SessionExpired: There is no live session under this id.
            StepConflict: The step was taken with another action.
            StepIndexMismatch: The index is past the next one.
            EpisodeEnded: The episode takes no further step.
            CapacityExceeded: The environment is busy; the step was not taken.
            EnvError, DeadlineExceeded: The step failed; so does the same request again.
        """
        key, num_chars = action_key(request.action)
        async with self._using(session_id) as session:
            if request.step_index < session.num_steps:
                return session.replay(request, key)
            session.check_next(request.step_index)
            return await self._take(session, key, await _parse(request.action, num_chars))

    async def get(self, session_id: str) -> bytes:
        """Return the session's current state as a SessionReply."""
        async with self._using(session_id) as session:
            return session.reply()

    async def delete(self, session_id: str) -> None:
        """Close a session and free its memory."""
        async with self._using(session_id) as session:
            self._forget(session)
            await self._close(session, self.settings.step_deadline_s)

    async def expert(self, session_id: str) -> ExpertReply:
        """Return the next expert action of a session; no action after its end."""
        async with self._using(session_id) as session:
            if session.has_ended:
                return ExpertReply(action=None, distance=None)
            env, worker = session.running

            def ask() -> ExpertReply:
                action, distance = env.expert(), env.distance()
                return ExpertReply(
                    action=None if action is None else action.content, distance=distance
                )

            try:
                with boundary(EnvError, f"{env.env_id}.expert"):
                    return await worker.run(ask, self.settings.step_deadline_s)
            except DeadlineExceeded as error:
                session.fail(error)  # the episode may be stuck in there
                raise

    async def sweep(self) -> int:
        """Free the sessions whose lease ran out; return how many there were."""
        expired = [session for session in self._sessions.values() if session.has_expired]
        for session in expired:
            self._forget(session)
            self._expired[session.session_id] = session.num_steps
        while len(self._expired) > MAX_REMEMBERED_EXPIRIES:
            self._expired.popitem(last=False)
        await self._close_all(expired, self.settings.step_deadline_s)
        return len(expired)

    async def close(self) -> None:
        """Close every session, as far as that can be done in two seconds."""
        sessions = list(self._sessions.values())
        for session in sessions:
            self._forget(session)
        with anyio.move_on_after(CLOSE_DEADLINE_S):
            await self._close_all(sessions, CLOSE_DEADLINE_S)
        for thread in self._threads.values():
            thread.close()

    async def load(self, env_id: str, work: Callable[[], ResultT]) -> ResultT:
        """Run what may load the data of an environment, off the event loop.

        Args:
            env_id: The registered environment; "" for what loads none.
            work: Runs on the environment's own thread, as its sessions do.
        """
        return await self._thread(env_id).run(work, self.settings.begin_deadline_s)

    @asynccontextmanager
    async def _using(self, session_id: str) -> AsyncIterator[Session]:
        """Hold a live session."""
        session = self._sessions.get(session_id)
        if session is None:
            raise self._gone(session_id)
        async with session.lock:
            if session.is_closed:
                raise self._gone(session_id)
            session.renew()
            yield session

    def _gone(self, session_id: str) -> SteppoError:
        num_steps = self._expired.get(session_id)
        if num_steps is None:
            return UnknownSession(f"there is no session {session_id[:128]!r}")
        return SessionExpired(
            f"the lease of session {session_id} ran out after {num_steps} steps",
            num_steps=num_steps,
            last_step_index=num_steps - 1,
            trainable=False,
        )

    def _claim(self, request: CreateSession, fingerprint: str) -> Session:
        """Return the session that the request is a retry of, or a new one with nothing in it."""
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

    def _forget(self, session: Session) -> None:
        """Serve the session no longer; whoever waits for its lock sees that it is closed."""
        session.is_closed = True
        self._sessions.pop(session.session_id, None)

    def _thread(self, env_id: str) -> ThreadWorker:
        if env_id not in self._threads:
            self._threads[env_id] = ThreadWorker(self.settings.queue_deadline_s)
        return self._threads[env_id]

    async def _begin(self, session: Session, request: CreateSession) -> bytes:
        try:
            return await self._begun(session, request)
        except BaseException:
            self._forget(session)
            raise

    async def _begun(self, session: Session, request: CreateSession) -> bytes:
        spec = self.catalogue.get(request.env_id)
        thread = self._thread(spec.env_id)
        maker = self._inline if spec.env_id in self._made_inline else thread
        deadline_s = self.settings.begin_deadline_s
        with boundary(EnvError, f"making {spec.name}"):
            env = await maker.run(lambda: spec.make(request.options), deadline_s)
        worker: Worker = thread
        if not env.is_blocking:
            worker = self._inline
            self._made_inline.add(spec.env_id)  # its code and its tasks are loaded now
        try:
            with boundary(EnvError, f"beginning {spec.name}"):
                await _run(worker, lambda: _start(env, request), deadline_s)
                return session.begin(env, worker, request.seed)
        except Exception as error:
            session.env, session.worker = env, worker
            if not isinstance(error, DeadlineExceeded):  # its thread may still be in there
                await self._close(session, self.settings.step_deadline_s)
            raise

    async def _take(self, session: Session, key: str, action: Action) -> bytes:
        env, worker = session.running
        try:
            with boundary(EnvError, f"step {session.num_steps} of {session.env_name}"):
                outcome = await _run(
                    worker, lambda: env.advance(action), self.settings.step_deadline_s
                )
                return session.record(key, outcome)
        except SteppoError as error:
            if isinstance(error, CapacityExceeded) and not env.has_ended:
                raise  # its turn did not come: the episode is as it was
            session.record_failure(key, error)
            raise
        except BaseException:
            message = f"step {session.num_steps} was interrupted; what it did is unknown"
            session.record_failure(key, DeadlineExceeded(message))
            raise

    async def _close_all(self, sessions: Iterable[Session], deadline_s: float) -> None:
        async with anyio.create_task_group() as group:
            for session in sessions:
                group.start_soon(self._close, session, deadline_s)

    async def _close(self, session: Session, deadline_s: float) -> None:
        if session.env is None or session.worker is None:
            return
        if isinstance(session.failure, DeadlineExceeded):
            return  # its thread may still be inside the environment
        try:
            with boundary(EnvError, f"closing session {session.session_id}"):
                await session.worker.run(session.env.close, deadline_s)
        except SteppoError:
            # The session is gone either way; the client's answer does not depend on it.
            logger.exception("session %s did not close cleanly", session.session_id)


async def _run(worker: Worker, work: Callable[[], ResultT], deadline_s: float) -> ResultT:
    """Run environment code although the request may be cancelled, also while it waits its turn."""
    with anyio.CancelScope(shield=True):
        return await worker.run(work, deadline_s)
    raise AssertionError("unreachable: a shield swallows nothing")


def _start(env: AnyEnv, request: CreateSession) -> None:
    if request.task_id is not None:
        env.start(request.task_id, request.seed)
    else:
        assert request.split is not None
        assert request.index is not None
        env.start(env.tasks.at(request.split, request.index), request.seed)


async def _parse(action: ActionModel, num_chars: int) -> Action:
    if num_chars <= INLINE_ACTION_CHARS:
        return read_action(action)
    return await anyio.to_thread.run_sync(read_action, action)
