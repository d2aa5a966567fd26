"""The documents of the OpenEnv protocol.

Source: `openenv/core/env_server/types.py` of openenv-core 0.3.0. What is ours beside theirs stands where
their models leave room: in `metadata`, in the state, and in the data of an error.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, TypeAdapter, model_validator

from steppo_env.wire import MessageModel, Reply, Request, ToolModel

__all__ = [
    "FRAME",
    "CloseFrame",
    "Description",
    "EpisodeStateModel",
    "HealthModel",
    "McpFrame",
    "McpReply",
    "ObservationReply",
    "ResetFrame",
    "ResetRequest",
    "SchemasModel",
    "ShownModel",
    "StateFrame",
    "StepFrame",
    "TextAction",
    "TimedStepRequest",
]

Name = Annotated[str, Field(min_length=1, max_length=512)]
EpisodeId = Annotated[str, Field(min_length=1, max_length=255)]


class ResetRequest(Request):
    """What a reset takes. Without a task one of the split is taken, at the index `seed` modulo its size."""

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    episode_id: EpisodeId | None = None
    task_id: Name | None = None
    split: Name | None = Field(default=None, description="By default train, or the first.")
    index: int | None = Field(default=None, ge=0)
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_one_task(self) -> Self:
        if self.task_id is not None and (self.split, self.index) != (None, None):
            raise ValueError("name the task by task_id, or by split and index, not both")
        return self


class TextAction(Request):
    """A whole response of the policy."""

    text: str
    metadata: dict[str, JsonValue] = Field(
        default_factory=dict, description="Every action of OpenEnv has it; it is not looked at."
    )


class TimedStepRequest(Request):
    """A step over HTTP."""

    action: TextAction
    timeout_s: float | None = Field(
        default=None, gt=0, description="How long to wait for the reply; the step is taken anyway."
    )
    request_id: str | None = Field(default=None, max_length=255)
    episode_id: EpisodeId | None = Field(
        default=None, description="The episode that a reset with the same id began."
    )
    step_index: int | None = Field(
        default=None,
        ge=0,
        lt=2**31,
        description="By default the next one; with it the request may be sent again.",
    )


class ResetFrame(Request):
    """Begin an episode; the one before it ends."""

    type: Literal["reset"]
    data: ResetRequest = ResetRequest()


class StepFrame(Request):
    """Take a step."""

    type: Literal["step"]
    data: TextAction


class StateFrame(Request):
    """Ask for the state."""

    type: Literal["state"]


class CloseFrame(Request):
    """End the connection."""

    type: Literal["close"]


class McpFrame(Request):
    """A JSON-RPC call of the Model Context Protocol."""

    type: Literal["mcp"]
    data: dict[str, JsonValue]


Frame = Annotated[
    ResetFrame | StepFrame | StateFrame | CloseFrame | McpFrame, Field(discriminator="type")
]
FRAME: TypeAdapter[ResetFrame | StepFrame | StateFrame | CloseFrame | McpFrame] = TypeAdapter(Frame)


class ShownModel(Reply):
    """A state as the policy sees it."""

    text: str
    messages: list[MessageModel]
    tools: list[ToolModel]
    admissible_actions: list[str] | None
    metadata: dict[str, JsonValue] = Field(
        description="Task, seed, keys, terminated, truncated, trainable; of a step also reward_terms."
    )


class ObservationReply(Reply):
    """What a reset or a step led to."""

    observation: ShownModel
    reward: float | None = Field(description="None after a reset.")
    done: bool = Field(description="Terminated or truncated; the metadata says which.")


class EpisodeStateModel(Reply):
    """Which episode it is and where it stands; before the first reset it has none."""

    episode_id: str | None = None
    step_count: int = 0
    session_id: str | None = None
    env_id: str | None = None
    task_id: str | None = None
    split: str | None = None
    labels: dict[str, str | int] = Field(default_factory=dict)
    seed: int | None = None
    state_key: str | None = None
    trace_key: str | None = None
    terminated: bool = False
    truncated: bool = False
    trainable: bool = True


class Description(Reply):
    """What an environment is."""

    name: str
    description: str
    version: str


class HealthModel(Reply):
    """That the server works."""

    status: Literal["healthy"] = "healthy"


class SchemasModel(Reply):
    """JSON Schemas of what goes in and comes out."""

    action: dict[str, JsonValue]
    observation: dict[str, JsonValue]
    state: dict[str, JsonValue]


class McpError(Reply):
    """An error of JSON-RPC 2.0."""

    code: int
    message: str


class McpReply(Reply):
    """A reply of JSON-RPC 2.0. There is no MCP here, so it is always an error."""

    jsonrpc: Literal["2.0"] = "2.0"
    id: str | int | None = None
    error: McpError

    @classmethod
    def refusing(cls, call: JsonValue) -> Self:
        """Return the answer to a call, if it is one."""
        call_id = call.get("id") if isinstance(call, dict) else None
        return cls(
            id=call_id if isinstance(call_id, str | int) else None,
            # The code of a method that does not exist: https://www.jsonrpc.org/specification#error_object
            error=McpError(code=-32601, message="this environment does not speak MCP; use step"),
        )
