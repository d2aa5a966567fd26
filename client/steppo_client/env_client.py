"""One interface to environments, wherever they run: in this process or behind HTTP."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from steppo_env.mdp import Observation, Outcome
from steppo_env.wire import ActionModel, EnvDetail, EnvSummary, TaskPage

__all__ = ["CLOSE_S", "EnvClient", "ExpertAdvice", "SessionStart", "SessionState", "StepTaken"]

CLOSE_S = 10.0
"""Longest wait, in seconds, for sessions to close; after it a server's lease frees them."""


@dataclass(frozen=True, slots=True)
class SessionStart:
    """What to begin: a task by id, or by its place in a split.

    Attributes:
        env_id: A registered id or a named variant.
        session_id: Chosen by the caller, so that a retried creation makes no second session.
        lease_s: Seconds without use or heartbeat after which a server frees the session; None for
            the default of the client or, where it sends no heartbeats, of the server.
    """

    env_id: str
    session_id: str
    seed: int
    task_id: str | None = None
    split: str | None = None
    index: int | None = None
    options: Mapping[str, JsonValue] | None = None
    lease_s: float | None = None


@dataclass(frozen=True, slots=True)
class SessionState:
    """An episode that has begun, and its first state."""

    session_id: str
    env_id: str
    task_id: str
    split: str
    labels: Mapping[str, str | int]
    seed: int
    observation: Observation
    trace_key: str


@dataclass(frozen=True, slots=True)
class StepTaken:
    """What a step did, and the trace key after it."""

    outcome: Outcome
    trace_key: str


@dataclass(frozen=True, slots=True)
class ExpertAdvice:
    """The expert's next response, or None; and how many expert steps the goal is away."""

    action: str | None
    distance: int | None


class EnvClient(ABC):
    """Environments as their callers see them.

    Every method may be called from many tasks at once. A creation and a step are safe to repeat: the
    same request gets the same reply. Use as an async context manager; leaving it closes every session
    that is still open.
    """

    @abstractmethod
    async def environments(self) -> tuple[EnvSummary, ...]:
        """List what can be played."""

    @abstractmethod
    async def describe(
        self, env_id: str, options: Mapping[str, JsonValue] | None = None
    ) -> EnvDetail:
        """Describe one environment as the options make it.

        Raises:
            UnknownEnvironment: There is none under this id.
        """

    @abstractmethod
    async def tasks(
        self,
        env_id: str,
        split: str,
        *,
        cursor: str | None = None,
        limit: int = 1000,
        options: Mapping[str, JsonValue] | None = None,
    ) -> TaskPage:
        """Return a page of a split's tasks; options can decide which tasks there are.

        Raises:
            UnknownTask: There is no such split.
        """

    @abstractmethod
    async def create(self, start: SessionStart) -> SessionState:
        """Begin an episode.

        Raises:
            SessionExists: The session id is in use for another start.
            UnknownEnvironment, UnknownTask, InvalidInput, EnvError: As they say.
        """

    @abstractmethod
    async def step(self, session_id: str, step_index: int, action: ActionModel) -> StepTaken:
        """Take a step.

        Args:
            action: The response's text, or an OpenAI-compatible assistant message.

        Raises:
            EpisodeEnded, StepIndexMismatch, StepConflict: The step does not come next.
            UnknownSession, SessionExpired: There is no such session, or no longer.
            EnvError, DeadlineExceeded: The step failed and the episode with it.
        """

    @abstractmethod
    async def expert(self, session_id: str) -> ExpertAdvice:
        """Ask the environment's expert what it would do next."""

    @abstractmethod
    async def delete(self, session_id: str) -> None:
        """Close a session. A session that is gone already is not an error."""

    @abstractmethod
    async def close(self) -> None:
        """Close what is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
