"""`steppo data textworld`: making games ahead of time, and looking after the cache."""

import json
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from steppo_env.errors import InvalidInput
from steppo_textworld import Family, GameSpec, Instructions, commands
from steppo_textworld.games import game_folder, games_home

pytestmark = pytest.mark.timeout(240)  # makers start, on what may be a busy core

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(commands.textworld)

MAKE = ("--family", "custom", "--level", "1")


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two games each of two levels, in a home of their own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPPO_HOME", str(home))
        made = asked(*MAKE, "--level", "2", "--count", "2", "--workers", "1")
        assert (made["made"], made["already_there"], made["failed"]) == (4, 0, 0)
        yield home


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def asked(*arguments: str, exit_code: int = 0) -> Any:
    """Return the JSON document of a call."""
    result = run(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def folder_of(level: int, split: str, index: int) -> Path:
    return game_folder(GameSpec(Family.CUSTOM, level, Instructions.GOAL, split, index))


def test_the_command_is_found_under_its_name() -> None:
    (point,) = entry_points(group="steppo_client.data_commands", name="textworld")
    assert point.load() is commands.textworld


@pytest.mark.usefixtures("_made")
def test_games_that_are_there_are_not_made_again() -> None:
    again = asked(*MAKE, "--count", "2")
    assert (again["made"], again["already_there"]) == (0, 2)
    assert again["bytes_made"] == 0
    assert again["interrupted"] is False
    assert again["home"] == str(games_home())


@pytest.mark.usefixtures("_made")
def test_the_list_counts_games_by_kind_and_split() -> None:
    rows = asked("--list")["games"]
    assert [(row["kind"], row["split"], row["games"], row["is_current"]) for row in rows] == [
        ("custom-1", "train", 2, True),
        ("custom-2", "train", 2, True),
    ]
    assert all(row["bytes"] > 100_000 * row["games"] for row in rows)
    shown = run("--list").stdout
    assert "custom-1" in shown
    assert "train" in shown


@pytest.mark.usefixtures("_made")
def test_a_damaged_game_is_found_and_made_again() -> None:
    assert asked("--verify")["damaged"] == []
    folder = folder_of(1, "train", 1)
    story = (folder / "game.z8").read_bytes()
    (folder / "game.z8").write_bytes(story[:-1] + bytes([story[-1] ^ 1]))
    found = asked("--verify", exit_code=1)
    assert (found["games"], found["damaged"]) == (4, [str(folder)])
    assert "4 games, 1 damaged" in run("--verify").stdout
    again = asked(*MAKE, "--count", "2")
    assert (again["made"], again["already_there"]) == (1, 1)
    assert asked("--verify")["damaged"] == []
    assert (folder / "game.z8").read_bytes() == story


@pytest.mark.usefixtures("_made")
def test_old_versions_are_removed_and_nothing_else() -> None:
    old = games_home() / "textworld-1.6.2-recipe-1" / "cooking-1" / "train-0"
    old.mkdir(parents=True)
    (old / "game.z8").write_bytes(b"12345")
    notes = games_home() / "notes"
    notes.mkdir()
    assert [row["version"] for row in asked("--list")["games"] if not row["is_current"]] == [
        "textworld-1.6.2-recipe-1"
    ]
    assert asked("--remove-old") == {
        "home": str(games_home()),
        "versions": 1,
        "workplaces": 0,
        "bytes": 5,
    }
    assert not old.parents[1].exists()
    assert notes.is_dir()
    assert folder_of(2, "train", 0).is_dir()


@pytest.mark.usefixtures("_made")
def test_an_interrupt_ends_with_a_summary_and_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(games: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands, "_note", interrupt)
        summary = asked(*MAKE, "--count", "2", exit_code=130)
        assert "the same command goes on" in run(*MAKE, "--count", "2").stdout
    assert summary["interrupted"] is True
    assert summary["made"] + summary["already_there"] == 1
    assert asked(*MAKE, "--count", "2")["already_there"] == 2


def test_games_that_cannot_be_kept_are_counted_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "file"))
    found = asked(*MAKE, "--count", "2", exit_code=1)
    assert (found["made"], found["failed"]) == (0, 2)
    assert [each["task_id"] for each in found["failures"]] == [
        "custom-1/train/0",
        "custom-1/train/1",
    ]
    assert "set STEPPO_HOME to a folder that can be written" in found["failures"][0]["reason"]
    shown = run(*MAKE, "--count", "7")
    assert shown.exit_code == 1
    assert "failed         7" in shown.stdout
    assert shown.stdout.count("set STEPPO_HOME") == 5


def test_an_empty_cache_is_listed_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path))
    assert asked("--list")["games"] == []
    assert asked("--verify")["damaged"] == []
    assert asked("--remove-old")["bytes"] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a --family"),
        (("--list", "--verify"), "name a --family"),
        (("--family", "cooking", "--list"), "name a --family"),
        (("--family", "cooking", "--level", "11"), "levels 1 to 10, not 11"),
        ((*MAKE, "--level", "1"), "given twice: 1, 1"),
        ((*MAKE, "--split", "dev", "--count", "101"), "games 0 to 99"),
        ((*MAKE, "--split", "test", "--first", "99", "--count", "2"), "up to 100"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, InvalidInput)
    assert words in str(result.exception)


@pytest.mark.parametrize("arguments", [("--family", "chess"), (*MAKE, "--workers", "0")])
def test_what_no_option_takes_is_refused_by_the_command_line(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
