import threading
from collections.abc import Iterator

import anyio
import pytest

from steppo_client import LocalEnvClient, SessionStart
from steppo_env.errors import DeadlineExceeded, EnvError, MissingData, SessionExists, UnknownSession
from steppo_env.mdp import Action, Outcome
from steppo_keydoor import KeyDoor

KEYDOOR = "steppo/KeyDoor-v0"
GO = "<act> go north </act>"
DEADLINE_S = 20.0


def start(session_id: str = "s1", seed: int = 0) -> SessionStart:
    return SessionStart(KEYDOOR, session_id, seed, task_id="dev/0")


class Gate:
    """Holds environment code until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.left = threading.Event()

    def pass_through(self) -> None:
        self.entered.set()
        assert self.opened.wait(DEADLINE_S)
        self.left.set()

    async def until_entered(self) -> None:
        assert await anyio.to_thread.run_sync(self.entered.wait, DEADLINE_S)


@pytest.fixture
def hanging_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The first step of any KeyDoor hangs until the gate opens."""
    gate, act = Gate(), KeyDoor.act

    def held(self: KeyDoor, action: Action) -> Outcome:
        if not gate.entered.is_set():
            gate.pass_through()
        return act(self, action)

    monkeypatch.setattr(KeyDoor, "act", held)
    yield gate
    gate.opened.set()


async def test_a_cancelled_step_leaves_a_session_that_takes_no_further_step(
    hanging_step: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(KeyDoor, "close", lambda self: closed.append(hanging_step.left.is_set()))
    async with LocalEnvClient() as client:
        await client.create(start())
        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(client.step, "s1", 0, GO)
                await hanging_step.until_entered()
                group.cancel_scope.cancel()
        with pytest.raises(DeadlineExceeded, match="cancelled"):
            await client.step("s1", 0, GO)
        assert (await client.expert("s1")).action is None
        await client.delete("s1")

    assert closed == [], "closed while its step was still running"


async def test_a_hung_step_does_not_keep_other_sessions_waiting(hanging_step: Gate) -> None:
    async with LocalEnvClient() as client:
        await client.create(start("hung"))
        with anyio.move_on_after(0.05):
            await client.step("hung", 0, GO)
        with anyio.fail_after(DEADLINE_S):
            await client.create(start("other"))
            await client.step("other", 0, GO)


async def test_two_creations_at_once_make_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    begin = KeyDoor.begin

    def counted(self: KeyDoor, *arguments: object) -> object:
        begun.append(self.env_id)
        return begin(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(KeyDoor, "begin", counted)
    states: list[str] = []

    async def create(client: LocalEnvClient) -> None:
        states.append((await client.create(start())).trace_key)

    async with LocalEnvClient() as client, anyio.create_task_group() as group:
        group.start_soon(create, client)
        group.start_soon(create, client)

    assert len(begun) == 1
    assert len(set(states)) == 1


async def test_who_waits_for_a_creation_that_fails_is_told_to_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KeyDoor, "begin", lambda *_: 1 / 0)
    kinds: list[type[Exception]] = []

    async def create(client: LocalEnvClient) -> None:
        with pytest.raises((EnvError, SessionExists)) as caught:
            await client.create(start())
        kinds.append(caught.type)

    async with LocalEnvClient() as client:
        async with anyio.create_task_group() as group:
            group.start_soon(create, client)
            group.start_soon(create, client)
        with pytest.raises(UnknownSession):
            await client.expert("s1")

    assert kinds == [EnvError, SessionExists]


async def test_an_environment_that_cannot_close_is_an_env_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KeyDoor, "close", lambda self: 1 / 0)
    client = LocalEnvClient()
    await client.create(start())
    with pytest.raises(EnvError, match="closing session s1"):
        await client.delete("s1")
    await client.delete("s1")


async def test_whoever_runs_the_process_may_set_paths() -> None:
    async with LocalEnvClient() as client:
        with pytest.raises(MissingData, match="/nowhere"):
            await client.create(
                SessionStart(
                    "steppo/MultihopQA-v0",
                    "s1",
                    0,
                    split="dev",
                    index=0,
                    options={"data": "/nowhere"},
                )
            )


async def test_closing_works_under_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(KeyDoor, "close", lambda self: closed.append(self.task.task_id))
    with anyio.CancelScope() as scope:
        async with LocalEnvClient() as client:
            await client.create(start())
            scope.cancel()
            await anyio.sleep_forever()

    assert closed == ["dev/0"]
