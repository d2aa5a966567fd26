import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from steppo_client import (
    ExpertPolicy,
    HumanPolicy,
    LocalEnvClient,
    RandomPolicy,
    Sample,
    SessionStart,
    Turn,
)
from steppo_env.env import AnyEnv
from steppo_env.errors import PolicyError
from steppo_env.mdp import Observation, ToolSpec
from steppo_env.registry import make, registered_ids
from steppo_env.tools import Tool, ToolArguments, Toolbox
from steppo_env.wire import read_action


class Look(ToolArguments):
    """Look at something."""

    at: str
    times: int
    share: float
    closely: bool


class Wait(ToolArguments):
    """Wait."""


TOOLBOX = Toolbox(Tool("look", Look), Tool("wait", Wait))


def turn(observation: Observation, seed: int = 0) -> Turn:
    return Turn(observation, "s1", LocalEnvClient(), np.random.default_rng(seed))


def observation(
    text: str = "a red door", tools: tuple[ToolSpec, ...] = TOOLBOX.specs
) -> Observation:
    return Observation((), text, "key", tools)


async def respond(seen: Observation, seed: int) -> str:
    action = (await RandomPolicy().act(turn(seen, seed))).action
    assert isinstance(action, str)
    return action


async def test_random_calls_every_tool_with_arguments_of_its_schema() -> None:
    used: Counter[str] = Counter()
    for seed in range(200):
        action = read_action(await respond(observation(), seed))
        assert action.issues == ()
        assert (action.answer is None) == (len(action.tool_calls) == 1)
        for call in action.tool_calls:
            assert not hasattr(TOOLBOX.read(call), "detail"), call
            used[call.name] += 1

    assert used.keys() == {"look", "wait"}
    assert used.total() < 200, "it never answers"


async def test_random_takes_commands_where_they_are_listed() -> None:
    commands = ("go north", "go south", "take key")
    seen = Observation((), "text", "key", TOOLBOX.specs, commands)
    taken = {read_action(await respond(seen, seed)).commands for seed in range(60)}

    assert taken == {(command,) for command in commands}


async def test_random_answers_where_there_is_nothing_else_to_do() -> None:
    assert read_action(await respond(observation("", ()), 0)).answer == "nothing"


@pytest.mark.parametrize(
    ("schema", "allowed"),
    [
        ({"enum": ["x", "y"]}, {"x", "y"}),
        ({"type": "string", "pattern": "^p[0-9]$"}, {"p1", "p2"}),
        ({"type": "integer"}, set(range(10))),
        ({"type": "boolean"}, {True, False}),
    ],
)
async def test_random_arguments_fit_their_schema(
    schema: dict[str, JsonValue], allowed: set[JsonValue]
) -> None:
    tool = ToolSpec("t", "", {"type": "object", "properties": {"value": schema}})
    found: set[object] = set()
    for seed in range(120):
        for call in read_action(
            await respond(observation("see p1 or p2 !", (tool,)), seed)
        ).tool_calls:
            found.add(call.arguments["value"])

    assert found == allowed


@given(text=st.text(), seed=st.integers(0, 2**32))
def test_random_is_well_formed_whatever_the_state_says(text: str, seed: int) -> None:
    policy = RandomPolicy()
    first = policy._respond(observation(text), np.random.default_rng(seed))

    assert read_action(first).issues == ()
    assert first == policy._respond(observation(text), np.random.default_rng(seed))


@pytest.mark.parametrize("env_id", registered_ids())
async def test_no_environment_finds_the_form_of_a_random_action_wrong(env_id: str) -> None:
    env: AnyEnv = make(env_id)
    env.start(env.tasks.at("dev", 0), 0)
    rng = np.random.default_rng(0)
    while not env.has_ended:
        sample = await RandomPolicy().act(Turn(env.observation, "s", LocalEnvClient(), rng))
        assert sample.parsed.issues == ()
        assert sample.parsed.commands or sample.parsed.tool_calls or sample.parsed.answer
        env.advance(sample.parsed)
    env.close()


async def test_the_expert_without_an_action_is_a_policy_error() -> None:
    async with LocalEnvClient() as client:
        start = SessionStart("steppo/KeyDoor-v0", "s1", 0, "dev/0", options={"step_limit": 1})
        state = await client.create(start)
        at_start = Turn(state.observation, "s1", client, np.random.default_rng(0))
        sample = await ExpertPolicy().act(at_start)
        assert "<act> go " in str(sample.action)
        await client.step("s1", 0, sample.action)
        with pytest.raises(PolicyError, match="no action in this state"):
            await ExpertPolicy().act(at_start)


async def test_a_human_sees_the_state_and_is_taken_at_their_word() -> None:
    seen: list[str] = []

    async def ask(state: Observation) -> str:
        seen.append(state.text)
        return "my answer"

    assert (await HumanPolicy(ask).act(turn(observation()))).action == "my answer"
    assert seen == ["a red door"]


def test_a_sample_may_have_tokens_or_none() -> None:
    assert Sample("hi").response_ids is None
    sample = Sample("hi", (1, 2), (3, 4), (-0.5, 0.0))
    assert sample.response_logprobs == (-0.5, 0.0)


@pytest.mark.parametrize(
    ("prompt", "response", "logprobs", "message"),
    [
        ((1,), (2,), None, "come together"),
        (None, (2,), (-1.0,), "come together"),
        ((1,), (2, 3), (-1.0,), "2 tokens has 1 log-prob"),
        ((1,), (2,), (math.nan,), "nan is no log-prob"),
        ((1,), (2,), (-math.inf,), "-inf is no log-prob"),
        ((1,), (2,), (math.inf,), "inf is no log-prob"),
        ((1,), (2,), (-9999.0,), "-9999.0 is no log-prob"),
        ((1,), (2,), (0.01,), "0.01 is no log-prob"),
        ((-1,), (2,), (-1.0,), "-1 is no token id"),
        ((1,), (2**31,), (-1.0,), "2147483648 is no token id"),
    ],
)
def test_a_sample_with_tokens_that_no_sampler_gives_is_refused(
    prompt: tuple[int, ...] | None,
    response: tuple[int, ...] | None,
    logprobs: tuple[float, ...] | None,
    message: str,
) -> None:
    with pytest.raises(PolicyError, match=message):
        Sample("hi", prompt, response, logprobs)
