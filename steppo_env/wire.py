"""The HTTP API's documents: the one thing that server and client share.

Requests refuse unknown fields: a misspelt option must not be ignored. Replies allow them, so that an
older client can talk to a newer server within `/v1`.
"""

import json
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from steppo_env import wire_examples as examples
from steppo_env.mdp import Action, Message, Observation, Outcome, Role, ToolCall, ToolSpec
from steppo_env.parsing import parse_message, parse_text

__all__ = [
    "MAX_BATCH",
    "MAX_LEASES",
    "MAX_LEVELS",
    "ActionModel",
    "BatchSessions",
    "BatchSteps",
    "CreateGroup",
    "CreateSession",
    "EnvDetail",
    "EnvList",
    "EnvSummary",
    "ExpertReply",
    "FamilyId",
    "ForkReply",
    "ForkRequest",
    "FunctionModel",
    "FunctionSpecModel",
    "GroupReply",
    "Health",
    "JsonObject",
    "LeaseRequest",
    "LeaseResult",
    "LeaseResults",
    "MessageModel",
    "ObservationModel",
    "Problem",
    "Reply",
    "Request",
    "SessionId",
    "SessionReply",
    "SessionResult",
    "SessionResults",
    "StepItem",
    "StepReply",
    "StepRequest",
    "StepResult",
    "StepResults",
    "TaskModel",
    "TaskPage",
    "ToolCallModel",
    "ToolModel",
    "read_action",
]

MAX_BATCH = 1024
"""Most items in one batch request."""
MAX_LEASES = 10_000
"""Most leases that are renewed in one request."""
MAX_LEVELS = 60
"""Most levels of objects and arrays in an object whose form is free."""


def _checked_levels(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    # Level by level: recursion would end where each interpreter and library runs out of stack.
    parents: list[dict[str, JsonValue] | list[JsonValue]] = [value]
    for _ in range(MAX_LEVELS):
        parents = [
            child
            for parent in parents
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not parents:
            return value
    raise ValueError(f"at most {MAX_LEVELS} levels of objects and arrays can be nested")


SessionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:\-]{1,128}$")]
FamilyId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:\-]{1,120}$")]
"""Id of a group or of forks: a number is appended for each member."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_checked_levels)]
"""An object whose form the environment knows: at most MAX_LEVELS deep, and so no body is deeper."""
ActionModel = str | JsonObject
"""A whole response: its text, or the assistant message of an OpenAI-compatible endpoint."""


def _is_none(value: object) -> bool:
    return value is None


class Request(BaseModel):
    """Base of what clients send."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reply(BaseModel):
    """Base of what the server sends."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FunctionModel(Reply):
    """The called function; `arguments` is JSON text, as OpenAI has it."""

    name: str
    arguments: str


class ToolCallModel(Reply):
    """One tool call of an assistant message."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionModel


class MessageModel(Reply):
    """One chat message, as an OpenAI-compatible endpoint takes it."""

    role: Role
    content: str
    # Left out when absent: endpoints refuse a null in their place.
    tool_calls: list[ToolCallModel] | None = Field(default=None, exclude_if=_is_none)
    tool_call_id: str | None = Field(default=None, exclude_if=_is_none)

    @classmethod
    def of(cls, message: Message) -> Self:
        """Return the message as a document."""
        calls = [
            ToolCallModel(
                id=call.call_id or "",
                function=FunctionModel(
                    name=call.name, arguments=json.dumps(dict(call.arguments), ensure_ascii=False)
                ),
            )
            for call in message.tool_calls
        ]
        return cls(
            role=message.role,
            content=message.content,
            tool_calls=calls or None,
            tool_call_id=message.tool_call_id,
        )

    def to_message(self) -> Message:
        """Return the document as a message."""
        calls = tuple(
            ToolCall(call.function.name, json.loads(call.function.arguments), call.id or None)
            for call in self.tool_calls or ()
        )
        return Message(self.role, self.content, calls, self.tool_call_id)


class FunctionSpecModel(Reply):
    """A function that may be called; `parameters` is a JSON Schema."""

    name: str
    description: str
    parameters: dict[str, JsonValue]


class ToolModel(Reply):
    """A tool, as an OpenAI-compatible endpoint takes it."""

    type: Literal["function"] = "function"
    function: FunctionSpecModel

    @classmethod
    def of(cls, spec: ToolSpec) -> Self:
        """Return the tool as a document."""
        function = FunctionSpecModel(
            name=spec.name, description=spec.description, parameters=dict(spec.parameters)
        )
        return cls(function=function)

    def to_spec(self) -> ToolSpec:
        """Return the document as a tool."""
        return ToolSpec(self.function.name, self.function.description, self.function.parameters)


