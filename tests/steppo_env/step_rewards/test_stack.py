"""A stack of step rewards: read from options, added to every step, the same wherever it runs."""

import json
import random
from pathlib import Path
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest
from pydantic import JsonValue

from steppo_client import HttpEnvClient, SessionStart
from steppo_env import Action, Catalogue, EnvOptions, ListedTasks, Message, Task, make, parse_text
from steppo_env.catalogue import EnvSpec
from steppo_env.describe import describe
from steppo_env.env import AnyEnv, StepEnv
from steppo_env.errors import (
    EnvError,
    EpisodeNotStarted,
    InvalidInput,
    InvalidOptions,
    TransportError,
)
from steppo_env.mdp import Observation, Outcome
from steppo_env.step_rewards import RewardedEnv, Shaping, StepCost, StepReward
from steppo_env.testing import expert_action, play
from steppo_server.app import create_app
from steppo_server.settings import ServerSettings

KEYDOOR = "steppo/KeyDoor-v0"
STACK: list[JsonValue] = [
    {"kind": "step_cost", "amount": 0.01},
    {"kind": "shaping", "gamma": 0.9, "scale": 0.25},
    {"kind": "format_penalty", "amount": 0.5},
    {"kind": "invalid_action_penalty", "amount": 0.125},
]
SAID = ("nonsense", "<act> go up </act>", "<act> go north </act>", "<act> go east")


class Counter(StepReward):
    """Counts its measures; the term is the rise of the count."""

    kind = "counter"
    seen: ClassVar[list[str]] = []
    problem: ClassVar[Exception | float | None] = None

    def measure(self, env: RewardedEnv) -> float:
        self.seen.append(env.observation.text)
        if isinstance(self.problem, Exception):
            raise self.problem
        return len(self.seen) if self.problem is None else self.problem

    def term(self, before: float, after: float, action: Action, outcome: Outcome) -> float:
        return after - before


class KeyedCounter(Counter):
    """The same, of the state key alone."""

    kind = "keyed_counter"
    is_keyed = True


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "seen", [])


def run(step_rewards: Any, **options: object) -> AnyEnv:
    env = make(KEYDOOR, step_rewards=step_rewards, **options)
    env.start("dev/0", 0)
    return env


def test_terms_stand_beside_the_environments_own_and_sum_to_the_reward() -> None:
    plain, env = run(()), run(STACK)
    for text in SAID:
        expected, outcome = plain.advance(text), env.advance(text)
        assert outcome.observation == expected.observation
        assert outcome.info == expected.info
        own = {name: outcome.reward_terms[name] for name in expected.reward_terms}
        assert own == expected.reward_terms
        added = outcome.reward_terms.keys() - own.keys()
        assert added == {"step_cost", "shaping", "format_penalty", "invalid_action_penalty"}
        assert outcome.reward == pytest.approx(sum(outcome.reward_terms.values()))


def test_terms_are_as_computed_by_hand() -> None:
    env = run(STACK)
    first = env.distance()
    assert first is not None
    outcome = env.advance("nonsense")  # no command: the environment's rejection, not the parser's
    assert outcome.reward_terms == {
        "goal": 0.0,
        "step_cost": -0.01,
        "shaping": pytest.approx(0.25 * first * (1 - 0.9)),
        "format_penalty": 0.0,
        "invalid_action_penalty": -0.125,
    }
    assert env.step(expert_action(env))[4]["reward_terms"] == {
        "goal": 0.0,
        "step_cost": -0.01,
        "shaping": pytest.approx(0.25 * (first - 0.9 * (first - 1))),
        "format_penalty": 0.0,
        "invalid_action_penalty": 0.0,
    }


def test_the_order_of_the_stack_changes_nothing() -> None:
    reference = run(STACK)
    shuffled = [*STACK]
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        env = run(shuffled)
        assert env.options == reference.options
        task_id = env.task.task_id
        assert play(env, task_id, 3, expert_action) == play(reference, task_id, 3, expert_action)


def test_another_stack_gives_another_trace_and_no_stack_the_trace_of_before() -> None:
    stacks: list[Any] = [(), STACK[:1], STACK[1:2], [{"kind": "step_cost", "amount": 0.02}], STACK]
    keys = []
    for stack in stacks:
        env = run(stack)
        env.advance(SAID[0])
        keys.append(env.trace_key)
    assert len(set(keys)) == len(keys)
    assert make(KEYDOOR).options == run(()).options


