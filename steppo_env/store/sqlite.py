"""Open a SQLite file as a trajectory store, or say in one sentence why it is none.

A store file is in WAL mode, so that readers never wait for the writer; every commit is synced
before it is acknowledged (synchronous=FULL). A file is looked at before anything is written to it:
what turns out to be no store, or a store of a newer version, stays as it was.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    Connection,
    Engine,
    QueuePool,
    StaticPool,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from steppo_env.errors import StoreError, StoreFromFuture
from steppo_env.store.schema import SCHEMA_VERSION, metadata, store_meta

__all__ = ["open_engine", "store_errors", "writing"]

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for a writer of another process."""
_MAGIC = b"SQLite format 3\0"
_IMMEDIATE = {"steppo_begin": "BEGIN IMMEDIATE"}
_HINTS = {
    "database is locked": f"another process kept it locked for {BUSY_TIMEOUT_S:g} s; try again",
    "readonly": "its place is read-only; make the file and its folder writable",
    "unable to open": "it cannot be opened for writing; check that it and its folder are there "
    "and writable",
    "disk is full": "the disk is full; free some space",
    "malformed": "the file is damaged; restore it from a backup",
    "not a database": "the file is damaged or not a SQLite file; restore it from a backup",
    "disk I/O error": "the disk failed; check it and its free space",
}


@contextmanager
def store_errors(what: str, location: str) -> Iterator[None]:
    """Turn what SQLAlchemy and the driver raise inside into a StoreError that stands alone."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error)
        hint = next((text for sign, text in _HINTS.items() if sign in reason), None)
        explained = f"{hint} ({reason})" if hint else reason
        raise StoreError(f"cannot {what} the store at {location}: {explained}") from None


def writing(engine: Engine) -> Engine:
    """Return the engine whose transactions take the write lock when they begin.

    A transaction that reads first and writes later fails at once, without waiting, when another
    writer came between (SQLITE_BUSY_SNAPSHOT).
    """
    return engine.execution_options(**_IMMEDIATE)


def open_engine(url: str, *, create: bool) -> tuple[Engine, str]:
    """Return the engine of a store, and its location for messages.

    Raises:
        StoreError: No store can be opened here.
        StoreFromFuture: It was written by a newer version.
    """
    path = _path_of(url)
    location = "sqlite:// (in memory)" if path is None else str(path)
    if path is None:
        if not create:
            raise StoreError("there is no store in a new memory database; open it with create=True")
        engine = _memory_engine()
    else:
        _check_place(path, create=create)
        engine = _file_engine(path, "rwc" if create else "rw")
    try:
        with store_errors("open", location):
            _prepare(engine, location, create=create, is_file=path is not None)
    except BaseException:
        engine.dispose()
        raise
    if path is not None and create:
        # From here on a missing file is an error, never a reason to begin an empty one.
        engine.dispose()
        engine = _file_engine(path, "rw")
    return engine, location


def _path_of(url: str) -> Path | None:
    """Return the file that a URL names, made absolute now; None for a database in memory."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(f"a store URL looks like sqlite:///runs.db; got {url!r}") from None
    if parsed.drivername != "sqlite":
        raise StoreError(
            "this version keeps stores in SQLite only (sqlite:///relative.db or "
            f"sqlite:////absolute.db); {parsed.drivername} is not supported. PostgreSQL is to "
            "come in a later version",
            driver=parsed.drivername,
        )
    if parsed.host is not None or parsed.username is not None:
        raise StoreError(
            "a SQLite URL has three slashes before a relative path and four before an absolute "
            f"one; got {url!r}, which names a host"
        )
    if parsed.query:
        raise StoreError(f"a store URL takes no parameters; got {url!r}")
    if url.startswith("sqlite:///") and not parsed.database:
        raise StoreError(f"a store URL needs a file name after sqlite:///; got {url!r}")
    if parsed.database is None or parsed.database == ":memory:":
        return None
    if "\0" in parsed.database:
        raise StoreError(f"a file name cannot hold a NUL character; got {url!r}")
    return Path(parsed.database).absolute()


