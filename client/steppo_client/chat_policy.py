"""Policies behind the chat endpoint of any OpenAI-compatible server."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from steppo_client.policy import Policy, Sample, Turn
from steppo_env.errors import PolicyError
from steppo_env.mdp import Usage
from steppo_env.wire import ActionModel, MessageModel, ToolModel
from steppo_services.urls import check_url

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

__all__ = ["ChatPolicy", "ChatSettings"]


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """How a chat endpoint is asked.

    Attributes:
        temperature: 1.0 is the policy itself; other values sample from another distribution.
        max_tokens: Longest response, in tokens.
        timeout_s: For one request.
        num_retries: Repeats after a lost connection, 408, 429 or a 5xx; Retry-After is honoured.
        native_tools: Send the tools in the request. Off, the prompt alone explains them.
        token_ids: Ask for token ids and log-probabilities (vLLM); hosted models refuse the field.
    """

    temperature: float = 1.0
    max_tokens: int = 1024
    timeout_s: float = 120.0
    num_retries: int = 2
    native_tools: bool = True
    token_ids: bool = False


class ChatPolicy(Policy):
    """Samples whole responses from `/v1/chat/completions`.

    Args:
        model: Name of the model at the endpoint.
        base_url: Such as `http://127.0.0.1:8000/v1`.
        api_key: Sent as a bearer token; local servers take any.

    Raises:
        InvalidInput: `base_url` is not an http or https URL.
    """

    def __init__(
        self, model: str, base_url: str, api_key: str, settings: ChatSettings | None = None
    ) -> None:
        check_url(base_url, "an endpoint", "http://127.0.0.1:8000/v1")
        # Here and not above: it takes longer to import than all the rest, and few verbs need it.
        import openai

        self.name = f"chat:{model}"
        self.model = model
        self.settings = settings or ChatSettings()
        self._error = openai.OpenAIError
        self._openai = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=self.settings.timeout_s,
            max_retries=self.settings.num_retries,
        )

    async def act(self, turn: Turn) -> Sample:
        try:
            completion = await self._openai.chat.completions.create(**self._request(turn))
        except (self._error, ValueError) as error:  # a ValueError where the reply is not JSON
            raise PolicyError(
                f"{self.model} gave no response: {error}", exception=type(error).__name__
            ) from error
        try:
            return self._read(completion)
        except (AttributeError, TypeError, ValueError) as error:
            # The SDK builds its objects from whatever comes, unchecked.
            raise PolicyError(
                f"{self.model} answered, but not with a chat completion: {error}"
            ) from error

    async def close(self) -> None:
        await self._openai.close()

    def _request(self, turn: Turn) -> dict[str, Any]:
        settings = self.settings
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [
                MessageModel.of(message).model_dump(mode="json")
                for message in turn.observation.messages
            ],
            # Every sampling field is sent: servers have defaults of their own for what is left out.
            "temperature": settings.temperature,
            "top_p": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_tokens": settings.max_tokens,
            "n": 1,
            "seed": int(turn.rng.integers(2**31)),
        }
        if settings.native_tools and turn.observation.tools:
            request["tools"] = [
                ToolModel.of(tool).model_dump(mode="json") for tool in turn.observation.tools
            ]
        if settings.token_ids:
            request["logprobs"] = True
            request["extra_body"] = {
                "return_token_ids": True,
                "top_k": 0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
            }
        return request

    def _read(self, completion: "ChatCompletion") -> Sample:
        if not completion.choices:
            raise PolicyError(f"{self.model} answered without a choice")
        choice = completion.choices[0]
        usage = completion.usage
        prompt_ids, response_ids, logprobs = None, None, None
        if self.settings.token_ids:
            prompt_ids, response_ids, logprobs = _token_ids(completion)
        return Sample(
            _action(choice.message.model_dump(mode="json", exclude_none=True, warnings=False)),
            prompt_ids,
            response_ids,
            logprobs,
            policy_version_before=completion.model,
            policy_version_after=completion.model,
            model=completion.model,
            temperature=self.settings.temperature,
            finish_reason=choice.finish_reason,
            usage=None
            if usage is None
            else Usage(int(usage.prompt_tokens), int(usage.completion_tokens)),
        )


def _action(message: dict[str, JsonValue]) -> ActionModel:
    """Return plain text where the message is nothing more, so that equal responses look equal."""
    content = message.get("content", "")
    # vLLM renamed the field; both names are in use.
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    calls = message.get("tool_calls")
    if isinstance(content, str) and not calls and not reasoning:
        return content
    action: dict[str, JsonValue] = {"role": "assistant", "content": content}
    if calls:
        action["tool_calls"] = calls
    if reasoning:
        action["reasoning_content"] = reasoning
    return action


def _token_ids(
    completion: "ChatCompletion",
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    """Return prompt ids, response ids and log-probabilities, or refuse the sample.

    Raises:
        PolicyError: Something is missing, or the lengths do not agree.
    """
    choice = completion.choices[0]
    prompt_ids = _ids(getattr(completion, "prompt_token_ids", None), "prompt_token_ids")
    response_ids = _ids(getattr(choice, "token_ids", None), "token_ids")
    content = choice.logprobs.content if choice.logprobs is not None else None
    if content is None:
        raise PolicyError("the endpoint gave no log-probabilities; start it with them enabled")
    logprobs = tuple(float(item.logprob) for item in content)
    num_tokens = (
        len(response_ids) if completion.usage is None else completion.usage.completion_tokens
    )
    if not len(response_ids) == len(logprobs) == num_tokens:
        raise PolicyError(
            f"the endpoint gave {len(response_ids)} token ids, {len(logprobs)} log-probabilities and "
            f"a usage of {num_tokens} tokens; a parser on the server may be dropping some"
        )
    return prompt_ids, response_ids, logprobs


def _ids(value: object, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise PolicyError(f"the endpoint gave no {name}; it must support return_token_ids")
    if not all(type(item) is int for item in value):
        raise PolicyError(f"the endpoint's {name} are not all integers")
    return tuple(value)
