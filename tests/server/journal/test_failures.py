"""What a journal does when its database fails, and when it is well again."""

import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import Connection, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from steppo_env.errors import MissingDependency, StoreError
from steppo_env.store import postgres as postgres_module
from steppo_env.store import sqlite as sqlite_module
from steppo_server.journal import Journal, SessionRow, StepExists, StepRow, open_journal, thread
from steppo_server.journal.database import Database

pytestmark = pytest.mark.anyio

MakeSession = Callable[..., SessionRow]
MakeStep = Callable[..., StepRow]
Execute = Callable[..., None]


class Server(Protocol):
    """The PostgreSQL server of the test session, as tests/conftest.py makes it."""

    def new_database(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


@contextmanager
def each_connection(statement: str) -> Iterator[None]:
    """Let each connection that is made meanwhile begin with a statement."""

    def begin(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(statement)

    event.listen(Engine, "connect", begin)
    try:
        yield
    finally:
        event.remove(Engine, "connect", begin)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def begun(path: Path, session_row: MakeSession) -> str:
    """The URL of a journal in SQLite that has the session `one`."""
    async with open_journal(f"sqlite:///{path}") as journal:
        await journal.add_session(session_row("one"))
    return f"sqlite:///{path}"


async def num_steps(journal: Journal) -> int:
    found = await journal.load("one")
    assert found is not None
    return len(found.steps)


async def test_when_no_page_is_left_each_caller_gets_an_error_of_its_own(
    begun: str, step_row: MakeStep
) -> None:
    errors: list[StoreError] = []
    with each_connection("PRAGMA max_page_count=30"):
        async with open_journal(begun) as journal:
            await journal.add_step(step_row("one", 0))

            async def add(step_index: int) -> None:
                with pytest.raises(StoreError, match="the disk is full; free some") as caught:
                    await journal.add_step(step_row("one", step_index, action=bytes(50_000)))
                errors.append(caught.value)

            async with anyio.create_task_group() as group:
                for step_index in range(1, 11):
                    group.start_soon(add, step_index)
            assert len({id(error) for error in errors}) == 10
            assert await num_steps(journal) == 1
            await journal.add_step(step_row("one", 1))
    async with open_journal(begun) as journal:
        assert await num_steps(journal) == 2


async def test_a_journal_that_became_read_only_is_read_and_not_written(
    begun: str, step_row: MakeStep
) -> None:
    with each_connection("PRAGMA query_only=ON"):
        async with open_journal(begun) as journal:
            for call in (journal.beat, lambda: journal.add_step(step_row("one", 0))):
                with pytest.raises(StoreError, match=r"cannot write to the journal .* read-only"):
                    await call()
            with pytest.raises(StoreError, match=r"cannot purge the journal .* read-only"):
                await journal.purge(1e12)
            assert await num_steps(journal) == 0


async def test_another_process_that_keeps_the_file_locked_is_waited_for_only_so_long(
    begun: str, path: Path, step_row: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT_S", 0.05)
    async with open_journal(begun) as journal:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="another process kept it locked"):
                await journal.add_step(step_row("one", 0))
            assert await num_steps(journal) == 0  # readers do not wait
            other.execute("ROLLBACK")
        await journal.add_step(step_row("one", 0))
        assert await num_steps(journal) == 1


async def test_a_caller_waits_only_so_long_for_a_database_that_hangs(
    begun: str, path: Path, step_row: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread, "WAIT_S", 0.05)
    journal = open_journal(begun)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"did not answer within 0\.05 s; whether it did"):
            await journal.add_step(step_row("one", 0))
        with pytest.raises(StoreError, match=r"did not close within 0\.05 s"):
            await journal.close()
        other.execute("ROLLBACK")
    monkeypatch.setattr(thread, "WAIT_S", 30.0)
    await journal.close()
    async with open_journal(begun) as journal:
        assert await num_steps(journal) == 1  # it was unknown, and it was done


async def test_full_sync_is_what_the_connection_is_told(begun: str) -> None:
    seen: list[int] = []

    def ask(connection: Connection) -> None:
        seen.append(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    event.listen(Engine, "begin", ask)
    try:
        await open_journal(begun, sync="normal").close()
        await open_journal(begun, sync="full").close()
    finally:
        event.remove(Engine, "begin", ask)
    normal, full = 1, 2
    assert set(seen[: len(seen) // 2]) == {normal}
    assert set(seen[len(seen) // 2 :]) == {full}


async def test_an_error_that_nobody_foresaw_leaves_no_caller_without_an_answer(
    begun: str, step_row: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_database: Database, _entries: object) -> list[object]:
        raise ZeroDivisionError("a bug")

    async with open_journal(begun) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(Database, "carry_out", fail)
            with pytest.raises(StoreError, match=r"failed \(ZeroDivisionError: a bug\)"):
                await journal.add_step(step_row("one", 0))
        await journal.add_step(step_row("one", 0))


class TestPostgres:
    """What only a server can be: away, restarted, read-only, slow."""

    @pytest.fixture
    def url(self, postgres: Server) -> str:
        return postgres.new_database()

    @pytest.fixture
    async def journal(self, url: str, session_row: MakeSession) -> AsyncIterator[Journal]:
        async with open_journal(url) as journal:
            await journal.add_session(session_row("one"))
            yield journal

    @pytest.fixture
    def disconnect(self, url: str, execute: Execute) -> Callable[[], None]:
        """Return what breaks every other connection to the database off."""
        return lambda: execute(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )

    async def test_a_lost_connection_is_made_again_and_nobody_notices(
        self, journal: Journal, step_row: MakeStep, disconnect: Callable[[], None]
    ) -> None:
        for step_index in range(3):
            disconnect()
            await journal.add_step(step_row("one", step_index))
            disconnect()
            assert await num_steps(journal) == step_index + 1

    async def test_a_server_that_restarts_is_waited_for(
        self, journal: Journal, step_row: MakeStep, postgres: Server
    ) -> None:
        await anyio.to_thread.run_sync(postgres.stop)
        async with anyio.create_task_group() as group:
            for step_index in range(5):
                group.start_soon(journal.add_step, step_row("one", step_index))
            await anyio.to_thread.run_sync(postgres.start)
        assert await num_steps(journal) == 5

    async def test_a_server_that_stays_away_is_reported_and_used_when_it_is_back(
        self,
        journal: Journal,
        step_row: MakeStep,
        postgres: Server,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("steppo_server.journal.database.RECONNECT_S", 0.1)
        await anyio.to_thread.run_sync(postgres.stop)
        try:
            with pytest.raises(StoreError, match="cannot write to the journal at postgresql") as it:
                await journal.add_step(step_row("one", 0))
            assert "\n" not in str(it.value)
        finally:
            await anyio.to_thread.run_sync(postgres.start)
        await journal.add_step(step_row("one", 0))
        assert await num_steps(journal) == 1

    async def test_a_commit_whose_answer_was_lost_is_found_to_be_done(
        self,
        journal: Journal,
        session_row: MakeSession,
        step_row: MakeStep,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        real = PGDialect_psycopg.do_commit
        lost: list[object] = []

        def lose_answer(dialect: PGDialect_psycopg, connection: PoolProxiedConnection) -> None:
            real(dialect, connection)  # type: ignore[no-untyped-call]
            if not lost:
                lost.append(connection)
                assert connection.dbapi_connection is not None
                connection.dbapi_connection.close()
                raise dialect.loaded_dbapi.OperationalError("server closed the connection")

        monkeypatch.setattr(PGDialect_psycopg, "do_commit", lose_answer)
        await journal.add_step(step_row("one", 0))
        assert len(lost) == 1
        assert await num_steps(journal) == 1
        lost.clear()
        await journal.add_session(session_row("two"), [step_row("two", 0)])
        assert len(lost) == 1
        with pytest.raises(StepExists):  # it is no answer that was lost this time
            await journal.add_step(step_row("one", 0))

    async def test_a_database_that_became_read_only_is_read_and_not_written(
        self,
        journal: Journal,
        step_row: MakeStep,
        url: str,
        execute: Execute,
        disconnect: Callable[[], None],
    ) -> None:
        name = url.partition("@/")[2].partition("?")[0]
        execute(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        disconnect()
        with pytest.raises(StoreError, match=r"lets nothing be written.*read-only transaction"):
            await journal.add_step(step_row("one", 0))
        assert await num_steps(journal) == 0
        execute(
            url,
            "SET TRANSACTION READ WRITE",
            f"ALTER DATABASE {name} SET default_transaction_read_only = off",
        )
        disconnect()
        await journal.add_step(step_row("one", 0))

    async def test_a_new_database_that_is_read_only_is_refused(
        self, url: str, execute: Execute
    ) -> None:
        name = url.partition("@/")[2].partition("?")[0]
        execute(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with pytest.raises(StoreError, match=r"cannot open the journal .* lets nothing be written"):
            open_journal(url)

    async def test_a_statement_takes_only_so_long(
        self,
        url: str,
        session_row: MakeSession,
        step_row: MakeStep,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(postgres_module, "STATEMENT_TIMEOUT_S", 0.2)
        async with open_journal(url) as journal:
            await journal.add_session(session_row("one"))
            other = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
            with other.begin() as connection:
                connection.exec_driver_sql("LOCK TABLE journal_steps")
                with pytest.raises(StoreError, match="statement timeout"):
                    await journal.add_step(step_row("one", 0))
            other.dispose()
            await journal.add_step(step_row("one", 0))
            assert await num_steps(journal) == 1

    async def test_tables_of_others_in_the_database_are_left_alone(
        self, url: str, execute: Execute, session_row: MakeSession
    ) -> None:
        execute(url, "CREATE TABLE steps (x integer)", "INSERT INTO steps VALUES (7)")
        async with open_journal(url) as journal:
            await journal.add_session(session_row("one"))
        execute(url, "SELECT 1 / (CASE WHEN (SELECT sum(x) FROM steps) = 7 THEN 1 ELSE 0 END)")

    async def test_other_drivers_are_refused_and_passwords_never_shown(self) -> None:
        with pytest.raises(StoreError, match=r"begins with postgresql:// \(driver psycopg\)"):
            open_journal("postgresql+psycopg2://host/db")
        with pytest.raises(StoreError, match="cannot open the journal at") as caught:
            open_journal("postgresql://me:secret@/db?host=/nowhere")
        assert "secret" not in str(caught.value)
        assert caught.value.__suppress_context__

    async def test_a_missing_driver_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(MissingDependency, match=r"install steppo-env\[postgres\]"):
            open_journal("postgresql://host/db")
