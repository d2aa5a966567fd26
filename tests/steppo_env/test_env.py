"""The book-keeping of StepEnv, on an environment of a few lines whose parts can be injected."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics
from pydantic import JsonValue

from steppo_env import EnvOptions, ListedTasks, StepEnv, Task, parse_message
from steppo_env.errors import (
    EnvError,
    EpisodeEnded,
    EpisodeNotStarted,
    InvalidInput,
    InvalidOptions,
    MissingData,
    UnknownTask,
)
from steppo_env.mdp import Action, Message, Observation, Outcome
from steppo_env.rendering import Rendering
from steppo_keydoor import KeyDoor

TASKS = ListedTasks(
    [Task("t0", "test"), Task("a", "train"), Task("b", "train"), Task("c", "train")], "1"
)


class Counter(StepEnv[Task, EnvOptions]):
    """Counts steps; `on_act` says what becomes of an outcome."""

    env_id = "test/Counter-v0"
    tasks_of_all: ClassVar[ListedTasks[Task]] = TASKS
    on_begin: Callable[[], None] = staticmethod(lambda: None)
    on_act: Callable[[Action, Outcome], Outcome] = staticmethod(lambda _, outcome: outcome)

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[Task]:
        return cls.tasks_of_all

    def begin(self, task: Task, rng: np.random.Generator) -> Observation:
        self.count = 0
        self.drawn = int(rng.integers(2**32))
        self.on_begin()
        return self.at(task)

    def act(self, action: Action) -> Outcome:
        self.count += 1
        return self.on_act(action, Outcome(self.at(self.task), {"count": 0.5}))

    def at(self, task: Task) -> Observation:
        text = f"count {self.count}"
        messages = (Message("system", "Count."), Message("user", text))
        return self.observe(messages, text=text, state=self.count, task=task)

    def save_state(self) -> bytes:
        return json.dumps([self.count, self.drawn]).encode()

    def load_state(self, task: Task, state: bytes) -> Observation:
        self.count, self.drawn = json.loads(state)
        return self.at(task)


def counter(change: Mapping[str, Any] | None = None, **options: Any) -> Counter:
    """Return a Counter whose outcomes have the given fields."""
    env = Counter(**options)
    if change is not None:
        env.on_act = lambda _, outcome: replace(outcome, **change)
    return env


@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_step_keeps_terminated_and_truncated_apart(name: str) -> None:
    env = counter({name: True})
    env.reset(seed=1)
    text, reward, terminated, truncated, info = env.step("go")
    assert (text, reward) == ("count 1", 0.5)
    assert (terminated, truncated) == (name == "terminated", name == "truncated")
    assert info["success"] is False
    assert "step_limit" not in info
    assert (env.has_terminated, env.has_truncated) == (terminated, truncated)


def test_the_step_limit_truncates_and_never_terminates() -> None:
    env = counter(step_limit=3)
    env.reset(seed=1)
    ends = [env.step("go")[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    assert env.num_steps == 3


def test_info_says_that_the_step_limit_was_it() -> None:
    env = counter(step_limit=1)
    env.reset(seed=1)
    info = env.step("go")[4]
    assert info["step_limit"] is True
    assert info["success"] is False


def test_termination_on_the_last_allowed_step_is_no_truncation() -> None:
    env = counter({"terminated": True, "info": {"success": True}}, step_limit=1)
    env.reset(seed=1)
    *_, terminated, truncated, info = env.step("go")
    assert (terminated, truncated) == (True, False)
    assert "step_limit" not in info
    assert info["success"] is True


def test_the_environments_own_truncation_on_the_last_step_is_not_the_limits() -> None:
    env = counter({"truncated": True}, step_limit=1)
    env.reset(seed=1)
    *_, terminated, truncated, info = env.step("go")
    assert (terminated, truncated) == (False, True)
    assert "step_limit" not in info


def test_a_step_before_reset_is_refused() -> None:
    env = counter()
    for use in (
        lambda: env.advance("go"),
        lambda: env.step("go"),
        env.render,
        env.snapshot,
        lambda: env.observation,
        lambda: env.task,
        lambda: env.trace_key,
        lambda: env.has_ended,
    ):
        with pytest.raises(EpisodeNotStarted, match="call reset or start first"):
            use()


@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_a_step_after_the_end_is_refused_until_the_next_reset(name: str) -> None:
    env = counter({name: True})
    env.start("a", 0)
    env.advance("go")
    key = env.trace_key
    with pytest.raises(EpisodeEnded, match="ended after 1 steps") as caught:
        env.advance("go")
    assert caught.value.members == {"num_steps": 1}
    assert (env.count, env.trace_key) == (1, key)
    env.start("a", 0)
    env.advance("go")


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("name", ["advance", "step", "trace_key", "restore"])
def test_a_subclass_that_redefines_the_book_keeping_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"Mine redefines {name}, which StepEnv keeps final"):
        type("Mine", (Counter,), {name: None})


def test_a_subclass_may_use_any_private_name() -> None:
    """The base class's own private names are mangled, so that no plugin hits one by accident."""
    own = {name for name in vars(StepEnv) if name.startswith("_") and not name.endswith("__")}
    assert {name for name in own if not name.startswith("_StepEnv__")} <= {"_abc_impl"}


