"""Keeps many episodes in flight and emits each of their trajectories exactly once."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.lowlevel
import numpy as np
from pydantic import JsonValue

from steppo_client.env_client import EnvClient, SessionStart, SessionState, StepTaken
from steppo_client.policy import Policy, Sample, Turn
from steppo_env.errors import (
    EnvError,
    InvalidInput,
    MissingDependency,
    NotFound,
    PolicyError,
    SessionExpired,
    SteppoError,
    TransportError,
)
from steppo_env.keys import digest, seed_words
from steppo_env.mdp import Observation, Outcome, Step, StopReason, Timing, Trajectory

__all__ = ["Emit", "Sampler", "SamplerConfig", "TaskRef", "list_task_refs"]

CLEANUP_S = 10.0
"""Longest wait for a session to close; after it the server's lease takes over."""

MAX_STEPS = 10_000
"""Steps after which an environment that never ends is given up; options allow 1,000."""

Emit = Callable[[Trajectory], Awaitable[None]]
ResultT = TypeVar("ResultT")

logger = logging.getLogger("steppo.sampler")


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task to play. `options` go to the environment as they are."""

    env_id: str
    task_id: str
    split: str
    labels: Mapping[str, str | int] = field(default_factory=dict)
    options: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """How episodes are sampled. Durations are in seconds.

    Attributes:
        run_id: Part of every trajectory id: the same run never stores an episode twice.
        seed: With the task it gives the episode's seed, with the sample index the policy's.
        group_size: Episodes of each task. They share the environment's seed.
        concurrency: Most episodes in flight.
        step_deadline_s: For one response and the step it takes.
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


async def list_task_refs(
    client: EnvClient,
    env_id: str,
    split: str,
    num_tasks: int,
    options: Mapping[str, JsonValue] | None = None,
) -> list[TaskRef]:
    """Return the first `num_tasks` tasks of a split.

    Raises:
        InvalidInput: The split has fewer.
    """
    refs: list[TaskRef] = []
    cursor: str | None = None
    while len(refs) < num_tasks:
        limit = min(1000, num_tasks - len(refs))
        page = await client.tasks(env_id, split, cursor=cursor, limit=limit)
        if page.num_tasks < num_tasks:
            raise InvalidInput(
                f"{num_tasks} tasks are asked for, but split {split} of {env_id} has "
                f"{page.num_tasks}"
            )
        refs += [
            TaskRef(env_id, task.task_id, split, task.labels, options or {}) for task in page.tasks
        ]
        cursor = page.next_cursor
    return refs


class _EpisodeFailed(Exception):
    """Ends an episode for a reason that is not the environment's own."""

    def __init__(self, reason: StopReason, error: BaseException) -> None:
        super().__init__(str(error))
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


