"""What a database of ours holds: which tables, in which version, and who laid them out.

A trajectory store is one layout; a server's journal is another. Each has a table with one row that
says its version and its maker, by which it is known and by which a newer one is refused.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from steppo_env.errors import StoreError, StoreFromFuture

__all__ = ["Layout", "is_laid_out", "lay_out", "meta_table", "software", "store_errors"]

_HINTS = {
    "database is locked": "another process kept it locked for too long; try again",
    "readonly": "its place is read-only; make the file and its folder writable",
    "read-only transaction": "the server lets nothing be written; check its role and its state",
    "unable to open": "it cannot be opened for writing; check that it and its folder are there "
    "and writable",
    "disk is full": "the disk is full; free some space",
    "No space left": "the server's disk is full; free some space",
    "malformed": "the file is damaged; restore it from a backup",
    "not a database": "the file is damaged or not a SQLite file; restore it from a backup",
    "disk I/O error": "the disk failed; check it and its free space",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables of one kind of database.

    Attributes:
        noun: What such a database is called in messages.
        version: The layout that this software reads and writes.
        metadata: All its tables.
        meta: The table of the one row; make it with `meta_table`.
    """

    noun: str
    version: int
    metadata: MetaData
    meta: Table


def meta_table(name: str, metadata: MetaData) -> Table:
    """Return the table that says which layout a database has, and who made it."""
    return Table(
        name,
        metadata,
        Column("schema_version", Integer, primary_key=True, autoincrement=False),
        Column("created_by", Text, nullable=False),
    )


@contextmanager
def store_errors(what: str, location: str, noun: str = "store") -> Iterator[None]:
    """Turn what SQLAlchemy and the driver raise inside into a StoreError that stands alone."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        reason = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        hint = next((text for sign, text in _HINTS.items() if sign in reason), None)
        explained = f"{hint} ({reason})" if hint else reason
        raise StoreError(f"cannot {what} the {noun} at {location}: {explained}") from None


def is_laid_out(
    connection: Connection, location: str, layout: Layout, *, is_shared: bool = False
) -> bool:
    """Return whether the database has this layout; False where nothing of it is there.

    Args:
        is_shared: The database may hold tables of others; otherwise they are a reason to refuse it.

    Raises:
        StoreError: It is something else.
        StoreFromFuture: It has a newer version of the layout.
    """
    inspector = inspect(connection)
    tables = set(inspector.get_table_names())
    noun, meta = layout.noun, layout.meta
    if not (tables & {meta.name} if is_shared else tables):
        return False
    columns = (
        {column["name"] for column in inspector.get_columns(meta.name)}
        if meta.name in tables
        else set()
    )
    if not {"schema_version", "created_by"} <= columns:
        raise StoreError(
            f"{location} is a database of something else, not a {noun}; name another file"
        )
    found = connection.execute(select(meta)).first()
    if found is None or not isinstance(found.schema_version, int):
        raise StoreError(f"{location} does not say which version of a {noun} it is; it is damaged")
    if found.schema_version > layout.version:
        raise StoreFromFuture(
            f"the {noun} at {location} has schema version {found.schema_version} (made by "
            f"{found.created_by}); this software ({software()}) reads up to version "
            f"{layout.version}. Upgrade steppo-env",
            found=found.schema_version,
            supported=layout.version,
        )
    missing = set(layout.metadata.tables) - tables
    if found.schema_version != layout.version or missing:
        raise StoreError(
            f"{location} is no {noun} that this software knows: schema version "
            f"{found.schema_version}, missing tables: {', '.join(sorted(missing)) or 'none'}"
        )
    return True


def lay_out(connection: Connection, layout: Layout) -> None:
    """Make the tables of a layout in a database that has none of them."""
    layout.metadata.create_all(connection)
    row = {"schema_version": layout.version, "created_by": software()}
    connection.execute(insert(layout.meta), row)


def software() -> str:
    """Return the name and version of this software."""
    try:
        return f"steppo-env {version('steppo-env')}"
    except PackageNotFoundError:  # a source tree that was never installed
        return "steppo-env (not installed)"