def test_an_exception_in_begin_is_the_environments_and_leaves_no_episode() -> None:
    env = counter()
    env.start("a", 0)
    env.on_begin = raising(KeyError("door"))
    with pytest.raises(EnvError, match=r"^test/Counter-v0.begin raised KeyError: 'door'$"):
        env.start("b", 0)
    with pytest.raises(EpisodeNotStarted):
        env.advance("go")


@pytest.mark.parametrize("error", [KeyError("door"), MissingData("gone"), KeyboardInterrupt()])
def test_an_exception_in_act_ends_the_episode(error: BaseException) -> None:
    env = counter()
    env.start("a", 0)
    env.on_act = raising(error)
    # Whatever an environment raises is its own failure: never the caller's bad input.
    expected = EnvError if isinstance(error, Exception) else type(error)
    with pytest.raises(expected):
        env.advance("go")
    assert env.has_ended
    assert not env.has_terminated
    assert not env.has_truncated
    assert env.num_steps == 0
    with pytest.raises(EpisodeEnded):
        env.advance("go")
    with pytest.raises(EpisodeEnded, match="failed"):
        env.snapshot()  # restoring it would bring the dead episode back to life


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward_terms": {"a": float("nan")}}, "the reward is not finite"),
        ({"reward_terms": {"a": float("inf"), "b": -float("inf")}}, "not finite"),
        ({"reward_terms": {"a": 1e308, "b": 1e308}}, "not finite"),
        ({"reward_terms": {"malformed": -1.0}}, "'malformed' is StepEnv's own"),
        ({"reward_terms": {"a": "much"}}, "ValueError"),
        ({"terminated": True, "truncated": True}, "both terminated and truncated"),
        ({"info": {"seconds": np.float32(1)}}, "writing info as JSON raised TypeError"),
        ({"info": {"seconds": float("nan")}}, "writing info as JSON raised ValueError"),
        ({"observation": None}, "AttributeError"),
    ],
)
def test_an_outcome_that_breaks_the_contract_is_an_environment_error(
    change: dict[str, Any], message: str
) -> None:
    env = counter(change)
    env.start("a", 0)
    with pytest.raises(EnvError, match=message):
        env.advance("go")
    assert env.has_ended


def test_reward_terms_become_plain_floats() -> None:
    env = counter({"reward_terms": {"a": np.float32(0.5), "b": 1, "c": np.int64(2)}})
    env.start("a", 0)
    outcome = env.advance("go")
    assert outcome.reward_terms == {"a": 0.5, "b": 1.0, "c": 2.0}
    assert {type(term) for term in outcome.reward_terms.values()} == {float}
    assert outcome.reward == 3.5


def test_the_penalty_is_a_reward_term_once_a_step_however_much_was_rejected() -> None:
    env = counter({"rejected": ("no", "never")}, malformed_penalty=0.25)
    env.start("a", 0)
    outcome = env.advance("<answer></answer>")
    assert outcome.reward_terms == {"count": 0.5, "malformed": -0.25}
    assert outcome.reward == 0.25
    empty = "the <answer> is empty; write <answer>your answer</answer>"
    assert outcome.rejected == (empty, "no", "never")
    assert outcome.info["rejected"] == [empty, "no", "never"]
    assert env.advance("go").info["num_rejected"] == 5


