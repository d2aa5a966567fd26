import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steppo_env.catalogue import Catalogue, EnvSpec
from steppo_env.errors import (
    EnvError,
    EnvironmentChanged,
    EpisodeEnded,
    InvalidInput,
    InvalidOptions,
    ReplayDiverged,
    StepIndexMismatch,
    UnknownEnvironment,
    UnknownTask,
    WorkerDied,
)
from steppo_env.mdp import Action
from steppo_env.parsing import parse_text
from steppo_env.registry import make
from steppo_env.wire import ActionModel, SessionReply, StepReply
from steppo_server.episode import EpisodeStart, EpisodeState, StepTaken
from steppo_server.host import EnvHost, EnvTraits
from steppo_server.replies import with_lease
from tests.server.engines.conftest import ENV_IDS, ODD, installed, start_of

KEYDOOR = "steppo/KeyDoor-v0"
GO: tuple[ActionModel, ...] = (
    "<act> go north </act>",
    "<act> fly </act>",
    {"role": "assistant", "content": "no command"},
)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with installed(tmp_path / "site") as catalogue:
        yield catalogue


@pytest.fixture
def host() -> Iterator[EnvHost]:
    host = EnvHost(Catalogue())
    yield host
    host.close_all()


def keydoor(session_id: str = "s", **changes: Any) -> EpisodeStart:
    given: dict[str, Any] = {"options": {"step_limit": 9}, "seed": 5, "task_id": "train/0"}
    return EpisodeStart(session_id, session_id, KEYDOOR, **{**given, **changes})


def session(state: EpisodeState) -> SessionReply:
    return SessionReply.model_validate_json(with_lease(state.body, 0.0))


def step(taken: StepTaken) -> StepReply:
    return StepReply.model_validate_json(with_lease(taken.body, 0.0))


def play(host: EnvHost, start: EpisodeStart) -> tuple[EpisodeState, list[StepTaken]]:
    """Begin the episode and take GO in it."""
    return host.begin(start), [
        host.step(start.session_id, index, action) for index, action in enumerate(GO)
    ]


# Beginnings and steps.


def test_an_episode_is_what_the_environment_itself_gives(host: EnvHost) -> None:
    env = make(KEYDOOR, step_limit=9)
    first = env.start("train/0", 5)
    state, taken = play(host, keydoor())

    reply = session(state)
    assert reply.observation.to_observation(reply.state_key) == first
    assert (reply.env_id, reply.task_id, reply.seed, reply.step_index) == (KEYDOOR, "train/0", 5, 0)
    assert reply.labels == dict(env.task.labels) == state.labels
    assert (state.state_key, state.num_steps, state.last_step) == (first.state_key, 0, None)
    for index, (action, item) in enumerate(zip(GO, taken)):
        text = action if isinstance(action, str) else str(action["content"])
        outcome = env.advance(parse_text(text))
        told = step(item)
        assert told.to_outcome() == outcome
        assert (told.step_index, told.trace_key) == (index, env.trace_key)
        assert (item.trace_key, item.state_key) == (env.trace_key, outcome.observation.state_key)
        assert item.reward == outcome.reward
        assert item.reward_terms == outcome.reward_terms
        assert 0 < item.env_s < 5
    look = host.look("s")
    assert (look.num_steps, look.trace_key) == (3, env.trace_key)
    assert session(look).observation == step(taken[-1]).observation


def test_a_task_can_be_named_by_its_place_and_needs_a_name(host: EnvHost) -> None:
    by_id = host.begin(keydoor())
    by_place = host.begin(keydoor(task_id=None, split="train", index=0))
    assert by_place.body == by_id.body
    with pytest.raises(InvalidInput, match="task_id"):
        host.begin(keydoor(task_id=None))


def test_an_action_may_come_parsed(host: EnvHost) -> None:
    _, taken = play(host, keydoor())
    host.begin(keydoor("parsed"))
    parsed = host.step("parsed", 0, parse_text(str(GO[0])))
    assert parsed.trace_key == taken[0].trace_key


def test_a_step_with_another_index_or_after_the_end_is_refused_and_changes_nothing(
    host: EnvHost,
) -> None:
    host.begin(keydoor(options={"step_limit": 1}))
    with pytest.raises(StepIndexMismatch) as mismatch:
        host.step("s", 1, "x")
    assert mismatch.value.members == {"expected": 0}
    assert host.step("s", 0, "x").truncated
    before = host.look("s")
    for index in (0, 1):
        with pytest.raises(EpisodeEnded) as ended:
            host.step("s", index, "x")
        assert ended.value.members == {"num_steps": 1, "trainable": True}
    assert host.look("s") == before
    assert before.truncated
    assert not before.terminated


