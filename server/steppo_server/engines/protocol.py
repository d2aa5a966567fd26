"""What every engine keeps: a worker runs the methods of its own EnvHost, one call at a time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal, overload

from pydantic import JsonValue

from steppo_env.errors import CapacityExceeded, EnvError, boundary
from steppo_env.mdp import Action
from steppo_env.wire import ActionModel, EnvDetail, EnvList, ExpertReply, TaskPage
from steppo_server.engines.turns import RETRY_AFTER_S, Turns
from steppo_server.episode import EpisodeStart, EpisodeState, StepTaken
from steppo_server.host import EnvHost, EnvTraits

__all__ = ["EngineKind", "Worker", "WorkerLoad", "perform"]


class EngineKind(StrEnum):
    """Where a worker runs environment code."""

    INLINE = "inline"
    """On the event loop: steps of microseconds."""
    THREAD = "thread"
    """On a thread of this process: steps that wait, for a disk or a service."""
    PROCESS = "process"
    """In a process of its own: steps that compute."""


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """How busy a worker is.

    Attributes:
        name: The environment that it serves, and its number where there are several.
        generation: One more than the number of times that it lost what it held.
        num_waiting: Calls that wait for their turn.
        oldest_wait_s: Seconds that the longest waiting of them has waited; 0 when none waits.
        queue_delays_s: What the last calls waited, in seconds, the latest last.
        num_turns: Calls that have had their turn since the worker was made.
        total_wait_s: What all of them waited, in seconds.
    """

    name: str
    kind: EngineKind
    num_sessions: int
    generation: int
    num_waiting: int
    oldest_wait_s: float
    queue_delays_s: tuple[float, ...]
    num_turns: int = 0
    total_wait_s: float = 0.0


class Worker(ABC):
    """Runs the methods of an `EnvHost` of its own, one call after another, in the order they came.

    Used from one event loop. A call that waits for its turn can be cancelled and then never begins;
    one that has begun is waited for, also when its caller is cancelled.

    Attributes:
        name: Names the worker in messages and metrics.
        generation: Rises when the episodes it held are lost; a session that began in an earlier
            generation must be rebuilt.
    """

    kind: ClassVar[EngineKind]

    def __init__(self, name: str) -> None:
        self.name = name
        self.generation = 1
        self._held: set[str] = set()
        self._is_closed = False

    @property
    def num_sessions(self) -> int:
        """Number of episodes that it holds or begins."""
        return len(self._held)

    @overload
    async def call(
        self, method: Literal["begin"], start: EpisodeStart, /, *, deadline_s: float
    ) -> EpisodeState: ...

    @overload
    async def call(
        self,
        method: Literal["step"],
        key: str,
        step_index: int,
        action: ActionModel | Action,
        /,
        *,
        deadline_s: float,
    ) -> StepTaken: ...

    @overload
    async def call(
        self, method: Literal["look"], key: str, /, *, deadline_s: float
    ) -> EpisodeState: ...

    @overload
    async def call(
        self, method: Literal["expert"], key: str, /, *, deadline_s: float
    ) -> ExpertReply: ...

    @overload
    async def call(
        self, method: Literal["snapshot"], key: str, /, *, deadline_s: float
    ) -> bytes | None: ...

    @overload
    async def call(self, method: Literal["close"], key: str, /, *, deadline_s: float) -> None: ...

    @overload
    async def call(
        self, method: Literal["list_environments"], /, *, deadline_s: float
    ) -> EnvList: ...

    @overload
    async def call(
        self,
        method: Literal["describe"],
        env_name: str,
        options: Mapping[str, JsonValue] | None = None,
        /,
        *,
        deadline_s: float,
    ) -> EnvDetail: ...

    @overload
    async def call(
        self,
        method: Literal["list_tasks"],
        env_name: str,
        split: str,
        limit: int,
        cursor: str | None = None,
        options: Mapping[str, JsonValue] | None = None,
        /,
        *,
        deadline_s: float,
    ) -> TaskPage: ...

    @overload
    async def call(
        self, method: Literal["traits"], env_name: str, /, *, deadline_s: float
    ) -> EnvTraits: ...

    @overload
    async def call(
        self,
        method: Literal["is_blocking"],
        env_name: str,
        options: Mapping[str, JsonValue] | None = None,
        /,
        *,
        deadline_s: float,
    ) -> bool: ...

    async def call(self, method: str, /, *args: Any, deadline_s: float) -> Any:
        """Run a method of the host and return its result.

        Args:
            deadline_s: Longest time for the call itself, in seconds; waiting for its turn does not
                count.

        Raises:
            CapacityExceeded: Its turn did not come in time, or the worker is closed; it has not begun
                and never will.
            DeadlineExceeded: It took too long; what it did is unknown, and every episode of the worker
                is lost.
            WorkerDied: The worker lost its episodes; the call may or may not have been done. The
                member `was_begun` is false when it certainly was not.
            SteppoError: What the method raised.
        """
        self._check_open()
        if method == "begin":
            self._held.add(args[0].key)
        try:
            result = await self._run(method, args, deadline_s)
        except BaseException:
            if method == "begin":
                self._held.discard(args[0].key)
            raise
        if method == "begin":
            self._held.add(args[0].key)  # again: what was held may have been lost meanwhile
        elif method == "close":
            self._held.discard(args[0])
        return result

    @property
    @abstractmethod
    def load(self) -> WorkerLoad:
        """How busy it is."""

    @abstractmethod
    async def close(self) -> None:
        """End what runs the code and close its episodes, in about two seconds; call it once more."""

    @abstractmethod
    async def _run(self, method: str, args: tuple[Any, ...], deadline_s: float) -> Any:
        """Wait for the turn and run the method."""

    def _load_of(self, turns: Turns) -> WorkerLoad:
        """How busy a worker is whose calls wait for these turns."""
        return WorkerLoad(
            self.name,
            self.kind,
            self.num_sessions,
            self.generation,
            turns.num_waiting,
            turns.oldest_wait_s,
            turns.delays_s,
            turns.num_turns,
            turns.total_wait_s,
        )

    def _check_open(self) -> None:
        if self._is_closed:
            raise CapacityExceeded(
                f"the worker {self.name} is closed: the server stops", retry_after_s=RETRY_AFTER_S
            )

    def _lose(self) -> None:
        """Begin the next generation: nothing of what was held is there any more."""
        self.generation += 1
        self._held.clear()


def perform(host: EnvHost, method: str, args: tuple[Any, ...]) -> Any:
    """Run a method of a host; every error that leaves it is a SteppoError.

    Raises:
        SteppoError: What the method raised, or EnvError for a foreign exception.
    """
    try:
        with boundary(EnvError, method):
            return getattr(host, method)(*args)
    except SystemExit as error:  # must end neither the server nor its process
        raise EnvError(
            f"{method} raised SystemExit: {error.code}", exception="SystemExit"
        ) from error