def test_a_step_without_fault_has_no_penalty() -> None:
    env = counter(malformed_penalty=0.25)
    env.start("a", 0)
    outcome = env.advance("go")
    assert outcome.reward_terms == {"count": 0.5}
    assert outcome.info == {"step_index": 0, "rejected": [], "num_rejected": 0}


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "1", float("nan")])
def test_a_seed_out_of_range_is_refused_and_the_episode_goes_on(seed: Any) -> None:
    env = counter()
    env.start("a", 0)
    key = env.trace_key
    with pytest.raises(InvalidInput, match="a seed is an integer in"):
        env.start("b", seed)
    with pytest.raises(InvalidInput, match="a seed is an integer in"):
        env.reset(seed=seed)
    assert env.trace_key == key


def test_the_largest_seed_and_numpy_seeds_are_taken() -> None:
    env = counter()
    env.start("a", 2**63 - 1)
    env.start("a", 7)
    key, drawn = env.trace_key, env.drawn
    env.start("a", int(np.int64(7)))
    seed: Any = np.int64(7)
    env.start("a", seed)
    assert (env.trace_key, env.drawn) == (key, drawn)


def test_randomness_comes_from_environment_task_and_seed() -> None:
    env = counter()
    drawn = []
    for task_id, seed in (("a", 0), ("b", 0), ("a", 1), ("a", 0)):
        env.start(task_id, seed)
        drawn.append(env.drawn)
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) == 3


def test_reset_without_a_seed_draws_from_np_random() -> None:
    def run(env: Counter) -> list[tuple[str, int]]:
        env.reset(seed=5)
        episodes = []
        for _ in range(6):
            _, info = env.reset()
            episodes.append((info["task_id"], env.drawn))
        return episodes

    first = run(counter())
    assert run(counter()) == first
    assert len(set(first)) > 1
    assert {task_id for task_id, _ in first} <= {"a", "b", "c"}  # of train, though test is first


def test_without_a_train_split_reset_takes_the_first() -> None:
    env = counter()
    env.tasks = ListedTasks([Task("z", "late"), Task("y", "early")], "1")
    assert env.reset(seed=1)[1]["task_id"] == "z"


@pytest.mark.parametrize(
    ("options", "task_ids"),
    [
        ({"task_id": "t0"}, {"t0"}),
        ({"split": "train", "index": 1}, {"b"}),
        ({"split": "train", "index": np.int64(2)}, {"c"}),
        ({"index": 0}, {"a"}),
        ({"split": "test"}, {"t0"}),
        ({}, {"a", "b", "c"}),
    ],
)
def test_reset_options_choose_the_task(options: dict[str, Any], task_ids: set[str]) -> None:
    given = dict(options)
    env = counter()
    assert {env.reset(seed=seed, options=given)[1]["task_id"] for seed in range(20)} == task_ids
    assert given == options


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"task_id": "zzz"}, UnknownTask),
        ({"task_id": 3}, InvalidInput),
        ({"task_id": "a", "split": "train"}, InvalidInput),
        ({"task_id": "a", "index": 0}, InvalidInput),
        ({"split": "dev"}, UnknownTask),
        ({"split": "dev", "index": 0}, UnknownTask),
        ({"split": "train", "index": 3}, UnknownTask),
        ({"split": "train", "index": -1}, UnknownTask),
        ({"split": "train", "index": "1"}, InvalidInput),
        ({"split": 1, "index": 1}, InvalidInput),
        ({"task": "a"}, InvalidInput),
        ({1: "a"}, InvalidInput),
    ],
)
def test_reset_options_are_checked(options: dict[Any, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        counter().reset(seed=1, options=options)


def test_an_environment_without_tasks_says_so() -> None:
    env = counter()
    env.tasks = ListedTasks([], "1")
    with pytest.raises(UnknownTask, match="the splits are: none"):
        env.reset(seed=1)


def test_constructor_options_are_checked() -> None:
    with pytest.raises(InvalidOptions, match="step_limit"):
        Counter(step_limit=0)
    with pytest.raises(InvalidOptions, match="self: Extra inputs"):
        Counter(self=1)
    with pytest.raises(InvalidInput, match="render_mode is None or 'ansi', not 'human'"):
        Counter(render_mode="human")


def test_a_failure_to_load_tasks_is_the_environments() -> None:
    class Broken(Counter):
        @classmethod
        def load_tasks(cls, options: EnvOptions) -> ListedTasks[Task]:
            raise OSError("disk")

    with pytest.raises(EnvError, match="load_tasks raised OSError: disk"):
        Broken()


def test_an_author_who_forgets_the_task_is_told() -> None:
    class Forgetful(Counter):
        def at(self, task: Task) -> Observation:
            return self.observe((), text="", state=0)

    with pytest.raises(EnvError, match="begin and load_state must call observe with task=task"):
        Forgetful().start("a", 0)


def test_render_shows_every_message_and_call() -> None:
    env = counter(render_mode="ansi", rendering="accumulated")
    env.reset(seed=1)
    assert env.render() == "[system]\nCount.\n\n[user]\ncount 0"
    env.advance(parse_message(NATIVE))
    assert env.render().endswith('[assistant]\nlook({"at": "door"})\n\n[tool]\ncount 1')


def test_info_has_the_observation_and_the_keys() -> None:
    env = counter()
    text, info = env.reset(seed=1, options={"task_id": "b"})
    assert text == "count 0"
    assert info["observation"] is env.observation
    assert info["state_key"] == env.observation.state_key
    assert info["trace_key"] == env.trace_key
    before = env.trace_key
    _, _, _, _, info = env.step("go")
    assert info["task_id"] == env.task.task_id == "b"
    assert info["trace_key"] == env.trace_key != before
    assert info["reward_terms"] == {"count": 0.5}
    assert info["step_index"] == 0


NATIVE: dict[str, JsonValue] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"door"}'}}
    ],
}
RESPONSES: tuple[str | dict[str, JsonValue], ...] = ("go", NATIVE, "<answer></answer>", NATIVE)


