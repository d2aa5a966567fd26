"""All clients keep the one contract, and nothing shows which of them an episode was played with."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import JsonValue
from starlette.types import ASGIApp

from steppo_client import (
    EnvClient,
    ExpertPolicy,
    HttpEnvClient,
    LocalEnvClient,
    Policy,
    RandomPolicy,
    Sampler,
    SamplerConfig,
    SessionStart,
    StreamEnvClient,
    list_task_refs,
)
from steppo_env.catalogue import Catalogue, EnvSpec
from steppo_env.env import StepEnv
from steppo_env.errors import (
    EnvError,
    EpisodeEnded,
    InvalidInput,
    InvalidOptions,
    SessionExists,
    StepConflict,
    StepIndexMismatch,
    SteppoError,
    UnknownEnvironment,
    UnknownSession,
    UnknownTask,
)
from steppo_env.mdp import Trajectory
from steppo_env.registry import registered_ids
from steppo_env.store import transcript
from steppo_keydoor import KeyDoor
from steppo_server.app import create_app
from steppo_server.settings import ServerSettings

Served = Callable[[ASGIApp], AbstractContextManager[str]]

KEYDOOR = "steppo/KeyDoor-v0"
GO = "<act> go north </act>"


def catalogue() -> Catalogue:
    return Catalogue({"small": EnvSpec("small", KEYDOOR, {"size": 3})})


@asynccontextmanager
async def made(kind: str, served: Served) -> AsyncIterator[EnvClient]:
    """Yield a client, with a server of its own where it needs one."""
    app = create_app(catalogue(), ServerSettings(journal="sqlite://"))
    if kind == "local":
        yield LocalEnvClient(catalogue())
    elif kind == "http":
        async with app.router.lifespan_context(app):
            yield HttpEnvClient("http://test", transport=httpx.ASGITransport(app))
    else:
        with served(app) as url:
            yield StreamEnvClient(url.replace("http", "ws"))


@pytest.fixture(params=["local", "http", "stream"])
async def client(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[EnvClient]:
    async with made(request.param, served) as client:
        yield client


def start(session_id: str = "s1", **changes: Any) -> SessionStart:
    return replace(SessionStart(KEYDOOR, session_id, 3, task_id="dev/0"), **changes)


async def sample(
    client: EnvClient,
    policy: Policy,
    env_id: str,
    num_tasks: int,
    options: Mapping[str, JsonValue] | None = None,
) -> list[Trajectory]:
    found: list[Trajectory] = []

    async def emit(trajectory: Trajectory) -> None:
        found.append(trajectory)

    async with client:
        refs = await list_task_refs(client, env_id, "dev", num_tasks, options)
        await Sampler(client, policy, SamplerConfig("run", seed=5, concurrency=2)).run(refs, emit)
    return sorted(found, key=lambda trajectory: trajectory.trajectory_id)


@pytest.mark.parametrize(
    ("kind", "policy"),
    [("http", RandomPolicy()), ("stream", ExpertPolicy())],
    ids=["http", "stream"],
)
@pytest.mark.parametrize("env_id", [*registered_ids(), "small"])
async def test_trajectories_are_the_same_in_process_and_on_a_server(
    kind: str, env_id: str, policy: Policy, served: Served
) -> None:
    num_tasks = 1 if "TextWorld" in env_id else 3
    here = await sample(LocalEnvClient(catalogue()), policy, env_id, num_tasks)
    async with made(kind, served) as client:
        there = await sample(client, policy, env_id, num_tasks)

    assert len(here) == num_tasks
    assert all(item.trainable and item.steps for item in here)
    assert [item.trajectory_id for item in here] == [item.trajectory_id for item in there]
    assert [transcript(item) for item in here] == [transcript(item) for item in there]
    assert {item.env_id for item in there} == {env_id}


async def test_a_variant_differs_from_the_environment_behind_it_by_its_options_only(
    served: Served,
) -> None:
    async with made("http", served) as client:
        by_name = await sample(client, ExpertPolicy(), "small", 3)
    by_option = await sample(LocalEnvClient(), ExpertPolicy(), KEYDOOR, 3, {"size": 3})
    plain = await sample(LocalEnvClient(), ExpertPolicy(), KEYDOOR, 3)

    def keys(found: list[Trajectory]) -> list[str]:
        return sorted(step.trace_key for item in found for step in item.steps)

    assert keys(by_name) == keys(by_option) != keys(plain)
    assert by_option[0].options == {"size": 3}


async def test_labels_are_those_of_the_task_as_it_was_played(served: Served) -> None:
    async with made("http", served) as client:
        found = await sample(client, ExpertPolicy(), KEYDOOR, 3, {"size": 3})

    assert [len(item.steps) for item in found] == [item.labels["distance"] for item in found]


async def test_the_same_creation_again_gets_the_same_session(client: EnvClient) -> None:
    async with client:
        first = await client.create(start())
        taken = await client.step("s1", 0, GO)
        assert await client.create(start(lease_s=5.0)) == first
        assert (await client.step("s1", 1, GO)).trace_key != taken.trace_key
        with pytest.raises(SessionExists):
            await client.create(start(seed=4))


async def test_the_same_step_again_is_not_taken_again(client: EnvClient) -> None:
    async with client:
        await client.create(start())
        first = await client.step("s1", 0, GO)
        assert await client.step("s1", 0, GO) == first
        with pytest.raises(StepConflict):
            await client.step("s1", 0, "<act> go south </act>")
        with pytest.raises(StepIndexMismatch) as caught:
            await client.step("s1", 2, GO)
        assert caught.value.members["expected"] == 1


async def test_no_step_follows_the_end(client: EnvClient) -> None:
    async with client:
        await client.create(start(options={"step_limit": 1}))
        last = await client.step("s1", 0, GO)
        assert last.outcome.truncated
        with pytest.raises(EpisodeEnded):
            await client.step("s1", 1, GO)
        advice = await client.expert("s1")
        assert (advice.action, advice.distance) == (None, None)


async def test_an_environment_that_raises_ends_its_episode_only(
    client: EnvClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = KeyDoor.act

    def act(self: KeyDoor, action: object) -> object:
        if self.task.task_id == "dev/1":
            raise KeyError("door")
        return original(self, action)  # type: ignore[arg-type]

    monkeypatch.setattr(KeyDoor, "act", act)
    async with client:
        await client.create(start())
        await client.create(start("broken", task_id="dev/1"))
        for _ in range(2):
            with pytest.raises(EnvError, match="KeyError: 'door'"):
                await client.step("broken", 0, GO)
        with pytest.raises(EpisodeEnded):
            await client.step("broken", 1, GO)
        assert (await client.expert("broken")).action is None
        assert (await client.step("s1", 0, GO)).outcome.reward == 0.0


async def test_an_expert_that_raises_is_the_environments_error(
    client: EnvClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeyDoor, "expert", lambda self: 1 / 0)
    async with client:
        await client.create(start())
        with pytest.raises(EnvError, match="ZeroDivisionError"):
            await client.expert("s1")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"env_id": "steppo/KeyDor-v0"}, UnknownEnvironment),
        ({"task_id": "dev/9999"}, UnknownTask),
        ({"task_id": None, "split": "nope", "index": 0}, UnknownTask),
        ({"task_id": None}, InvalidInput),
        ({"seed": -1}, InvalidInput),
        ({"options": {"size": 1}}, InvalidOptions),
        ({"options": {"sise": 5}}, InvalidOptions),
    ],
)
async def test_a_start_that_cannot_be_is_refused_by_kind_and_leaves_nothing(
    client: EnvClient, changes: dict[str, Any], kind: type[SteppoError]
) -> None:
    async with client:
        with pytest.raises(SteppoError) as caught:
            await client.create(start(**changes))
        assert type(caught.value) is kind
        with pytest.raises(UnknownSession):
            await client.step("s1", 0, GO)
        await client.create(start())


async def test_deleting_twice_is_nothing(client: EnvClient) -> None:
    async with client:
        await client.create(start())
        await client.delete("s1")
        await client.delete("s1")
        with pytest.raises(UnknownSession):
            await client.expert("s1")


async def test_a_lone_surrogate_is_replaced_and_not_refused(client: EnvClient) -> None:
    async with client:
        await client.create(start())
        text = await client.step("s1", 0, "\ud800 <act> go north </act>")
        call: JsonValue = {"role": "assistant", "content": "\udfff <act> go south </act>"}
        message = await client.step("s1", 1, call)  # type: ignore[arg-type]
    here = LocalEnvClient()
    await here.create(start())
    assert text == await here.step("s1", 0, "\ufffd <act> go north </act>")
    assert message == await here.step("s1", 1, "\ufffd <act> go south </act>")


async def test_tasks_come_in_pages_that_join(client: EnvClient) -> None:
    async with client:
        whole = await client.tasks(KEYDOOR, "dev", limit=10)
        first = await client.tasks(KEYDOOR, "dev", limit=4)
        rest = await client.tasks(KEYDOOR, "dev", limit=6, cursor=first.next_cursor)
        assert [*first.tasks, *rest.tasks] == whole.tasks
        assert [task.task_id for task in whole.tasks] == [f"dev/{index}" for index in range(10)]
        with pytest.raises(UnknownTask):
            await client.tasks(KEYDOOR, "nope")
        with pytest.raises(InvalidInput):
            await client.tasks(KEYDOOR, "dev", cursor="xyz")


async def test_environments_are_listed_and_described_alike(client: EnvClient) -> None:
    async with client:
        listed = await client.environments()
        assert [env.env_id for env in listed] == [*registered_ids(), "small"]
        detail = await client.describe("small")
        assert detail.fixed_options == ["size"]
        assert detail.splits["dev"] == 512
        with pytest.raises(UnknownEnvironment, match="Did you mean"):
            await client.describe("steppo/KeyDor-v0")


async def test_leaving_the_client_closes_every_session_after_an_error_too(
    client: EnvClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(StepEnv, "close", lambda self: closed.append(self.env_id))

    async def fail() -> None:
        async with client:
            await client.create(start("a"))
            await client.create(start("b"))
            closed.clear()
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await fail()

    assert closed == [KEYDOOR, KEYDOOR]