def _check_place(path: Path, *, create: bool) -> None:
    try:
        if path.is_dir():
            raise StoreError(f"a store is a file, but {path} is a directory; name a file in it")
        if not path.exists():
            _check_new(path, create=create)
            return
        if not path.is_file():
            raise StoreError(f"a store is a regular file, but {path} is something else")
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"cannot open the store at {path}: {error.strerror}") from None
    if head and head != _MAGIC:
        raise StoreError(f"{path} is not a SQLite file, so it is no store; name another file")
    if not head and not create:
        raise StoreError(f"there is no store at {path}: the file is empty")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StoreError(
            f"cannot open the store at {path}: its place is read-only; make the file and its "
            "folder writable"
        )


def _check_new(path: Path, *, create: bool) -> None:
    if not create:
        raise StoreError(
            f"there is no store at {path}; check the URL, or open it with create=True to begin one"
        )
    if not path.parent.is_dir():
        raise StoreError(f"cannot begin a store at {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise StoreError(f"cannot begin a store at {path}: the folder is read-only")


def _file_engine(path: Path, mode: str) -> Engine:
    uri = f"file:{quote(str(path))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False)

    # Each thread holds at most one connection, so the callers' threads are the limit.
    engine = create_engine(
        "sqlite://", creator=connect, poolclass=QueuePool, pool_size=4, max_overflow=-1
    )
    _set_up(engine)
    return engine


def _memory_engine() -> Engine:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(":memory:", check_same_thread=False)

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    _set_up(engine)
    return engine


def _set_up(engine: Engine) -> None:
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own transactions begin late and never IMMEDIATE; _on_begin begins them instead.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone stops at the disk's cache


def _on_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql(options.get("steppo_begin", "BEGIN"))


def _prepare(engine: Engine, location: str, *, create: bool, is_file: bool) -> None:
    with engine.begin() as connection:
        is_store = _is_store(connection, location)
    if not is_store and not create:
        raise StoreError(f"there is no store at {location}: the database is empty")
    if is_file:
        _use_wal(engine, location)
    if is_store:
        return
    with writing(engine).begin() as connection:
        # Another process may have begun the store since the look above.
        if not _is_store(connection, location):
            metadata.create_all(connection)
            row = {"schema_version": SCHEMA_VERSION, "created_by": _software()}
            connection.execute(insert(store_meta), row)


def _is_store(connection: Connection, location: str) -> bool:
    """Return whether this is a store of this version; False for an empty database.

    Raises:
        StoreError: It is something else.
        StoreFromFuture: It is a store of a newer version.
    """
    inspector = inspect(connection)
    tables = set(inspector.get_table_names())
    if not tables:
        return False
    columns = (
        {column["name"] for column in inspector.get_columns("store_meta")}
        if ("store_meta" in tables)
        else set()
    )
    if not {"schema_version", "created_by"} <= columns:
        raise StoreError(
            f"{location} is a database of something else, not a store; name another file"
        )
    found = connection.execute(select(store_meta)).first()
    if found is None or not isinstance(found.schema_version, int):
        raise StoreError(f"{location} does not say which version of a store it is; it is damaged")
    if found.schema_version > SCHEMA_VERSION:
        raise StoreFromFuture(
            f"the store at {location} has schema version {found.schema_version} (made by "
            f"{found.created_by}); this software ({_software()}) reads up to version "
            f"{SCHEMA_VERSION}. Upgrade steppo-env",
            found=found.schema_version,
            supported=SCHEMA_VERSION,
        )
    missing = set(metadata.tables) - tables
    if found.schema_version != SCHEMA_VERSION or missing:
        raise StoreError(
            f"{location} is no store that this software knows: schema version "
            f"{found.schema_version}, missing tables: {', '.join(sorted(missing)) or 'none'}"
        )
    return True


def _use_wal(engine: Engine, location: str) -> None:
    """Switch the file to WAL mode, which it keeps.

    Processes that begin one store together collide here, and SQLite then does not wait by itself.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        raw = engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            mode = cursor.fetchone()
            cursor.close()
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        finally:
            raw.close()
    if mode is None or mode[0] != "wal":
        raise StoreError(
            f"cannot open the store at {location}: its file system does not allow WAL mode "
            "(shared memory); keep it on a local disk"
        )


def _software() -> str:
    try:
        return f"steppo-env {version('steppo-env')}"
    except PackageNotFoundError:  # a source tree that was never installed
        return "steppo-env (not installed)"
