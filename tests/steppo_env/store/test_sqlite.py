"""What only a SQLite file can be: absent, something else, locked, damaged, newer, read-only."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from steppo_env.errors import StoreError, StoreFromFuture
from steppo_env.store import open_store, sqlite
from steppo_env.store.layout import store_errors
from steppo_env.store.samples import make_trajectory
from steppo_env.store.schema import STORE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def filled(path: Path) -> Path:
    with open_store(f"sqlite:///{path}") as store:
        store.append(make_trajectory("one", num_steps=2, num_tokens=3))
    return path


def refusal(url: str, *, create: bool = True) -> str:
    """Return the sentence with which a URL is refused; nothing foreign may show through."""
    with pytest.raises(StoreError) as caught:
        open_store(url, create=create).close()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://host/db", "postgresql is not supported. PostgreSQL is to come"),
        ("sqlite+aiosqlite:///a.db", r"sqlite\+aiosqlite is not supported"),
        ("mysql://host/db", "mysql is not supported"),
        ("runs.db", "looks like sqlite:///runs.db; got 'runs.db'"),
        ("", "looks like sqlite:///runs.db; got ''"),
        ("sqlite://runs.db", "three slashes before a relative path"),
        ("sqlite:///", "needs a file name"),
        ("sqlite:///a.db?mode=ro", "takes no parameters"),
        ("sqlite:///a%00b.db", "cannot hold a NUL"),
    ],
)
def test_a_url_that_names_no_sqlite_file_is_refused(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        open_store(url)


def test_without_create_a_missing_file_is_reported_and_not_made(path: Path) -> None:
    assert refusal(f"sqlite:///{path}", create=False).startswith(f"there is no store at {path}")
    assert list(path.parent.iterdir()) == []


def test_without_create_an_empty_file_is_no_store(path: Path) -> None:
    path.touch()
    assert "there is no store" in refusal(f"sqlite:///{path}", create=False)
    assert path.read_bytes() == b""


def test_without_create_an_empty_database_is_no_store(path: Path) -> None:
    execute(path, "CREATE TABLE t (x)", "DROP TABLE t")
    before = path.read_bytes()
    assert "the database is empty" in refusal(f"sqlite:///{path}", create=False)
    assert path.read_bytes() == before


def test_with_create_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with open_store(f"sqlite:///{path}") as store:
        assert store.append(make_trajectory("one"))


def test_a_directory_is_no_store(tmp_path: Path) -> None:
    assert f"{tmp_path} is a directory" in refusal(f"sqlite:///{tmp_path}")


def test_a_pipe_is_no_store_and_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    assert "something else" in refusal(f"sqlite:///{path}")


def test_a_missing_folder_is_named_and_not_made(tmp_path: Path) -> None:
    assert f"no folder {tmp_path}/a/b" in refusal(f"sqlite:///{tmp_path}/a/b/store.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_as_folder_is_reported(filled: Path) -> None:
    assert f"{filled}/store.db" in refusal(f"sqlite:///{filled}/store.db")


@pytest.mark.parametrize("content", [b"hello\n", b"SQLite format 3", b"\0" * 4096])
def test_a_file_that_is_not_sqlite_is_no_store_and_stays_as_it_was(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    assert "is not a SQLite file" in refusal(f"sqlite:///{path}")
    assert path.read_bytes() == content


@pytest.mark.parametrize("statement", ["CREATE TABLE t (x)", "CREATE TABLE store_meta (x)"])
def test_a_database_of_something_else_is_no_store_and_stays_as_it_was(
    path: Path, statement: str
) -> None:
    execute(path, statement)
    before = path.read_bytes()
    assert "database of something else" in refusal(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_damaged_file_is_reported(filled: Path) -> None:
    content = filled.read_bytes()
    filled.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    assert "damaged" in refusal(f"sqlite:///{filled}")


def test_a_store_without_one_of_its_tables_is_refused(filled: Path) -> None:
    execute(filled, "DROP TABLE steps")
    assert "missing tables: steps" in refusal(f"sqlite:///{filled}")


def test_a_store_that_does_not_say_its_version_is_refused(filled: Path) -> None:
    execute(filled, "DELETE FROM store_meta")
    assert "does not say which version" in refusal(f"sqlite:///{filled}")


@pytest.mark.parametrize("create", [True, False])
def test_a_store_from_the_future_is_refused_and_stays_as_it_was(filled: Path, create: bool) -> None:
    execute(filled, "UPDATE store_meta SET schema_version = 2", "DROP TABLE runs")
    before = filled.read_bytes()
    with pytest.raises(StoreFromFuture, match=r"version 2 .* up to version 1\. Upgrade") as caught:
        open_store(f"sqlite:///{filled}", create=create)
    assert caught.value.members == {"found": 2, "supported": 1}
    assert filled.read_bytes() == before
    assert list(filled.parent.iterdir()) == [filled]


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a /proc")
def test_a_place_where_no_file_can_be_made_is_reported() -> None:
    message = refusal("sqlite:////proc/steppo-store.db")
    assert "cannot be opened for writing" in message or "read-only" in message


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() == 0:
        pytest.skip("nothing is read-only to root")
    yield tmp_path
    tmp_path.chmod(0o700)


def test_a_read_only_folder_is_reported(read_only: Path) -> None:
    read_only.chmod(0o500)
    assert "read-only" in refusal(f"sqlite:///{read_only}/store.db")


def test_a_read_only_file_is_reported(read_only: Path, filled: Path) -> None:
    filled.chmod(0o400)
    assert "read-only" in refusal(f"sqlite:///{filled}")


def test_an_unreadable_file_is_reported(read_only: Path, filled: Path) -> None:
    filled.chmod(0o000)
    assert "Permission denied" in refusal(f"sqlite:///{filled}")


def test_each_connection_syncs_before_it_acknowledges(path: Path) -> None:
    engine, _ = sqlite.open_engine(f"sqlite:///{path}", STORE, create=True)
    try:
        with engine.connect() as one, engine.connect() as two:
            for connection in (one, two):
                answers = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                }
                full = 2
                assert answers == {
                    "journal_mode": "wal",
                    "synchronous": full,
                    "foreign_keys": 1,
                    "busy_timeout": 30_000,
                }
    finally:
        engine.dispose()


def test_a_locked_store_is_reported_to_writers_and_read_by_readers(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    with (
        open_store(f"sqlite:///{filled}") as store,
        closing(sqlite3.connect(filled, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process kept it locked") as caught:
            store.append(make_trajectory("two"))
        assert caught.value.__suppress_context__
        assert store.count() == 1
        other.execute("ROLLBACK")
        assert store.append(make_trajectory("two")) is True


def test_a_relative_path_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with open_store("sqlite:///relative.db") as store:
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.append(make_trajectory("one"))
    assert (tmp_path / "relative.db").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["with space.db", "100%25.db", "a%23b%3Fc.db", "ä.db"])
def test_a_file_name_may_hold_any_character(tmp_path: Path, name: str) -> None:
    with open_store(f"sqlite:///{tmp_path}/{name}") as store:
        store.append(make_trajectory("one"))
    with open_store(f"sqlite:///{tmp_path}/{name}", create=False) as store:
        assert store.count() == 1


def test_a_deleted_file_is_never_begun_again_by_an_open_store(path: Path) -> None:
    engine, _ = sqlite.open_engine(f"sqlite:///{path}", STORE, create=True)
    try:
        path.unlink()
        with (
            pytest.raises(StoreError, match="cannot be opened"),
            store_errors("read", str(path)),
            engine.connect(),
        ):
            pass
    finally:
        engine.dispose()
    assert not path.exists()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE steps SET messages = '[' WHERE step_index = 1", "JSONDecodeError"),
        ("UPDATE steps SET prompt_ids = x'00'", "ValueError"),
        ("UPDATE trajectories SET stop_reason = 'bored'", "'bored' is not a valid StopReason"),
        ("DELETE FROM steps WHERE step_index = 1", "2 steps were written, 1 are left"),
    ],
)
def test_a_damaged_record_is_reported_by_its_id(filled: Path, statement: str, reason: str) -> None:
    execute(filled, statement)
    with (
        open_store(f"sqlite:///{filled}") as store,
        pytest.raises(StoreError, match=f"record of trajectory 'one' cannot be read.*{reason}"),
    ):
        store.get("one")


def test_steps_go_with_their_trajectory(filled: Path) -> None:
    execute(filled, "PRAGMA foreign_keys=ON", "DELETE FROM trajectories")
    with closing(sqlite3.connect(filled)) as connection:
        assert connection.execute("SELECT count(*) FROM steps").fetchone() == (0,)


def test_a_sequence_number_is_never_given_out_again(filled: Path) -> None:
    execute(filled, "PRAGMA foreign_keys=ON", "DELETE FROM trajectories")
    with open_store(f"sqlite:///{filled}") as store:
        store.append(make_trajectory("two"))
    with closing(sqlite3.connect(filled)) as connection:
        assert connection.execute("SELECT sequence FROM trajectories").fetchall() == [(2,)]


def test_a_closed_store_leaves_one_file(filled: Path) -> None:
    assert list(filled.parent.iterdir()) == [filled]


def test_a_fork_is_refused_the_store_of_its_parent(filled: Path) -> None:
    script = """
