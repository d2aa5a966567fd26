import sqlite3
from pathlib import Path
from typing import Any

import pytest

KEYDOOR = "steppo/KeyDoor-v0"


@pytest.fixture
def url(steppo: Any, tmp_path: Path) -> str:
    """A store with 3 expert and 2 random trajectories."""
    found = f"sqlite:///{tmp_path / 'run.db'}"
    steppo("rollout", KEYDOOR, "--tasks", 3, "--store", found, "--run-id", "r1")
    more = ("--policy", "random", "--set", "step_limit=1", "--run-id", "r2")
    steppo("rollout", KEYDOOR, "--tasks", 2, "--store", found, *more)
    return found


def test_trajectories_are_listed_in_pages_newest_first(steppo: Any, url: str) -> None:
    first = steppo("store", "ls", "--store", url, "--limit", 3, "--json")
    cursor = first.json["next_cursor"]
    rest = steppo("store", "ls", "--store", url, "--limit", 3, "--cursor", cursor, "--json")

    assert first.err == ""
    assert (first.json["total"], rest.json["next_cursor"]) == (5, None)
    shown = [*first.json["trajectories"], *rest.json["trajectories"]]
    assert [item["run_id"] for item in shown] == ["r2", "r2", "r1", "r1", "r1"]
    assert {item["stop_reason"] for item in shown[:2]} == {"step_limit"}
    assert [item["success"] for item in shown] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (("--env", KEYDOOR), 5),
        (("--env", "other"), 0),
        (("--run-id", "r1"), 3),
        (("--stop-reason", "step_limit"), 2),
        (("--stop-reason", "cancelled", "--run-id", "r2"), 0),
    ],
)
def test_the_list_is_filtered(steppo: Any, url: str, flags: tuple[str, ...], count: int) -> None:
    assert steppo("store", "ls", "--store", url, "--json", *flags).json["total"] == count
    assert f"{count} of {count}" in steppo("store", "ls", "--store", url, *flags).out


def test_one_trajectory_is_shown_whole(steppo: Any, url: str) -> None:
    listed = steppo("store", "ls", "--store", url, "--run-id", "r2", "--json").json
    trajectory_id = listed["trajectories"][0]["trajectory_id"]
    document = steppo("store", "show", trajectory_id, "--store", url, "--json").json

    assert document["trajectory_id"] == trajectory_id
    assert (document["return"], document["trainable"]) == (0.0, True)
    (step,) = document["steps"]
    assert step["truncated"] is True
    assert "turns left 1" in step["observation_text"]
    shown = steppo("store", "show", trajectory_id[:8], "--store", url)
    assert shown.code == 0
    assert "ended by step_limit" in shown.out


def test_bad_input_is_an_error_of_one_line(steppo: Any, url: str, tmp_path: Path) -> None:
    missing = f"sqlite:///{tmp_path / 'nope.db'}"
    assert "there is no store at" in steppo("store", "ls", "--store", missing).error
    assert not (tmp_path / "nope.db").exists()
    assert "no trajectory 'abcdef'" in steppo("store", "show", "abcdef", "--store", url).error
    assert "cursor" in steppo("store", "ls", "--store", url, "--cursor", "x").error
    assert "SQLite only" in steppo("store", "ls", "--store", "postgresql://a/b").error
    (tmp_path / "text.db").write_text("hello, I am no database at all")
    text = f"sqlite:///{tmp_path / 'text.db'}"
    assert "not a SQLite file" in steppo("store", "ls", "--store", text).error


def test_a_store_from_the_future_is_an_error_of_one_line(
    steppo: Any, url: str, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute("UPDATE store_meta SET schema_version = 999")
    connection.close()

    error = steppo("store", "ls", "--store", url).error
    assert "schema version 999" in error
    assert "Upgrade steppo-env" in error
