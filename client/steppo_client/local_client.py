"""Environments in this process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread

from steppo_client.env_client import (
    EnvClient,
    ExpertAdvice,
    SessionStart,
    SessionState,
    StepTaken,
)
from steppo_env.describe import describe, list_tasks, summarize
from steppo_env.env import AnyEnv
from steppo_env.errors import InvalidInput, StepIndexMismatch, UnknownSession
from steppo_env.registry import Catalogue
from steppo_env.wire import ActionModel, EnvDetail, EnvSummary, TaskPage, read_action

__all__ = ["LocalEnvClient"]

ResultT = TypeVar("ResultT")


@dataclass(slots=True)
class _Episode:
    env: AnyEnv
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class LocalEnvClient(EnvClient):
    """Plays environments without a server: same interface, same trajectories.

    Environment code runs in one thread, so that the event loop stays free for the policy's requests.
    """

    def __init__(self, catalogue: Catalogue | None = None) -> None:
        self._catalogue = catalogue or Catalogue()
        self._episodes: dict[str, _Episode] = {}
        self._limiter = anyio.CapacityLimiter(1)

    async def environments(self) -> tuple[EnvSummary, ...]:
        names = self._catalogue.names
        return await self._run(lambda: tuple(summarize(self._catalogue.get(n)) for n in names))

    async def describe(self, env_id: str) -> EnvDetail:
        spec = self._catalogue.get(env_id)
        return await self._run(lambda: describe(spec))

    async def tasks(
        self, env_id: str, split: str, *, cursor: str | None = None, limit: int = 1000
    ) -> TaskPage:
        spec = self._catalogue.get(env_id)
        return await self._run(lambda: list_tasks(spec, split, cursor, limit))

    async def create(self, start: SessionStart) -> SessionState:
        if start.session_id in self._episodes:
            raise InvalidInput(f"session {start.session_id} exists already")
        spec = self._catalogue.get(start.env_id)

        def begin() -> AnyEnv:
            env = spec.make(start.options)
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

        env = await self._run(begin)
        self._episodes[start.session_id] = _Episode(env)
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

    async def step(self, session_id: str, step_index: int, action: ActionModel) -> StepTaken:
        episode = self._get(session_id)
        async with episode.lock:
            env = episode.env
            if step_index != env.num_steps:
                raise StepIndexMismatch(
                    f"the next step_index of session {session_id} is {env.num_steps}, "
                    f"not {step_index}",
                    expected=env.num_steps,
                )
            parsed = read_action(action)
            outcome = await self._run(lambda: env.advance(parsed))
            return StepTaken(outcome, env.trace_key)

    async def expert(self, session_id: str) -> ExpertAdvice:
        episode = self._get(session_id)
        async with episode.lock:
            env = episode.env
            if env.has_ended:
                return ExpertAdvice(None, None)
            action, distance = await self._run(lambda: (env.expert(), env.distance()))
            return ExpertAdvice(None if action is None else action.content, distance)

    async def delete(self, session_id: str) -> None:
        episode = self._episodes.pop(session_id, None)
        if episode is not None:
            async with episode.lock:
                await self._run(episode.env.close)

    async def close(self) -> None:
        for session_id in list(self._episodes):
            await self.delete(session_id)

    def _get(self, session_id: str) -> _Episode:
        episode = self._episodes.get(session_id)
        if episode is None:
            raise UnknownSession(f"there is no session {session_id[:128]!r}")
        return episode

    async def _run(self, work: Callable[[], ResultT]) -> ResultT:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
