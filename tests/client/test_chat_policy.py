import json
from typing import Any

import anyio
import numpy as np
import pytest

from steppo_client import ChatPolicy, ChatSettings, LocalEnvClient, Sample, Turn
from steppo_env.errors import InvalidInput, PolicyError
from steppo_env.mdp import Message, Observation, ToolCall, ToolSpec, Usage

TOOL = ToolSpec("look", "Look.", {"type": "object", "properties": {"at": {"type": "string"}}})
WITH_IDS = ChatSettings(token_ids=True, num_retries=0)
ONCE = ChatSettings(num_retries=0)

LOGPROBS = {"content": [{"token": "h", "logprob": -0.5}, {"token": "i", "logprob": -0.25}]}
CHOICE = {"token_ids": [7, 8], "logprobs": LOGPROBS}


async def ask(
    endpoint: Any,
    settings: ChatSettings = ONCE,
    seed: int = 0,
    tools: tuple[ToolSpec, ...] = (TOOL,),
) -> Sample:
    messages = (
        Message("system", "rules"),
        Message("assistant", "", (ToolCall("look", {"at": "x"}, "c1"),)),
        Message("tool", "a door", tool_call_id="c1"),
    )
    policy = ChatPolicy("asked-model", endpoint.base_url, "secret", settings)
    try:
        observation = Observation(messages, "text", "key", tools)
        rng = np.random.default_rng(seed)
        return await policy.act(Turn(observation, "s1", LocalEnvClient(), rng))
    finally:
        await policy.close()


async def test_every_sampling_field_is_sent(endpoint: Any) -> None:
    await ask(endpoint, ChatSettings(temperature=0.7, max_tokens=9, num_retries=0))

    (sent,) = endpoint.requests
    seed = sent.pop("seed")
    assert isinstance(seed, int)
    assert sent == {
        "model": "asked-model",
        "messages": [
            {"role": "system", "content": "rules"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"at": "x"}'},
                    }
                ],
            },
            {"role": "tool", "content": "a door", "tool_call_id": "c1"},
        ],
        "temperature": 0.7,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 9,
        "n": 1,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Look.",
                    "parameters": dict(TOOL.parameters),
                },
            }
        ],
    }
    assert endpoint.keys == ["Bearer secret"]


async def test_tools_are_sent_only_where_there_are_some_and_they_are_wanted(endpoint: Any) -> None:
    await ask(endpoint, ChatSettings(native_tools=False, num_retries=0))
    await ask(endpoint, tools=())

    assert all("tools" not in sent for sent in endpoint.requests)


async def test_asking_for_token_ids_also_turns_off_what_vllm_would_add(endpoint: Any) -> None:
    endpoint.replies = [endpoint.completion(prompt_token_ids=[1], choice=CHOICE)]
    await ask(endpoint, WITH_IDS)

    (sent,) = endpoint.requests
    extra = ("return_token_ids", "logprobs", "top_k", "min_p", "repetition_penalty")
    assert [sent[name] for name in extra] == [True, True, 0, 0.0, 1.0]


async def test_the_seed_is_the_turns_own(endpoint: Any) -> None:
    for seed in (1, 1, 2):
        await ask(endpoint, seed=seed)

    first, again, other = [sent["seed"] for sent in endpoint.requests]
    assert first == again != other


async def test_a_plain_text_stays_text(endpoint: Any) -> None:
    sample = await ask(endpoint)

    assert sample == Sample(
        "hi",
        policy_version_before="served-model",
        policy_version_after="served-model",
        model="served-model",
        temperature=1.0,
        finish_reason="stop",
        usage=Usage(5, 2),
    )


async def test_tool_calls_are_read_as_the_parser_reads_them(endpoint: Any) -> None:
    call = {
        "id": "c9",
        "type": "function",
        "function": {"name": "look", "arguments": json.dumps({"at": "door"})},
    }
    message = {"content": None, "tool_calls": [call], "refusal": None, "audio": {"id": "1"}}
    endpoint.replies = [
        endpoint.completion(message=message, choice={"finish_reason": "tool_calls"})
    ]
    sample = await ask(endpoint)

    assert sample.parsed.tool_calls == (ToolCall("look", {"at": "door"}, "c9"),)
    assert sample.finish_reason == "tool_calls"
    assert isinstance(sample.action, dict)
    assert sample.action.keys() == {"role", "content", "tool_calls"}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_under_either_name_is_kept(endpoint: Any, field: str) -> None:
    endpoint.replies = [endpoint.completion(message={field: "hmm"})]
    parsed = (await ask(endpoint)).parsed

    assert (parsed.reasoning, parsed.content) == ("hmm", "hi")


async def test_content_in_parts_is_not_lost(endpoint: Any) -> None:
    parts = [{"type": "text", "text": "<answer>Paris</answer>"}]
    endpoint.replies = [endpoint.completion(message={"content": parts})]

    assert (await ask(endpoint)).parsed.answer == "Paris"


async def test_token_ids_and_log_probabilities_are_read(endpoint: Any) -> None:
    endpoint.replies = [endpoint.completion(prompt_token_ids=[1, 2, 3], choice=CHOICE)]
    sample = await ask(endpoint, WITH_IDS)

    assert sample.prompt_ids == (1, 2, 3)
    assert sample.response_ids == (7, 8)
    assert sample.response_logprobs == (-0.5, -0.25)