@dataclass(slots=True)
class _Recording:
    """A trajectory in the making."""

    task: TaskRef
    sample_index: int
    trajectory_id: str
    group_id: str
    seed: int
    started_at: float
    session: SessionState | None = None
    current: Observation | None = None
    steps: list[Step] = field(default_factory=list)
    success: bool | None = None

    @property
    def observation(self) -> Observation:
        """The state to act in; only after the episode has begun."""
        assert self.current is not None
        return self.current

    def begin(self, session: SessionState) -> None:
        self.session = session
        self.current = session.observation

    def add(self, step_index: int, sample: Sample, taken: StepTaken, timing: Timing) -> None:
        state, outcome = self.observation, taken.outcome
        action = sample.parsed
        self.steps.append(
            Step(
                step_index=step_index,
                messages=state.messages,
                response_text=action.content,
                reward=outcome.reward,
                reward_terms=outcome.reward_terms,
                terminated=outcome.terminated,
                truncated=outcome.truncated,
                state_key=state.state_key,
                trace_key=taken.trace_key,
                tool_calls=action.tool_calls,
                observation_text=state.text,
                info=outcome.info,
                prompt_ids=sample.prompt_ids,
                response_ids=sample.response_ids,
                response_logprobs=sample.response_logprobs,
                policy_version_before=sample.policy_version_before,
                policy_version_after=sample.policy_version_after,
                model=sample.model,
                temperature=sample.temperature,
                finish_reason=sample.finish_reason,
                usage=sample.usage,
                timing=timing,
            )
        )
        self.current = outcome.observation
        if outcome.terminated or outcome.truncated:
            self.success = outcome.info.get("success") is True

    def finish(self, policy: str, run_id: str, reason: StopReason, error: str | None) -> Trajectory:
        truncated = bool(self.steps) and self.steps[-1].truncated
        return Trajectory(
            trajectory_id=self.trajectory_id,
            group_id=self.group_id,
            env_id=self.task.env_id,
            task_id=self.task.task_id,
            split=self.task.split,
            seed=self.seed,
            policy=policy,
            steps=tuple(self.steps),
            stop_reason=reason,
            run_id=run_id,
            success=self.success,
            error=error,
            labels=self.task.labels,
            options=self.task.options,
            tools=self.session.observation.tools if self.session is not None else (),
            final_messages=self.observation.messages if truncated else None,
            started_at=self.started_at,
            ended_at=time.time(),
        )


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
        their sessions are closed. An exception of `emit` stops the run: nothing more would be kept.

        Raises:
            InvalidInput, NotFound, MissingDependency: An episode cannot begin because of how it was
                asked for; the others would fail alike.
        """
        # All samples of a task before the next task: groups complete early.
        jobs = iter([(task, index) for task in tasks for index in range(self.config.group_size)])
        emitting = anyio.Lock()

        async def work() -> None:
            for task, index in jobs:
                trajectory = await self._play(task, index)
                # A finished trajectory is not lost to a cancellation that comes while it is stored.
                with anyio.CancelScope(shield=True):
                    async with emitting:
                        await emit(trajectory)
                await anyio.lowlevel.checkpoint()

        num_jobs = len(tasks) * self.config.group_size
        async with anyio.create_task_group() as group:
            for _ in range(min(self.config.concurrency, num_jobs)):
                group.start_soon(work)

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

    def _record(self, task: TaskRef, sample_index: int) -> _Recording:
        run_id, seed = self.config.run_id, self.config.seed
        group: list[JsonValue] = [run_id, task.env_id, task.task_id, dict(task.options)]
        return _Recording(
            task=task,
            sample_index=sample_index,
            trajectory_id=digest([*group, sample_index]),
            group_id=digest(group),
            # Without the environment's name: a named variant plays as the environment behind it.
            seed=seed_words("episode", seed, task.task_id)[0],
            started_at=time.time(),
        )

    async def _episode(self, recording: _Recording) -> StopReason:
        task = recording.task
        start = SessionStart(
            task.env_id,
            recording.trajectory_id,
            recording.seed,
            task_id=task.task_id,
            options=task.options,
        )
        try:
            session = await self.client.create(start)
        except (InvalidInput, NotFound, MissingDependency):
            raise
        except Exception as error:
            raise _EpisodeFailed(_reason(error, StopReason.SERVER_ERROR), error) from error
        recording.begin(session)
        for step_index in range(MAX_STEPS):
            outcome = await self._step(recording, step_index)
            if outcome.terminated:
                return StopReason.TERMINATED
            if outcome.truncated:
                by_limit = outcome.info.get("step_limit") is True
                return StopReason.STEP_LIMIT if by_limit else StopReason.TRUNCATED
        endless = EnvError(f"the episode did not end within {MAX_STEPS} steps")
        raise _EpisodeFailed(StopReason.ENV_ERROR, endless)

    async def _step(self, recording: _Recording, step_index: int) -> Outcome:
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
        sample = await self._within_deadline(lambda: self.policy.act(turn), StopReason.POLICY_ERROR)
        generated = time.perf_counter()
        taken = await self._within_deadline(
            lambda: self.client.step(recording.trajectory_id, step_index, sample.action),
            StopReason.SERVER_ERROR,
        )
        timing = Timing(generate_s=generated - began, environment_s=time.perf_counter() - generated)
        recording.add(step_index, sample, taken, timing)
        return taken.outcome

    async def _within_deadline(
        self, work: Callable[[], Awaitable[ResultT]], otherwise: StopReason
    ) -> ResultT:
        try:
            with anyio.fail_after(self.config.step_deadline_s):
                return await work()
        except Exception as error:
            raise _EpisodeFailed(_reason(error, otherwise), error) from error

    async def _end_session(self, recording: _Recording) -> None:
        """Free the session. Should that fail, the server's lease frees it later."""
        with anyio.move_on_after(CLEANUP_S, shield=True):
            try:
                await self.client.delete(recording.trajectory_id)
            except SteppoError as error:
                logger.warning("session %s was not closed: %s", recording.trajectory_id, error)
