"""Games on disk: made when first played, kept in a cache, checked whenever they are loaded."""

import contextlib
import os
import secrets
import shutil
import threading
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from steppo_env.errors import EnvError
from steppo_textworld.engine import TEXTWORLD_VERSION
from steppo_textworld.levels import GameSpec
from steppo_textworld.maker import make_elsewhere
from steppo_textworld.story import Game

__all__ = ["game_folder", "games_home", "open_game"]

RECIPE = 1
"""Part of the cache key: a change in how games are made is a new number."""

FILES = ("game.json", "game.z8")
CHECKSUMS = "SHA256SUMS"
NUM_LOADED = 64
"""Games whose world model stays in memory."""

# TextWorld parses a game's rules with one global parser, which two threads would break.
_lock = threading.Lock()


def games_home() -> Path:
    """Return the folder of the games: `$STEPPO_HOME/textworld`, by default under ~/.cache/steppo."""
    home = os.environ.get("STEPPO_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "steppo") / "textworld"


def game_folder(spec: GameSpec) -> Path:
    """Return where a game is kept; the path names all that determines its content."""
    version = f"textworld-{TEXTWORLD_VERSION}-recipe-{RECIPE}"
    return games_home() / version / spec.kind / f"{spec.split}-{spec.index}"


def open_game(spec: GameSpec) -> Game:
    """Return a game, making it first where the cache has none or a damaged one.

    Raises:
        EnvError: The game cannot be made, or the cache cannot be written.
    """
    folder = game_folder(spec)
    with _lock:
        if not (folder / "game.z8").is_file():
            # Somebody emptied the cache under a running program: what is loaded has no story file.
            _load.cache_clear()
        try:
            return _load(folder)
        except _DamagedError:
            _make(spec, folder)
            return _load(folder)


class _DamagedError(Exception):
    """The cache has no such game, or not the bytes that were written."""


@lru_cache(maxsize=NUM_LOADED)
def _load(folder: Path) -> Game:
    if not _is_intact(folder):
        raise _DamagedError(folder)
    return Game(folder)


def _is_intact(folder: Path) -> bool:
    try:
        return (folder / CHECKSUMS).read_bytes() == _checksums(folder)
    except OSError:
        return False


def _checksums(folder: Path) -> bytes:
    digests = [(sha256((folder / name).read_bytes()).hexdigest(), name) for name in FILES]
    return "".join(f"{digest}  {name}\n" for digest, name in digests).encode()


def _make(spec: GameSpec, folder: Path) -> None:
    """Make a game beside its place and move it there in one piece."""
    workplace = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}")
    try:
        workplace.mkdir(parents=True)
        make_elsewhere(spec, workplace)
        (workplace / CHECKSUMS).write_bytes(_checksums(workplace))
        _move(workplace, folder)
    except OSError as error:
        raise EnvError(
            f"cannot keep games under {games_home()}: {error}; "
            "set STEPPO_HOME to a folder that can be written"
        ) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _move(made: Path, folder: Path) -> None:
    """Put a finished game in its place, also while other processes do the same."""
    for _ in range(10):
        try:
            made.rename(folder)
            return
        except OSError:
            # A folder cannot replace one that has files: whoever came first stays, unless damaged.
            if _is_intact(folder):
                return
            discarded = made.with_name(f"{made.name}-discarded")
            with contextlib.suppress(FileNotFoundError):
                folder.rename(discarded)
            shutil.rmtree(discarded, ignore_errors=True)
    raise OSError(f"{folder} is replaced by others again and again")
