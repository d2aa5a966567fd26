"""Games are made once, the same everywhere, and a damaged file is never played."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from steppo_env.errors import EnvError
from steppo_textworld import Family, GameSpec, Instructions, games
from steppo_textworld.batch import Fate, MadeGame, make_games
from steppo_textworld.cache import damaged_games, remove_old
from steppo_textworld.games import game_folder, games_home, make_game, open_game
from steppo_textworld.maker import Maker, game_seeds

FILES = ("game.json", "game.z8", "SHA256SUMS")
SPLITS = ("train", "dev", "test")
COOKING = GameSpec(Family.COOKING, 1, Instructions.GOAL, "train", 0)
CUSTOM = GameSpec(Family.CUSTOM, 1, Instructions.GOAL, "train", 0)

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


@pytest.mark.parametrize("family", list(Family))
def test_splits_and_levels_share_no_seeds(family: Family) -> None:
    """All the games of a task set and of the next level, with three draws each."""
    sizes = {"train": 1000, "dev": 100, "test": 100}
    seeds = [
        tuple(game_seeds(GameSpec(family, level, told, split, index), attempt).values())
        for told, level, (split, size) in product(Instructions, (1, 2), sizes.items())
        for index in range(size)
        for attempt in range(3)
    ]
    assert len(seeds) == 2 * 2 * 1200 * 3
    assert len(set(seeds)) == len(seeds)


def test_threads_that_load_games_at_once_get_one_of_each() -> None:
    """TextWorld's parser is global: two first loads at once break it."""
    specs = [GameSpec(Family.TREASURE_HUNTER, 1, Instructions.GOAL, split, 0) for split in SPLITS]
    for spec in specs:
        open_game(spec)
    games._load.cache_clear()
    with ThreadPoolExecutor(6) as pool:
        loaded = list(pool.map(open_game, specs * 4))
    assert len(set(map(id, loaded))) == 3
    assert [game.story_file.parent for game in loaded] == [game_folder(spec) for spec in specs] * 4


def test_threads_that_want_one_new_game_make_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(open_game, [CUSTOM] * 4))
    assert len(set(map(id, loaded))) == 1
    assert hidden_in(tmp_path) == []


def hidden_in(home: Path) -> list[Path]:
    """Return what is left of games that were not finished."""
    return list(home.rglob("textworld/*/*/.*"))


def test_a_game_that_takes_too_long_is_given_up_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path))
    maker = Maker(deadline_s=0.01)
    with pytest.raises(EnvError, match=r"more than 0\.01 s, its deadline"):
        make_game(COOKING, maker)
    maker.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert hidden_in(tmp_path) == []


def test_a_closed_maker_makes_no_more(tmp_path: Path) -> None:
    maker = Maker()
    maker.close()
    with pytest.raises(EnvError, match="was closed"):
        maker.make(COOKING, tmp_path)


DIE = """
import os, signal, sys
from steppo_textworld import Family, GameSpec, Instructions, games
games._checksums = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
games.open_game(GameSpec(Family("cooking"), 1, Instructions("goal"), "train", 0))
"""


@pytest.mark.timeout(240)  # a maker starts, on what may be a busy core
def test_a_process_killed_before_its_game_is_whole_leaves_none_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", DIE], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = hidden_in(tmp_path)
    assert not game_folder(COOKING).exists()
    assert remove_old().num_workplaces == 0  # as young as that of a maker at work
    os.utime(left, (0, 0))
    assert remove_old().num_workplaces == 1
    assert hidden_in(tmp_path) == []


def test_the_workplace_of_a_living_process_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path))
    with games._workplace(game_folder(COOKING)) as workplace:
        os.utime(workplace, (0, 0))
        assert remove_old().num_workplaces == 0
        assert workplace.is_dir()
    assert not workplace.exists()


SMALL_FILES = """
import resource
from steppo_env.errors import EnvError
from steppo_textworld import Family, GameSpec, Instructions
from steppo_textworld.games import open_game
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    open_game(GameSpec(Family("cooking"), 1, Instructions("goal"), "train", 0))
except EnvError as error:
    print(error)
"""


@pytest.mark.timeout(240)  # a maker starts, on what may be a busy core
def test_a_game_that_cannot_be_written_whole_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SMALL_FILES],
        env={**os.environ, "STEPPO_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("TextWorld could not make GameSpec(")
    assert done.stderr == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_on_a_full_disk_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path))
    monkeypatch.setattr(games, "LITTLE_SPACE", 10**18)
    maker = Maker(deadline_s=0.01)
    with pytest.raises(EnvError, match=r"deadline.*MB are free under .*make room"):
        make_game(COOKING, maker)
    maker.close()


@pytest.mark.timeout(240)  # a maker starts, on what may be a busy core
def test_a_batch_that_is_broken_off_leaves_whole_games_and_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: a game is the same bytes from a maker that has made others before."""
    open_game(COOKING)
    open_game(CUSTOM)
    expected = bytes_of(game_folder(CUSTOM))
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "a folder with spaces"))
    specs = [GameSpec(Family.CUSTOM, 1, Instructions.GOAL, "train", index) for index in range(4)]
    batch = make_games(specs, num_workers=1)
    assert next(batch) == MadeGame(CUSTOM, Fate.MADE, sum(map(len, [*expected.values()][:2])))
    batch.close()
    assert bytes_of(game_folder(CUSTOM)) == expected
    assert hidden_in(tmp_path) == []
    assert damaged_games() == []
    num_made = sum(game_folder(spec).exists() for spec in specs)
    assert 1 <= num_made < 4
    fates = [game.fate for game in make_games(specs, num_workers=1)]
    assert fates.count(Fate.ALREADY_THERE) == num_made
    assert fates.count(Fate.MADE) == 4 - num_made


def test_a_failing_maker_gives_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EnvError, match=r"Not a directory|File exists"):
        games._maker.make(COOKING, tmp_path / "file" / "folder")


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