@pytest.mark.parametrize("rendering", ["rebuilt", "accumulated"])
def test_a_restored_episode_goes_on_as_the_original_and_as_a_replay(rendering: str) -> None:
    env, fork, replay = (run(STACK, rendering=rendering) for _ in range(3))
    said: list[str] = []
    while not env.has_ended:
        snapshot = env.snapshot()
        assert snapshot is not None
        fork.restore(snapshot)
        said.append(SAID[len(said)] if len(said) < len(SAID) else expert_action(env))
        assert fork.advance(said[-1]) == env.advance(said[-1])
        assert fork.trace_key == env.trace_key
    assert play(replay, "dev/0", 0, lambda env: said[env.num_steps])[1][-1] == env.trace_key
    plain = make(KEYDOOR, rendering=rendering)
    with pytest.raises(InvalidInput, match="the snapshot has the options"):
        plain.restore(env.snapshot() or b"")


async def test_over_http_it_is_the_same_as_in_process() -> None:
    local = run(STACK)
    app = create_app(Catalogue(), ServerSettings(journal="sqlite://"))
    async with (
        app.router.lifespan_context(app),
        HttpEnvClient("http://test", transport=httpx.ASGITransport(app)) as client,
    ):
        start = SessionStart(KEYDOOR, "s1", 0, task_id="dev/0", options={"step_rewards": STACK})
        assert (await client.create(start)).trace_key == local.trace_key
        for text in SAID:
            taken = await client.step("s1", local.num_steps, text)
            assert taken.outcome == local.advance(parse_text(text))
            assert taken.trace_key == local.trace_key
        wrong: list[JsonValue] = [{"kind": "step_cots", "amount": 1}]
        with pytest.raises(InvalidOptions, match=r"did you mean step_cost\?"):
            await client.create(
                SessionStart(KEYDOOR, "s2", 0, task_id="dev/0", options={"step_rewards": wrong})
            )