class ObservationModel(Reply):
    """A state as the policy sees it; its key stands beside it in the reply."""

    messages: list[MessageModel]
    tools: list[ToolModel]
    text: str
    admissible_actions: list[str] | None

    @classmethod
    def of(cls, observation: Observation) -> Self:
        """Return the observation as a document."""
        admissible = observation.admissible_actions
        return cls(
            messages=[MessageModel.of(message) for message in observation.messages],
            tools=[ToolModel.of(tool) for tool in observation.tools],
            text=observation.text,
            admissible_actions=None if admissible is None else list(admissible),
        )

    def to_observation(self, state_key: str) -> Observation:
        """Return the document as an observation."""
        admissible = self.admissible_actions
        return Observation(
            messages=tuple(message.to_message() for message in self.messages),
            text=self.text,
            state_key=state_key,
            tools=tuple(tool.to_spec() for tool in self.tools),
            admissible_actions=None if admissible is None else tuple(admissible),
        )


_ONE_TASK: dict[str, JsonValue] = {
    "oneOf": [
        {
            "required": ["task_id"],
            "properties": {
                "task_id": {"type": "string"},
                "split": {"type": "null"},
                "index": {"type": "null"},
            },
        },
        {
            "required": ["split", "index"],
            "properties": {
                "task_id": {"type": "null"},
                "split": {"type": "string"},
                "index": {"type": "integer"},
            },
        },
    ]
}
"""Says to readers of the schema that a task is named in one way."""


class CreateSession(Request):
    """Begin an episode: a task by id, or by its place in a split."""

    model_config = ConfigDict(
        json_schema_extra={**_ONE_TASK, "examples": [examples.CREATE_SESSION]}
    )

    env_id: Name = Field(description="A registered id or a named variant of this server.")
    task_id: Name | None = None
    split: Name | None = None
    index: int | None = Field(default=None, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**63)
    options: JsonObject = Field(default_factory=dict)
    session_id: SessionId | None = Field(
        default=None, description="Chosen by the client, it makes creation idempotent."
    )
    lease_s: float | None = Field(
        default=None, gt=0, le=86_400, description="Renewed by each use; the server has a default."
    )

    @model_validator(mode="after")
    def _names_one_task(self) -> Self:
        _check_one_task(self.task_id, self.split, self.index)
        return self


class StepRequest(Request):
    """Take one step. The same index with the same action again gets the same reply."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STEP_REQUEST]})

    step_index: int = Field(ge=0, lt=2**31)
    action: ActionModel = Field(examples=examples.ACTIONS)


class StepItem(StepRequest):
    """One step of a batch."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STEP_ITEM]})

    session_id: SessionId


class BatchSessions(Request):
    """Begin many episodes at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH_SESSIONS]})

    sessions: list[CreateSession] = Field(min_length=1, max_length=MAX_BATCH)


class BatchSteps(Request):
    """Take steps in many sessions at once. Steps of one session are taken in the order given."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH_STEPS]})

    steps: list[StepItem] = Field(min_length=1, max_length=MAX_BATCH)


class SessionReply(Reply):
    """A session and its current state.

    `step_index` is the index that the next step will have.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SESSION_REPLY]})

    session_id: str
    env_id: str
    task_id: str
    split: str
    labels: dict[str, str | int]
    seed: int
    step_index: int
    observation: ObservationModel
    state_key: str
    trace_key: str
    terminated: bool
    truncated: bool
    trainable: bool = Field(description="False when infrastructure, not the policy, ended it.")
    lease_expires_at: float = Field(description="Unix time, seconds.")


class StepReply(Reply):
    """What a step did; `step_index` is the index of the step just taken."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STEP_REPLY]})

    session_id: str
    env_id: str
    task_id: str
    seed: int
    step_index: int
    observation: ObservationModel
    state_key: str
    trace_key: str
    reward: float
    reward_terms: dict[str, float]
    terminated: bool
    truncated: bool
    trainable: bool
    info: dict[str, JsonValue]
    lease_expires_at: float

    def to_outcome(self) -> Outcome:
        """Return the reply as the outcome that the environment gave."""
        rejected = self.info.get("rejected", [])
        return Outcome(
            self.observation.to_observation(self.state_key),
            self.reward_terms,
            self.terminated,
            self.truncated,
            tuple(map(str, rejected)) if isinstance(rejected, list) else (),
            self.info,
        )