async def test_no_usage_is_no_usage(endpoint: Any) -> None:
    endpoint.replies = [endpoint.completion(prompt_token_ids=[1], choice=CHOICE, usage=None)]

    assert (await ask(endpoint, WITH_IDS)).usage is None


def logprobs(*values: Any) -> dict[str, Any]:
    return {"content": [{"token": "t", "logprob": value} for value in values]}


@pytest.mark.parametrize(
    ("top", "choice", "message"),
    [
        ({}, CHOICE, "no prompt_token_ids"),
        ({"prompt_token_ids": [1]}, {"logprobs": LOGPROBS}, "no token_ids"),
        ({"prompt_token_ids": [1]}, {**CHOICE, "token_ids": []}, "no token_ids"),
        ({"prompt_token_ids": [1]}, {**CHOICE, "token_ids": [1, "x"]}, "not all integers"),
        ({"prompt_token_ids": [True]}, CHOICE, "not all integers"),
        ({"prompt_token_ids": [1]}, {"token_ids": [7, 8]}, "no log-probabilities"),
        ({"prompt_token_ids": [1]}, {**CHOICE, "token_ids": [7]}, "1 token ids, 2 log-prob"),
        ({"prompt_token_ids": [1]}, {**CHOICE, "logprobs": logprobs(-1.0)}, "2 token ids, 1 log"),
        (
            {"prompt_token_ids": [1], "usage": {"prompt_tokens": 1, "completion_tokens": 3}},
            CHOICE,
            "usage of 3 tokens",
        ),
        (
            {"prompt_token_ids": [1], "usage": {"prompt_tokens": 1, "completion_tokens": 0}},
            CHOICE,
            "usage of 0 tokens",
        ),
        ({"prompt_token_ids": [1]}, {**CHOICE, "logprobs": logprobs(-1.0, -9999.0)}, "-9999"),
        ({"prompt_token_ids": [1]}, {**CHOICE, "logprobs": logprobs(-1.0, 0.5)}, "0.5 is no"),
        ({"prompt_token_ids": [1]}, {**CHOICE, "logprobs": logprobs(-1.0, None)}, "not with a"),
    ],
)
async def test_a_sample_that_cannot_be_trained_on_is_refused(
    endpoint: Any, top: dict[str, Any], choice: dict[str, Any], message: str
) -> None:
    endpoint.replies = [endpoint.completion(choice=choice, **top)]
    with pytest.raises(PolicyError, match=message):
        await ask(endpoint, WITH_IDS)


async def test_nan_in_place_of_a_log_probability_is_refused(endpoint: Any) -> None:
    choice = {**CHOICE, "logprobs": logprobs(-1.0, float("nan"))}
    body = json.dumps(endpoint.completion(prompt_token_ids=[1], choice=choice))
    assert "NaN" in body
    endpoint.replies = [endpoint.response(body, media_type="application/json")]
    with pytest.raises(PolicyError, match="nan is no log-probability"):
        await ask(endpoint, WITH_IDS)


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ('{"choices": []}', "application/json"),
        ('{"choices": null}', "application/json"),
        ('{"choices": [{}]}', "application/json"),
        ('{"choices": [{"message": null}]}', "application/json"),
        ('{"choices": "abc"}', "application/json"),
        ("[1]", "application/json"),
        ("null", "application/json"),
        ("{", "application/json"),
        ("<html>hello</html>", "text/html"),
    ],
)
async def test_what_is_no_completion_is_a_policy_error(
    endpoint: Any, body: str, media_type: str
) -> None:
    endpoint.replies = [endpoint.response(body, media_type=media_type)]
    with pytest.raises(PolicyError, match="asked-model"):
        await ask(endpoint)


async def test_a_busy_endpoint_is_asked_again_after_the_time_that_it_names(endpoint: Any) -> None:
    busy = endpoint.response("{}", 429, {"retry-after": "1"}, "application/json")
    endpoint.replies = [busy, endpoint.completion()]
    began = anyio.current_time()
    sample = await ask(endpoint, ChatSettings(num_retries=1))

    assert sample.action == "hi"
    assert 1.0 <= anyio.current_time() - began < 5.0


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_an_endpoint_that_refuses_is_a_policy_error(endpoint: Any, status: int) -> None:
    endpoint.replies = [endpoint.response('{"error": {"message": "no"}}', status)]
    with pytest.raises(PolicyError, match="asked-model gave no response"):
        await ask(endpoint)

    assert len(endpoint.requests) == 1


async def test_an_endpoint_that_fails_is_asked_as_often_as_set(endpoint: Any) -> None:
    endpoint.replies = [endpoint.response("{}", 500, {"retry-after-ms": "1"})]
    with pytest.raises(PolicyError):
        await ask(endpoint, ChatSettings(num_retries=2))

    assert len(endpoint.requests) == 3


async def test_an_endpoint_that_hangs_is_given_up(endpoint: Any) -> None:
    endpoint.replies = ["hang"]
    with anyio.fail_after(10), pytest.raises(PolicyError, match="timed out"):
        await ask(endpoint, ChatSettings(num_retries=0, timeout_s=0.2))


async def test_a_reply_that_breaks_off_is_a_policy_error(endpoint: Any) -> None:
    endpoint.replies = ["disconnect"]
    with anyio.fail_after(10), pytest.raises(PolicyError):
        await ask(endpoint)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x/v1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="an endpoint has a URL"):
        ChatPolicy("m", url, "k")