def test_accumulated_prompts_only_grow_also_with_native_calls() -> None:
    env = counter(rendering=Rendering.ACCUMULATED)
    env.start("a", 0)
    for response in RESPONSES:
        before = env.observation.messages
        env.advance(parse_message(response) if isinstance(response, dict) else response)
        after = env.observation.messages
        assert after[: len(before)] == before
        said, reply = after[len(before) :]
        assert said.role == "assistant"
        assert reply.content == env.observation.text
        assert reply.role == ("tool" if said.tool_calls else "user")
        assert [reply.tool_call_id] == ([call.call_id for call in said.tool_calls] or [None])


def test_rebuilt_prompts_do_not_grow() -> None:
    env = counter()
    env.start("a", 0)
    for response in ("go", "go"):
        env.advance(response)
        assert len(env.observation.messages) == 2


@pytest.mark.parametrize("rendering", list(Rendering))
def test_restoring_equals_replaying(rendering: Rendering) -> None:
    def play(env: Counter, responses: tuple[str | dict[str, JsonValue], ...]) -> list[Outcome]:
        return [
            env.advance(parse_message(item) if isinstance(item, dict) else item)
            for item in responses
        ]

    for split in range(len(RESPONSES) + 1):
        env = counter({"rejected": ("no",)}, rendering=rendering, step_limit=4)
        env.start("b", 3)
        play(env, RESPONSES[:split])
        snapshot = env.snapshot()
        assert snapshot is not None
        fork = counter({"rejected": ("no",)}, rendering=rendering, step_limit=4)
        assert fork.restore(snapshot) == env.observation == fork.observation
        assert fork.snapshot() == snapshot
        assert play(fork, RESPONSES[split:]) == play(env, RESPONSES[split:])
        assert fork.trace_key == env.trace_key
        assert fork.drawn == env.drawn
        assert fork.has_truncated
        with pytest.raises(EpisodeEnded):
            fork.advance("go")


def test_a_restored_end_is_an_end() -> None:
    env = counter({"terminated": True})
    env.start("a", 0)
    env.advance("go")
    fork = counter()
    fork.restore(env.snapshot() or b"")
    assert fork.has_terminated
    with pytest.raises(EpisodeEnded):
        fork.advance("go")


