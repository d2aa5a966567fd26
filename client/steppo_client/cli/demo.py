"""`steppo demo`: the main job, from nothing, on this machine alone."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Annotated

import typer

from steppo_client.cli.common import EXIT_SOME_FAILED, make_folder, run_async, screen
from steppo_client.cli.progress import progress, report_table
from steppo_client.cli.rollout import BuiltinPolicy, builtin_policy, explain_failures
from steppo_client.cli.show import show_trajectory
from steppo_client.http_client import HttpEnvClient
from steppo_client.run import RunPlan, execute
from steppo_client.sampler import SamplerConfig
from steppo_client.summary import Result, summarize_results
from steppo_env.errors import TransportError
from steppo_env.mdp import Trajectory
from steppo_env.store import TrajectoryFilter, TrajectoryStore, open_store

__all__ = ["demo"]

START_S = 60.0
STOP_S = 15.0
SHOWN_ENV = "steppo/MultihopQA-v0"
"""Its trajectory is shown: a few steps, a tool, an answer."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the store and the server's log.")] = Path(
        "demo"
    ),
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of each environment.")] = 20,
) -> None:
    """Start a server, let an expert and a random policy play every environment, show the results."""
    make_folder(out)
    url = f"sqlite:///{(out / 'demo.db').as_posix()}"
    with _server(out / "server.log") as server, open_store(url) as store:
        _say(f"a server runs at {server}; trajectories go to {url}")
        failures: list[str] = []
        for policy in BuiltinPolicy:
            results = _play(server, policy, tasks, store)
            report_table(summarize_results(results), title=f"policy: {policy.value}")
            failures += explain_failures(results)
        show_trajectory(_shown(store))
    _say(f"look further with: steppo store ls --store {url}")
    for line in failures:
        _say(line)
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _say(text: str) -> None:
    screen.print(text, markup=False, soft_wrap=True)


def _play(
    server: str, policy: BuiltinPolicy, num_tasks: int, store: TrajectoryStore
) -> Sequence[Result]:
    async def work() -> Sequence[Result]:
        async with HttpEnvClient(server) as client:
            found = await client.environments()
            for summary in found:
                if not summary.is_available:
                    _say(f"left out {summary.env_id}: {summary.problem}")
            env_ids = [summary.env_id for summary in found if summary.is_available]
            run_id = f"demo-{policy.value}-{uuid.uuid4().hex[:8]}"
            plan = RunPlan("rollout", env_ids, "dev", num_tasks, SamplerConfig(run_id))
            with progress(len(env_ids) * num_tasks) as notice:
                return await execute(plan, client, builtin_policy(policy), store, notice)

    return run_async(work)


def _shown(store: TrajectoryStore) -> Trajectory:
    """Return an expert's trajectory to show."""
    for wanted in (TrajectoryFilter(env_id=SHOWN_ENV, policy="expert"), TrajectoryFilter()):
        page = store.list(wanted, limit=1)
        if page.items:
            return store.get(page.items[0].trajectory_id)
    raise TransportError("the server offers no environment that can be used here")


@contextmanager
def _server(log: Path) -> Iterator[str]:
    """Start `steppo serve` on a free port, yield its URL, and stop it by its own handle."""
    command = [
        sys.executable,
        "-m",
        "steppo_client",
        "serve",
        "--port",
        "0",
        "--journal",
        "sqlite://",
    ]
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """Return the URL that the server says it serves.

    Raises:
        TransportError: It ended, or said nothing in time.
    """
    lines: Queue[str] = Queue()
    assert process.stdout is not None
    reader = threading.Thread(target=lambda out: lines.put(out.readline()), args=(process.stdout,))
    reader.start()
    try:
        line = lines.get(timeout=START_S)
    except Empty:
        line = ""
    if not line.startswith("serving "):
        process.kill()
        raise TransportError(f"the server did not start; its log is {log}: {_tail(log)}")
    reader.join()
    return line.removeprefix("serving ").strip()


def _tail(log: Path) -> str:
    return " | ".join(log.read_text(encoding="utf-8").splitlines()[-3:])
