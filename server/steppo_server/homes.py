"""Where episodes live: in workers, and after a worker died in another one, by replay."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from steppo_env.errors import DeadlineExceeded, EnvError, SteppoError, UnknownSession, WorkerDied
from steppo_env.wire import StepRequest
from steppo_server.engines import Pool, Worker
from steppo_server.episode import EpisodeStart, EpisodeState, StepTaken
from steppo_server.journal import Journal, Journalled
from steppo_server.metrics import Metrics, SessionEvent
from steppo_server.replies import with_lease
from steppo_server.revival import episode_start, restore
from steppo_server.session import Session
from steppo_server.settings import ServerSettings

__all__ = ["Homes"]

MAX_REBUILDS = 3
"""Workers that may die under one request before it gives up."""

ResultT = TypeVar("ResultT")

logger = logging.getLogger("steppo.server")


class Homes:
    """Runs the environments of sessions. Whoever calls holds the session's lock."""

    def __init__(
        self, pool: Pool, journal: Journal, settings: ServerSettings, metrics: Metrics
    ) -> None:
        self.pool = pool
        self._journal = journal
        self._settings = settings
        self._metrics = metrics

    async def home(self, session: Session) -> Worker:
        """Return the worker that has the episode, after rebuilding it if none has."""
        if session.is_homeless:
            journalled = await self.journalled(session)
            if _has_changed(session, journalled):
                restore(session, journalled)  # another server has gone on with it
            start = episode_start(session.key, journalled)
            state = await self.build(session, start)
            self._metrics.happened(start.env_name, SessionEvent.REBUILT)
            if state.last_step is not None and session.failure is None:
                lease_expires_at = journalled.steps[-1].lease_expires_at
                session.last_reply = with_lease(state.last_step, lease_expires_at)
        assert session.worker is not None
        return session.worker

    async def refresh(self, session: Session) -> None:
        """Give up an episode with which another server has gone on; `home` rebuilds it.

        Raises:
            UnknownSession: It was deleted, by another server.
        """
        journalled = await self.journalled(session)
        if _has_changed(session, journalled):
            await self.close(session, self._settings.step_deadline_s)
            restore(session, journalled)

    async def build(self, session: Session, start: EpisodeStart) -> EpisodeState:
        """Begin or rebuild an episode in the worker that has the fewest.

        Raises:
            EnvironmentChanged, ReplayDiverged: It did not come out as it was.
            UnknownEnvironment, UnknownTask, InvalidOptions, MissingData, MissingDependency, EnvError,
            CapacityExceeded, DeadlineExceeded, WorkerDied: As they say.
        """
        for attempt in range(MAX_REBUILDS):
            worker = await self.pool.worker_for(start.env_name, start.options)
            try:
                state: EpisodeState = await worker.call(
                    "begin", start, deadline_s=self._settings.begin_deadline_s
                )
            except WorkerDied:
                if attempt + 1 == MAX_REBUILDS:
                    raise
            else:
                session.worker, session.generation = worker, worker.generation
                return state
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def try_step(
        self, session: Session, request: StepRequest
    ) -> tuple[StepTaken | None, SteppoError | None]:
        """Return what the step did, or in what it failed when that ends the episode.

        Raises:
            CapacityExceeded, WorkerDied: The step was not taken.
            SteppoError: The episode could not be rebuilt; the step was not taken.
        """
        for attempt in range(MAX_REBUILDS):
            worker = await self.home(session)  # what goes wrong in there is not the step's failure
            try:
                taken: StepTaken = await worker.call(
                    "step",
                    session.key,
                    request.step_index,
                    request.action,
                    deadline_s=self._settings.step_deadline_s,
                )
            except WorkerDied:
                session.worker = None  # what it had of the episode is gone
                if attempt + 1 == MAX_REBUILDS:
                    raise
            except (EnvError, DeadlineExceeded) as error:
                error.members.setdefault("trainable", False)
                return None, error
            else:
                return taken, None
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def ask(
        self, session: Session, question: Callable[[Worker, float], Awaitable[ResultT]]
    ) -> ResultT:
        """Ask the episode something that leaves it as it is.

        Args:
            question: Asks the worker that has the episode, with a deadline in seconds.
        """
        with anyio.CancelScope(shield=True):
            for attempt in range(MAX_REBUILDS):
                worker = await self.home(session)
                try:
                    return await question(worker, self._settings.step_deadline_s)
                except WorkerDied:
                    session.worker = None  # what it had of the episode is gone
                    if attempt + 1 == MAX_REBUILDS:
                        raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def replay(
        self, session: Session, journalled: Journalled, num_steps: int
    ) -> EpisodeState:
        """Play the beginning of an episode once more, beside the episode itself."""
        start = episode_start(f"{session.key}#{num_steps}", journalled, num_steps)
        beside = Session(start.key)
        try:
            return await self.build(beside, start)
        finally:
            await self.close(beside, self._settings.step_deadline_s)

    async def close(self, session: Session, deadline_s: float) -> None:
        """Free the environment of a session, if there is one. A failure is logged."""
        worker = None if session.is_homeless else session.worker
        session.worker = None
        if worker is None:
            return
        try:
            await worker.call("close", session.key, deadline_s=deadline_s)
        except SteppoError:
            # The session is gone either way; the client's answer does not depend on it.
            logger.exception("session %s did not close cleanly", session.session_id)

    async def journalled(self, session: Session) -> Journalled:
        """Return what the journal has of a session.

        Raises:
            UnknownSession: It was deleted, by another server.
        """
        journalled = await self._journal.load(session.key)
        if journalled is None:
            session.is_closed = True  # another server deleted it
            await self.close(session, self._settings.step_deadline_s)
            raise UnknownSession(f"there is no session {session.session_id!r}")
        return journalled


def _has_changed(session: Session, journalled: Journalled) -> bool:
    """Return whether another server has gone on with a session, or begun another under its id."""
    known = (session.created_at, session.num_steps)
    return known != (journalled.row.created_at, len(journalled.steps))
