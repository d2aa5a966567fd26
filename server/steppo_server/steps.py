"""A step from its environment through the journal to its reply."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from steppo_env.errors import DeadlineExceeded, EnvError, SteppoError, UnknownSession, WorkerDied
from steppo_env.keys import text_digest
from steppo_env.wire import StepRequest
from steppo_server.engines import INLINE_ACTION_CHARS, InlineWorker
from steppo_server.episode import StepTaken
from steppo_server.homes import Homes
from steppo_server.journal import Journal, StepRow
from steppo_server.metrics import Metrics, StepTimes
from steppo_server.problems import problem_bytes
from steppo_server.replies import with_lease
from steppo_server.session import Session, action_json
from steppo_server.table import SessionTable

__all__ = ["RanStep", "Recorder", "run_now", "unknown"]


@dataclass(slots=True)
class RanStep:
    """What the next step of a session did, or in what it failed when that ended the episode.

    Attributes:
        session: Its lock is held. The episode is ahead of it until the step is recorded.
        action: The action's JSON.
        key: Its digest.
        asked: When the environment was asked, seconds of `time.perf_counter`.
        answered: When it had answered.
    """

    session: Session
    action: bytes
    key: str
    taken: StepTaken | None
    failure: SteppoError | None
    asked: float
    answered: float

    def row(self) -> StepRow:
        """Return what the journal keeps of it."""
        taken, failure = self.taken, self.failure
        return StepRow(
            session_id=self.session.key,
            step_index=self.session.num_steps,
            action=self.action,
            action_key=self.key,
            trace_key=taken.trace_key if taken is not None else "",
            terminated=taken is not None and taken.terminated,
            truncated=taken is not None and taken.truncated,
            lease_expires_at=self.session.lease_expires_at,
            problem=None if failure is None else problem_bytes(failure.to_problem()),
        )


def run_now(session: Session, request: StepRequest) -> RanStep | None:
    """Take the next step of a session on the event loop, without waiting for anything.

    Args:
        session: Its lock is held.

    Returns:
        None where that cannot be: the environment is elsewhere, the step is another, the action long.

    Raises:
        InvalidInput: The action is not JSON.
        SteppoError: The step was not taken.
    """
    worker = session.worker
    if not isinstance(worker, InlineWorker) or session.is_homeless or session.has_ended:
        return None
    if request.step_index != session.num_steps:
        return None
    action = action_json(request.action)
    if len(action) > INLINE_ACTION_CHARS:
        return None
    taken, failure = None, None
    asked = perf_counter()
    try:
        taken = worker.step_now(session.key, request.step_index, request.action)
    except WorkerDied:
        return None  # the way that rebuilds it finds the same
    except (EnvError, DeadlineExceeded) as error:
        error.members.setdefault("trainable", False)
        failure = error
    finally:
        session.renew()
    return RanStep(session, action, text_digest(action), taken, failure, asked, perf_counter())


class Recorder:
    """Answers steps that were run, each when the journal has it."""

    def __init__(
        self,
        table: SessionTable,
        homes: Homes,
        journal: Journal,
        metrics: Metrics,
        *,
        close_deadline_s: float,
    ) -> None:
        self._table = table
        self._homes = homes
        self._journal = journal
        self._metrics = metrics
        self._close_deadline_s = close_deadline_s

    async def record(self, step: RanStep) -> bytes:
        """Journal a step and return its StepReply.

        Raises:
            StepExists: Another server was faster. The session is to be looked up again.
            UnknownSession: Another server deleted the session.
            SteppoError: What the step failed in, or the journal: then the session is forgotten.
        """
        row = step.row()
        try:
            await self._journal.add_step(row)
        except UnknownSession:
            await self.drop(step.session)
            raise unknown(step.session.session_id) from None  # another server deleted it
        except BaseException:
            # The episode is ahead of the journal now; what is rebuilt from the journal is not.
            await self.drop(step.session)
            raise
        return self._answer(step, row)

    async def record_all(self, steps: Sequence[RanStep]) -> Sequence[bytes | Exception]:
        """Journal steps together; return for each its StepReply, or what `record` would raise."""
        rows = [step.row() for step in steps]
        try:
            outcomes = await self._journal.add_steps(rows)
        except BaseException:
            for step in steps:
                await self.drop(step.session)
            raise
        answers: list[bytes | Exception] = []
        for step, row, outcome in zip(steps, rows, outcomes, strict=True):
            if outcome is not None:
                await self.drop(step.session)
                is_gone = isinstance(outcome, UnknownSession)
                answers.append(unknown(step.session.session_id) if is_gone else outcome)
                continue
            try:
                answers.append(self._answer(step, row))
            except SteppoError as error:
                answers.append(error)
        return answers

    async def drop(self, session: Session) -> None:
        """Forget a session and free its environment."""
        self._table.forget(session)
        await self._homes.close(session, self._close_deadline_s)

    def _answer(self, step: RanStep, row: StepRow) -> bytes:
        session, taken = step.session, step.taken
        session.journalled_lease = row.lease_expires_at
        if session.request is not None:
            times = StepTimes(step.asked, step.answered, perf_counter())
            self._metrics.stepped(session.key, session.request.env_id, taken, times)
        if taken is None:
            assert step.failure is not None
            session.fail(step.key, step.failure)
            raise step.failure
        session.terminated, session.truncated = taken.terminated, taken.truncated
        session.record(step.key, with_lease(taken.body, row.lease_expires_at))
        return session.last_answer()


def unknown(session_id: str) -> UnknownSession:
    """Return what is answered about a session that is nowhere."""
    return UnknownSession(f"there is no session {session_id[:128]!r}")
