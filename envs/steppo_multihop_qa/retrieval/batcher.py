"""Calls of many threads put together into one, without making anybody wait for company."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from steppo_env.errors import SteppoError, TransportError

__all__ = ["Batcher"]

BUSY_STATUSES = frozenset({408, 429, 502, 503, 504})
"""Answers that say nothing about what was asked."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class _Call(Generic[ItemT, ResultT]):
    """What one thread waits for."""

    def __init__(self, items: Sequence[ItemT]) -> None:
        self.items = items
        self.woken = threading.Event()
        self.results: Sequence[ResultT] | None = None
        self.error: Exception | None = None


class Batcher(Generic[ItemT, ResultT]):
    """Sends what is waiting in one request at a time.

    A call that finds nobody sending is sent at once. Those that come meanwhile wait for the answer
    on its way and then go together, sent by the first of them; so there is no thread to own and no
    pause for others to come.

    Args:
        send: Returns one result for each item. Called from one thread after another, but for calls
            sent again alone.
        what: Names the service in errors.
        max_items: Most items in a request; a single call may have more.
        deadline_s: Longest that a call waits for its turn and its answer, in seconds.
    """

    def __init__(
        self,
        send: Callable[[Sequence[ItemT]], Sequence[ResultT]],
        what: str,
        *,
        max_items: int,
        deadline_s: float,
    ) -> None:
        self._send = send
        self._what = what
        self._max_items = max_items
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._waiting: deque[_Call[ItemT, ResultT]] = deque()
        self._is_sending = False

    def ask(self, items: Sequence[ItemT]) -> Sequence[ResultT]:
        """Return one result for each item.

        Raises:
            TransportError: The request failed, or the turn or the answer did not come in time.
        """
        call = _Call[ItemT, ResultT](items)
        with self._lock:
            self._waiting.append(call)
            leads = not self._is_sending
            self._is_sending = True
        if not leads:
            try:
                call.woken.wait(self._deadline_s)
            except BaseException:  # an interrupt, which must not stop the others
                self._abandon(call)
                raise
            leads = self._leads(call)
        if leads:
            self._send_waiting()
        if call.results is not None:
            return call.results
        if call.error is None:
            raise TransportError(f"{self._what} did not answer within {self._deadline_s:g} s")
        if _is_about_content(call.error):
            # The service refused the request for something in it, which another call may have put
            # there: nobody fails for the query of somebody else.
            return self._send(items)
        raise call.error

    def _leads(self, call: _Call[ItemT, ResultT]) -> bool:
        """Return whether a woken call is to send; one that was not woken gives up its place."""
        with self._lock:
            if call.woken.is_set():
                return call.results is None and call.error is None and call in self._waiting
            if call in self._waiting:
                self._waiting.remove(call)
            return False

    def _send_waiting(self) -> None:
        """Send what waits, and pass the turn on to the first of those that came meanwhile."""
        with self._lock:
            calls = [self._waiting.popleft()]
            num_items = len(calls[0].items)
            while self._waiting and num_items + len(self._waiting[0].items) <= self._max_items:
                calls.append(self._waiting.popleft())
                num_items += len(calls[-1].items)
        try:
            self._settle(calls)
        finally:
            with self._lock:
                self._pass_on()
            for call in calls:
                call.woken.set()

    def _pass_on(self) -> None:
        self._is_sending = bool(self._waiting)
        if self._waiting:
            self._waiting[0].woken.set()

    def _abandon(self, call: _Call[ItemT, ResultT]) -> None:
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
                if call.woken.is_set():
                    self._pass_on()

    def _settle(self, calls: Sequence[_Call[ItemT, ResultT]]) -> None:
        items = [item for call in calls for item in call.items]
        try:
            results = self._send(items)
        except Exception as error:
            if len(calls) == 1:
                raise
            for call in calls:
                call.error = _copy(error)
            return
        start = 0
        for call in calls:
            call.results = results[start : start + len(call.items)]
            start += len(call.items)


def _copy(error: Exception) -> Exception:
    """Return an error for one more thread: raised in two, one object would mix their tracebacks."""
    return type(error)(error.detail, **error.members) if isinstance(error, SteppoError) else error


def _is_about_content(error: Exception) -> bool:
    """Return whether the service answered, and not that it was busy."""
    status = error.members.get("http_status") if isinstance(error, SteppoError) else None
    return status is not None and status not in BUSY_STATUSES
