"""All workers of a server: each environment gets the engine that fits it."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio
from pydantic import JsonValue

from steppo_env.catalogue import Catalogue
from steppo_env.errors import InvalidInput, InvalidOptions
from steppo_env.keys import canonical_json
from steppo_env.registry import registered_ids
from steppo_server.engines.inline import InlineWorker
from steppo_server.engines.processes import ProcessWorker
from steppo_server.engines.protocol import Worker, WorkerLoad
from steppo_server.engines.threads import ThreadWorker
from steppo_server.host import EnvTraits

if TYPE_CHECKING:  # slow to import, and workers' processes import this module
    from steppo_server.settings import ServerSettings

__all__ = ["Pool"]

DEFAULT_PROCESSES = 2
MAX_REMEMBERED_OPTIONS = 1_000


class Pool:
    """The workers of one server, made when their environment is first asked for.

    An environment runs on the event loop, unless it says `is_blocking`: then on one thread of its own,
    or `is_cpu_bound`: then in processes, `DEFAULT_PROCESSES` unless the settings say how many. Variants
    share the workers of their environment. Used from one event loop; whoever makes a pool closes it.

    Raises:
        InvalidInput: The settings name processes for an environment that is not installed.
    """

    def __init__(self, catalogue: Catalogue, settings: "ServerSettings") -> None:
        unknown = sorted(set(settings.processes) - set(registered_ids()))
        if unknown:
            raise InvalidInput(
                f"processes: {', '.join(unknown)}: no environment has this id; the ids are: "
                f"{', '.join(registered_ids())}"
            )
        self._catalogue = catalogue
        self._settings = settings
        self._inline = InlineWorker("inline", catalogue)
        self._threads: dict[str, ThreadWorker] = {}
        self._processes: dict[str, tuple[ProcessWorker, ...]] = {}
        self._traits: dict[str, EnvTraits] = {}
        self._blocks: OrderedDict[tuple[str, bytes], bool] = OrderedDict()

    @property
    def loads(self) -> tuple[WorkerLoad, ...]:
        """How busy each worker is."""
        return tuple(worker.load for worker in self._workers())

    async def worker_for(
        self, env_name: str, options: Mapping[str, JsonValue] | None = None
    ) -> Worker:
        """Return where an episode of an environment is to begin: of several, the one with the fewest.

        The code of the environment is loaded for that, and its data where it may run on the event loop,
        each once and on a thread.

        Raises:
            UnknownEnvironment, InvalidOptions, MissingData, MissingDependency, EnvError: As they say.
            CapacityExceeded, DeadlineExceeded: Loading it waited or took too long.
        """
        processes = await self._processes_of(env_name)
        if processes:
            return min(processes, key=lambda worker: (worker.num_sessions, worker.load.num_waiting))
        if await self._is_blocking(env_name, options or {}):
            return self._thread(self._catalogue.get(env_name).env_id)
        return self._inline

    async def loader_for(self, env_name: str | None = None) -> Worker:
        """Return where to ask about an environment and its tasks: where its data is, off the event loop.

        Args:
            env_name: None for what loads no data, such as the list of environments.

        Raises:
            UnknownEnvironment, MissingDependency, EnvError: As they say.
            CapacityExceeded, DeadlineExceeded: Loading its code waited or took too long.
        """
        if env_name is None:
            return self._thread("")
        processes = await self._processes_of(env_name)
        if processes:
            return min(processes, key=lambda worker: worker.load.num_waiting)
        return self._thread(self._catalogue.get(env_name).env_id)

    async def close(self) -> None:
        """End every worker, all at once, in about four seconds at most."""
        async with anyio.create_task_group() as group:
            for worker in self._workers():
                group.start_soon(worker.close)

    def _workers(self) -> list[Worker]:
        processes = [worker for workers in self._processes.values() for worker in workers]
        return [self._inline, *self._threads.values(), *processes]

    def _thread(self, env_id: str) -> ThreadWorker:
        if env_id not in self._threads:
            self._threads[env_id] = ThreadWorker(
                env_id or "environments",
                self._catalogue,
                queue_deadline_s=self._settings.queue_deadline_s,
                max_expected_wait_s=self._settings.max_expected_wait_s,
            )
        return self._threads[env_id]

    async def _processes_of(self, env_name: str) -> tuple[ProcessWorker, ...]:
        """Return the processes of an environment, started; none when it does not run in processes."""
        env_id = self._catalogue.get(env_name).env_id
        count = self._settings.processes.get(env_id)
        if count is None:
            count = DEFAULT_PROCESSES if (await self._traits_of(env_name)).is_cpu_bound else 0
        if env_id not in self._processes:
            self._processes[env_id] = self._made_processes(env_id, count)
        return self._processes[env_id]

    def _made_processes(self, env_id: str, count: int) -> tuple[ProcessWorker, ...]:
        names = self._catalogue.names
        served = tuple(name for name in names if self._catalogue.get(name).env_id == env_id)
        workers = tuple(
            ProcessWorker(
                f"{env_id} {number}",
                self._catalogue,
                served,
                queue_deadline_s=self._settings.queue_deadline_s,
                start_deadline_s=self._settings.begin_deadline_s,
                max_expected_wait_s=self._settings.max_expected_wait_s,
                log_format=self._settings.log_format,
            )
            for number in range(count)
        )
        for worker in workers:
            worker.start()
        return workers

    async def _traits_of(self, env_name: str) -> EnvTraits:
        env_id = self._catalogue.get(env_name).env_id
        if env_id not in self._traits:
            self._traits[env_id] = await self._thread(env_id).call(
                "traits", env_name, deadline_s=self._settings.begin_deadline_s
            )
        return self._traits[env_id]

    async def _is_blocking(self, env_name: str, options: Mapping[str, JsonValue]) -> bool:
        """Return whether an episode with these options blocks; its options may make it so."""
        if (await self._traits_of(env_name)).is_blocking:
            return True
        try:
            key = (env_name, canonical_json(dict(options)))
        except (TypeError, ValueError) as error:
            raise InvalidOptions(f"options are JSON: {error}") from None
        if key not in self._blocks:
            worker = self._thread(self._catalogue.get(env_name).env_id)
            self._blocks[key] = await worker.call(
                "is_blocking", env_name, options, deadline_s=self._settings.begin_deadline_s
            )
        self._blocks.move_to_end(key)
        while len(self._blocks) > MAX_REMEMBERED_OPTIONS:
            self._blocks.popitem(last=False)
        return self._blocks[key]
