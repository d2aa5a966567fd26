"""The sessions in memory, and whose turn it is with each of them."""

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType

from steppo_env.errors import CapacityExceeded, SessionExists, TooManyRequests
from steppo_server.session import Session, owner_of
from steppo_server.settings import ServerSettings

__all__ = ["Held", "SessionTable", "already_made"]

RETRY_AFTER_S = 5


class SessionTable:
    """Sessions by key. Every use of one holds its lock.

    Whoever gets the lock looks at `is_closed` first: the session may have been deleted, or its creation
    may have failed, in the meantime. A session that is being made has its key and its place already, so
    that uses of it wait for its first state.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._sessions: dict[str, Session] = {}
        self._num_of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def __contains__(self, key: str) -> bool:
        return key in self._sessions

    def get(self, key: str) -> Session | None:
        """Return a session without holding it."""
        return self._sessions.get(key)

    async def hold(self, key: str, fingerprint: str = "") -> Session:
        """Return a session whose lock the caller now has, a new one where there is none in memory.

        Args:
            fingerprint: Of the request that makes it; empty where any session will do.

        Raises:
            SessionExists: The session was, or is being, made by another request.
            CapacityExceeded, TooManyRequests: There is no room for a new one.
        """
        while True:
            session = self._sessions.get(key)
            if session is None:
                session = self._admit(key)
            elif fingerprint and session.fingerprint not in ("", fingerprint):
                raise already_made(session)  # at once, also while it is being made
            session.fingerprint = session.fingerprint or fingerprint
            session.num_waiting += 1
            try:
                await session.lock.acquire()
            finally:
                session.num_waiting -= 1
            if not session.is_closed:
                return session
            self.let_go(session)

    async def hold_now(self, key: str) -> Session | None:
        """Return a session that has begun and that nobody uses, its lock now the caller's, or None.

        This does not wait: nothing else happens on the event loop meanwhile.
        """
        session = self._sessions.get(key)
        if session is None or session.request is None or session.is_closed:
            return None
        if session.num_waiting or session.lock.locked():
            return None
        await session.lock.acquire()
        return session

    def let_go(self, session: Session) -> None:
        """Release the lock of a session; one that came to nothing, or is closed, is forgotten."""
        if session.request is None or session.is_closed:
            self.forget(session)
        session.lock.release()

    def forget(self, session: Session) -> None:
        """Serve the session no longer from memory; whoever waits for its lock sees that."""
        session.is_closed = True
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]
            self._num_of[owner_of(session.key)] -= 1

    def _admit(self, key: str) -> Session:
        if len(self._sessions) >= self._settings.max_sessions:
            raise CapacityExceeded(
                f"there are {len(self._sessions)} sessions, as many as this server takes; close some "
                "or try again",
                retry_after_s=RETRY_AFTER_S,
            )
        if self._num_of[owner_of(key)] >= self._settings.max_sessions_per_key:
            raise TooManyRequests(
                f"this key has {self._num_of[owner_of(key)]} sessions, as many as a key may have; "
                "close some",
                retry_after_s=RETRY_AFTER_S,
            )
        session = self._sessions[key] = Session(key)
        self._num_of[owner_of(key)] += 1
        session.expires_at = float("inf")  # until it has begun
        return session


class Held:
    """A session in use within `async with`. Written out: a generator would cost every step more."""

    __slots__ = ("_hold", "_let_go", "_session")

    def __init__(
        self, hold: Coroutine[None, None, Session], let_go: Callable[[Session], None]
    ) -> None:
        self._hold = hold
        self._let_go = let_go

    async def __aenter__(self) -> Session:
        self._session = await self._hold
        return self._session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._let_go(self._session)


def already_made(session: Session) -> SessionExists:
    """Return what another request for the id of a session is answered."""
    return SessionExists(f"session {session.session_id} exists and was made by another request")
