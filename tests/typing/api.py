"""The public API as its users write it. Checked by mypy and pyright; never run.

An error here is a break of somebody's type-checked code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, assert_type

import numpy as np
from pydantic import Field, JsonValue

from steppo_client import EnvClient, LocalEnvClient, SessionStart, SessionState, StepTaken
from steppo_env import (
    Action,
    AnyEnv,
    Catalogue,
    EnvOptions,
    GeneratedTasks,
    ListedTasks,
    Message,
    Observation,
    OperatorOnly,
    Outcome,
    Rejection,
    StepEnv,
    SteppoError,
    StopReason,
    Task,
    TaskSet,
    Tool,
    ToolArguments,
    Toolbox,
    ToolCall,
    Trajectory,
    make,
    parse_message,
    parse_text,
    registered_ids,
)
from steppo_env.errors import EnvError, boundary, error_from_problem
from steppo_env.rendering import Section, Shrink, render_sections
from steppo_env.testing import EnvContract, expert_action, play
from steppo_env.wire import ObservationModel, SessionReply, StepReply

# As the author of an environment.


class LookArguments(ToolArguments):
    """Look at something."""

    at: str


class RoomOptions(EnvOptions):
    step_limit: int = Field(default=5, ge=1, le=1000)
    data: Annotated[Path | None, OperatorOnly()] = None


@dataclass(frozen=True, slots=True)
class RoomTask(Task):
    door: str = "north"


class Room(StepEnv[RoomTask, RoomOptions]):
    env_id = "acme/Room-v0"
    options_type = RoomOptions
    is_blocking = True

    @classmethod
    def load_tasks(cls, options: RoomOptions) -> TaskSet[RoomTask]:
        assert_type(options.data, Path | None)
        return ListedTasks([RoomTask("r1", "dev", {"hops": 1})], version="1")

    def begin(self, task: RoomTask, rng: np.random.Generator) -> Observation:
        assert_type(task.door, str)
        return self.observe((Message("user", "look"),), text="look", state=["start"], task=task)

    def act(self, action: Action) -> Outcome:
        assert_type(self.task, RoomTask)
        assert_type(self.options, RoomOptions)
        assert_type(self.num_steps, int)
        toolbox = Toolbox(Tool("look", LookArguments))
        rejected: list[str] = []
        for call in action.tool_calls:
            match toolbox.read(call):
                case LookArguments(at=at):
                    assert_type(at, str)
                case Rejection(detail):
                    rejected.append(detail)
                case _:
                    pass
        sections = [Section("Task", ("Leave.",)), Section("Seen", (), Shrink.OLDEST)]
        text = render_sections(sections, self.options.state_chars)
        observation = self.observe(
            (Message("user", text),), text=text, state={"seen": []}, tools=toolbox.specs
        )
        return Outcome(
            observation,
            reward_terms={"goal": 1.0, "cost": -0.5},
            terminated=action.answer == self.task.door,
            rejected=(*action.rejections, *rejected),
            info={"success": True, "seen": ["door", 1]},
        )

    def expert(self) -> Action | None:
        return parse_text(f"<answer>{self.task.door}</answer>")

    def distance(self) -> int | None:
        return 1

    def save_state(self) -> bytes:
        return b""

    def load_state(self, task: RoomTask, state: bytes) -> Observation:
        with boundary(EnvError, "load_state"):
            return self.begin(task, np.random.default_rng(0))


class RoomContract(EnvContract):
    env_id = "acme/Room-v0"
    options: ClassVar[Mapping[str, object]] = {"step_limit": 3}


def generated() -> GeneratedTasks[RoomTask]:
    return GeneratedTasks(
        {"train": 5}, lambda split, index: RoomTask(f"{split}/{index}", split), version="1"
    )


# As a caller in the same process.


def play_by_hand(env: Room) -> None:
    assert_type(env.tasks, TaskSet[RoomTask])
    observation = env.start(env.tasks.at("dev", 0), seed=0)
    assert_type(observation, Observation)
    assert_type(observation.admissible_actions, tuple[str, ...] | None)
    outcome = env.advance("<answer>north</answer>")
    assert_type(outcome, Outcome)
    assert_type(outcome.reward, float)
    assert_type(env.advance(parse_message({"role": "assistant", "content": "x"})), Outcome)
    assert_type(env.snapshot(), bytes | None)
    assert_type(env.trace_key, str)
    assert_type(env.has_ended, bool)
    assert_type(play(env, "r1", 0, expert_action), tuple[list[Outcome], list[str]])


def play_as_gymnasium() -> None:
    env = make("acme/Room-v0", step_limit=3)
    assert_type(env, AnyEnv)
    text, info = env.reset(seed=1, options={"split": "dev", "index": 0})
    assert_type(text, str)
    assert_type(info, dict[str, Any])
    assert_type(env.step("go"), tuple[str, float, bool, bool, dict[str, Any]])
    assert_type(env.render(), str)


def choose() -> None:
    assert_type(registered_ids(), tuple[str, ...])
    spec = Catalogue.from_toml(Path("serve.toml")).get("rooms")
    assert_type(spec.make({"step_limit": 3}), AnyEnv)


def judge(trajectory: Trajectory) -> bool:
    assert_type(trajectory.return_, float)
    assert_type(trajectory.steps[0].response_logprobs, tuple[float, ...] | None)
    assert_type(trajectory.steps[0].tool_calls, tuple[ToolCall, ...])
    return trajectory.stop_reason is StopReason.STEP_LIMIT


# As a client of a server.


async def play_with(client: EnvClient) -> None:
    state = await client.create(SessionStart("acme/Room-v0", "s1", seed=0, task_id="r1"))
    assert_type(state, SessionState)
    taken = await client.step("s1", 0, "<answer>north</answer>")
    assert_type(taken, StepTaken)
    assert_type(taken.outcome, Outcome)
    page = await client.tasks("acme/Room-v0", "dev", limit=10)
    assert_type(page.next_cursor, str | None)


async def play_here() -> None:
    async with LocalEnvClient(Catalogue()) as client:
        assert_type(client, LocalEnvClient)
        await play_with(client)


def read(body: bytes, problem: dict[str, JsonValue]) -> Observation:
    assert_type(error_from_problem(problem), SteppoError)
    assert_type(SessionReply.model_validate_json(body).observation, ObservationModel)
    reply = StepReply.model_validate_json(body)
    assert_type(reply.to_outcome(), Outcome)
    return reply.observation.to_observation(reply.state_key)
