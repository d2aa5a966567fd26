"""Information gain: finding the passage raises it, by as much as the endpoint says, and never by guess."""

import math
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from steppo_client import HttpEnvClient, LocalEnvClient, SessionStart
from steppo_env import Catalogue, make, parse_text
from steppo_env.catalogue import EnvSpec
from steppo_env.describe import describe
from steppo_env.env import AnyEnv
from steppo_env.errors import EnvError, InvalidOptions, SteppoError
from steppo_env.testing import expert_action, play
from steppo_information_gain import InformationGain, TaskWithAnswers
from steppo_information_gain.endpoint import shared_endpoint
from steppo_keydoor import KeyDoor
from steppo_server.app import create_app
from steppo_server.settings import ServerSettings

QA = "steppo/MultihopQA-v0"
SEEN, UNSEEN = math.log(0.8), math.log(0.05)


class Scorer(Protocol):
    url: str
    status: int
    spoil: Callable[[dict[str, Any]], object]
    calls: list[tuple[str, dict[str, Any]]]
    num_completions: int


def reward(scorer: Scorer, **settings: Any) -> dict[str, Any]:
    kind = {"kind": "information_gain", "endpoint": scorer.url, "model": "tiny"}
    return {**kind, "attempts": 1, **settings}


def started(scorer: Scorer, **settings: Any) -> AnyEnv:
    env = make(QA, step_rewards=[reward(scorer, **settings)])
    env.start(env.tasks.at("dev", 0), 0)
    return env


def search(query: str) -> str:
    return f'<tool_call>{{"name": "search", "arguments": {{"query": "{query}"}}}}</tool_call>'


def by_hand(env: AnyEnv, prefix: str = "<answer>") -> float:
    """Return what the stub says of the current state, by its own rule."""
    assert isinstance(env.task, TaskWithAnswers)
    shown = set(pieces(" ".join(turn.content for turn in env.observation.messages) + prefix))
    best = -math.inf
    for answer in env.task.answers:
        tokens = pieces(answer)
        scores = [
            SEEN if token in shown or token in tokens[:place] else UNSEEN
            for place, token in enumerate(tokens)
        ]
        best = max(best, sum(scores) / len(scores))
    return best


def pieces(text: str) -> list[str]:
    """Split text as the stub does."""
    return re.findall(r"\w+|\W", text)


@pytest.mark.parametrize("protocol", ["vllm", "openai"])
def test_the_term_is_the_rise_of_the_mean_logprob_that_the_endpoint_gives(
    scorer: Scorer, protocol: str
) -> None:
    env = started(scorer, protocol=protocol)
    gains = []
    while not env.has_ended:
        before = by_hand(env)
        outcome = env.advance(expert_action(env))
        gains.append(outcome.reward_terms["information_gain"])
        expected = 0.0 if outcome.terminated else by_hand(env) - before
        assert gains[-1] == pytest.approx(expected)
        assert outcome.reward == pytest.approx(sum(outcome.reward_terms.values()))
    assert max(gains) > 0.5, "finding the passage raised nothing"
    assert gains[-1] == 0.0, "the answer itself gains nothing"


@pytest.mark.parametrize("protocol", ["vllm", "openai"])
def test_each_of_several_answers_is_scored_and_the_likeliest_counts(
    scorer: Scorer, protocol: str
) -> None:
    env = make(QA, step_rewards=[reward(scorer, protocol=protocol)])
    tasks = [env.tasks.at("dev", index) for index in range(40)]
    task = next(task for task in tasks if len(task.answers) > 1)
    env.start(task, 0)
    (_, body) = scorer.calls[-1]
    assert len(body["prompt"]) == len(task.answers)
    before = by_hand(env)
    gain = env.advance(expert_action(env)).reward_terms["information_gain"]
    assert gain == pytest.approx(by_hand(env) - before)


def test_only_so_many_answers_are_scored_as_the_setting_says(scorer: Scorer) -> None:
    env = make(QA, step_rewards=[reward(scorer, max_answers=1)])
    tasks = [env.tasks.at("dev", index) for index in range(40)]
    env.start(next(task for task in tasks if len(task.answers) > 1), 0)
    assert len(scorer.calls[-1][1]["prompt"]) == 1


