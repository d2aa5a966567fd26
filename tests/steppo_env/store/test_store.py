"""The store's contract on SQLite files and in memory."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import make_url

from steppo_env.store.contract import StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/store.db"

    def check_integrity(self, url: str) -> None:
        database = make_url(url).database
        assert database is not None
        connection = sqlite3.connect(database)
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        finally:
            connection.close()
