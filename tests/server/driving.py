"""How tests drive a session manager: requests in a word, calls beside the test, time at will."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from steppo_env.errors import SteppoError
from steppo_env.wire import ActionModel, CreateSession, SessionReply, StepReply, StepRequest
from steppo_server import families as families_module
from steppo_server import session as session_module
from steppo_server import sessions as sessions_module
from steppo_server.journal import journal as journal_module
from steppo_server.sessions import SessionManager

STUB = "test/Stub-v0"
LIGHT = "test/Light-v0"
SAVING = "test/Saving-v0"
OWNER = "me"


class Clock:
    """Time that passes when the test says so; for leases, and for what the journal writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (session_module, sessions_module, families_module, journal_module):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now

    def perf_counter(self) -> float:
        return self.now


class Attempt:
    """A call that runs beside the test; its result or its error is kept."""

    def __init__(self, call: Callable[[], Awaitable[object]]) -> None:
        self._call = call
        self._done = anyio.Event()
        self._result: object = None
        self.error: BaseException | None = None

    async def run(self) -> None:
        try:
            self._result = await self._call()
        except SteppoError as error:
            self.error = error
        finally:
            self._done.set()

    async def result(self) -> object:
        with anyio.fail_after(20):
            await self._done.wait()
        if self.error is not None:
            raise self.error
        return self._result


async def turns(count: int = 20) -> None:
    """Give every task that can run the chance to run up to where it waits."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


def new(session_id: str | None = "s", **changes: Any) -> CreateSession:
    """Return a request for a session of the stub."""
    given = {"env_id": STUB, "task_id": "train-0", "session_id": session_id, **changes}
    return CreateSession.model_validate(given)


def step(step_index: int, action: ActionModel = "go") -> StepRequest:
    """Return a request for a step."""
    return StepRequest(step_index=step_index, action=action)


async def state(manager: SessionManager, session_id: str = "s") -> SessionReply:
    """Return what a session shows now."""
    return SessionReply.model_validate_json(await manager.get(OWNER, session_id))


async def take(
    manager: SessionManager, step_index: int, action: ActionModel = "go", session_id: str = "s"
) -> StepReply:
    """Take a step and return its reply."""
    reply = await manager.step(OWNER, session_id, step(step_index, action))
    return StepReply.model_validate_json(reply)
