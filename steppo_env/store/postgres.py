"""Open a PostgreSQL database for one layout, or say in one sentence why it cannot be.

The tables may share a database with others. No wait is without an end: connecting, a statement and
a lock each have a limit, and a server that is gone without a word is noticed by its silence.
"""

import zlib

from sqlalchemy import URL, Engine, create_engine, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from steppo_env.errors import MissingDependency, StoreError
from steppo_env.store.layout import Layout, is_laid_out, lay_out, store_errors
from steppo_env.store.sqlite import Sync

__all__ = ["is_connection_lost", "is_postgres", "open_engine"]

CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 30.0
"""How long one statement may take, its waiting for locks of other transactions included."""
SILENCE_S = 15
"""After so long without an answer to what was sent, a connection counts as lost."""
_DRIVER = "postgresql+psycopg"
_GIVEN_UP = frozenset({"40001", "40P01", "57P01", "57P02", "57P03"})
"""SQLSTATEs: not serializable, deadlock; the server was shut down, crashed, or is still starting."""


def is_postgres(url: str) -> bool:
    """Return whether a URL means a PostgreSQL database, whatever driver it names."""
    try:
        return make_url(url).get_backend_name() == "postgresql"
    except (ArgumentError, ValueError):
        return False


def is_connection_lost(error: BaseException) -> bool:
    """Return whether a failed transaction may be tried again on a new connection.

    True for a connection that broke or could not be made, and for a transaction that the server
    gave up in favour of another (a deadlock). What a broken connection had been told to commit may
    be committed.
    """
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    # Where no connection came about, libpq gives an OperationalError without a state.
    state = getattr(error.orig, "sqlstate", "")
    return state in _GIVEN_UP or (state is None and isinstance(error, OperationalError))


def open_engine(url: str, layout: Layout, *, sync: Sync = "normal") -> tuple[Engine, str]:
    """Return the engine of a database that has the layout's tables, and its location for messages.

    Args:
        sync: "full" makes every commit durable; "normal" leaves that to the server's own setting
            (`synchronous_commit`).

    Raises:
        StoreError: It cannot be reached or written, or holds something else under these names.
        StoreFromFuture: It was written by a newer version.
        MissingDependency: The driver is not installed.
    """
    parsed = make_url(url)
    if parsed.drivername not in ("postgresql", _DRIVER):
        raise StoreError(
            f"a PostgreSQL URL begins with postgresql:// (driver psycopg); got {parsed.drivername}://"
        )
    parsed = parsed.set(drivername=_DRIVER)
    location = parsed.set(query={}).render_as_string(hide_password=True)
    engine = _engine(parsed, sync)
    try:
        with store_errors("open", location, layout.noun), engine.begin() as connection:
            # Servers that begin together would make the same tables; the lock ends with this block.
            connection.execute(
                select(func.pg_advisory_xact_lock(zlib.crc32(layout.meta.name.encode())))
            )
            if not is_laid_out(connection, location, layout, is_shared=True):
                lay_out(connection, layout)
    except BaseException:
        engine.dispose()
        raise
    return engine, location


def _engine(url: URL, sync: Sync) -> Engine:
    limit_ms = round(STATEMENT_TIMEOUT_S * 1000)
    options = f"-c statement_timeout={limit_ms} -c idle_in_transaction_session_timeout={limit_ms}"
    if sync == "full":
        options += " -c synchronous_commit=on"
    given = url.query.get("options")
    if isinstance(given, str):
        options = f"{given} {options}"
    try:
        return create_engine(
            url.difference_update_query(["options"]),
            isolation_level="READ COMMITTED",
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "options": options,
                "keepalives_idle": SILENCE_S,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": SILENCE_S * 1000,
            },
        )
    except ImportError as error:
        raise MissingDependency(
            f"PostgreSQL needs the driver psycopg ({error}); install steppo-env[postgres]"
        ) from None