def test_scale_clip_and_quantity_change_the_term_as_they_say(scorer: Scorer) -> None:
    def gains(**settings: Any) -> list[float]:
        env = make(QA, step_rewards=[reward(scorer, **settings)])
        outcomes, _ = play(env, env.tasks.at("dev", 0).task_id, 0, expert_action)
        return [outcome.reward_terms["information_gain"] for outcome in outcomes]

    plain = gains()
    assert gains(scale=0.5) == pytest.approx([gain / 2 for gain in plain])
    assert gains(clip=0.1, scale=2.0) == pytest.approx(
        [2 * max(-0.1, min(0.1, gain)) for gain in plain]
    )
    chance = gains(quantity="probability")
    env = started(scorer)
    first = by_hand(env)
    assert chance[0] == pytest.approx(math.exp(first + plain[0]) - math.exp(first))


def test_a_step_that_changes_no_state_gains_nothing_and_asks_nothing(scorer: Scorer) -> None:
    env = started(scorer)
    env.advance(expert_action(env))
    asked = len(scorer.calls)
    repeated = env.advance("no tags at all")
    assert repeated.reward_terms["information_gain"] == 0.0
    env.advance(f"<answer>{env.task.answers[0]}</answer>")
    assert env.has_terminated
    assert len(scorer.calls) == asked


def test_what_the_endpoint_has_told_is_not_asked_again(scorer: Scorer) -> None:
    task_id = started(scorer).task.task_id
    first = play(make(QA, step_rewards=[reward(scorer)]), task_id, 0, expert_action)
    asked = scorer.num_completions
    assert play(make(QA, step_rewards=[reward(scorer)]), task_id, 0, expert_action) == first
    assert scorer.num_completions == asked
    other = make(QA, step_rewards=[reward(scorer, model="other")])
    other.start(task_id, 0)
    assert scorer.num_completions == asked + 1


def test_a_fork_asks_nothing_and_goes_on_alike(scorer: Scorer) -> None:
    env = started(scorer)
    env.advance(expert_action(env))
    snapshot = env.snapshot()
    assert snapshot is not None
    shared_endpoint.cache_clear()
    asked = len(scorer.calls)
    fork = make(QA, step_rewards=[reward(scorer)])
    fork.restore(snapshot)
    assert len(scorer.calls) == asked
    text = expert_action(env)
    assert fork.advance(text) == env.advance(text)
    assert fork.trace_key == env.trace_key


def test_threads_share_an_endpoint(scorer: Scorer) -> None:
    traces: list[list[str]] = []

    def run() -> None:
        env = make(QA, step_rewards=[reward(scorer)])
        traces.append(play(env, env.tasks.at("dev", 0).task_id, 0, expert_action)[1])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(traces) == 4
    assert all(trace == traces[0] for trace in traces)


def test_the_prompt_is_the_state_through_the_chat_template_then_prefix_and_answer(
    scorer: Scorer,
) -> None:
    env = started(scorer, answer_prefix="So: ", chat_template_kwargs={"enable_thinking": False})
    (path, state), (_, prefix), (_, answer), (last, body) = scorer.calls[:4]
    assert (path, last) == ("/tokenize", "/v1/completions")
    assert state["messages"] == [
        {"role": message.role, "content": message.content} for message in env.observation.messages
    ]
    assert (state["model"], state["add_generation_prompt"]) == ("tiny", True)
    assert state["chat_template_kwargs"] == {"enable_thinking": False}
    assert (prefix["prompt"], prefix["add_special_tokens"]) == ("So: ", False)
    assert answer["prompt"] == env.task.answers[0]
    assert (body["max_tokens"], body["prompt_logprobs"], body["temperature"]) == (1, 0, 0.0)


def test_the_text_of_a_state_is_roles_and_contents(scorer: Scorer) -> None:
    env = started(scorer, protocol="openai")
    system, user = (message.content for message in env.observation.messages)
    ((_, body),) = scorer.calls
    answers = env.task.answers
    assert body["prompt"][0] == (
        f"system: {system}\n\nuser: {user}\n\nassistant: <answer>{answers[0]}"
    )
    assert (body["echo"], body["max_tokens"]) == (True, 0)


# Each spoils the reply to the first step's question.


