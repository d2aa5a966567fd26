"""The frames of `WS /v1/stream`: the calls of the HTTP API over one socket, told apart by `request_id`.

A frame is one text message, a JSON object. Its `body` is the document of the HTTP call; where that has
none but a path and parameters, their names are its members.
"""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, RootModel, StringConstraints

from steppo_env.wire import (
    BatchSessions,
    BatchSteps,
    CreateGroup,
    CreateSession,
    ForkRequest,
    JsonObject,
    LeaseRequest,
    Name,
    Problem,
    Reply,
    Request,
    StepRequest,
)

__all__ = [
    "CreateFrame",
    "CreateManyFrame",
    "DescribeEnvironment",
    "DescribeFrame",
    "EnvironmentsFrame",
    "ForkFrame",
    "Frame",
    "GroupFrame",
    "LeasesFrame",
    "ListTasks",
    "SessionFrame",
    "StepFrame",
    "StepManyFrame",
    "StreamReply",
    "StreamRequest",
    "TasksFrame",
]

RequestId = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Frame(Request):
    """Base of every request.

    `request_id` comes back with the reply. One socket does not use it for two requests that are both
    under way; the server does not look.
    """

    request_id: RequestId


class DescribeEnvironment(Request):
    """Describe one environment as the options make it."""

    env_id: Name
    options: JsonObject = Field(default_factory=dict)


class ListTasks(DescribeEnvironment):
    """List the tasks of a split in order."""

    split: Name
    cursor: str | None = Field(default=None, max_length=32)
    limit: int = Field(default=100, ge=1, le=1000)


class EnvironmentsFrame(Frame):
    """As `GET /v1/envs`."""

    op: Literal["environments"]


class DescribeFrame(Frame):
    """As `GET /v1/envs/{env_id}`."""

    op: Literal["describe"]
    body: DescribeEnvironment


class TasksFrame(Frame):
    """As `GET /v1/envs/{env_id}/tasks`."""

    op: Literal["tasks"]
    body: ListTasks


class CreateFrame(Frame):
    """As `POST /v1/sessions`."""

    op: Literal["create"]
    body: CreateSession


class CreateManyFrame(Frame):
    """As `POST /v1/batch/sessions`."""

    op: Literal["sessions"]
    body: BatchSessions


class GroupFrame(Frame):
    """As `POST /v1/groups`."""

    op: Literal["group"]
    body: CreateGroup


class StepFrame(Frame):
    """As `POST /v1/sessions/{session_id}/steps`."""

    op: Literal["step"]
    session_id: Name
    body: StepRequest


class StepManyFrame(Frame):
    """As `POST /v1/batch/steps`."""

    op: Literal["steps"]
    body: BatchSteps


class SessionFrame(Frame):
    """As `GET` and `DELETE` of `/v1/sessions/{session_id}`, and `GET` of its expert."""

    op: Literal["get", "delete", "expert"]
    session_id: Name


class ForkFrame(Frame):
    """As `POST /v1/sessions/{session_id}/forks`."""

    op: Literal["fork"]
    session_id: Name
    body: ForkRequest = ForkRequest()


class LeasesFrame(Frame):
    """As `POST /v1/leases`."""

    op: Literal["leases"]
    body: LeaseRequest


class StreamRequest(
    RootModel[
        Annotated[
            CreateFrame
            | CreateManyFrame
            | DescribeFrame
            | EnvironmentsFrame
            | ForkFrame
            | GroupFrame
            | LeasesFrame
            | SessionFrame
            | StepFrame
            | StepManyFrame
            | TasksFrame,
            Field(discriminator="op"),
        ]
    ]
):
    """Any request.

    >>> frame = StreamRequest.model_validate({"request_id": "7", "op": "get", "session_id": "s"})
    >>> frame.root
    SessionFrame(request_id='7', op='get', session_id='s')
    """


class StreamReply(Reply):
    """What came of a request: a body, or a problem. Replies come in any order.

    `request_id` is None when the frame was so broken that it could not be read.
    """

    request_id: str | None
    status: int = Field(description="As HTTP would have it.")
    body: JsonValue = None
    problem: Problem | None = None