def test_a_snapshot_of_something_else_is_refused_and_the_episode_goes_on() -> None:
    env = counter()
    env.start("a", 0)
    snapshot = env.snapshot() or b""
    grid = KeyDoor()
    grid.start("dev/0", 0)
    before = grid.trace_key
    with pytest.raises(InvalidInput, match=r"is of test/Counter-v0, this is steppo/KeyDoor-v0"):
        grid.restore(snapshot)
    assert grid.trace_key == before
    with pytest.raises(InvalidInput, match="the snapshot has the options"):
        counter(step_limit=3).restore(snapshot)


def test_a_state_that_does_not_come_back_is_an_environment_error() -> None:
    env = counter()
    env.start("a", 0)
    env.advance("go")
    snapshot = env.snapshot() or b""
    env.load_state = lambda task, state: replace(  # type: ignore[method-assign]
        env.at(task), state_key="0" * 32
    )
    with pytest.raises(EnvError, match="did not bring the saved state back"):
        env.restore(snapshot)


def test_without_save_state_there_is_no_snapshot() -> None:
    class Plain(Counter):
        def save_state(self) -> bytes:
            return StepEnv.save_state(self)  # type: ignore[return-value]

        def load_state(self, task: Task, state: bytes) -> Observation:
            return StepEnv.load_state(self, task, state)

    env = Plain()
    env.start("a", 0)
    assert env.snapshot() is None
    with pytest.raises(EnvError, match="replay the actions instead"):
        env.load_state(env.task, b"")


def test_state_keys_ignore_seed_and_step_index() -> None:
    env = counter()
    first = env.start("a", 0)
    assert env.start("a", 1).state_key == first.state_key
    env.advance("go")
    env.count = -1  # the next step comes back to where the episode began
    again = env.advance("go").observation
    assert again.state_key == first.state_key
    assert env.start("b", 0).state_key != first.state_key


def test_the_trace_key_is_of_everything_that_happened() -> None:
    def trace(task_id: str, seed: int, *responses: str) -> str:
        env = counter()
        env.start(task_id, seed)
        for response in responses:
            env.advance(response)
        return env.trace_key

    keys = [
        trace("a", 0),
        trace("b", 0),
        trace("a", 1),
        trace("a", 0, "go"),
        trace("a", 0, "stop"),
        trace("a", 0, "go", "go"),
    ]
    assert len(set(keys)) == len(keys)
    assert trace("a", 0, "go", "go") == keys[-1]


def test_gymnasiums_statistics_wrapper_counts_our_episode() -> None:
    env: gymnasium.Env[str, str] = RecordEpisodeStatistics(gymnasium.make("steppo/KeyDoor-v0"))
    env.reset(seed=3)
    grid = env.unwrapped
    assert isinstance(grid, KeyDoor)
    distance = grid.distance()
    info: dict[str, Any] = {}
    while not grid.has_ended:
        expert = grid.expert()
        assert expert is not None
        *_, info = env.step(expert.content)
    assert info["episode"]["r"] == 1.0
    assert info["episode"]["l"] == distance


def test_gymnasiums_vector_environment_plays_two_at_once() -> None:
    envs = gymnasium.make_vec("steppo/KeyDoor-v0", num_envs=2, vectorization_mode="sync")
    alone = [KeyDoor(), KeyDoor()]
    texts, infos = envs.reset(seed=4)
    assert list(texts) == [env.reset(seed=4 + place)[0] for place, env in enumerate(alone)]
    assert list(infos["task_id"]) == [env.task.task_id for env in alone]
    actions = ["<act> go north </act>", "nonsense"]
    texts, rewards, terminated, truncated, infos = envs.step(actions)
    steps = [env.step(action) for env, action in zip(alone, actions)]
    assert list(texts) == [step[0] for step in steps]
    assert list(rewards) == [0.0, 0.0]
    assert not terminated.any()
    assert not truncated.any()
    assert list(infos["trace_key"]) == [env.trace_key for env in alone]
    assert list(infos["num_rejected"]) == [0, 1]
    envs.close()


def test_gymnasiums_make_loads_options_and_checks_nothing_away() -> None:
    env = gymnasium.make("steppo/KeyDoor-v0", size=3, render_mode="ansi")
    text, info = env.reset(seed=1)
    assert text == info["observation"].text
    assert str(env.render()).endswith(text)
    assert env.action_space.contains("go")
    assert env.observation_space.contains(text)
    env.close()