def test_beginnings_that_fail_leave_nothing(host: EnvHost) -> None:
    bad: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"task_id": "train/none"}, UnknownTask),
        ({"options": {"size": 99}}, InvalidOptions),
        ({"env_name": "steppo/None-v0"}, UnknownEnvironment),
        ({"seed": -1}, InvalidInput),
    ]
    for changes, error in bad:
        with pytest.raises(error):
            host.begin(replace(keydoor(), **changes))
        assert len(host) == 0


def test_what_is_not_here_says_that_it_must_be_rebuilt(host: EnvHost) -> None:
    host.begin(keydoor())
    host.close("s")
    host.close("s")
    for ask in (host.look, host.expert, host.snapshot):
        with pytest.raises(WorkerDied, match="rebuild"):
            ask("s")
    with pytest.raises(WorkerDied) as died:
        host.step("s", 0, "x")
    assert died.value.members == {"was_begun": False}


def test_all_that_goes_in_and_out_pickles(host: EnvHost) -> None:
    start = keydoor(actions=GO, trace_keys=None)
    state, taken = play(host, keydoor())
    for value in (
        start,
        state,
        *taken,
        host.expert("s"),
        host.describe(KEYDOOR),
        EnvTraits(True, False),
    ):
        assert pickle.loads(pickle.dumps(value)) == value


# Errors in environment code.


def test_after_an_error_the_last_good_state_is_shown_and_nothing_is_trained_on(
    catalogue: Catalogue,
) -> None:
    host = EnvHost(catalogue)
    host.begin(start_of())
    taken = host.step("s", 0, "go")
    with pytest.raises(EnvError, match="act raised RuntimeError: act broke"):
        host.step("s", 1, "raise")
    with pytest.raises(EpisodeEnded) as ended:
        host.step("s", 2, "go")
    assert ended.value.members == {"num_steps": 2, "trainable": False}
    with pytest.raises(EpisodeEnded, match="failed"):
        host.snapshot("s")
    assert host.expert("s").action is None
    state = host.look("s")
    shown = session(state)
    assert (shown.step_index, shown.trainable, shown.terminated) == (2, False, False)
    assert shown.trace_key == taken.trace_key == state.trace_key
    assert shown.observation.text == "go"

    rebuilt = host.begin(start_of(actions=("go",), has_failed=True))
    assert rebuilt == replace(state, last_step=taken.body)
    with pytest.raises(EpisodeEnded):
        host.step("s", 2, "go")


def test_a_result_that_cannot_be_written_fails_the_step(catalogue: Catalogue) -> None:
    host = EnvHost(catalogue)
    host.begin(start_of())
    with pytest.raises(EnvError, match="step 0 of test/Odd-v0 raised"):
        host.step("s", 0, "surrogate")
    assert not session(host.look("s")).trainable


