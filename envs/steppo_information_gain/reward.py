"""The step reward `information_gain`."""

import math
from enum import StrEnum
from typing import Annotated, Protocol, cast, runtime_checkable

from pydantic import AfterValidator, Field, JsonValue

from steppo_env.errors import InvalidOptions
from steppo_env.mdp import Action, Outcome
from steppo_env.step_rewards import RewardedEnv, StepReward
from steppo_information_gain.endpoint import ScoringEndpoint, shared_endpoint
from steppo_information_gain.protocols import Question, score_by_chat, score_by_echo
from steppo_services import check_url

__all__ = ["InformationGain", "Quantity", "ScoringProtocol", "TaskWithAnswers"]


@runtime_checkable
class TaskWithAnswers(Protocol):
    """A task that names its accepted answers."""

    @property
    def answers(self) -> tuple[str, ...]:
        """Every accepted answer, the one to give first."""
        ...


class ScoringProtocol(StrEnum):
    """How the endpoint is asked for the log-probabilities of a prompt."""

    VLLM = "vllm"
    """Token ids from /tokenize with the model's chat template; `prompt_logprobs` of /v1/completions."""
    OPENAI = "openai"
    """Plain text; `echo` and `logprobs` of /v1/completions."""


class Quantity(StrEnum):
    """What rises."""

    LOGPROB = "logprob"
    """Mean log-probability of the answer's tokens, in nats; not above 0."""
    PROBABILITY = "probability"
    """Its exponential, the geometric mean of the tokens' probabilities; in (0, 1]."""


def _checked(endpoint: str) -> str:
    check_url(endpoint, "a scoring endpoint", "http://127.0.0.1:8000/v1")
    return endpoint


class InformationGain(StepReward):
    """Rewards a step by how much more likely it made the gold answer: I(s') - I(s).

    I(s) = (1/L) sum_j log p(a_j | s, prefix, a_<j) over the L tokens of the gold answer a, under the
    model that the endpoint serves, in the prompt of state s; of several accepted answers the likeliest.
    A step that leaves the state as it was, and the one that ends the episode, get 0 and ask nothing.
    """

    kind = "information_gain"
    is_blocking = True
    is_operator_only = True
    is_keyed = True

    endpoint: Annotated[str, AfterValidator(_checked)] = Field(
        description="Base URL of an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1."
    )
    model: str = Field(min_length=1, description="The model as the endpoint names it.")
    protocol: ScoringProtocol = Field(
        default=ScoringProtocol.VLLM, description="How prompt log-probabilities are asked for."
    )
    quantity: Quantity = Field(default=Quantity.LOGPROB, description="What rises.")
    scale: float = Field(
        default=1.0, gt=0.0, le=100.0, description="Reward for a rise of one, after clipping."
    )
    clip: float | None = Field(
        default=None, gt=0.0, le=100.0, description="Largest rise or fall that counts."
    )
    answer_prefix: str = Field(
        default="<answer>",
        max_length=1_000,
        description="What the model is taken to have written just before the answer.",
    )
    max_answers: int = Field(
        default=8, ge=1, le=64, description="Most accepted answers of a task that are scored."
    )
    chat_template_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Given to the chat template, such as enable_thinking = false (protocol vllm).",
    )
    api_key_env: str | None = Field(
        default=None, description="Environment variable that holds the endpoint's key."
    )
    timeout_s: float = Field(
        default=60.0, gt=0.0, le=600.0, description="For one attempt of a request, in seconds."
    )
    attempts: int = Field(
        default=4, ge=1, le=10, description="Most times that one request is sent."
    )
    per_second: float | None = Field(
        default=None, gt=0.0, le=10_000.0, description="Most requests a second of one process."
    )

    def check(self, env: RewardedEnv) -> None:
        if not _answers(env):
            raise InvalidOptions(
                f"the step reward {self.term_name} needs the gold answer, and task "
                f"{env.task.task_id} of {env.env_id} names no `answers`",
                options=["step_rewards"],
            )

    def measure(self, env: RewardedEnv) -> float:
        """Return I(s) of the current state; 0 where nothing follows that it could help."""
        if env.has_terminated:
            return 0.0
        question = Question(
            model=self.model,
            messages=env.observation.messages,
            answer_prefix=self.answer_prefix,
            answers=_answers(env)[: self.max_answers],
            chat_template_kwargs=self.chat_template_kwargs,
        )
        endpoint = self._endpoint()
        ask = score_by_chat if self.protocol is ScoringProtocol.VLLM else score_by_echo
        key = question.key(self.protocol)
        logprob = max(endpoint.scores.get(key, lambda: ask(endpoint, question)))
        return logprob if self.quantity is Quantity.LOGPROB else math.exp(logprob)

    def term(self, before: float, after: float, action: Action, outcome: Outcome) -> float:
        if outcome.terminated:
            return 0.0
        rise = after - before
        if self.clip is not None:
            rise = max(-self.clip, min(self.clip, rise))
        return self.scale * rise

    def _endpoint(self) -> ScoringEndpoint:
        return shared_endpoint(
            self.endpoint,
            api_key_env=self.api_key_env,
            timeout_s=self.timeout_s,
            attempts=self.attempts,
            per_second=self.per_second,
        )


def _answers(env: RewardedEnv) -> tuple[str, ...]:
    """Return the accepted answers that have any text, in order; none when the task has no such thing."""
    task: object = env.task
    if not isinstance(task, TaskWithAnswers):
        return ()
    answers = cast(tuple[object, ...], tuple(task.answers))
    return tuple(answer for answer in answers if isinstance(answer, str) and answer.strip())
