"""One error tree for the core, the server and the client.

::

    SteppoError                      500
    ├── InvalidInput                 422  (ValueError)
    │   ├── InvalidOptions           422
    │   └── MalformedRequest         400
    ├── NotFound                     404  (LookupError)
    │   ├── UnknownEnvironment       404
    │   ├── UnknownTask              404
    │   ├── UnknownSession           404
    │   ├── UnknownTrajectory        404
    │   └── MissingData              404
    ├── Unauthorized                 401
    ├── Forbidden                    403
    ├── Conflict                     409
    │   ├── EpisodeEnded             409
    │   ├── EpisodeNotStarted        409
    │   ├── StepIndexMismatch        409
    │   ├── StepConflict             409
    │   ├── SessionExists            409
    │   ├── ReplayDiverged           409
    │   ├── EnvironmentChanged       409
    │   └── RecordConflict           409
    ├── SessionExpired               410
    ├── PayloadTooLarge              413
    ├── EnvError                     500
    ├── StoreError                   500
    │   └── StoreFromFuture          500
    ├── MissingDependency            501  (ImportError)
    ├── PolicyError                  502
    ├── TransportError               503  (ConnectionError)
    ├── TooManyRequests              429
    ├── CapacityExceeded             503
    ├── NotReady                     503
    ├── WorkerDied                   503
    └── DeadlineExceeded             504  (TimeoutError)

Rules for adding a class: give it a `slug`, a `title` and a `status`; take no constructor arguments
of its own (facts go into keyword members, so that every error pickles and crosses HTTP unchanged);
and let the message say what was expected, what came, and what to do.
"""

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import ClassVar

from pydantic import JsonValue

__all__ = [
    "PROBLEM_TYPE_PREFIX",
    "CapacityExceeded",
    "Conflict",
    "DeadlineExceeded",
    "EnvError",
    "EnvironmentChanged",
    "EpisodeEnded",
    "EpisodeNotStarted",
    "Forbidden",
    "InvalidInput",
    "InvalidOptions",
    "MalformedRequest",
    "MissingData",
    "MissingDependency",
    "NotFound",
    "NotReady",
    "PayloadTooLarge",
    "PolicyError",
    "RecordConflict",
    "ReplayDiverged",
    "SessionExists",
    "SessionExpired",
    "StepConflict",
    "StepIndexMismatch",
    "SteppoError",
    "StoreError",
    "StoreFromFuture",
    "TooManyRequests",
    "TransportError",
    "Unauthorized",
    "UnknownEnvironment",
    "UnknownSession",
    "UnknownTask",
    "UnknownTrajectory",
    "WorkerDied",
    "boundary",
    "error_from_problem",
]

PROBLEM_TYPE_PREFIX = "urn:steppo:problem:"
_STANDARD_MEMBERS = frozenset({"type", "title", "status", "detail", "instance"})


