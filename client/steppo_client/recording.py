"""A trajectory in the making."""

import time
from dataclasses import dataclass, field

from steppo_client.env_client import SessionState, StepTaken
from steppo_client.policy import Sample
from steppo_client.task_refs import TaskRef
from steppo_env.mdp import Observation, Step, StopReason, Timing, Trajectory

__all__ = ["Recording"]


@dataclass(slots=True)
class Recording:
    """What has happened in one episode so far.

    Attributes:
        session: The episode as it began, or None before that.
        success: The environment's verdict, or None before its end.
        final: The state after the last step taken.
    """

    task: TaskRef
    sample_index: int
    trajectory_id: str
    group_id: str
    seed: int
    started_at: float
    session: SessionState | None = None
    final: Observation | None = None
    steps: list[Step] = field(default_factory=list)
    success: bool | None = None

    @property
    def observation(self) -> Observation:
        """The state to act in; only after the episode has begun."""
        assert self.final is not None
        return self.final

    def begin(self, session: SessionState) -> None:
        """Take the first state."""
        self.session = session
        self.final = session.observation

    def add(self, sample: Sample, taken: StepTaken, timing: Timing) -> None:
        """Take a step."""
        state, outcome = self.observation, taken.outcome
        action = sample.parsed
        self.steps.append(
            Step(
                step_index=len(self.steps),
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
        self.final = outcome.observation
        if outcome.terminated or outcome.truncated:
            self.success = outcome.info.get("success") is True

    def finish(self, policy: str, run_id: str, reason: StopReason, error: str | None) -> Trajectory:
        """Return the trajectory."""
        truncated = bool(self.steps) and self.steps[-1].truncated
        session = self.session
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
            labels=self.task.labels if session is None else session.labels,
            options=self.task.options,
            tools=() if session is None else session.observation.tools,
            final_messages=self.observation.messages if truncated else None,
            started_at=self.started_at,
            ended_at=time.time(),
        )
