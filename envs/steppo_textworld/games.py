"""Games on disk: made when first played, kept in a cache, checked whenever they are loaded."""

import atexit
import contextlib
import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from steppo_env.errors import EnvError
from steppo_env.home import steppo_home
from steppo_textworld.engine import TEXTWORLD_VERSION
from steppo_textworld.levels import GameSpec
from steppo_textworld.maker import Maker
from steppo_textworld.story import Game

__all__ = [
    "CACHE_VERSION",
    "FILES",
    "game_folder",
    "games_home",
    "is_intact",
    "make_game",
    "open_game",
    "try_lock",
]

RECIPE = 1
"""Part of the cache key: a change in how games are made is a new number."""

CACHE_VERSION = f"textworld-{TEXTWORLD_VERSION}-recipe-{RECIPE}"
"""The folder of the games that this version makes and plays."""

FILES = ("game.json", "game.z8")
CHECKSUMS = "SHA256SUMS"
NUM_LOADED = 64
"""Games whose world model stays in memory."""
LITTLE_SPACE = 16_000_000
"""Bytes that making a game may need for a moment; below it a failure is put down to a full disk."""

# TextWorld parses a game's rules with one global parser, which two threads would break.
_lock = threading.Lock()

_maker = Maker()
atexit.register(_maker.close)


def games_home() -> Path:
    """Return the folder of the games: `$STEPPO_HOME/textworld`, by default under ~/.cache/steppo."""
    return steppo_home() / "textworld"


def game_folder(spec: GameSpec) -> Path:
    """Return where a game is kept; the path names all that determines its content."""
    return games_home() / CACHE_VERSION / spec.kind / f"{spec.split}-{spec.index}"


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
            _make(spec, folder, _maker)
            return _load(folder)


def make_game(spec: GameSpec, maker: Maker) -> bool:
    """Make a game that the cache lacks or has damaged; return whether it was made.

    Unlike `open_game`, threads with makers of their own make games side by side.

    Raises:
        EnvError: The game cannot be made, or the cache cannot be written.
    """
    folder = game_folder(spec)
    if is_intact(folder):
        return False
    _make(spec, folder, maker)
    return True


class _DamagedError(Exception):
    """The cache has no such game, or not the bytes that were written."""


@lru_cache(maxsize=NUM_LOADED)
def _load(folder: Path) -> Game:
    if not is_intact(folder):
        raise _DamagedError(folder)
    return Game(folder)


def is_intact(folder: Path) -> bool:
    """Return whether a folder has a game, with the bytes that were written."""
    try:
        return (folder / CHECKSUMS).read_bytes() == _checksums(folder)
    except OSError:
        return False


def _checksums(folder: Path) -> bytes:
    digests = [(sha256((folder / name).read_bytes()).hexdigest(), name) for name in FILES]
    return "".join(f"{digest}  {name}\n" for digest, name in digests).encode()


def _make(spec: GameSpec, folder: Path, maker: Maker) -> None:
    """Make a game beside its place and move it there in one piece."""
    try:
        with _workplace(folder) as workplace:
            maker.make(spec, workplace)
            (workplace / CHECKSUMS).write_bytes(_checksums(workplace))
            _move(workplace, folder)
    except OSError as error:
        raise EnvError(
            f"cannot keep games under {games_home()}: {error}; "
            "set STEPPO_HOME to a folder that can be written"
        ) from error


@contextlib.contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """Make a folder beside a game's place, locked as long as its owner lives."""
    workplace = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}")
    workplace.mkdir(parents=True)
    descriptor = os.open(workplace, os.O_RDONLY)
    try:
        try_lock(descriptor)
        yield workplace
    except EnvError as error:
        num_free = shutil.disk_usage(folder.parent).free
        if num_free >= LITTLE_SPACE:
            raise
        raise EnvError(
            f"{error} (only {num_free / 1e6:.1f} MB are free under {games_home()}; make room, or "
            "set STEPPO_HOME to another folder)"
        ) from error
    finally:
        os.close(descriptor)
        shutil.rmtree(workplace, ignore_errors=True)


def try_lock(descriptor: int) -> bool:
    """Lock an open folder for this process; return False when another has it, or none can."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _move(made: Path, folder: Path) -> None:
    """Put a finished game in its place, also while other processes do the same."""
    for _ in range(10):
        try:
            made.rename(folder)
            return
        except OSError:
            # A folder cannot replace one that has files: whoever came first stays, unless damaged.
            if is_intact(folder):
                return
            discarded = made.with_name(f"{made.name}-discarded")
            with contextlib.suppress(FileNotFoundError):
                folder.rename(discarded)
            shutil.rmtree(discarded, ignore_errors=True)
    raise OSError(f"{folder} is replaced by others again and again")
