"""Open a SQLite file as a database of one layout, or say in one sentence why it is none.

A file is in WAL mode, so that readers never wait for the writer. With `sync="full"` every commit is
synced before it is acknowledged; with "normal" a commit outlives this process but not always a loss
of power. A file is looked at before anything is written to it: what turns out to be of another
layout, or of a newer version, stays as it was.
"""

import os
import sqlite3
import time
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from sqlalchemy import (
    Connection,
    Engine,
    QueuePool,
    StaticPool,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError

from steppo_env.errors import StoreError
from steppo_env.store.layout import Layout, is_laid_out, lay_out, store_errors

__all__ = ["Sync", "open_engine", "writing"]

Sync = Literal["normal", "full"]
"""Which commits are durable: "full" all of them, "normal" all while the machine keeps its power."""

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for a writer of another process."""
_MAGIC = b"SQLite format 3\0"
_IMMEDIATE = {"steppo_begin": "BEGIN IMMEDIATE"}


def writing(engine: Engine) -> Engine:
    """Return the engine whose transactions take the write lock when they begin.

    A transaction that reads first and writes later fails at once, without waiting, when another
    writer came between (SQLITE_BUSY_SNAPSHOT).
    """
    return engine.execution_options(**_IMMEDIATE)


def open_engine(
    url: str, layout: Layout, *, create: bool, sync: Sync = "full"
) -> tuple[Engine, str]:
    """Return the engine of a database, and its location for messages.

    Raises:
        StoreError: No database of this layout can be opened here.
        StoreFromFuture: It was written by a newer version.
    """
    noun = layout.noun
    path = _path_of(url, noun)
    location = "sqlite:// (in memory)" if path is None else str(path)
    if path is None:
        if not create:
            raise StoreError(
                f"there is no {noun} in a new memory database; open it with create=True"
            )
        engine = _memory_engine(sync)
    else:
        _check_place(path, noun, create=create)
        engine = _file_engine(path, "rwc" if create else "rw", sync)
    try:
        with store_errors("open", location, noun):
            _prepare(engine, location, layout, create=create, is_file=path is not None)
    except BaseException:
        engine.dispose()
        raise
    if path is not None and create:
        # From here on a missing file is an error, never a reason to begin an empty one.
        engine.dispose()
        engine = _file_engine(path, "rw", sync)
    return engine, location


def _path_of(url: str, noun: str) -> Path | None:
    """Return the file that a URL names, made absolute now; None for a database in memory."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(f"a {noun} URL looks like sqlite:///runs.db; got {url!r}") from None
    if parsed.drivername != "sqlite":
        raise StoreError(
            f"this version keeps a {noun} in SQLite only (sqlite:///relative.db or "
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
        raise StoreError(f"a {noun} URL takes no parameters; got {url!r}")
    if url.startswith("sqlite:///") and not parsed.database:
        raise StoreError(f"a {noun} URL needs a file name after sqlite:///; got {url!r}")
    if parsed.database is None or parsed.database == ":memory:":
        return None
    if "\0" in parsed.database:
        raise StoreError(f"a file name cannot hold a NUL character; got {url!r}")
    return Path(parsed.database).absolute()


def _check_place(path: Path, noun: str, *, create: bool) -> None:
    try:
        if path.is_dir():
            raise StoreError(f"a {noun} is a file, but {path} is a directory; name a file in it")
        if not path.exists():
            _check_new(path, noun, create=create)
            return
        if not path.is_file():
            raise StoreError(f"a {noun} is a regular file, but {path} is something else")
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"cannot open the {noun} at {path}: {error.strerror}") from None
    if head and head != _MAGIC:
        raise StoreError(f"{path} is not a SQLite file, so it is no {noun}; name another file")
    if not head and not create:
        raise StoreError(f"there is no {noun} at {path}: the file is empty")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StoreError(
            f"cannot open the {noun} at {path}: its place is read-only; make the file and its "
            "folder writable"
        )


def _check_new(path: Path, noun: str, *, create: bool) -> None:
    if not create:
        raise StoreError(
            f"there is no {noun} at {path}; check the URL, or open it with create=True to begin one"
        )
    if not path.parent.is_dir():
        raise StoreError(f"cannot begin a {noun} at {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise StoreError(f"cannot begin a {noun} at {path}: the folder is read-only")


def _file_engine(path: Path, mode: str, sync: Sync) -> Engine:
    uri = f"file:{quote(str(path))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False)

    # Each thread holds at most one connection, so the callers' threads are the limit.
    engine = create_engine(
        "sqlite://", creator=connect, poolclass=QueuePool, pool_size=4, max_overflow=-1
    )
    _set_up(engine, sync)
    return engine


def _memory_engine(sync: Sync) -> Engine:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(":memory:", check_same_thread=False)

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    _set_up(engine, sync)
    return engine


def _set_up(engine: Engine, sync: Sync) -> None:
    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own transactions begin late and never IMMEDIATE; _on_begin begins them.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA synchronous={sync}")
        connection.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone stops at the disk's cache

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", _on_begin)


def _on_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql(options.get("steppo_begin", "BEGIN"))


def _prepare(engine: Engine, location: str, layout: Layout, *, create: bool, is_file: bool) -> None:
    with engine.begin() as connection:
        is_there = is_laid_out(connection, location, layout)
    if not is_there and not create:
        raise StoreError(f"there is no {layout.noun} at {location}: the database is empty")
    if is_file:
        _use_wal(engine, location, layout.noun)
    if is_there:
        return
    with writing(engine).begin() as connection:
        # Another process may have begun it since the look above.
        if not is_laid_out(connection, location, layout):
            lay_out(connection, layout)


def _use_wal(engine: Engine, location: str, noun: str) -> None:
    """Switch the file to WAL mode, which it keeps.

    Processes that begin one file together collide here, and SQLite then does not wait by itself.
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
            f"cannot open the {noun} at {location}: its file system does not allow WAL mode "
            "(shared memory); keep it on a local disk"
        )
