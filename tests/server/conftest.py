"""A small environment whose actions say what happens, and the server in process around it."""

import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import EntryPoint

import anyio.to_thread
import httpx
import numpy as np
import pytest

from steppo_env import registry
from steppo_env.catalogue import Catalogue
from steppo_env.env import StepEnv
from steppo_env.mdp import Action, Message, Observation, Outcome, Task
from steppo_env.options import EnvOptions
from steppo_env.registry import env_class
from steppo_env.tasks import ListedTasks
from steppo_server.app import create_app
from steppo_server.auth import NO_KEYS, Keyring
from steppo_server.journal import open_journal
from steppo_server.sessions import SessionManager
from steppo_server.settings import ServerSettings
from tests.server.driving import Clock

TASKS = ("train-0", "train-1", "broken", "slow", "luck")


class Control:
    """What a test shares with the environments that the server makes.

    Attributes:
        acts: The text of every action that reached an environment, in order.
        threads: Where each of them ran.
        num_begun: Number of episodes begun.
        num_closed: Number of environments closed.
        num_loaded: Number of snapshots that an episode came from.
        luck: What decides where chance decides.
        most_at_once: Most calls of `begin` and `act` that ran at the same time.
    """

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.threads: list[threading.Thread] = []
        self.num_begun = 0
        self.num_closed = 0
        self.num_loaded = 0
        self.luck = 0
        self.most_at_once = 0
        self._at_once = 0
        self._entered: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self._gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def hold(self, name: str) -> None:
        """Called by an environment: wait until the test opens the gate."""
        self._entered[name].set()
        assert self._gates[name].wait(30)

    def open(self, name: str) -> None:
        """Let the environment that waits at the gate go on."""
        self._gates[name].set()

    def has_entered(self, name: str) -> bool:
        """True when an environment has come to the gate."""
        return self._entered[name].is_set()

    async def entered(self, name: str) -> None:
        """Return when an environment has come to the gate."""
        assert await anyio.to_thread.run_sync(self._entered[name].wait, 20)

    def open_all(self) -> None:
        """Let no thread outlive its test."""
        for gate in list(self._gates.values()):
            gate.set()

    def __enter__(self) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)

    def __exit__(self, *_: object) -> None:
        self._at_once -= 1


current = Control()


class Stub(StepEnv[Task, EnvOptions]):
    """A stub whose actions say what happens.

    `wait NAME` waits at a gate, `raise` raises, `surrogate` raises with text that is no UTF-8,
    `object` answers what is no JSON, `luck` leads where chance leads, `end` terminates; anything else
    is a step with reward 1. The task `luck` begins where chance begins it: each time elsewhere.
    """

    env_id = "test/Stub-v0"
    is_blocking = True
    data_version = "1"
    control = Control()  # of those that are made and never begin an episode

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[Task]:
        return ListedTasks([Task(task_id, "train") for task_id in TASKS], cls.data_version)

    def begin(self, task: Task, rng: np.random.Generator) -> Observation:
        self.control = current
        with self.control:
            self.control.num_begun += 1
            if task.task_id == "broken":
                raise RuntimeError("begin broke")
            if task.task_id == "slow":
                self.control.hold("begin")
            if task.task_id == "luck":
                self.control.luck += 1
                return self.look(f"begun {self.control.luck}", task)
        return self.look("begun", task)

    def act(self, action: Action) -> Outcome:
        with self.control:
            self.control.acts.append(action.content)
            self.control.threads.append(threading.current_thread())
            verb, _, name = action.content.partition(" ")
            if verb == "wait":
                self.control.hold(name)
            if verb == "raise":
                raise RuntimeError("act broke")
            if verb == "surrogate":
                raise RuntimeError("half a character: \ud800")
        info = {"thing": object()} if verb == "object" else {}
        text = f"luck {self.control.luck}" if verb == "luck" else action.content
        return Outcome(
            self.look(text),
            {"goal": 1.0},
            terminated=verb == "end",
            info=info,  # type: ignore[arg-type]  # what a careless author may do
        )

    def look(self, text: str, task: Task | None = None) -> Observation:
        return self.observe((Message("user", text),), text=text, state=text, task=task)

    def expert(self) -> Action | None:
        if self.observation.text == "no advice":
            raise RuntimeError("expert broke")
        return Action("end")

    def distance(self) -> int | None:
        return 1

    def close(self) -> None:
        self.control.num_closed += 1
        if self.observation.text == "no close":
            raise RuntimeError("close broke")


class Light(Stub):
    """The same, run on the event loop."""

    env_id = "test/Light-v0"
    is_blocking = False


class Saving(Light):
    """The same, and it can be saved."""

    env_id = "test/Saving-v0"

    def save_state(self) -> bytes:
        return self.observation.text.encode()

    def load_state(self, task: Task, state: bytes) -> Observation:
        self.control = current
        self.control.num_loaded += 1
        return self.look(state.decode(), task)


STUBS = {stub.env_id: stub for stub in (Stub, Light, Saving)}

Serving = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
Managers = Callable[..., SessionManager]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """Register the stubs, beside what is installed."""
    global current
    current = Control()
    points = {
        env_id: (EntryPoint(env_id, f"{__name__}:{stub.__name__}", registry.GROUP),)
        for env_id, stub in STUBS.items()
    }
    installed = registry._entry_points()
    monkeypatch.setattr(registry, "_entry_points", lambda: {**installed, **points})
    env_class.cache_clear()
    yield current
    current.open_all()
    env_class.cache_clear()


@pytest.fixture
def serving(control: Control) -> Serving:
    """Start the whole application in process: `async with serving(max_sessions=2) as client`."""

    @asynccontextmanager
    async def start(
        catalogue: Catalogue | None = None, keyring: Keyring = NO_KEYS, **settings: object
    ) -> AsyncIterator[httpx.AsyncClient]:
        given = ServerSettings(**{"journal": "sqlite://", **settings})  # type: ignore[arg-type]
        app = create_app(catalogue, given, keyring)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://server") as client,
        ):
            yield client

    return start


@pytest.fixture
async def managers(control: Control) -> AsyncIterator[Managers]:
    """Make managers: `managers(journal=url, max_sessions=2)`; each has a journal of its own open.

    A manager that is left alone while another is made on the same file is, as far as that one can
    tell, a server that was killed.
    """
    made: list[SessionManager] = []

    def make(**settings: object) -> SessionManager:
        given = ServerSettings(**settings)  # type: ignore[arg-type]
        journal = open_journal(given.journal or "sqlite://")
        made.append(SessionManager(Catalogue(), given, journal))
        return made[-1]

    yield make
    control.open_all()
    for manager in made:
        await manager.pool.close()
        await manager.journal.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let time pass as the test says."""
    return Clock(monkeypatch)


@pytest.fixture
async def client(serving: Serving) -> AsyncIterator[httpx.AsyncClient]:
    """The application with its default settings."""
    async with serving() as client:
        yield client