class SteppoError(Exception):
    """Root of every error this project raises.

    Args:
        detail: One sentence: what was expected, what came, what to do.
        **members: Machine-readable facts, sent as extension members of the RFC 9457 problem. The
            names type, title, status, detail and instance are the problem's own and are not sent.

    >>> StepIndexMismatch("expected step_index 3, got 5", expected=3).to_problem()["status"]
    409
    """

    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, /, **members: JsonValue) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members: dict[str, JsonValue] = members

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.detail, self.members))

    def __str__(self) -> str:
        return self.detail

    def to_problem(self, instance: str | None = None) -> dict[str, JsonValue]:
        """Return the RFC 9457 problem document of this error."""
        problem: dict[str, JsonValue] = {
            "type": PROBLEM_TYPE_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if instance is not None:
            problem["instance"] = instance
        extra = {name: v for name, v in self.members.items() if name not in _STANDARD_MEMBERS}
        return problem | extra


class InvalidInput(SteppoError, ValueError):
    """A value does not satisfy what its field asks for."""

    slug, title, status = "invalid-input", "Invalid input", 422


class InvalidOptions(InvalidInput):
    """An environment's options are unknown, out of bounds, or not the caller's to set."""

    slug, title = "invalid-options", "Invalid environment options"


class MalformedRequest(InvalidInput):
    """A request body is not the JSON document that the route takes."""

    slug, title, status = "malformed-request", "Malformed request", 400


class NotFound(SteppoError, LookupError):
    """Something named by the caller does not exist."""

    slug, title, status = "not-found", "Not found", 404


class UnknownEnvironment(NotFound):
    """No environment is registered or served under this id."""

    slug, title = "unknown-environment", "Unknown environment"


class UnknownTask(NotFound):
    """The environment has no such task, split or index."""

    slug, title = "unknown-task", "Unknown task"


class UnknownSession(NotFound):
    """No such session, or it belongs to somebody else."""

    slug, title = "unknown-session", "Unknown session"


class UnknownTrajectory(NotFound):
    """The store has no trajectory under this id."""

    slug, title = "unknown-trajectory", "Unknown trajectory"


class MissingData(NotFound):
    """A data pack or file that the environment was told to use is not there or not readable."""

    slug, title = "missing-data", "Missing data"


class Unauthorized(SteppoError):
    """The request carries no key that is known."""

    slug, title, status = "unauthorized", "Unauthorized", 401


class Forbidden(SteppoError):
    """The caller is known but may not do this."""

    slug, title, status = "forbidden", "Forbidden", 403


class Conflict(SteppoError):
    """The request contradicts what has already happened."""

    slug, title, status = "conflict", "Conflict", 409


class EpisodeEnded(Conflict):
    """A step was sent to an episode that is over."""

    slug, title = "episode-ended", "Episode ended"


class EpisodeNotStarted(Conflict):
    """A step was sent before the first reset."""

    slug, title = "episode-not-started", "Episode not started"


class StepIndexMismatch(Conflict):
    """The step_index is neither the next one nor one already taken."""

    slug, title = "step-index-mismatch", "Wrong step index"


class StepConflict(Conflict):
    """This step was already taken with another action."""

    slug, title = "step-conflict", "Step already taken with another action"


class SessionExists(Conflict):
    """The client-chosen session id is in use for something else."""

    slug, title = "session-exists", "Session exists"


class ReplayDiverged(Conflict):
    """The same actions led elsewhere than they did the first time."""

    slug, title = "replay-diverged", "Replay diverged"


class EnvironmentChanged(Conflict):
    """The session was begun with another version of the environment, its data or its options."""

    slug, title = "environment-changed", "Environment changed"


class RecordConflict(Conflict):
    """A different record is already stored under this id."""

    slug, title = "record-conflict", "Different record under this id"


class SessionExpired(SteppoError):
    """The session's lease ran out and its memory was freed."""

    slug, title, status = "session-expired", "Session expired", 410


class PayloadTooLarge(SteppoError):
    """The body is larger than the server accepts."""

    slug, title, status = "payload-too-large", "Payload too large", 413


class EnvError(SteppoError):
    """Environment code raised, or broke the contract of StepEnv."""

    slug, title = "env-error", "Environment failed"


class StoreError(SteppoError):
    """The trajectory store cannot be opened, read or written."""

    slug, title = "store-error", "Store failed"


class StoreFromFuture(StoreError):
    """The store was written by a newer version of this software."""

    slug, title = "store-from-future", "Store from a newer version"


class MissingDependency(SteppoError, ImportError):
    """An optional dependency that this feature needs is not installed."""

    slug, title, status = "missing-dependency", "Missing dependency", 501


class PolicyError(SteppoError):
    """A policy could not produce a usable response."""

    slug, title, status = "policy-error", "Policy failed", 502


class TransportError(SteppoError, ConnectionError):
    """The other side could not be reached or did not speak the protocol."""

    slug, title, status = "transport-error", "Transport failed", 503


class TooManyRequests(SteppoError):
    """The caller has as much as one key may have; others may still be served."""

    slug, title, status = "too-many-requests", "Too many requests", 429


class CapacityExceeded(SteppoError):
    """No room now; try again after `retry_after_s` seconds."""

    slug, title, status = "capacity-exceeded", "Capacity exceeded", 503


class NotReady(SteppoError):
    """The server runs and should get no new work for now."""

    slug, title, status = "not-ready", "Not ready", 503


class WorkerDied(SteppoError):
    """What held the episode is gone; it is rebuilt by replaying its actions. Try again."""

    slug, title, status = "worker-died", "Worker died", 503


class DeadlineExceeded(SteppoError, TimeoutError):
    """The work did not finish within its deadline."""

    slug, title, status = "deadline-exceeded", "Deadline exceeded", 504


def _rebuild(cls: type[SteppoError], detail: str, members: dict[str, JsonValue]) -> SteppoError:
    return cls(detail, **members)


def _tree(cls: type[SteppoError]) -> Iterator[type[SteppoError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


def _class_of(problem_type: JsonValue) -> type[SteppoError] | None:
    # Parents come first: a subclass that inherits its slug does not stand in for its parent.
    for cls in _tree(SteppoError):
        if problem_type == PROBLEM_TYPE_PREFIX + cls.slug:
            return cls
    return None


def error_from_problem(problem: Mapping[str, JsonValue]) -> SteppoError:
    """Rebuild the error that a server sent as an RFC 9457 problem.

    An unknown type becomes a plain SteppoError with the whole document as its member `problem`, so
    nothing is lost when an older client meets a newer server.
    """
    cls = _class_of(problem.get("type"))
    members = {name: v for name, v in problem.items() if name not in _STANDARD_MEMBERS}
    detail = str(problem.get("detail") or problem.get("title") or "the server gave no detail")
    if cls is None:
        return SteppoError(detail, **{**members, "problem": dict(problem)})
    return cls(detail, **members)


class boundary:  # noqa: N801 - used as a function, and once a step: a generator costs more
    """Attribute any foreign exception raised inside to the boundary it crossed.

    Errors of the class `passes` go through unchanged: they already say what went wrong.
    KeyboardInterrupt, SystemExit and task cancellation are not Exceptions and pass as well.

    >>> with boundary(EnvError, "begin"):
    ...     {}["door"]
    Traceback (most recent call last):
        ...
    steppo_env.errors.EnvError: begin raised KeyError: 'door'
    """

    __slots__ = ("_kind", "_passes", "_what")

    def __init__(
        self, kind: type[SteppoError], what: str, *, passes: type[SteppoError] = SteppoError
    ) -> None:
        self._kind = kind
        self._what = what
        self._passes = passes

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise what a foreign exception is here."""
        if error is None or isinstance(error, self._passes) or not isinstance(error, Exception):
            return
        name = type(error).__name__
        detail = f"{self._what} raised {name}: {error}".removesuffix(": ")
        raise self._kind(detail, exception=name) from error
