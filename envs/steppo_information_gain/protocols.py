"""Two ways to ask an OpenAI-compatible endpoint how likely it finds an answer in a state."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, JsonValue, TypeAdapter

from steppo_env.errors import TransportError
from steppo_env.keys import digest
from steppo_env.mdp import Message
from steppo_env.wire import MessageModel
from steppo_information_gain.endpoint import ScoringEndpoint

__all__ = ["Question", "score_by_chat", "score_by_echo"]

MISSING_LOGPROB = -9999.0
"""What vLLM writes for minus infinity, and for what it does not know."""

ROUNDING = 1e-6
"""By how much the logarithm of a certainty may come out above 0."""


@dataclass(frozen=True, slots=True)
class Question:
    """How likely is each of the answers after these messages?

    Attributes:
        answer_prefix: What the model is taken to have written already.
        answers: At least one, none of them empty.
    """

    model: str
    messages: tuple[Message, ...]
    answer_prefix: str
    answers: tuple[str, ...]
    chat_template_kwargs: Mapping[str, JsonValue]

    def key(self, protocol: str) -> str:
        """Return a key that equal questions share."""
        return digest(
            [
                protocol,
                self.model,
                self.documents(),
                self.answer_prefix,
                [*self.answers],
                dict(self.chat_template_kwargs),
            ]
        )

    def documents(self) -> list[JsonValue]:
        """Return the messages as an endpoint takes them."""
        return [MessageModel.of(message).model_dump() for message in self.messages]

    def as_text(self) -> str:
        """Return the prompt where no chat template is at hand.

        Each message is its role, a colon and its content, and a blank line follows; the last is the
        assistant's, with the prefix of the answer for its beginning.
        """
        parts = [f"{message.role}: {message.content}" for message in self.messages]
        return "\n\n".join([*parts, f"assistant: {self.answer_prefix}"])


class _Tokenized(BaseModel):
    tokens: list[int]


class _PromptLogprob(BaseModel):
    logprob: float


class _ScoredPrompt(BaseModel):
    index: int
    prompt_logprobs: list[dict[str, _PromptLogprob] | None]


class _ScoredPrompts(BaseModel):
    choices: list[_ScoredPrompt]


class _EchoedLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]


class _Echo(BaseModel):
    index: int
    logprobs: _EchoedLogprobs


class _Echoes(BaseModel):
    choices: list[_Echo]


ChoiceT = TypeVar("ChoiceT", _ScoredPrompt, _Echo)

_TOKENIZED = TypeAdapter(_Tokenized)
_SCORED = TypeAdapter(_ScoredPrompts)
_ECHOES = TypeAdapter(_Echoes)


def score_by_chat(endpoint: ScoringEndpoint, question: Question) -> tuple[float, ...]:
    """Return the mean log-probability of each answer's tokens, by vLLM's `prompt_logprobs`.

    The state goes through the model's chat template at /tokenize. Prefix and answer are tokenised
    apart from it, so that the answer's tokens are known exactly.

    Raises:
        TransportError: The endpoint cannot be reached, or does not answer as it should.
    """
    state: dict[str, JsonValue] = {
        "model": question.model,
        "messages": question.documents(),
        "add_generation_prompt": True,
    }
    if question.chat_template_kwargs:
        state["chat_template_kwargs"] = dict(question.chat_template_kwargs)
    service = endpoint.service
    prompt = tuple(service.post("tokenize", state, _TOKENIZED).tokens)
    if question.answer_prefix:
        prompt += _tokens(endpoint, question.model, question.answer_prefix)
    answers = [_tokens(endpoint, question.model, answer) for answer in question.answers]
    prompts = [prompt + answer for answer in answers]
    body: dict[str, JsonValue] = {
        "model": question.model,
        "prompt": [[*ids] for ids in prompts],
        "max_tokens": 1,  # the least that vLLM takes here
        "temperature": 0.0,
        "prompt_logprobs": 0,  # the prompt's own tokens only
    }
    choices = service.post("v1/completions", body, _SCORED).choices
    in_order = _in_order(choices, len(prompts))
    return tuple(
        _mean(_of_ids(choice.prompt_logprobs, ids)[-len(answer) :])
        for choice, ids, answer in zip(in_order, prompts, answers)
    )


def score_by_echo(endpoint: ScoringEndpoint, question: Question) -> tuple[float, ...]:
    """Return the mean log-probability of each answer's tokens, by `echo` and `logprobs`.

    A token that begins before the answer and reaches into it counts as one of the answer's.

    Raises:
        TransportError: The endpoint cannot be reached, or does not answer as it should.
    """
    text = question.as_text()
    body: dict[str, JsonValue] = {
        "model": question.model,
        "prompt": [text + answer for answer in question.answers],
        "max_tokens": 0,
        "temperature": 0.0,
        "echo": True,
        "logprobs": 1,
    }
    choices = endpoint.service.post("v1/completions", body, _ECHOES).choices
    in_order = _in_order(choices, len(question.answers))
    return tuple(
        _mean(_at_the_end(choice.logprobs, answer))
        for choice, answer in zip(in_order, question.answers)
    )


def _tokens(endpoint: ScoringEndpoint, model: str, text: str) -> tuple[int, ...]:
    def ask() -> tuple[int, ...]:
        body: dict[str, JsonValue] = {"model": model, "prompt": text, "add_special_tokens": False}
        return tuple(endpoint.service.post("tokenize", body, _TOKENIZED).tokens)

    tokens = endpoint.tokens.get(digest([model, text]), ask)
    if not tokens:
        raise _broken(f"found no token in {text[:80]!r}")
    return tokens


def _in_order(choices: Sequence[ChoiceT], count: int) -> list[ChoiceT]:
    in_order = sorted(choices, key=lambda choice: choice.index)
    if [choice.index for choice in in_order] != list(range(count)):
        raise _broken(f"answered {len(choices)} choices for {count} prompts")
    return in_order


def _of_ids(
    given: Sequence[Mapping[str, _PromptLogprob] | None],
    ids: Sequence[int],
) -> list[float | None]:
    """Return the log-probability of each token of a prompt; the first one has none."""
    if len(given) != len(ids):
        raise _broken(f"gave {len(given)} log-probabilities for {len(ids)} tokens")
    found = [(entry or {}).get(str(token)) for entry, token in zip(given, ids)]
    return [None if entry is None else entry.logprob for entry in found]


def _at_the_end(echoed: _EchoedLogprobs, answer: str) -> list[float | None]:
    """Return the log-probabilities of the last tokens, those that spell the answer.

    They are counted from the end: a token for the beginning of the text, which some endpoints put
    before the prompt, would shift every offset.
    """
    tokens, logprobs = echoed.tokens, echoed.token_logprobs
    if len(tokens) != len(logprobs):
        raise _broken(f"gave {len(logprobs)} log-probabilities for {len(tokens)} tokens")
    spelled, count = "", 0
    while len(spelled) < len(answer) and count < len(tokens):
        count += 1
        spelled = tokens[-count] + spelled
    if not spelled.endswith(answer):
        raise _broken(
            f"echoed tokens that spell {spelled[-80:]!r} where the answer {answer[:80]!r} stands; "
            "protocol vllm goes by token ids instead",
        )
    return logprobs[-count:]


def _mean(logprobs: Sequence[float | None]) -> float:
    known = [
        value for value in logprobs if value is not None and MISSING_LOGPROB < value <= ROUNDING
    ]
    if len(known) != len(logprobs):
        shown = ", ".join(map(str, logprobs[:20]))
        raise _broken(f"gave no log-probability for a token of the answer: {shown}")
    return min(0.0, math.fsum(known) / len(known))


def _broken(problem: str) -> TransportError:
    return TransportError(f"the scoring endpoint {problem}")
