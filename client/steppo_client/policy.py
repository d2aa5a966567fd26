"""What a policy is, and the ones that need no model: expert, random, human."""

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from steppo_client.env_client import EnvClient
from steppo_env.errors import PolicyError
from steppo_env.keys import canonical_json
from steppo_env.mdp import Action, Observation, ToolSpec, Usage
from steppo_env.store.validation import LOGPROB_ROUNDING, MAX_TOKEN_ID, MISSING_LOGPROB
from steppo_env.wire import ActionModel, read_action

__all__ = ["ExpertPolicy", "HumanPolicy", "Policy", "RandomPolicy", "Sample", "Turn"]


@dataclass(frozen=True, slots=True)
class Turn:
    """A state in which a policy has to act.

    Attributes:
        session_id: The session, for policies that may ask the environment (the expert).
        rng: Randomness of this turn alone, derived from run seed, task, sample and step.
    """

    observation: Observation
    session_id: str
    client: EnvClient
    rng: np.random.Generator


@dataclass(frozen=True, slots=True)
class Sample:
    """One whole response, exactly as it was sampled.

    Attributes:
        action: What is sent to the environment: text, or an assistant message.
        prompt_ids: Token ids of the prompt, or None when the endpoint gives none.
        response_ids: Token ids of the response, shape (T,).
        response_logprobs: Log-probability of each response token, shape (T,), in nats.

    Raises:
        PolicyError: Token ids and log-probabilities are not those of one response.
    """

    action: ActionModel
    prompt_ids: tuple[int, ...] | None = None
    response_ids: tuple[int, ...] | None = None
    response_logprobs: tuple[float, ...] | None = None
    policy_version_before: str | None = None
    policy_version_after: str | None = None
    model: str | None = None
    temperature: float | None = None
    finish_reason: str | None = None
    usage: Usage | None = None

    def __post_init__(self) -> None:
        parts = (self.prompt_ids, self.response_ids, self.response_logprobs)
        if all(part is None for part in parts):
            return
        if self.response_ids is None or self.response_logprobs is None or self.prompt_ids is None:
            raise PolicyError(
                "prompt_ids, response_ids and response_logprobs come together or not at all"
            )
        num_ids, num_logprobs = len(self.response_ids), len(self.response_logprobs)
        if num_ids != num_logprobs:
            raise PolicyError(
                f"a response of {num_ids} tokens has {num_logprobs} log-probabilities; each token "
                "needs one"
            )
        for token_id in (*self.prompt_ids, *self.response_ids):
            if not 0 <= token_id <= MAX_TOKEN_ID:
                raise PolicyError(f"{token_id} is no token id; they are 0 to {MAX_TOKEN_ID}")
        for logprob in self.response_logprobs:
            # Written so that NaN is refused too.
            if not MISSING_LOGPROB < logprob <= LOGPROB_ROUNDING:
                raise PolicyError(
                    f"{logprob} is no log-probability: they are at most 0, and "
                    f"{MISSING_LOGPROB:g} stands for one that the endpoint does not have"
                )

    @property
    def parsed(self) -> Action:
        """The response as the environment's parser reads it."""
        return read_action(self.action)


class Policy(ABC):
    """Chooses whole responses. May be asked for many turns at once.

    Attributes:
        name: Stands in the store beside every trajectory that it makes.
    """

    name: str

    @abstractmethod
    async def act(self, turn: Turn) -> Sample:
        """Return the response to a state.

        Raises:
            PolicyError: No usable response could be had.
        """

    async def close(self) -> None:
        """Close what is open."""
        return


class ExpertPolicy(Policy):
    """Does what the environment's expert says."""

    name = "expert"

    async def act(self, turn: Turn) -> Sample:
        advice = await turn.client.expert(turn.session_id)
        if advice.action is None:
            raise PolicyError(
                f"the expert of session {turn.session_id} has no action in this state"
            )
        return Sample(advice.action)


class RandomPolicy(Policy):
    """Acts at random, in the right form: a command where the state lists them, else a tool call.

    Arguments are words of the current state. With a chance of one in `answer_every` it answers
    instead, so that episodes without a step limit in sight still end.
    """

    name = "random"

    def __init__(self, answer_every: int = 5) -> None:
        self.answer_every = answer_every

    async def act(self, turn: Turn) -> Sample:
        return Sample(self._respond(turn.observation, turn.rng))

    def _respond(self, observation: Observation, rng: np.random.Generator) -> str:
        if observation.admissible_actions:
            return f"<act> {_choose(observation.admissible_actions, rng)} </act>"
        words = _words(observation.text)
        if not observation.tools or rng.integers(self.answer_every) == 0:
            return f"<answer>{_phrase(words, rng)}</answer>"
        tool = observation.tools[int(rng.integers(len(observation.tools)))]
        call: dict[str, JsonValue] = {
            "name": tool.name,
            "arguments": {
                name: _argument(schema, words, rng) for name, schema in _properties(tool).items()
            },
        }
        return f"<tool_call>{canonical_json(call).decode()}</tool_call>"


class HumanPolicy(Policy):
    """Asks a person; `ask` shows the state and returns what was typed."""

    name = "human"

    def __init__(self, ask: Callable[[Observation], Awaitable[str]]) -> None:
        self._ask = ask

    async def act(self, turn: Turn) -> Sample:
        return Sample(await self._ask(turn.observation))


def _choose(items: Sequence[str], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s\"'`<>{}\[\](),;]+", text) or ["nothing"]


def _phrase(words: Sequence[str], rng: np.random.Generator) -> str:
    start = int(rng.integers(len(words)))
    return " ".join(words[start : start + int(rng.integers(1, 4))])


def _properties(tool: ToolSpec) -> Mapping[str, Mapping[str, JsonValue]]:
    properties = tool.parameters.get("properties", {})
    assert isinstance(properties, dict)
    return {name: schema for name, schema in properties.items() if isinstance(schema, dict)}


def _argument(
    schema: Mapping[str, JsonValue], words: Sequence[str], rng: np.random.Generator
) -> JsonValue:
    """Return a value of the schema's type: any word that fits its pattern, else a phrase."""
    match schema.get("type"):
        case "integer":
            return int(rng.integers(10))
        case "number":
            return float(rng.random())
        case "boolean":
            return bool(rng.integers(2))
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[int(rng.integers(len(choices)))]
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        fitting = [word for word in words if re.search(pattern, word)]
        if fitting:
            return _choose(fitting, rng)
    return _phrase(words, rng)
