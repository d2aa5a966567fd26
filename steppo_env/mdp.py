"""The nouns of the step-level MDP, as frozen values.

A *step* is one whole model response and what the environment does with it; a token is never a
step. A *trajectory* is the steps of one episode. Nothing here performs I/O.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import JsonValue

__all__ = [
    "Action",
    "IssueKind",
    "Message",
    "Observation",
    "Outcome",
    "ParentStep",
    "ParseIssue",
    "Role",
    "Step",
    "StopReason",
    "Task",
    "Timing",
    "ToolCall",
    "ToolSpec",
    "Trajectory",
    "Usage",
]

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Task:
    """What one episode asks for. Environments subclass it with their own private fields.

    Attributes:
        task_id: Stable within an environment, across processes and versions of the same data.
        split: "train", "dev" or "test".
        labels: Public facts to group results by (type, hops, family). Never the solution.
    """

    task_id: str
    split: str
    labels: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that the model asks for, before the environment has looked at it."""

    name: str
    arguments: Mapping[str, JsonValue]
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `tool_call_id` names the call that a "tool" message answers."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it; `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, JsonValue]


class IssueKind(StrEnum):
    """What the parser did about a flaw in a response."""

    RECOVERED = "recovered"
    """Read in the only way it could be meant."""
    IGNORED = "ignored"
    """Left out because of where it stands, such as a tool call inside the reasoning."""
    REJECTED = "rejected"
    """Not executed: its meaning would have to be guessed."""


@dataclass(frozen=True, slots=True)
class ParseIssue:
    """A flaw in a response. `detail` is addressed to the model and says how to do better."""

    kind: IssueKind
    detail: str


@dataclass(frozen=True, slots=True)
class Action:
    """A whole assistant response, parsed.

    Attributes:
        content: The response text exactly as it came.
        tool_calls: The calls to execute, in order.
        answer: The text of the last `<answer>`, or None.
        commands: The texts of `<action>` or `<act>`, in order.
        reasoning: The text inside `<think>` or `<analysis>`, or None.
        issues: What the parser had to recover, ignore or reject.
    """

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    commands: tuple[str, ...] = ()
    reasoning: str | None = None
    issues: tuple[ParseIssue, ...] = ()

    @property
    def rejections(self) -> tuple[str, ...]:
        """What the parser rejected, as feedback for the model."""
        return tuple(issue.detail for issue in self.issues if issue.kind is IssueKind.REJECTED)

    def to_message(self) -> Message:
        """Return the response as the assistant message that a transcript would hold."""
        native = tuple(call for call in self.tool_calls if call.call_id is not None)
        return Message("assistant", self.content, native)


@dataclass(frozen=True, slots=True)
class Observation:
    """A state as the policy sees it.

    Attributes:
        messages: The state rendered for a chat model.
        tools: The tools that may be called in this state.
        text: The bare observation, without instructions or history.
        admissible_actions: Every command that would do something, or None when not enumerable.
        state_key: Stable hash of environment version, task and canonical state. It leaves out seed
            and step index, so two visits of one state share it (GiGPO's anchor).
    """

    messages: tuple[Message, ...]
    text: str
    state_key: str
    tools: tuple[ToolSpec, ...] = ()
    admissible_actions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action did.

    Attributes:
        observation: The next state, also after the last step (a critic bootstraps from it).
        reward_terms: Named parts of the reward; the reward is their sum.
        terminated: The MDP itself ended here; the value of the next state is 0.
        truncated: The episode was cut short; the next state still has a value.
        rejected: Why parts of the action were not executed, as feedback for the model.
        info: Facts about the step. The last one has `success`.
    """

    observation: Observation
    reward_terms: Mapping[str, float] = field(default_factory=dict)
    terminated: bool = False
    truncated: bool = False
    rejected: tuple[str, ...] = ()
    info: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def reward(self) -> float:
        """The sum of the reward terms."""
        return math.fsum(self.reward_terms.values())


class StopReason(StrEnum):
    """Why a trajectory has no further step."""

    TERMINATED = "terminated"
    """The environment reached a terminal state."""
    STEP_LIMIT = "step_limit"
    """The step limit cut it short (truncated)."""
    TRUNCATED = "truncated"
    """The environment cut it short for another reason (truncated)."""
    ENV_ERROR = "env_error"
    """Environment code raised."""
    POLICY_ERROR = "policy_error"
    """The policy or its endpoint failed."""
    SERVER_ERROR = "server_error"
    """The environment server failed, or lost the session."""
    DEADLINE = "deadline"
    """A wall-clock deadline passed."""
    CANCELLED = "cancelled"
    """The run was stopped by its owner."""

    @property
    def is_infrastructure(self) -> bool:
        """True when neither the policy nor the MDP ended it: such a trajectory is not trained on."""
        return self not in _ENDED_BY_THE_MDP


_ENDED_BY_THE_MDP = frozenset({StopReason.TERMINATED, StopReason.STEP_LIMIT, StopReason.TRUNCATED})


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one response, as the endpoint gave them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one step went, in seconds."""

    queue_s: float = 0.0
    generate_s: float = 0.0
    environment_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ParentStep:
    """The step of another trajectory after which a fork begins."""

    trajectory_id: str
    step_index: int


