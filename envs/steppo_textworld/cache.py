"""What the cache of games holds: counting it, checking it, and removing what is of no use."""

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from steppo_env.errors import EnvError
from steppo_textworld.games import CACHE_VERSION, games_home, is_intact, try_lock

__all__ = ["CachedGames", "Removed", "damaged_games", "list_games", "remove_old"]

_VERSION = re.compile(r"textworld-[\w.+-]+-recipe-\d+")
_GAME = re.compile(r"([a-z]+)-\d+")
YOUNGEST_S = 60.0
"""Age at which a workplace without an owner is removed; a younger one may not be locked yet."""


@dataclass(frozen=True, slots=True)
class CachedGames:
    """The games of one kind and split.

    Attributes:
        version: The version of TextWorld and of the recipe that made them, as the folder's name.
        kind: Family, level and instructions.
        num_bytes: What they take on disk.
    """

    version: str
    kind: str
    split: str
    num_games: int
    num_bytes: int

    @property
    def is_current(self) -> bool:
        """True when this version of the environment plays them."""
        return self.version == CACHE_VERSION


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed: whole versions, and workplaces of makers that were killed."""

    num_versions: int
    num_workplaces: int
    num_bytes: int


def list_games() -> list[CachedGames]:
    """Return what the cache holds, sorted by version, kind and split."""
    num_games: Counter[tuple[str, str, str]] = Counter()
    num_bytes: Counter[tuple[str, str, str]] = Counter()
    for folder in _games():
        split = folder.name.rpartition("-")[0]
        place = (folder.parents[1].name, folder.parent.name, split)
        num_games[place] += 1
        num_bytes[place] += _size(folder)
    return [CachedGames(*place, num_games[place], num_bytes[place]) for place in sorted(num_games)]


def damaged_games() -> list[Path]:
    """Return the folders of games, of any version, that are not what their checksums say."""
    return [folder for folder in _games() if not is_intact(folder)]


def remove_old() -> Removed:
    """Remove the games of other versions, and workplaces whose owner was killed.

    Raises:
        EnvError: Something cannot be removed.
    """
    old = [folder for folder in _versions() if folder.name != CACHE_VERSION]
    current = [folder for folder in _versions() if folder.name == CACHE_VERSION]
    abandoned = [
        workplace
        for version in current
        for workplace in sorted(version.glob("*/.*"))
        if _is_abandoned(workplace)
    ]
    num_bytes = sum(map(_size, [*old, *abandoned]))
    for folder in [*old, *abandoned]:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise EnvError(f"cannot remove {folder}: {error}") from error
    return Removed(len(old), len(abandoned), num_bytes)


def _versions() -> list[Path]:
    return [path for path in sorted(games_home().glob("*")) if _VERSION.fullmatch(path.name)]


def _games() -> Iterator[Path]:
    for version in _versions():
        for folder in sorted(version.glob("*/*")):
            if _GAME.fullmatch(folder.name) and folder.is_dir():
                yield folder


def _is_abandoned(workplace: Path) -> bool:
    try:
        descriptor = os.open(workplace, os.O_RDONLY)
    except OSError:
        return False
    try:
        age_s = time.time() - os.fstat(descriptor).st_mtime
        return age_s >= YOUNGEST_S and try_lock(descriptor)
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