class CreateGroup(Request):
    """Begin several episodes of one task and one seed, for group-relative credit."""

    model_config = ConfigDict(json_schema_extra={**_ONE_TASK, "examples": [examples.CREATE_GROUP]})

    env_id: Name
    task_id: Name | None = None
    split: Name | None = None
    index: int | None = Field(default=None, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**63)
    options: JsonObject = Field(default_factory=dict)
    lease_s: float | None = Field(default=None, gt=0, le=86_400)
    size: int = Field(ge=1, le=MAX_BATCH, description="Number of episodes.")
    group_id: FamilyId | None = Field(
        default=None, description="Chosen by the client, it makes creation idempotent."
    )

    @model_validator(mode="after")
    def _names_one_task(self) -> Self:
        _check_one_task(self.task_id, self.split, self.index)
        return self


class GroupReply(Reply):
    """A group: sessions `group_id.0`, `group_id.1` and so on, all in one state."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.GROUP_REPLY]})

    group_id: str
    trace_key: str
    sessions: list[SessionReply]


class ForkRequest(Request):
    """Begin episodes that share the past of a session."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.FORK_REQUEST]})

    at_step: int | None = Field(
        default=None,
        ge=0,
        lt=2**31,
        description="Steps they share; by default all that were taken.",
    )
    count: int = Field(default=1, ge=1, le=MAX_BATCH)
    fork_id: FamilyId | None = Field(
        default=None, description="Chosen by the client, it makes forking idempotent."
    )


class ForkReply(Reply):
    """Forks: sessions `fork_id.0`, `fork_id.1` and so on."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.FORK_REPLY]})

    parent_id: str
    at_step: int
    fork_id: str
    trace_key: str
    sessions: list[SessionReply]


class Problem(BaseModel):
    """An RFC 9457 problem. Extension members say what the `detail` says, for machines."""

    model_config = ConfigDict(
        extra="allow", frozen=True, json_schema_extra={"examples": [examples.PROBLEM]}
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None


class SessionResult(Reply):
    """One item of a batch: a session, or a problem."""

    status: int
    session: SessionReply | None = None
    problem: Problem | None = None


class SessionResults(Reply):
    """Results in the order of the request."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SESSION_RESULTS]})

    results: list[SessionResult]


class StepResult(Reply):
    """One item of a batch: a step, or a problem."""

    status: int
    step: StepReply | None = None
    problem: Problem | None = None


class StepResults(Reply):
    """Results in the order of the request."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STEP_RESULTS]})

    results: list[StepResult]


class LeaseRequest(Request):
    """Renew the leases of many sessions at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.LEASE_REQUEST]})

    session_ids: list[SessionId] = Field(min_length=1, max_length=MAX_LEASES)
    revive: bool = Field(default=False, description="Also of sessions whose lease has run out.")


class LeaseResult(Reply):
    """One session's lease, or the problem with it."""

    session_id: str
    status: int
    lease_expires_at: float | None = None
    problem: Problem | None = None


class LeaseResults(Reply):
    """Results in the order of the request."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.LEASE_RESULTS]})

    results: list[LeaseResult]


class ExpertReply(Reply):
    """The next expert action, and how many expert steps the goal is away."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.EXPERT_REPLY]})

    action: str | None
    distance: int | None


class EnvSummary(Reply):
    """One environment of the list. `problem` says why it cannot be used here, if it cannot."""

    env_id: str
    registered_id: str
    summary: str
    is_available: bool
    problem: str | None = None


class EnvList(Reply):
    """What is served."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ENV_LIST]})

    environments: list[EnvSummary]


class EnvDetail(EnvSummary):
    """One environment, with its tasks and options."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ENV_DETAIL]})

    splits: dict[str, int]
    data_version: str
    options: dict[str, JsonValue] = Field(description="JSON Schema of the options.")
    fixed_options: list[str] = Field(description="Options that callers cannot set.")
    step_limit: int


class TaskModel(Reply):
    """One task as everybody may see it: never its solution."""

    task_id: str
    split: str
    index: int
    labels: dict[str, str | int]


class TaskPage(Reply):
    """Tasks of one split, in order; `next_cursor` is None after the last."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.TASK_PAGE]})

    tasks: list[TaskModel]
    next_cursor: str | None
    num_tasks: int


class Health(Reply):
    """Whether the server works, and how full it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.HEALTH]})

    status: Literal["ok"]
    version: str
    num_sessions: int
    max_sessions: int


def _check_one_task(task_id: str | None, split: str | None, index: int | None) -> None:
    by_id = task_id is not None
    by_place = split is not None and index is not None
    if by_id == by_place or (by_id and (split, index) != (None, None)):
        raise ValueError("name the task by task_id, or by split and index, not both")


def read_action(action: ActionModel) -> Action:
    """Parse an action as it came over the wire."""
    return parse_text(action) if isinstance(action, str) else parse_message(action)
