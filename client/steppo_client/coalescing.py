"""Joining calls that are made at about the same time into one request."""

import copy
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

import anyio
from anyio.abc import TaskGroup

from steppo_env.errors import SteppoError, TransportError

__all__ = ["Coalescer"]

ResultT = TypeVar("ResultT")

WINDOW_S = 0.001
"""How long a call waits for others while a request is under way."""
MAX_BYTES = 1_000_000
"""Longest joined request; a longer item goes alone."""

logger = logging.getLogger("steppo.client")


@dataclass(slots=True)
class _Call(Generic[ResultT]):
    """One item, and what came of it once `is_done` is set."""

    item: bytes
    is_done: anyio.Event = field(default_factory=anyio.Event)
    result: ResultT | None = None
    error: Exception | None = None
    is_abandoned: bool = False  # the caller was cancelled before it was sent


class Coalescer(Generic[ResultT]):
    """Sends items, each a JSON document, many at a time.

    A call that finds nothing under way in its lane waits for one turn of the event loop only, and so
    does not wait for calls that may never come; later ones wait for about a millisecond. A request is
    answered when its slowest item is: what is fast and what is slow belong into different lanes.

    Args:
        tasks: Owns the requests.
        send: Sends items and returns as many results, in their order; one that is an exception is
            raised to its caller only.
        max_items: Most items in one request.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        send: Callable[[Sequence[bytes]], Awaitable[Sequence[ResultT | Exception]]],
        max_items: int,
    ) -> None:
        self._tasks = tasks
        self._send = send
        self._max_items = max_items
        self._waiting: dict[str, list[_Call[ResultT]]] = {}
        self._num_under_way: Counter[str] = Counter()

    async def submit(self, lane: str, item: bytes) -> ResultT:
        """Send an item together with others of its lane and return its result."""
        call: _Call[ResultT] = _Call(item)
        waiting = self._waiting.setdefault(lane, [])
        waiting.append(call)
        if len(waiting) == 1:
            self._tasks.start_soon(self._collect, lane)
        try:
            await call.is_done.wait()
        except BaseException:
            call.is_abandoned = True
            raise
        if call.error is not None:
            raise call.error
        return cast(ResultT, call.result)

    async def _collect(self, lane: str) -> None:
        try:
            await anyio.sleep(WINDOW_S if self._num_under_way[lane] else 0)
        finally:
            calls = [call for call in self._waiting.pop(lane) if not call.is_abandoned]
            self._start(lane, calls)

    def _start(self, lane: str, calls: Sequence[_Call[ResultT]]) -> None:
        for joined in self._joined(calls):
            self._num_under_way[lane] += 1
            self._tasks.start_soon(self._deliver, lane, joined)

    def _joined(self, calls: Sequence[_Call[ResultT]]) -> Iterator[list[_Call[ResultT]]]:
        joined: list[_Call[ResultT]] = []
        num_bytes = 0
        for call in calls:
            if joined and (
                len(joined) == self._max_items or num_bytes + len(call.item) > MAX_BYTES
            ):
                yield joined
                joined, num_bytes = [], 0
            joined.append(call)
            num_bytes += len(call.item)
        if joined:
            yield joined

    async def _deliver(self, lane: str, calls: Sequence[_Call[ResultT]]) -> None:
        outcome: Sequence[ResultT | Exception] | Exception = TransportError("the client was closed")
        try:
            outcome = await self._send([call.item for call in calls])
        except SteppoError as error:
            outcome = error
        except Exception as error:
            logger.exception("joined requests")
            outcome = error
        finally:
            self._num_under_way[lane] -= 1
            for place, call in enumerate(calls):
                # Each caller raises an error of its own, or they would share one traceback.
                result = copy.copy(outcome) if isinstance(outcome, Exception) else outcome[place]
                if isinstance(result, Exception):
                    call.error = result
                else:
                    call.result = result
                call.is_done.set()
