"""Sessions: episodes that clients drive one step at a time, and that outlive workers and the process."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import TypeVar

import anyio
from pydantic import JsonValue

from steppo_env.catalogue import Catalogue
from steppo_env.errors import (
    CapacityExceeded,
    SessionExists,
)
from steppo_env.keys import text_digest
from steppo_env.wire import (
    CreateSession,
    EnvDetail,
    EnvList,
    ExpertReply,
    StepItem,
    StepRequest,
    TaskPage,
)
from steppo_server.engines import Pool, WorkerLoad
from steppo_server.episode import EpisodeStart
from steppo_server.homes import Homes
from steppo_server.journal import Journal, Journalled, SessionRow, StepExists, StepRow
from steppo_server.logs import note_session
from steppo_server.metrics import Metrics, SessionEvent
from steppo_server.replies import with_lease
from steppo_server.revival import Clock, expired, restore
from steppo_server.session import Session, action_json, creation_key, id_of, key_of, owner_of
from steppo_server.settings import ServerSettings
from steppo_server.steps import RanStep, Recorder, run_now, unknown
from steppo_server.table import Held, SessionTable, already_made

__all__ = ["SessionManager"]

CLOSE_DEADLINE_S = 2.0
DRAINED_S = 5
"""After so many seconds another server, or the next process, may take what a draining one refused."""

ResultT = TypeVar("ResultT")


class SessionManager:
    """Owns the book-keeping of every live session. Used from one event loop.

    A step is in the journal before its reply leaves. What is in memory is a copy: an episode whose
    worker died, or that this process has never seen, is rebuilt by replaying the journalled actions.

    Once environment code runs for a session, cancelling the request does not interrupt it: the step
    is recorded, and a retry gets its reply.

    In every method `owner` says whose sessions are meant; those of others do not exist for it.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        settings: ServerSettings,
        journal: Journal,
        metrics: Metrics | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.journal = journal
        self.pool = Pool(catalogue, settings)
        self.metrics = metrics or Metrics()
        self.homes = Homes(self.pool, journal, settings, self.metrics)
        self.is_draining = False
        self._clock = Clock(time.time(), journal.alive_until)
        self._table = SessionTable(settings)
        self._recorder = Recorder(
            *(self._table, self.homes, journal, self.metrics),
            close_deadline_s=settings.step_deadline_s,
        )

    @property
    def num_sessions(self) -> int:
        """Number of sessions in memory."""
        return len(self._table)

    @property
    def num_sessions_of(self) -> Mapping[str, int]:
        """Number of sessions in memory by environment; those that are being made do not count."""
        requests = (session.request for session in self._table)
        return Counter(request.env_id for request in requests if request is not None)

    @property
    def loads(self) -> Sequence[WorkerLoad]:
        """How busy each worker is."""
        return self.pool.loads

    def drain(self) -> None:
        """Begin no further session; those that there are go on."""
        self.is_draining = True

    async def create(self, owner: str, request: CreateSession) -> bytes:
        """Begin an episode and return its SessionReply; a repeated request gets the first reply.

        Raises:
            SessionExists: The client-chosen id is in use for another request.
            SessionExpired: The lease of the session that the request made has run out.
            CapacityExceeded: There are as many sessions as allowed, or the environment is busy.
            UnknownEnvironment, UnknownTask, InvalidOptions, EnvError, DeadlineExceeded: As they say.
        """
        reply, _ = await self.make(owner, request)
        return reply

    async def make(
        self, owner: str, request: CreateSession, group_id: str | None = None
    ) -> tuple[bytes, bool]:
        """Do what `create` does; also return whether this request began the session."""
        fingerprint = creation_key(request)
        key = key_of(owner, request.session_id or secrets.token_hex(16))

        async def begin(session: Session) -> None:
            await self._begin(session, request, fingerprint, group_id)
            self.metrics.happened(request.env_id, SessionEvent.BEGUN)

        return await self._made(key, fingerprint, begin, is_chosen=request.session_id is not None)

    async def adopt(
        self, row: SessionRow, steps: Sequence[StepRow], start: EpisodeStart
    ) -> tuple[bytes, bool]:
        """Begin a session in the middle of an episode: at the end of `steps`.

        The same row again gets the same reply. Returns also whether this call began the session.

        Raises:
            SessionExists: The id is in use for something else.
            ReplayDiverged: The episode did not come out as it was.
        """

        async def begin(session: Session) -> None:
            state = await self.homes.build(session, start)
            await self._write(session, row, steps)
            restore(session, Journalled(row, tuple(steps)))
            session.first_reply = with_lease(state.body, row.lease_expires_at)
            self.metrics.happened(start.env_name, SessionEvent.FORKED)

        return await self._made(row.session_id, row.fingerprint, begin, is_chosen=True)

    async def step(self, owner: str, session_id: str, request: StepRequest) -> bytes:
        """Take a step and return its StepReply; a repeated step gets its first reply again.

        Raises:
            InvalidInput: The action is too long or not JSON.
            UnknownSession, SessionExpired: There is no live session under this id.
            StepConflict: The step was taken with another action.
            StepIndexMismatch: The index is past the next one.
            EpisodeEnded: The episode takes no further step.
            CapacityExceeded, WorkerDied: The step was not taken.
            EnvironmentChanged, ReplayDiverged: The episode cannot be rebuilt as it was.
            EnvError, DeadlineExceeded: The step failed; so does the same request again.
        """
        ran = await self._run_now(owner, session_id, request)
        if ran is not None:
            try:
                with suppress(StepExists), anyio.CancelScope(shield=True):
                    return await self._recorder.record(ran)
            finally:
                self._table.let_go(ran.session)
        action = action_json(request.action)
        key = text_digest(action)
        while True:
            async with self.using(owner, session_id) as session:
                with anyio.CancelScope(shield=True):
                    await self._catch_up(session, request.step_index)
                    if request.step_index < session.num_steps:
                        return await self._again(session, request.step_index, key)
                    session.check_next(request.step_index)
                    with suppress(StepExists):
                        return await self._take(session, request, action, key)
            # Another server on this journal was faster: what it did is what happened.

    async def step_many(self, owner: str, items: Sequence[StepItem]) -> Sequence[bytes | Exception]:
        """Take steps side by side, those of one session in their order.

        Returns:
            For each item its StepReply, or what `step` would raise: one that fails fails no other.
        """
        answers: list[bytes | Exception] = [b""] * len(items)
        lanes: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            lanes.setdefault(item.session_id, []).append(place)

        async def walk(lane: Sequence[int]) -> None:
            for place in lane:
                item = items[place]
                answers[place] = await _outcome_of(self.step(owner, item.session_id, item))

        # Not anyio's group: starting a task there costs as much as a whole step.
        async with asyncio.TaskGroup() as group:
            ran: dict[int, RanStep] = {}
            recorded: Sequence[bytes | Exception] = ()
            try:
                for place, *later in lanes.values():
                    item, step = items[place], None
                    if not later:
                        step = await _outcome_of(self._run_now(owner, item.session_id, item))
                    if step is None:
                        group.create_task(walk([place, *later]))
                    elif isinstance(step, Exception):
                        answers[place] = step
                    else:
                        ran[place] = step
                with anyio.CancelScope(shield=True):
                    recorded = await self._recorder.record_all([*ran.values()])
            finally:
                for step in ran.values():
                    self._table.let_go(step.session)
            for place, answer in zip(ran, recorded, strict=True):
                answers[place] = answer
                if isinstance(answer, StepExists):
                    group.create_task(walk([place]))
        return answers

    async def get(self, owner: str, session_id: str) -> bytes:
        """Return the session's current state as a SessionReply."""
        async with self.using(owner, session_id) as session:
            await self._catch_up(session)
            state = await self.homes.ask(
                session,
                lambda worker, deadline_s: worker.call("look", session.key, deadline_s=deadline_s),
            )
            return with_lease(state.body, session.lease_expires_at)

    async def expert(self, owner: str, session_id: str) -> ExpertReply:
        """Return the next expert action of a session; no action after its end."""
        async with self.using(owner, session_id) as session:
            await self._catch_up(session)
            if session.has_ended:
                return ExpertReply(action=None, distance=None)
            return await self.homes.ask(
                session,
                lambda worker, deadline_s: worker.call(
                    "expert", session.key, deadline_s=deadline_s
                ),
            )

    async def environments(self) -> EnvList:
        """Return what is served, also what cannot be used here and why."""
        worker = await self.pool.loader_for()
        return await worker.call("list_environments", deadline_s=self.settings.begin_deadline_s)

    async def describe(self, env_name: str, options: Mapping[str, JsonValue]) -> EnvDetail:
        """Return all about an environment as the options make it."""
        worker = await self.pool.loader_for(env_name)
        deadline_s = self.settings.begin_deadline_s
        return await worker.call("describe", env_name, options, deadline_s=deadline_s)

    async def tasks(
        self,
        env_name: str,
        split: str,
        limit: int,
        cursor: str | None,
        options: Mapping[str, JsonValue],
    ) -> TaskPage:
        """Return the tasks of a split from a cursor on."""
        worker = await self.pool.loader_for(env_name)
        deadline_s = self.settings.begin_deadline_s
        return await worker.call(
            "list_tasks", env_name, split, limit, cursor, options, deadline_s=deadline_s
        )

    async def delete(self, owner: str, session_id: str) -> None:
        """Close a session and free what it holds, in the journal too."""
        async with self.using(owner, session_id) as session:
            with anyio.CancelScope(shield=True):
                await self.journal.remove_session(session.key)
                await self._recorder.drop(session)
                self._count(session, SessionEvent.DELETED)

    async def renew(self, owner: str, session_id: str, *, is_revival: bool) -> float:
        """Start a session's lease anew and return when it runs out, Unix time.

        Args:
            is_revival: Also when it had run out already.

        Raises:
            UnknownSession, SessionExpired: There is no such session.
        """
        key = key_of(owner, session_id)
        session = self._table.get(key)
        if session is not None and session.request is not None:
            session.renew()
            return session.lease_expires_at
        journalled = await self._check_known(key)
        if not is_revival:
            self._check_lease(journalled)
        lease_expires_at = time.time() + journalled.row.lease_s
        await self.journal.renew({key: lease_expires_at})
        return lease_expires_at

    async def sweep(self) -> int:
        """Free the sessions whose lease ran out; return how many there were.

        What the journal should know of the leases of the others is written as well.
        """
        gone = [session for session in self._table if session.has_expired]
        for session in gone:
            self._table.forget(session)
            self._count(session, SessionEvent.EVICTED)
        try:
            await self._write_leases([*gone, *self._table])
        finally:
            await self._close_all(gone, self.settings.step_deadline_s)
        await self.journal.beat()
        return len(gone)

    async def close(self) -> None:
        """Free every session here, as far as that can be done in two seconds; the journal keeps them."""
        sessions = list(self._table)
        with anyio.CancelScope(shield=True):
            try:
                with anyio.move_on_after(CLOSE_DEADLINE_S):
                    await self._write_leases(sessions)
                    for session in sessions:
                        self._table.forget(session)
                    await self._close_all(sessions, CLOSE_DEADLINE_S)
            finally:
                await self.pool.close()

    # Whose turn it is with a session.

    def using(self, owner: str, session_id: str) -> Held:
        """Hold a live session, and renew its lease: `async with manager.using(...) as session`.

        Raises:
            UnknownSession: There is none under this id.
            SessionExpired: Its lease has run out.
        """
        return Held(self._hold_live(key_of(owner, session_id)), self._table.let_go)

    async def _hold_live(self, key: str) -> Session:
        if key not in self._table:
            await self._check_known(key)
        session = await self._table.hold(key)
        try:
            if session.request is None:
                journalled = await self._check_known(key)
                self._check_lease(journalled)
                restore(session, journalled)
                self._count(session, SessionEvent.REVIVED)
            session.renew()
            _note(session)
        except BaseException:
            self._table.let_go(session)
            raise
        return session

    async def _check_known(self, key: str) -> Journalled:
        """Return what the journal has of a session."""
        journalled = await self.journal.load(key)
        if journalled is None:
            raise unknown(id_of(key))
        return journalled

    async def _recall(self, session: Session) -> bool:
        """Fill in a new session from the journal; False when that does not know it either."""
        journalled = await self.journal.load(session.key)
        if journalled is None:
            return False
        self._check_lease(journalled)
        restore(session, journalled)
        self._count(session, SessionEvent.REVIVED)
        return True

    def _check_lease(self, journalled: Journalled) -> None:
        row = journalled.row
        if self._clock.expires_at(row) < time.time():
            raise expired(id_of(row.session_id), len(journalled.steps))

    # What happens to an episode.

    async def _run_now(self, owner: str, session_id: str, request: StepRequest) -> RanStep | None:
        """Take a step without waiting for anything, and keep the session's lock; None if it must wait.

        Raises:
            InvalidInput: The action is not JSON.
            SteppoError: The step was not taken.
        """
        session = await self._table.hold_now(key_of(owner, session_id))
        if session is None:
            return None
        ran = None
        try:
            _note(session)
            ran = run_now(session, request)
        finally:
            if ran is None:
                self._table.let_go(session)
        return ran

    async def _made(
        self,
        key: str,
        fingerprint: str,
        begin: Callable[[Session], Awaitable[None]],
        *,
        is_chosen: bool,
    ) -> tuple[bytes, bool]:
        """Begin a session, unless the same was asked before.

        Args:
            is_chosen: True when a client chose the id, so that it may have been used before.

        Returns:
            What its creation is answered, and whether this call began it.
        """
        async with Held(self._table.hold(key, fingerprint), self._table.let_go) as session:
            with anyio.CancelScope(shield=True):
                is_new = session.request is None
                if is_new and is_chosen:
                    is_new = not await self._recall(session)
                if is_new:
                    self._check_accepting()
                    try:
                        await begin(session)
                    except SessionExists:
                        # Another server on this journal was faster.
                        if not await self._recall(session):
                            raise
                        is_new = False
                if session.fingerprint != fingerprint:
                    raise already_made(session)
                session.renew()
                _note(session)
                return session.first_reply or await self._first_reply(session), is_new
        raise AssertionError("unreachable: neither of them swallows an error")

    def _check_accepting(self) -> None:
        if self.is_draining:
            raise CapacityExceeded(
                "the server stops soon and begins no further session; nothing was done, try again",
                retry_after_s=DRAINED_S,
            )

    def _count(self, session: Session, event: SessionEvent) -> None:
        if session.request is not None:
            self.metrics.happened(session.request.env_id, event)

    async def _catch_up(self, session: Session, step_index: int | None = None) -> None:
        """Take in what other servers on this journal have done with a session.

        Args:
            step_index: A step that is asked for. While it is the next one as far as is known here, or
                the latest, nothing is looked up: the journal refuses what comes too late.
        """
        is_next = step_index in (None, session.num_steps) and not session.has_ended
        is_homeless = is_next and session.is_homeless
        is_known = step_index is not None and (is_next or step_index == session.num_steps - 1)
        if is_known and not is_homeless:
            return
        with anyio.CancelScope(shield=True):
            if is_homeless:
                await self.homes.home(session)  # reads the journal
            else:
                await self.homes.refresh(session)

    async def _begin(
        self, session: Session, request: CreateSession, fingerprint: str, group_id: str | None
    ) -> None:
        start = EpisodeStart(
            key=session.key,
            session_id=session.session_id,
            env_name=request.env_id,
            options=request.options,
            task_id=request.task_id,
            split=request.split,
            index=request.index,
            seed=request.seed,
        )
        state = await self.homes.build(session, start)
        session.lease_s = request.lease_s or self.settings.default_lease_s
        created_at = time.time()
        row = SessionRow(
            session_id=session.key,
            owner=owner_of(session.key),
            fingerprint=fingerprint,
            request=request.model_dump_json(exclude={"lease_s"}).encode(),
            env_version=state.env_version,
            task_id=state.task_id,
            trace_key=state.trace_key,
            lease_s=session.lease_s,
            lease_expires_at=created_at + session.lease_s,
            created_at=created_at,
            group_id=group_id,
        )
        await self._write(session, row, ())
        session.fingerprint = fingerprint
        session.env_version = state.env_version
        session.created_at = created_at
        session.journalled_lease = row.lease_expires_at
        session.first_reply = with_lease(state.body, row.lease_expires_at)
        session.request = request

    async def _write(self, session: Session, row: SessionRow, steps: Sequence[StepRow]) -> None:
        try:
            await self.journal.add_session(row, steps)
        except BaseException:
            await self.homes.close(session, self.settings.step_deadline_s)
            raise

    async def _take(self, session: Session, request: StepRequest, action: bytes, key: str) -> bytes:
        asked = perf_counter()
        taken, failure = await self.homes.try_step(session, request)
        answered = perf_counter()
        session.renew()
        step = RanStep(session, action, key, taken, failure, asked, answered)
        return await self._recorder.record(step)

    async def _again(self, session: Session, step_index: int, key: str) -> bytes:
        """Answer a step that was taken before as it was answered then."""
        if step_index == session.num_steps - 1:
            session.check_same(step_index, key, session.last_key)
            if session.last_reply == b"":
                await self.homes.home(session)  # rebuilding it brings the reply back
            if session.last_reply != b"":
                return session.last_answer()
            # A fork that has taken no step of its own: the reply is its parent's.
        journalled = await self.homes.journalled(session)
        taken = journalled.steps[step_index]
        session.check_same(step_index, key, taken.action_key)
        state = await self.homes.replay(session, journalled, step_index + 1)
        assert state.last_step is not None
        return with_lease(state.last_step, taken.lease_expires_at)

    async def _first_reply(self, session: Session) -> bytes:
        journalled = await self.homes.journalled(session)
        row = journalled.row
        state = await self.homes.replay(session, journalled, row.parent_step or 0)
        return with_lease(state.body, row.created_at + row.lease_s)

    async def _close_all(self, sessions: Iterable[Session], deadline_s: float) -> None:
        async with anyio.create_task_group() as group:
            for session in sessions:
                group.start_soon(self.homes.close, session, deadline_s)

    async def _write_leases(self, sessions: Iterable[Session]) -> None:
        """Tell the journal of leases that were renewed without a step."""
        renewed: Mapping[str, float] = {
            session.key: session.lease_expires_at
            for session in sessions
            if session.request is not None and session.lease_expires_at > session.journalled_lease
        }
        if renewed:
            await self.journal.renew(renewed)
            for session in sessions:
                session.journalled_lease = renewed.get(session.key, session.journalled_lease)


def _note(session: Session) -> None:
    if session.request is not None:
        note_session(session.session_id, session.request.env_id)


async def _outcome_of(call: Awaitable[ResultT]) -> ResultT | Exception:
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - whoever asked for it gets it
        return error
