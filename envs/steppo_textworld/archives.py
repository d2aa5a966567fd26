"""Files of a data pack, also where they lie in an archive: that is unpacked once, into the cache."""

import lzma
import secrets
import shutil
import tarfile
import threading
import zlib
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from steppo_env.errors import EnvError, MissingData
from steppo_textworld.games import games_home

__all__ = ["find_member"]

_ARCHIVES = ("*.tar.xz", "*.tar.gz", "*.tar")

# Threads of this process wait for each other; processes may both unpack, and the first one stays.
_lock = threading.Lock()


def find_member(pack: Path, member: str) -> Path:
    """Return a file of a pack, from its folder or else from its archives, smallest first.

    Raises:
        MissingData: The pack has no such file, or an archive is damaged.
        EnvError: The cache cannot be written.
    """
    if (pack / member).is_file():
        return pack / member
    archives = {path for pattern in _ARCHIVES for path in pack.glob(pattern)}
    for archive in sorted(archives, key=lambda path: (path.stat().st_size, path.name)):
        found = _unpacked(archive) / member
        if found.is_file():
            return found
    names = ", ".join(sorted(path.name for path in archives)) or "no archive"
    raise MissingData(f"{pack} has no file {member}, nor have its archives ({names})")


def _unpacked(archive: Path) -> Path:
    """Return the folder with an archive's files; its name is the digest of the archive."""
    stat = archive.stat()
    folder = games_home() / "packs" / _digest(archive, stat.st_mtime_ns, stat.st_size)
    with _lock:
        if not folder.is_dir():
            _unpack(archive, folder)
    return folder


@lru_cache(maxsize=64)
def _digest(archive: Path, _changed_ns: int, _size: int) -> str:
    return sha256(archive.read_bytes()).hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside the place and move there in one piece."""
    workplace = folder.with_name(f".{folder.name[:16]}-{secrets.token_hex(8)}")
    try:
        workplace.mkdir(parents=True)
        with tarfile.open(archive) as files:
            files.extractall(workplace, filter="data")
        try:
            workplace.rename(folder)
        except OSError:
            # Another process was faster: its files are the same.
            if not folder.is_dir():
                raise
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise MissingData(f"the archive {archive} cannot be unpacked: {error!r}") from error
    except OSError as error:
        raise EnvError(
            f"cannot keep games under {games_home()}: {error}; "
            "set STEPPO_HOME to a folder that can be written"
        ) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