def test_a_file_of_variants_stacks_them(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(
        """
        [environments.shaped]
        env_id = "steppo/KeyDoor-v0"

        [environments.shaped.options]
        step_rewards = [
            { kind = "shaping", gamma = 0.99 },
            { kind = "step_cost", amount = 0.1, name = "time" },
        ]
        """,
        encoding="utf-8",
    )
    spec = Catalogue.from_toml(path).get("shaped")
    assert spec.make().options.step_rewards == (
        Shaping(gamma=0.99),
        StepCost(amount=0.1, name="time"),
    )
    with pytest.raises(InvalidOptions, match="step_rewards: set by whoever runs shaped"):
        spec.make({"step_rewards": []})
    assert describe(spec).fixed_options == ["step_rewards"]


def test_a_client_may_stack_the_harmless_kinds() -> None:
    assert len(EnvSpec(KEYDOOR, KEYDOOR).make({"step_rewards": STACK}).options.step_rewards) == 4


def test_the_options_are_read_back_from_their_own_document() -> None:
    options = run(STACK).options
    assert type(options).model_validate_json(options.model_dump_json()) == options
    assert json.loads(options.model_dump_json())["step_rewards"][3] == {
        "kind": "step_cost",
        "name": None,
        "amount": 0.01,
    }


def test_the_schema_of_every_environment_shows_every_kind() -> None:
    schema: Any = describe(EnvSpec(KEYDOOR, KEYDOOR)).options
    kinds = schema["properties"]["step_rewards"]["items"]["oneOf"]
    by_kind = {kind["properties"]["kind"]["const"]: kind for kind in kinds}
    assert {"format_penalty", "invalid_action_penalty", "shaping", "step_cost"} <= set(by_kind)
    assert by_kind["step_cost"]["required"] == ["kind", "amount"]
    assert by_kind["step_cost"]["properties"]["amount"]["maximum"] == 10.0
    referred = by_kind["format_penalty"]["properties"]["issues"]["items"]["$ref"]
    assert referred.removeprefix("#/$defs/") in schema["$defs"]


COST = {"kind": "step_cost", "amount": 1}


@pytest.mark.parametrize(
    ("stack", "detail"),
    [
        ([{"kind": "step_cots"}], r"step_rewards\.0: there is no step reward 'step_cots'"),
        ([COST, {"kind": "step_cost", "amount": -1}], r"step_rewards\.1: step_cost: amount: .*-1"),
        ([{"kind": "step_cost"}], "step_cost: amount: Field required"),
        ([{**COST, "amuont": 1}], "step_cost: amuont: Extra inputs"),
        ([{**COST, "amount": float("nan")}], "step_cost: amount"),
        ([{"amount": 1}], r'a table such as {"kind": "step_cost"'),
        ([{"kind": 3}], r'a table such as {"kind": "step_cost"'),
        (["step_cost"], r'a table such as {"kind": "step_cost".*got \'step_cost\''),
        ("step_cost", "step_rewards: Input should be a valid tuple"),
        ([COST, COST], "two step rewards are named step_cost"),
        ([{**COST, "name": "malformed"}], "'malformed' is the term of malformed_penalty"),
        ([{**COST, "name": "not a name"}], "step_cost: name"),
        ([{**COST, "name": ""}], "step_cost: name"),
        ([{**COST, "name": f"n{place}"} for place in range(17)], "at most 16 step rewards"),
    ],
    ids=range(14),
)
def test_a_stack_that_is_none_is_refused_with_what_is_wrong(stack: Any, detail: str) -> None:
    with pytest.raises(InvalidOptions, match=detail):
        make(KEYDOOR, step_rewards=stack)


def test_two_of_a_kind_have_two_names() -> None:
    env = run([COST, {**COST, "amount": 0.5, "name": "late"}])
    assert env.advance("x").reward_terms == {"goal": 0.0, "late": -0.5, "step_cost": -1.0}


def test_a_name_of_the_environments_own_is_an_error_that_says_so() -> None:
    env = run([{**COST, "name": "goal"}])
    with pytest.raises(EnvError, match="has a reward term 'goal' of its own; give the step reward"):
        env.advance("x")
    assert env.has_ended


def test_every_state_is_measured_once_and_is_the_current_one() -> None:
    env = run([Counter()])
    assert Counter.seen == [env.observation.text]
    for text in SAID:
        outcome = env.advance(text)
        assert Counter.seen[-1] == outcome.observation.text
        assert outcome.reward_terms["counter"] == 1.0
    assert len(Counter.seen) == 1 + len(SAID)
    snapshot = env.snapshot()
    assert snapshot is not None
    env.restore(snapshot)
    assert len(Counter.seen) == 1 + len(SAID), "a restored state was measured again"


def test_a_keyed_reward_does_not_measure_a_state_again() -> None:
    env = run([KeyedCounter()])
    outcome = env.advance("nonsense")  # another text, the same state
    assert outcome.reward_terms["keyed_counter"] == 0.0
    assert len(Counter.seen) == 1
    assert env.advance(expert_action(env)).reward_terms["keyed_counter"] == 1.0


@pytest.mark.parametrize(
    "problem",
    [
        TransportError("no route"),
        InvalidOptions("no"),
        ValueError("no"),
        float("nan"),
        float("inf"),
    ],
    ids=["TransportError", "InvalidOptions", "ValueError", "nan", "inf"],
)
def test_a_measure_that_fails_is_an_env_error_and_never_a_number(
    monkeypatch: pytest.MonkeyPatch, problem: Any
) -> None:
    env = run([Counter()])
    monkeypatch.setattr(Counter, "problem", problem)
    with pytest.raises(EnvError, match=r"measuring the step reward counter on steppo/KeyDoor-v0"):
        env.advance("x")
    assert env.has_ended
    with pytest.raises(EnvError, match=r"measuring the step reward counter on steppo/KeyDoor-v0"):
        env.start("dev/1", 0)
    with pytest.raises(EpisodeNotStarted):
        env.advance("x")


def test_a_term_that_fails_is_an_env_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise ZeroDivisionError

    monkeypatch.setattr(Counter, "term", fail)
    env = run([Counter()])
    with pytest.raises(EnvError, match=r"the term of the step reward counter .* ZeroDivisionError"):
        env.advance("x")


def test_no_negative_zero_comes_of_a_term() -> None:
    terms = run([{"kind": "step_cost", "amount": 0.0}]).advance("x").reward_terms
    assert str(terms["step_cost"]) == "0.0"


class Slow(Counter):
    """Takes its time."""

    kind = "slow"
    is_blocking = True


def test_a_blocking_reward_makes_its_own_environment_blocking_and_no_other() -> None:
    assert make(KEYDOOR, step_rewards=[Slow()]).is_blocking
    assert not make(KEYDOOR, step_rewards=[Counter()]).is_blocking
    assert not make(KEYDOOR).is_blocking


class Named(StepEnv[Task, EnvOptions]):
    """Terminates at once, and knows no distance."""

    env_id = "test/Named-v0"
    options_type = EnvOptions

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[Task]:
        return ListedTasks([Task("one", "train")], "1")

    def begin(self, task: Task, rng: np.random.Generator) -> Observation:
        return self.observe((Message("user", "?"),), text="?", state=0, task=task)

    def act(self, action: Action) -> Outcome:
        shown = self.observe((Message("user", "!"),), text="!", state=1)
        return Outcome(shown, {}, terminated=True)


def test_a_step_reward_gives_terms_to_an_environment_without_any() -> None:
    env = Named(step_rewards=[StepCost(amount=2)])
    env.start("one", 0)
    assert env.advance("x").reward == -2.0