def test_an_environment_that_does_not_close_cleanly_is_logged_and_gone(
    catalogue: Catalogue, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = EnvHost(catalogue)
    for session_id in ("s", "t"):
        host.begin(start_of(session_id))
    import plugin_odd  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    def broken(env: object) -> None:
        raise RuntimeError("close broke")

    monkeypatch.setattr(plugin_odd.Odd, "close", broken, raising=False)
    host.close_all()
    assert len(host) == 0
    assert caplog.text.count("did not close cleanly") == 2


# Rebuilding.


def test_a_rebuilt_episode_is_the_same_to_the_byte_and_goes_on_the_same_way(host: EnvHost) -> None:
    state, taken = play(host, keydoor())
    last = host.look("s")
    keys = (state.trace_key, *(item.trace_key for item in taken))
    host.close("s")

    rebuilt = host.begin(keydoor(actions=GO, trace_keys=keys, env_version=state.env_version))
    assert rebuilt == replace(last, last_step=taken[-1].body)
    assert len(host) == 1
    other = host.begin(keydoor("t", actions=GO))
    assert host.step("s", 3, "x").trace_key == host.step("t", 3, "x").trace_key
    assert other.trace_key == rebuilt.trace_key


def test_a_rebuild_takes_the_place_of_what_is_there(host: EnvHost) -> None:
    play(host, keydoor())
    assert host.begin(keydoor()).num_steps == 0
    assert host.look("s").num_steps == 0


@pytest.mark.parametrize(
    ("place", "where"), [(0, "the beginning"), (1, "step 0"), (3, "step 2")], ids=str
)
def test_a_replay_that_leads_elsewhere_says_where(host: EnvHost, place: int, where: str) -> None:
    state, taken = play(host, keydoor())
    keys = [state.trace_key, *(item.trace_key for item in taken)]
    keys[place] = "0" * 32
    host.close("s")
    with pytest.raises(ReplayDiverged, match=f"{where} has another trace key") as caught:
        host.begin(keydoor(actions=GO, trace_keys=tuple(keys)))
    assert caught.value.members == {"trainable": False}
    assert len(host) == 0


def test_a_replay_that_ends_too_early_has_diverged(host: EnvHost) -> None:
    with pytest.raises(ReplayDiverged, match="ended after 2 steps"):
        host.begin(keydoor(options={"step_limit": 2}, actions=GO))


def test_trace_keys_are_one_more_than_actions(host: EnvHost) -> None:
    with pytest.raises(InvalidInput, match="one trace key more, not 3"):
        host.begin(keydoor(actions=GO, trace_keys=("a", "b", "c")))


def test_a_snapshot_replaces_the_replay(host: EnvHost) -> None:
    state, taken = play(host, keydoor())
    saved = host.snapshot("s")
    assert saved is not None
    last = host.look("s")
    keys = (state.trace_key, *(item.trace_key for item in taken))

    forked = host.begin(keydoor("t", actions=GO, trace_keys=keys, snapshot=saved))
    assert forked == replace(last, body=forked.body)
    assert forked.body == last.body.replace(b'"session_id":"s"', b'"session_id":"t"')
    assert host.step("t", 3, "x").trace_key == host.step("s", 3, "x").trace_key
    for changes in (
        {"trace_keys": (*keys[:-1], "0" * 32)},
        {"actions": GO[:2], "trace_keys": None},
        {"task_id": "train/1"},
    ):
        start = replace(keydoor("u", actions=GO, trace_keys=keys, snapshot=saved), **changes)
        with pytest.raises(ReplayDiverged):
            host.begin(start)
    with pytest.raises(InvalidInput, match="options"):
        host.begin(keydoor("u", actions=GO, snapshot=saved, options={"step_limit": 8}))


def test_an_environment_without_snapshots_says_so(catalogue: Catalogue) -> None:
    host = EnvHost(catalogue)
    host.begin(start_of())
    assert host.snapshot("s") is None


def test_the_version_names_package_data_and_options(catalogue: Catalogue) -> None:
    host = EnvHost(catalogue)
    version = host.begin(start_of()).env_version
    assert version.startswith("test/Odd-v0@2.5:1:")
    assert host.begin(start_of("t", seed=1, task_id="train-1")).env_version == version
    other = host.begin(start_of("t", options={"step_limit": 7})).env_version
    assert other != version
    # What is the default is the same whether said or not; so is a variant that says it.
    assert host.begin(start_of("t", options={"step_limit": 20})).env_version == version
    variants = Catalogue({"odd": EnvSpec("odd", ODD, {"step_limit": 20})})
    assert EnvHost(variants).begin(start_of("t", "odd")).env_version == version
    with pytest.raises(EnvironmentChanged, match="begin a new session") as changed:
        host.begin(start_of("u", env_version=other))
    assert changed.value.members == {"trainable": False}


# The expert, and what is offered.


def test_the_experts_advice_leads_to_the_goal_and_ends_there(host: EnvHost) -> None:
    host.begin(keydoor(options={}))
    taken: list[StepTaken] = []
    while (advice := host.expert("s")).action is not None:
        assert advice.distance is not None
        assert advice.distance > 0
        taken.append(host.step("s", len(taken), advice.action))
    assert taken[-1].terminated
    assert taken[-1].reward == 1.0
    assert host.expert("s").distance is None


def test_environments_and_tasks_are_told(catalogue: Catalogue, host: EnvHost) -> None:
    odd = EnvHost(catalogue)
    assert {item.env_id for item in odd.list_environments().environments} == set(catalogue.names)
    assert odd.describe(ODD).splits == {"train": 3}
    page = odd.list_tasks(ODD, "train", 2, "1")
    assert ([task.task_id for task in page.tasks], page.next_cursor) == (
        ["train-1", "train-2"],
        None,
    )
    assert odd.traits(ODD) == EnvTraits(is_blocking=True, is_cpu_bound=False)
    assert odd.traits(ENV_IDS["Busy"]) == EnvTraits(is_blocking=True, is_cpu_bound=True)
    assert odd.is_blocking(ENV_IDS["Moody"], {"step_limit": 101})
    assert not odd.is_blocking(ENV_IDS["Moody"])


def test_warming_loads_what_it_can_and_logs_the_rest(
    catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    EnvHost(catalogue).warm([ENV_IDS["Unsendable"], ODD])
    assert "test/Unsendable-v0 could not be loaded ahead: no tasks" in caplog.text
    assert "Odd" not in caplog.text


def test_a_step_costs_little_more_than_the_environments_own(host: EnvHost) -> None:
    host.begin(keydoor(options={"step_limit": 1000}))
    action = Action("<act> go north </act>", commands=("go north",))
    overheads_s = []
    for index in range(900):
        started = time.thread_time()
        taken = host.step("s", index, action)
        overheads_s.append(time.thread_time() - started - taken.env_s)
    # A bound that a loaded machine keeps too; it is near 10 us.
    assert sorted(overheads_s)[len(overheads_s) // 4] < 100e-6