def last_entry(reply: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = next(iter(reply["choices"][0]["prompt_logprobs"][-1].values()))
    return entry


SPOILT_VLLM: dict[str, Callable[[dict[str, Any]], object]] = {
    "without prompt_logprobs": lambda reply: reply["choices"][0].pop("prompt_logprobs"),
    "null prompt_logprobs": lambda reply: reply["choices"][0].update(prompt_logprobs=None),
    "one too few": lambda reply: reply["choices"][0]["prompt_logprobs"].pop(),
    "one too many": lambda reply: reply["choices"][0]["prompt_logprobs"].append(None),
    "none for the last": lambda reply: reply["choices"][0]["prompt_logprobs"].__setitem__(-1, None),
    "of another token": lambda reply: reply["choices"][0]["prompt_logprobs"].__setitem__(
        -1, {"1": {"logprob": -1.0}}
    ),
    "minus 9999": lambda reply: last_entry(reply).update(logprob=-9999.0),
    "not a number": lambda reply: last_entry(reply).update(logprob=math.nan),
    "minus infinity": lambda reply: last_entry(reply).update(logprob=-math.inf),
    "above zero": lambda reply: last_entry(reply).update(logprob=0.5),
    "no choice": lambda reply: reply["choices"].clear(),
    "a choice twice": lambda reply: reply["choices"].append(reply["choices"][0]),
    "a wrong index": lambda reply: reply["choices"][0].update(index=7),
    "no choices": lambda reply: reply.pop("choices"),
}
SPOILT_OPENAI: dict[str, Callable[[dict[str, Any]], object]] = {
    "without logprobs": lambda reply: reply["choices"][0].update(logprobs=None),
    "one too few": lambda reply: reply["choices"][0]["logprobs"]["token_logprobs"].pop(),
    "none for the last": lambda reply: reply["choices"][0]["logprobs"][
        "token_logprobs"
    ].__setitem__(-1, None),
    "minus 9999": lambda reply: reply["choices"][0]["logprobs"]["token_logprobs"].__setitem__(
        -1, -9999.0
    ),
    "no echo": lambda reply: reply["choices"][0]["logprobs"].update(
        tokens=["x"], token_logprobs=[-1.0]
    ),
    "nothing": lambda reply: reply["choices"][0]["logprobs"].update(tokens=[], token_logprobs=[]),
    "generated text": lambda reply: (
        reply["choices"][0]["logprobs"]["tokens"].append("!"),
        reply["choices"][0]["logprobs"]["token_logprobs"].append(-1.0),
    ),
}
SPOILT = [
    *(("vllm", name, spoil) for name, spoil in SPOILT_VLLM.items()),
    *(("openai", name, spoil) for name, spoil in SPOILT_OPENAI.items()),
]


@pytest.mark.parametrize(
    ("protocol", "spoil"),
    [(protocol, spoil) for protocol, _, spoil in SPOILT],
    ids=[f"{protocol}-{name}" for protocol, name, _ in SPOILT],
)
def test_a_spoilt_answer_ends_the_episode_as_an_error_and_is_never_a_reward(
    scorer: Scorer, protocol: str, spoil: Callable[[dict[str, Any]], object]
) -> None:
    env = started(scorer, protocol=protocol)
    scorer.spoil = spoil
    with pytest.raises(EnvError, match="measuring the step reward information_gain") as caught:
        env.advance(expert_action(env))
    assert caught.value.members["exception"] == "TransportError"
    assert env.has_ended
    assert not env.has_terminated


def test_an_endpoint_that_refuses_ends_the_episode_or_keeps_it_from_beginning(
    scorer: Scorer,
) -> None:
    env = started(scorer)
    scorer.status = 400
    with pytest.raises(EnvError, match="answered 400"):
        env.advance(expert_action(env))
    with pytest.raises(EnvError, match="answered 400"):
        started(scorer, model="another")


def test_an_endpoint_that_is_busy_is_asked_again(scorer: Scorer) -> None:
    def recover(reply: dict[str, Any]) -> None:
        scorer.status = 503 if scorer.num_completions < 3 else 200

    scorer.spoil = recover
    assert started(scorer, attempts=3).num_steps == 0
    assert scorer.num_completions == 3


def test_a_key_that_is_not_set_is_the_operators_error(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCORER_KEY", raising=False)
    with pytest.raises(EnvError, match="environment variable SCORER_KEY"):
        started(scorer, api_key_env="SCORER_KEY")


def test_tasks_without_answers_are_refused(scorer: Scorer) -> None:
    env = make("steppo/KeyDoor-v0", step_rewards=[reward(scorer)])
    with pytest.raises(InvalidOptions, match=r"task dev/0 of steppo/KeyDoor-v0 names no `answers`"):
        env.start("dev/0", 0)
    assert scorer.calls == []


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint": "not a url"},
        {"model": ""},
        {"scale": 0},
        {"clip": -1},
        {"protocol": "grpc"},
        {"attempts": 0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_wrong_setting_is_named(scorer: Scorer, settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions, match=f"information_gain: {next(iter(settings))}"):
        make(QA, step_rewards=[reward(scorer, **settings)])


def test_it_makes_any_environment_blocking(scorer: Scorer) -> None:
    assert not KeyDoor.is_blocking
    assert make("steppo/KeyDoor-v0", step_rewards=[reward(scorer)]).is_blocking
    assert not KeyDoor.is_blocking


def test_a_client_may_not_name_an_endpoint_and_an_operator_may(scorer: Scorer) -> None:
    spec = EnvSpec(QA, QA)
    options = {"step_rewards": [reward(scorer)]}
    with pytest.raises(InvalidOptions, match="information_gain: set by whoever runs"):
        spec.make(options)
    assert spec.make(options, is_operator=True).options.step_rewards[0].kind == "information_gain"
    with pytest.raises(InvalidOptions, match="step_rewards: set by whoever runs"):
        EnvSpec("gain", QA, options).make({"step_rewards": []})


def test_the_schema_of_the_options_tells_of_it() -> None:
    kinds = describe(EnvSpec(QA, QA)).options["properties"]["step_rewards"]["items"]["oneOf"]  # type: ignore[index, call-overload]
    (own,) = [kind for kind in kinds if kind["properties"]["kind"] == {"const": "information_gain"}]  # type: ignore[index, call-overload, union-attr]
    assert "Only whoever runs the server" in own["description"]  # type: ignore[index, call-overload, operator]


def test_a_variant_of_a_file_has_it(scorer: Scorer, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(
        f"""
        [environments.gain]
        env_id = "{QA}"

        [[environments.gain.options.step_rewards]]
        kind = "information_gain"
        endpoint = "{scorer.url}"
        model = "tiny"
        attempts = 1
        """,
        encoding="utf-8",
    )
    made = Catalogue.from_toml(path).get("gain").make()
    assert made.options == make(QA, step_rewards=[reward(scorer)]).options


async def test_over_http_it_is_the_same_as_in_process(scorer: Scorer) -> None:
    catalogue = Catalogue({"gain": EnvSpec("gain", QA, {"step_rewards": [reward(scorer)]})})
    local = make(QA, step_rewards=[reward(scorer)])
    task_id = local.tasks.at("dev", 0).task_id
    local.start(task_id, 0)
    app = create_app(catalogue, ServerSettings(journal="sqlite://"))
    async with (
        app.router.lifespan_context(app),
        HttpEnvClient("http://test", transport=httpx.ASGITransport(app)) as client,
    ):
        first = await client.create(SessionStart("gain", "s1", 0, task_id=task_id))
        assert first.trace_key == local.trace_key
        while not local.has_ended:
            text = expert_action(local)
            taken = await client.step("s1", local.num_steps, text)
            assert taken.outcome == local.advance(parse_text(text))
            assert taken.trace_key == local.trace_key
        with pytest.raises(InvalidOptions, match="information_gain: set by whoever runs"):
            await client.create(
                SessionStart(
                    QA, "s2", 0, task_id=task_id, options={"step_rewards": [reward(scorer)]}
                )
            )


async def test_a_failure_over_http_is_an_environments_and_not_trainable(scorer: Scorer) -> None:
    catalogue = Catalogue({"gain": EnvSpec("gain", QA, {"step_rewards": [reward(scorer)]})})
    local = make(QA)
    task_id = local.tasks.at("dev", 0).task_id
    local.start(task_id, 0)
    app = create_app(catalogue, ServerSettings(journal="sqlite://"))
    async with (
        app.router.lifespan_context(app),
        HttpEnvClient("http://test", transport=httpx.ASGITransport(app)) as client,
    ):
        await client.create(SessionStart("gain", "s1", 0, task_id=task_id))
        scorer.spoil = lambda reply: reply["choices"].clear()
        with pytest.raises(SteppoError, match="answered 0 choices") as caught:
            await client.step("s1", 0, expert_action(local))
        assert type(caught.value) is EnvError
        assert caught.value.members["trainable"] is False


async def test_the_local_client_may_set_it(scorer: Scorer) -> None:
    async with LocalEnvClient() as client:
        start = SessionStart(
            QA, "s1", 0, split="dev", index=0, options={"step_rewards": [reward(scorer)]}
        )
        assert (await client.create(start)).seed == 0


def test_what_it_is_made_of_is_read_back_from_its_document(scorer: Scorer) -> None:
    made = InformationGain(endpoint=scorer.url, model="tiny", clip=1.0)
    env = make(QA, step_rewards=[made])
    (again,) = type(env.options).model_validate_json(env.options.model_dump_json()).step_rewards
    assert again == made
