"""Keeps many episodes in flight and emits each of their trajectories exactly once."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import anyio
import anyio.lowlevel
import numpy as np
from pydantic import JsonValue

from steppo_client.env_client import CLOSE_S, EnvClient, SessionStart
from steppo_client.policy import Policy, Turn
from steppo_client.recording import Recording
from steppo_client.task_refs import TaskRef
from steppo_env.errors import (
    EnvError,
    InvalidInput,
    MissingDependency,
    NotFound,
    PolicyError,
    SessionExpired,
    SteppoError,
    TransportError,
    boundary,
)
from steppo_env.keys import digest, seed_words
from steppo_env.mdp import Outcome, StopReason, Timing, Trajectory

__all__ = ["Emit", "Sampler", "SamplerConfig"]

MAX_STEPS = 10_000
"""Steps after which an environment that never ends is given up; options allow 1,000."""

MAX_ERROR_CHARS = 2_000
"""Longest error that a trajectory keeps."""

NOT_PLAYABLE = (InvalidInput, NotFound, MissingDependency)
"""Refusals of a new episode that every other episode of the run would meet as well."""

Emit = Callable[[Trajectory], Awaitable[None]]
ResultT = TypeVar("ResultT")

logger = logging.getLogger("steppo.sampler")


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """How episodes are sampled. Durations are in seconds.

    Attributes:
        run_id: Part of every trajectory id: the same run never stores an episode twice.
        seed: With the task it gives the episode's seed, with the sample index the policy's.
        group_size: Episodes of each task. They share the environment's seed.
        concurrency: Most episodes in flight.
        step_deadline_s: For each request: to begin an episode, for a response, to take a step.
        trajectory_deadline_s: For a whole episode.
    """

    run_id: str
    seed: int = 0
    group_size: int = 1
    concurrency: int = 16
    step_deadline_s: float = 300.0
    trajectory_deadline_s: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("group_size", "concurrency"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is at least 1, not {getattr(self, name)}")
        for name in ("step_deadline_s", "trajectory_deadline_s"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{name} is more than 0 seconds, not {getattr(self, name)}")


class _EpisodeFailed(Exception):
    """Ends an episode for a reason that is not the environment's own."""

    def __init__(self, reason: StopReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _reason(error: Exception, otherwise: StopReason) -> StopReason:
    match error:
        case TimeoutError():
            return StopReason.DEADLINE
        case PolicyError():
            return StopReason.POLICY_ERROR
        case EnvError():
            return StopReason.ENV_ERROR
        case TransportError() | NotFound() | SessionExpired():
            return StopReason.SERVER_ERROR
        case _:
            return otherwise


def _detail(error: Exception) -> str:
    """Return what a trajectory keeps of an error: short, and text that can be stored."""
    text = str(error) if isinstance(error, SteppoError) else f"{type(error).__name__}: {error}"
    return text[:MAX_ERROR_CHARS].encode(errors="replace").decode()


class Sampler:
    """Plays tasks with a policy.

    One broken environment or hung response costs its own trajectory only: it is emitted with its
    reason, is not trainable, and the others go on.
    """

    def __init__(self, client: EnvClient, policy: Policy, config: SamplerConfig) -> None:
        self.client = client
        self.policy = policy
        self.config = config

    async def run(self, tasks: Sequence[TaskRef], emit: Emit) -> None:
        """Play every task `group_size` times; `emit` gets each trajectory once, one at a time.

        Cancelling emits the episodes in flight as they stand (reason `cancelled`) and returns when
        their sessions are closed. An exception of `emit` stops the run and is raised: nothing more
        would be kept.

        Raises:
            InvalidInput, NotFound, MissingDependency: An episode cannot begin because of how it was
                asked for; the others would fail alike. Those in flight are emitted as cancelled.
        """
        if len({digest(self._group(task)) for task in tasks}) < len(tasks):
            raise InvalidInput("a task is listed twice; for more episodes of each set group_size")
        # All samples of a task before the next task: groups complete early.
        jobs = iter([(task, index) for task in tasks for index in range(self.config.group_size)])
        emitting = anyio.Lock()
        has_failed = False

        async def keep(trajectory: Trajectory) -> None:
            nonlocal has_failed
            async with emitting:
                if not has_failed:
                    has_failed = True
                    await emit(trajectory)
                    has_failed = False

        async def work() -> None:
            for task, index in jobs:
                trajectory = await self._play(task, index)
                # A finished trajectory is not lost to a cancellation that comes while it is stored.
                with anyio.CancelScope(shield=True):
                    await keep(trajectory)
                await anyio.lowlevel.checkpoint()

        num_jobs = len(tasks) * self.config.group_size
        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as group:
                for _ in range(min(self.config.concurrency, num_jobs)):
                    group.start_soon(work)
        except BaseExceptionGroup as failures:
            failure = _first(failures)
        if failure is not None:
            raise failure

    async def _play(self, task: TaskRef, sample_index: int) -> Trajectory:
        """Play one episode and return it, also when it failed or was cancelled on the way."""
        recording = self._record(task, sample_index)
        reason, error = StopReason.CANCELLED, None
        try:
            with anyio.fail_after(self.config.trajectory_deadline_s):
                reason = await self._episode(recording)
        except anyio.get_cancelled_exc_class():
            pass  # the cancellation is delivered again at the next await, after this one is emitted
        except _EpisodeFailed as failure:
            reason, error = failure.reason, str(failure)
        except TimeoutError:
            reason = StopReason.DEADLINE
            error = f"the episode took longer than {self.config.trajectory_deadline_s:g} s"
        finally:
            await self._end_session(recording)
        return recording.finish(self.policy.name, self.config.run_id, reason, error)

    def _group(self, task: TaskRef) -> list[JsonValue]:
        return [self.config.run_id, task.env_id, task.task_id, dict(task.options)]

    def _record(self, task: TaskRef, sample_index: int) -> Recording:
        group = self._group(task)
        return Recording(
            task=task,
            sample_index=sample_index,
            trajectory_id=digest([*group, sample_index]),
            group_id=digest(group),
            # Without the environment's name: a named variant plays as the environment behind it.
            seed=seed_words("episode", self.config.seed, task.task_id)[0],
            started_at=time.time(),
        )

    async def _episode(self, recording: Recording) -> StopReason:
        task = recording.task
        start = SessionStart(
            task.env_id,
            recording.trajectory_id,
            recording.seed,
            task_id=task.task_id,
            options=task.options,
        )
        try:
            session = await self._attempt(
                "beginning the episode", lambda: self.client.create(start), StopReason.SERVER_ERROR
            )
        except _EpisodeFailed as failure:
            if isinstance(failure.__cause__, NOT_PLAYABLE):
                raise failure.__cause__ from None
            raise
        recording.begin(session)
        for step_index in range(MAX_STEPS):
            outcome = await self._step(recording, step_index)
            if outcome.terminated:
                return StopReason.TERMINATED
            if outcome.truncated:
                by_limit = outcome.info.get("step_limit") is True
                return StopReason.STEP_LIMIT if by_limit else StopReason.TRUNCATED
        endless = f"the episode did not end within {MAX_STEPS} steps"
        raise _EpisodeFailed(StopReason.ENV_ERROR, endless)

    async def _step(self, recording: Recording, step_index: int) -> Outcome:
        words = seed_words(
            "policy", self.config.seed, recording.task.task_id, recording.sample_index, step_index
        )
        turn = Turn(
            recording.observation,
            recording.trajectory_id,
            self.client,
            np.random.default_rng(words),
        )
        began = time.perf_counter()
        sample = await self._attempt(
            "the response", lambda: self.policy.act(turn), StopReason.POLICY_ERROR
        )
        generated = time.perf_counter()
        taken = await self._attempt(
            "the step",
            lambda: self.client.step(recording.trajectory_id, step_index, sample.action),
            StopReason.SERVER_ERROR,
        )
        timing = Timing(generate_s=generated - began, environment_s=time.perf_counter() - generated)
        recording.add(sample, taken, timing)
        return taken.outcome

    async def _attempt(
        self, what: str, work: Callable[[], Awaitable[ResultT]], otherwise: StopReason
    ) -> ResultT:
        """Do one part of an episode within its deadline.

        Raises:
            _EpisodeFailed: It failed or took too long; `otherwise` is the reason of an error that
                does not tell whose it is.
        """
        deadline_s = self.config.step_deadline_s
        try:
            with anyio.move_on_after(deadline_s) as scope:
                return await work()
        except Exception as error:
            raise _EpisodeFailed(_reason(error, otherwise), _detail(error)) from error
        assert scope.cancelled_caught
        late = f"{what} took longer than {deadline_s:g} s"
        raise _EpisodeFailed(StopReason.DEADLINE, late)

    async def _end_session(self, recording: Recording) -> None:
        """Free the session. Should that fail, the server's lease frees it later."""
        with anyio.move_on_after(CLOSE_S, shield=True):
            try:
                with boundary(EnvError, "delete"):
                    await self.client.delete(recording.trajectory_id)
            except SteppoError as error:
                logger.warning("session %s was not closed: %s", recording.trajectory_id, error)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
