"""Games are made once, the same everywhere, and a damaged file is never played."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from steppo_env.errors import EnvError
from steppo_textworld import Family, GameSpec, Instructions
from steppo_textworld.games import game_folder, games_home, open_game

FILES = ("game.json", "game.z8", "SHA256SUMS")
COOKING = GameSpec(Family.COOKING, 1, Instructions.GOAL, "train", 0)

MAKE = """
import sys
from steppo_textworld import Family, GameSpec, Instructions
from steppo_textworld.games import game_folder, open_game
spec = GameSpec(Family("cooking"), 1, Instructions("goal"), "train", 0)
open_game(spec)
print(game_folder(spec))
"""


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def spawn(home: Path, hash_seed: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", MAKE],
        env={**os.environ, "STEPPO_HOME": str(home), "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_home_of_the_games_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPPO_HOME", "/somewhere")
    assert games_home() == Path("/somewhere/textworld")
    monkeypatch.delenv("STEPPO_HOME")
    assert games_home() == Path.home() / ".cache/steppo/textworld"


@pytest.mark.timeout(240)  # two makers start, side by side, on what may be one busy core
def test_processes_that_make_one_game_at_once_end_with_one_good_game(tmp_path: Path) -> None:
    """Also: a game is the same bytes in another process, another home and another hash seed."""
    open_game(COOKING)
    expected = bytes_of(game_folder(COOKING))
    makers = [spawn(tmp_path, hash_seed) for hash_seed in ("1", "31337")]
    results = [process.communicate(timeout=200) for process in makers]
    assert [errors for _, errors in results] == ["", ""]
    folders = {Path(out.strip()) for out, _ in results}
    (folder,) = folders
    assert bytes_of(folder) == expected
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def truncate(folder: Path) -> None:
    path = folder / "game.z8"
    path.write_bytes(path.read_bytes()[:1000])


def flip_a_bit(folder: Path) -> None:
    path = folder / "game.json"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))


def forget_the_checksums(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()


def lose_the_story(folder: Path) -> None:
    (folder / "game.z8").unlink()


@pytest.mark.parametrize(
    "damage", [truncate, flip_a_bit, forget_the_checksums, lose_the_story], ids=lambda f: f.__name__
)
def test_a_damaged_game_is_made_again(damage: Callable[[Path], None]) -> None:
    from steppo_textworld import games

    open_game(COOKING)
    folder = game_folder(COOKING)
    expected = bytes_of(folder)
    damage(folder)
    games._load.cache_clear()
    assert open_game(COOKING).walkthrough
    assert bytes_of(folder) == expected


def test_a_game_is_loaded_once() -> None:
    assert open_game(COOKING) is open_game(COOKING)


def test_a_cache_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "file"))
    with pytest.raises(EnvError, match="set STEPPO_HOME to a folder that can be written"):
        open_game(COOKING)


def test_splits_hold_different_games() -> None:
    models = []
    for split in ("train", "dev"):
        spec = GameSpec(Family.TREASURE_HUNTER, 1, Instructions.GOAL, split, 0)
        open_game(spec)
        models.append(json.loads((game_folder(spec) / "game.json").read_text())["world"])
    assert models[0] != models[1]


def test_a_failing_maker_gives_its_reason(tmp_path: Path) -> None:
    from steppo_textworld.maker import make_elsewhere

    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EnvError, match=r"Not a directory|File exists"):
        make_elsewhere(COOKING, tmp_path / "file" / "folder")


def test_without_textworld_the_import_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['textworld'] = None\n"
        "try:\n    import steppo_textworld\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "steppo-env[textworld]"' in done.stdout


def test_import_leaves_the_warning_filters_alone() -> None:
    code = (
        "import warnings, numpy, pydantic, gymnasium, steppo_env\n"
        "before = list(warnings.filters)\n"
        "import steppo_textworld\n"
        "print([item for item in warnings.filters if item not in before])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""
