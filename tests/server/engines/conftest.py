"""Environments that processes can import as well, and pipes by which a test knows where they are."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from steppo_env import registry
from steppo_env.catalogue import Catalogue
from steppo_env.wire import StepReply
from steppo_server.engines import InlineWorker, ProcessWorker, ThreadWorker, Worker
from steppo_server.episode import EpisodeStart, StepTaken
from steppo_server.replies import with_lease

SOURCE = Path(__file__).parent / "odd_envs.py"
ENV_IDS = {
    "Odd": "test/Odd-v0",
    "Busy": "test/Busy-v0",
    "Light": "test/OddLight-v0",
    "Moody": "test/Moody-v0",
    "Deadly": "test/Deadly-v0",
    "Unsendable": "test/Unsendable-v0",
}
ODD = ENV_IDS["Odd"]
KINDS = ("inline", "thread", "process")

MakePipe = Callable[[str], "Pipe"]
Running = Callable[..., AbstractAsyncContextManager[Any]]


def start_of(session_id: str = "s", env_name: str = ODD, **changes: Any) -> EpisodeStart:
    given: dict[str, Any] = {"options": {}, "seed": 0, "task_id": "train-0", **changes}
    return EpisodeStart(session_id, session_id, env_name, **given)


async def step(worker: Worker, index: int, action: str = "go", session_id: str = "s") -> StepTaken:
    return await worker.call("step", session_id, index, action, deadline_s=20)


def text_of(taken: StepTaken) -> str:
    """Return the text of the state that a step led to."""
    return StepReply.model_validate_json(with_lease(taken.body, 0.0)).observation.text


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail when it does not within ten seconds."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - processes end without an event
            await anyio.sleep(0.005)


class Pipe:
    """A named pipe: an environment writes to it or reads from it, and so does the test."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    async def read(self) -> str:
        """Return what an environment wrote, when it has."""
        return await anyio.to_thread.run_sync(self.path.read_text)

    async def write(self, text: str = "") -> None:
        """Let an environment that waits for it go on."""
        await anyio.to_thread.run_sync(self.path.write_text, text)


@pytest.fixture
def pipe(tmp_path: Path) -> MakePipe:
    return lambda name: Pipe(tmp_path / name)


def _forget() -> None:
    registry._entry_points.cache_clear()
    registry.env_class.cache_clear()


@contextmanager
def installed(folder: Path) -> Iterator[Catalogue]:
    """Install the odd environments, for this process and for those it starts, beside the others."""
    info = folder / "odd-2.5.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 2.5\n")
    lines = [f"{env_id} = plugin_odd:{name}" for name, env_id in ENV_IDS.items()]
    info.joinpath("entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines]))
    folder.joinpath("plugin_odd.py").write_text(SOURCE.read_text())
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder)
            _forget()
            yield Catalogue()
    finally:
        _forget()
        sys.modules.pop("plugin_odd", None)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with installed(tmp_path / "site") as catalogue:
        yield catalogue


@pytest.fixture
def running(catalogue: Catalogue) -> Running:
    """Make a worker of a kind and close it: `async with running("process") as worker`."""

    @asynccontextmanager
    async def run(
        kind: str,
        *,
        env_names: tuple[str, ...] = (ODD,),
        queue_deadline_s: float = 20,
        start_deadline_s: float = 30,
    ) -> AsyncIterator[Worker]:
        worker: Worker
        if kind == "inline":
            worker = InlineWorker("inline", catalogue)
        elif kind == "thread":
            worker = ThreadWorker("odd", catalogue, queue_deadline_s=queue_deadline_s)
        else:
            worker = ProcessWorker(
                "odd 0",
                catalogue,
                env_names,
                queue_deadline_s=queue_deadline_s,
                start_deadline_s=start_deadline_s,
            )
        try:
            yield worker
        finally:
            with anyio.CancelScope(shield=True):
                await worker.close()

    return run