import os, sys
from steppo_env.errors import StoreError
from steppo_env.store import open_store
with open_store(sys.argv[1]) as store:
    if os.fork() == 0:
        try:
            store.count()
        except StoreError as error:
            print(error, flush=True)
        store.close()
        os._exit(0)
    os.wait()
    print(store.count())
"""
    command = [sys.executable, "-W", "error", "-c", script, f"sqlite:///{filled}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    refused, count = done.stdout.splitlines()
    assert "cannot be used in a fork of it; start workers with spawn" in refused
    assert count == "1"


def test_a_store_in_memory_is_its_own_and_shared_by_threads() -> None:
    with open_store("sqlite://") as one, open_store("sqlite://") as two:
        one.append(make_trajectory("one"))
        assert (one.count(), two.count()) == (1, 0)
        assert one.get("one") == make_trajectory("one")
    assert "no store in a new memory database" in refusal("sqlite://", create=False)


def test_a_store_that_another_begins_meanwhile_is_joined(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{path}"
    real = getattr(sqlite, "_use_wal")  # noqa: B009 - it stands between the look and the making

    def begin_first(engine: Engine, location: str, noun: str) -> None:
        monkeypatch.setattr(sqlite, "_use_wal", real)
        with open_store(url) as other:
            other.append(make_trajectory("one"))
        real(engine, location, noun)

    monkeypatch.setattr(sqlite, "_use_wal", begin_first)
    with open_store(url) as store:
        assert store.count() == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM store_meta").fetchone() == (1,)
