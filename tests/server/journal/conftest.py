"""A journal in each kind of database, and rows to write to it."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import create_engine, make_url

from steppo_server.journal import Journal, SessionRow, StepRow, open_journal


class Server(Protocol):
    """The PostgreSQL server of the test session, as tests/conftest.py makes it."""

    def new_database(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a place where no journal is yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    server: Server = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
async def journal(url: str) -> AsyncIterator[Journal]:
    """Yield a new journal."""
    async with open_journal(url) as journal:
        yield journal


@pytest.fixture
def session_row() -> Callable[..., SessionRow]:
    """Return what makes the row of a session: `session_row("one", lease_expires_at=5.0)`."""

    def make(session_id: str, **fields: object) -> SessionRow:
        plain: dict[str, object] = {
            "session_id": session_id,
            "owner": "key-1",
            "fingerprint": "f" * 64,
            "request": b'{"env_id": "steppo/KeyDoor-v0"}',
            "env_version": "steppo/KeyDoor-v0@0.1.0:1",
            "task_id": "train/0",
            "trace_key": "t" * 64,
            "lease_s": 900.0,
            "lease_expires_at": 1_000.0,
            "created_at": 100.0,
        }
        return SessionRow(**(plain | fields))  # type: ignore[arg-type]

    return make


@pytest.fixture
def step_row() -> Callable[..., StepRow]:
    """Return what makes the row of a step: `step_row("one", 0, terminated=True)`."""

    def make(session_id: str, step_index: int, **fields: object) -> StepRow:
        plain: dict[str, object] = {
            "action": b'"go east"',
            "action_key": "a" * 64,
            "trace_key": f"{step_index:064x}",
            "terminated": False,
            "truncated": False,
            "lease_expires_at": 1_000.0,
        }
        return StepRow(session_id, step_index, **(plain | fields))  # type: ignore[arg-type]

    return make


@pytest.fixture
def execute() -> Callable[..., None]:
    """Return what does something to a database behind a journal's back."""

    def run(url: str, *statements: str) -> None:
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        try:
            with engine.begin() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)
        finally:
            engine.dispose()

    return run


@pytest.fixture
def check_integrity() -> Callable[[str], None]:
    """Return what fails when a SQLite file is damaged; PostgreSQL has no such question."""

    def check(url: str) -> None:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return
        assert parsed.database is not None
        with closing(sqlite3.connect(parsed.database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []

    return check
