"""One episode inside a worker: how it begins or is rebuilt, its steps, and the replies they get."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from steppo_env.env import AnyEnv
from steppo_env.errors import (
    EnvError,
    EpisodeEnded,
    InvalidInput,
    ReplayDiverged,
    StepIndexMismatch,
    boundary,
)
from steppo_env.mdp import Action, Outcome
from steppo_env.wire import ActionModel, ExpertReply, read_action
from steppo_server.replies import ReplyWriter

__all__ = ["Episode", "EpisodeStart", "EpisodeState", "StepTaken"]


@dataclass(frozen=True, slots=True)
class EpisodeStart:
    """All that it takes to begin an episode, or to rebuild one that was begun before.

    Attributes:
        key: Names the episode in its host.
        session_id: Names it in its replies.
        env_name: A registered id or a variant's name.
        options: What the caller asked for, on top of what the catalogue says.
        task_id: The task, or None when `split` and `index` name it.
        actions: Taken after the beginning, in order, as they came over the wire or parsed.
        trace_keys: What the episode had as trace key after its beginning and after each action, so one
            more than actions; None checks nothing.
        env_version: What `EpisodeState.env_version` was; None takes any.
        snapshot: From `EnvHost.snapshot` after all of `actions`; it replaces taking them.
        has_failed: True when the step after `actions` ended in an error: it counts as a step, and the
            episode takes no further one.
    """

    key: str
    session_id: str
    env_name: str
    options: Mapping[str, JsonValue]
    seed: int
    task_id: str | None = None
    split: str | None = None
    index: int | None = None
    actions: tuple[ActionModel | Action, ...] = ()
    trace_keys: tuple[str, ...] | None = None
    env_version: str | None = None
    snapshot: bytes | None = None
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class EpisodeState:
    """An episode as it stands.

    Attributes:
        env_version: Changes when the environment's package, its data or its options do.
        num_steps: Number of steps taken, one that failed included.
        body: The SessionReply, open for `replies.with_lease`.
        last_step: The StepReply of the last action that was replayed, likewise; None when none was.
    """

    task_id: str
    split: str
    labels: Mapping[str, str | int]
    seed: int
    env_version: str
    num_steps: int
    state_key: str
    trace_key: str
    terminated: bool
    truncated: bool
    body: bytes
    last_step: bytes | None = None


@dataclass(frozen=True, slots=True)
class StepTaken:
    """What a step did.

    Attributes:
        body: The StepReply, open for `replies.with_lease`.
        env_s: Seconds inside the environment.
    """

    body: bytes
    trace_key: str
    state_key: str
    terminated: bool
    truncated: bool
    reward: float
    reward_terms: Mapping[str, float]
    env_s: float


class Episode:
    """An environment that plays one episode, and what is known of it outside.

    What replies show is kept here: after an error nobody knows what state the environment is in, and
    the last good one is shown.
    """

    def __init__(self, start: EpisodeStart, env: AnyEnv, env_version: str) -> None:
        self.env = env
        self._name = start.env_name
        self._env_version = env_version
        self._seed = start.seed
        self._num_steps = 0
        self._has_failed = False
        with boundary(EnvError, f"beginning {start.env_name}"):
            if start.snapshot is None:
                _begin(env, start)
            else:
                _restore(env, start)
            self._writer = ReplyWriter(start.session_id, start.env_name, env.task, start.seed)
            self._look()
        self._last_step = self._rebuild(start)

    def take(self, step_index: int, action: ActionModel | Action) -> StepTaken:
        """Take the next step.

        Raises:
            EpisodeEnded: The episode takes no further step.
            StepIndexMismatch: The index is not the next one.
            EnvError: Environment code raised or broke its contract; the episode takes no further step.
        """
        if self._terminated or self._truncated or self._has_failed:
            raise EpisodeEnded(
                f"the episode ended after {self._num_steps} steps",
                num_steps=self._num_steps,
                trainable=not self._has_failed,
            )
        if step_index != self._num_steps:
            raise StepIndexMismatch(
                f"the next step_index is {self._num_steps}, not {step_index}",
                expected=self._num_steps,
            )
        parsed = action if isinstance(action, Action) else read_action(action)
        try:
            with boundary(EnvError, f"step {step_index} of {self._name}"):
                started = time.perf_counter()
                outcome = self.env.advance(parsed)
                env_s = time.perf_counter() - started
                body = self._writer.step(step_index, outcome, self.env.trace_key)
        except BaseException:
            self._has_failed = True
            raise
        finally:
            self._num_steps += 1
        self._look()
        return self._taken(body, outcome, env_s)

    def state(self, last_step: bytes | None = None) -> EpisodeState:
        """Return the episode as it stands; `last_step` only right after a rebuild."""
        task = self.env.task
        with boundary(EnvError, f"showing {self._name}"):
            body = self._writer.session(
                self._num_steps,
                self._observation,
                self._trace_key,
                terminated=self._terminated,
                truncated=self._truncated,
                trainable=not self._has_failed,
            )
        return EpisodeState(
            task_id=task.task_id,
            split=task.split,
            labels=dict(task.labels),
            seed=self._seed,
            env_version=self._env_version,
            num_steps=self._num_steps,
            state_key=self._observation.state_key,
            trace_key=self._trace_key,
            terminated=self._terminated,
            truncated=self._truncated,
            body=body,
            last_step=last_step,
        )

    def begun(self) -> EpisodeState:
        """Return the episode as its beginning, or the rebuild, left it."""
        return self.state(self._last_step)

    def expert(self) -> ExpertReply:
        """Return the next expert action and the distance; neither after the end.

        Raises:
            EnvError: Environment code raised.
        """
        if self._terminated or self._truncated or self._has_failed:
            return ExpertReply(action=None, distance=None)
        with boundary(EnvError, f"{self.env.env_id}.expert"):
            action, distance = self.env.expert(), self.env.distance()
            return ExpertReply(action=None if action is None else action.content, distance=distance)

    def snapshot(self) -> bytes | None:
        """Return what `EpisodeStart.snapshot` takes, or None where replay is as cheap.

        Raises:
            EpisodeEnded: The episode failed; what state it is in nobody knows.
            EnvError: Environment code raised.
        """
        if self._has_failed:
            raise EpisodeEnded(
                "the episode failed; it has no state to save",
                num_steps=self._num_steps,
                trainable=False,
            )
        return self.env.snapshot()

    def _rebuild(self, start: EpisodeStart) -> bytes | None:
        """Take the steps that were taken before; return the last one's reply."""
        body = None
        keys = start.trace_keys
        if start.snapshot is None:
            _check_key(keys, 0, self._trace_key)
            for step_index, action in enumerate(start.actions):
                body = self._retake(step_index, action)
                _check_key(keys, step_index + 1, self._trace_key)
        else:
            self._num_steps = self.env.num_steps
            _check_key(keys, -1, self._trace_key)
        if start.has_failed:
            self._has_failed = True
            self._num_steps += 1
        return body

    def _retake(self, step_index: int, action: ActionModel | Action) -> bytes:
        try:
            return self.take(step_index, action).body
        except EpisodeEnded as error:
            raise _diverged(f"{error.detail}, but had taken another one the first time") from None

    def _look(self) -> None:
        self._observation, self._trace_key = self.env.observation, self.env.trace_key
        self._terminated, self._truncated = self.env.has_terminated, self.env.has_truncated

    def _taken(self, body: bytes, outcome: Outcome, env_s: float) -> StepTaken:
        return StepTaken(
            body,
            self._trace_key,
            self._observation.state_key,
            outcome.terminated,
            outcome.truncated,
            outcome.reward,
            dict(outcome.reward_terms),
            env_s,
        )


def _begin(env: AnyEnv, start: EpisodeStart) -> None:
    if start.task_id is not None:
        env.start(start.task_id, start.seed)
    elif start.split is not None and start.index is not None:
        env.start(env.tasks.at(start.split, start.index), start.seed)
    else:
        raise InvalidInput("an episode names its task by task_id, or by split and index")


def _restore(env: AnyEnv, start: EpisodeStart) -> None:
    assert start.snapshot is not None
    env.restore(start.snapshot)
    if env.num_steps != len(start.actions):
        raise _diverged(f"the snapshot is of step {env.num_steps}, not {len(start.actions)}")
    if start.task_id not in (None, env.task.task_id):
        raise _diverged(f"the snapshot is of task {env.task.task_id}, not {start.task_id}")


def _check_key(keys: Sequence[str] | None, place: int, trace_key: str) -> None:
    if keys is not None and keys[place] != trace_key:
        where = "the beginning" if place == 0 else f"step {place % len(keys) - 1}"
        raise _diverged(f"{where} has another trace key than the first time")


def _diverged(what: str) -> ReplayDiverged:
    return ReplayDiverged(
        f"the episode cannot be rebuilt: {what}; the environment is not deterministic, or its data "
        "or code changed",
        trainable=False,
    )