@dataclass(frozen=True, slots=True)
class Step:
    """One transition of a trajectory.

    Attributes:
        step_index: 0 for the first step.
        messages: The state in which the policy acted.
        response_text: The whole response.
        state_key: Of the state in which the policy acted.
        trace_key: Chained over everything up to and including this step.
        prompt_ids: Token ids of the prompt, or None when the endpoint gives none.
        response_ids: Token ids of the response, shape (T,).
        response_logprobs: Log-probability of each response token, shape (T,), in nats.
        policy_version_before: Version that the endpoint served when the request left.
        policy_version_after: Version that it served when the reply came.
    """

    step_index: int
    messages: tuple[Message, ...]
    response_text: str
    reward: float
    reward_terms: Mapping[str, float]
    terminated: bool
    truncated: bool
    state_key: str
    trace_key: str
    tool_calls: tuple[ToolCall, ...] = ()
    observation_text: str = ""
    info: Mapping[str, JsonValue] = field(default_factory=dict)
    prompt_ids: tuple[int, ...] | None = None
    response_ids: tuple[int, ...] | None = None
    response_logprobs: tuple[float, ...] | None = None
    policy_version_before: str | None = None
    policy_version_after: str | None = None
    model: str | None = None
    temperature: float | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    timing: Timing = field(default_factory=Timing)

    @property
    def is_trainable(self) -> bool:
        """True when the step has the exact token ids and log-probabilities of its sampler."""
        return None not in (self.prompt_ids, self.response_ids, self.response_logprobs)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The steps of one episode and why it ended.

    Attributes:
        group_id: Shared by the samples of one task and seed.
        options: The options that the environment ran with, where they differ from its defaults.
        stop_reason: Why there is no further step.
        error: What failed, for the reasons that are failures.
        success: The environment's own verdict, or None when the episode did not get to one.
        final_messages: The state it stopped in, when truncated: a critic bootstraps from it.
        final_prompt_ids: The same, as token ids.
        started_at: Unix time, seconds. Not part of the trajectory's identity.
    """

    trajectory_id: str
    group_id: str
    env_id: str
    task_id: str
    split: str
    seed: int
    policy: str
    steps: tuple[Step, ...]
    stop_reason: StopReason
    run_id: str | None = None
    success: bool | None = None
    error: str | None = None
    labels: Mapping[str, str | int] = field(default_factory=dict)
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    tools: tuple[ToolSpec, ...] = ()
    final_messages: tuple[Message, ...] | None = None
    final_prompt_ids: tuple[int, ...] | None = None
    parent: ParentStep | None = None
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def return_(self) -> float:
        """Undiscounted sum of the rewards."""
        return math.fsum(step.reward for step in self.steps)

    @property
    def trainable(self) -> bool:
        """False when infrastructure, not the policy, ended it: never a reward of 0."""
        return not self.stop_reason.is_infrastructure

    @property
    def terminated(self) -> bool:
        """True when the last step reached a terminal state."""
        return bool(self.steps) and self.steps[-1].terminated

    @property
    def truncated(self) -> bool:
        """True when the last step was cut short by a limit."""
        return bool(self.steps) and self.steps[-1].truncated
