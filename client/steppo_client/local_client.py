"""Environments in this process."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TypeVar

import anyio
import anyio.to_thread
from pydantic import JsonValue

from steppo_client.env_client import (
    CLOSE_S,
    EnvClient,
    ExpertAdvice,
    SessionStart,
    SessionState,
    StepTaken,
)
from steppo_env.catalogue import Catalogue
from steppo_env.describe import describe, list_tasks, summarize
from steppo_env.env import AnyEnv
from steppo_env.errors import (
    DeadlineExceeded,
    EnvError,
    EpisodeEnded,
    InvalidInput,
    SessionExists,
    StepConflict,
    StepIndexMismatch,
    SteppoError,
    UnknownSession,
    boundary,
)
from steppo_env.wire import ActionModel, EnvDetail, EnvSummary, TaskPage, read_action

__all__ = ["LocalEnvClient"]

ResultT = TypeVar("ResultT")


@dataclass(slots=True)
class _Episode:
    """A session.

    Attributes:
        taken: Each action taken, and what came of it.
        failure: Why it takes no further step, when that is not its end.
        is_stuck: True when a cancelled call may still be inside the environment.
    """

    start: SessionStart
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    env: AnyEnv | None = None
    first: SessionState | None = None
    taken: list[tuple[ActionModel, StepTaken | SteppoError]] = field(default_factory=list)
    failure: SteppoError | None = None
    is_stuck: bool = False

    @property
    def running(self) -> AnyEnv:
        """The environment; only after the episode has begun."""
        assert self.env is not None
        return self.env


class LocalEnvClient(EnvClient):
    """Plays environments without a server: same interface, same trajectories.

    Whoever calls it runs the process too, so every option can be set, paths included. Environment code
    runs in one thread, so that the event loop stays free for the policy's requests.
    """

    def __init__(self, catalogue: Catalogue | None = None) -> None:
        self._catalogue = catalogue or Catalogue()
        self._episodes: dict[str, _Episode] = {}
        self._limiter = anyio.CapacityLimiter(1)

    async def environments(self) -> tuple[EnvSummary, ...]:
        names = self._catalogue.names
        return await self._run(lambda: tuple(summarize(self._catalogue.get(n)) for n in names))

    async def describe(
        self, env_id: str, options: Mapping[str, JsonValue] | None = None
    ) -> EnvDetail:
        spec = self._catalogue.get(env_id)
        return await self._run(lambda: describe(spec, options, is_operator=True))

    async def tasks(
        self,
        env_id: str,
        split: str,
        *,
        cursor: str | None = None,
        limit: int = 1000,
        options: Mapping[str, JsonValue] | None = None,
    ) -> TaskPage:
        spec = self._catalogue.get(env_id)
        return await self._run(
            lambda: list_tasks(
                spec, split, limit=limit, cursor=cursor, options=options, is_operator=True
            )
        )

    async def create(self, start: SessionStart) -> SessionState:
        episode = self._episodes.setdefault(start.session_id, _Episode(start))
        if replace(episode.start, lease_s=start.lease_s) != start:
            raise SessionExists(
                f"session {start.session_id[:128]} exists and was made by another request"
            )
        async with episode.lock:
            if self._episodes.get(start.session_id) is not episode:
                raise SessionExists(
                    f"session {start.session_id[:128]} was being made by another request, which "
                    "failed; send the request again"
                )
            if episode.first is None:
                try:
                    episode.first = await self._begin(episode)
                except BaseException:
                    del self._episodes[start.session_id]
                    raise
            return episode.first

    async def step(self, session_id: str, step_index: int, action: ActionModel) -> StepTaken:
        episode = self._get(session_id)
        async with episode.lock:
            if 0 <= step_index < len(episode.taken):
                return _replayed(episode, step_index, action)
            _check_next(episode, step_index)
            try:
                taken = await self._advance(episode, action)
            except BaseException as error:
                if isinstance(error, SteppoError):
                    episode.failure = error
                if episode.failure is not None:
                    episode.taken.append((action, episode.failure))
                raise
            episode.taken.append((action, taken))
            return taken

    async def expert(self, session_id: str) -> ExpertAdvice:
        episode = self._get(session_id)
        async with episode.lock:
            env = episode.running
            if episode.failure is not None or env.has_ended:
                return ExpertAdvice(None, None)
            with boundary(EnvError, f"{env.env_id}.expert"):
                action, distance = await self._within(
                    episode, lambda: (env.expert(), env.distance())
                )
            return ExpertAdvice(None if action is None else action.content, distance)

    async def delete(self, session_id: str) -> None:
        episode = self._episodes.pop(session_id, None)
        if episode is None:
            return
        async with episode.lock:
            if episode.env is not None and not episode.is_stuck:
                with boundary(EnvError, f"closing session {session_id[:128]}"):
                    await self._run(episode.env.close)

    async def close(self) -> None:
        # Also when the caller has been cancelled; but not for ever, should an environment hang.
        with anyio.move_on_after(CLOSE_S, shield=True):
            while self._episodes:
                await self.delete(next(iter(self._episodes)))

    def _get(self, session_id: str) -> _Episode:
        episode = self._episodes.get(session_id)
        if episode is None or episode.first is None:
            raise UnknownSession(f"there is no session {session_id[:128]!r}")
        return episode

    async def _begin(self, episode: _Episode) -> SessionState:
        start = episode.start
        spec = self._catalogue.get(start.env_id)

        def begin() -> AnyEnv:
            env = spec.make(start.options, is_operator=True)
            try:
                if start.task_id is not None:
                    env.start(start.task_id, start.seed)
                elif start.split is not None and start.index is not None:
                    env.start(env.tasks.at(start.split, start.index), start.seed)
                else:
                    raise InvalidInput("name the task by task_id, or by split and index")
            except BaseException:
                env.close()
                raise
            return env

        with boundary(EnvError, f"beginning {start.env_id}"):
            env = await self._run(begin)
        episode.env = env
        task = env.task
        return SessionState(
            start.session_id,
            start.env_id,
            task.task_id,
            task.split,
            task.labels,
            start.seed,
            env.observation,
            env.trace_key,
        )

    async def _advance(self, episode: _Episode, action: ActionModel) -> StepTaken:
        env = episode.running

        def advance() -> StepTaken:
            outcome = env.advance(read_action(action))
            return StepTaken(outcome, env.trace_key)

        with boundary(EnvError, f"{env.env_id}.advance"):
            return await self._within(episode, advance)

    async def _within(self, episode: _Episode, work: Callable[[], ResultT]) -> ResultT:
        """Run code of a running episode, which must not be touched again if it is cancelled."""
        try:
            return await self._run(work)
        except anyio.get_cancelled_exc_class():
            episode.is_stuck = True
            episode.failure = DeadlineExceeded(
                f"a call of session {episode.start.session_id[:128]} was cancelled while its "
                "environment worked; what it did is unknown"
            )
            raise

    async def _run(self, work: Callable[[], ResultT]) -> ResultT:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)


def _replayed(episode: _Episode, step_index: int, action: ActionModel) -> StepTaken:
    taken, result = episode.taken[step_index]
    if taken != action:
        raise StepConflict(
            f"step {step_index} of session {episode.start.session_id} was taken with another action",
            step_index=step_index,
        )
    if isinstance(result, SteppoError):
        raise copy(result)  # raising the kept one would grow its traceback each time
    return result


def _check_next(episode: _Episode, step_index: int) -> None:
    session_id, num_steps = episode.start.session_id, len(episode.taken)
    if episode.failure is not None or episode.running.has_ended:
        raise EpisodeEnded(
            f"session {session_id} ended after {num_steps} steps", num_steps=num_steps
        )
    if step_index != num_steps:
        raise StepIndexMismatch(
            f"the next step_index of session {session_id} is {num_steps}, not {step_index}",
            expected=num_steps,
        )
