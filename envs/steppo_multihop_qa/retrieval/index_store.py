"""Indexes on disk: built once among processes, in one piece, checked whenever they are opened."""

import fcntl
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from steppo_env.home import steppo_home
from steppo_env.keys import digest

__all__ = ["IndexFolder", "indexes_home"]

logger = logging.getLogger("steppo.retrieval")

CHECKSUMS, FACTS = "SHA256SUMS", "index.json"
LOCK_S = 600.0
"""Longest wait for another process that builds the same index, in seconds."""
LOCK_POLL_S = 0.05
VERIFIED_BYTES = 1 << 30
"""Files above this size are checked by their presence alone when opened: reading them takes long."""

OpenedT = TypeVar("OpenedT")


def indexes_home() -> Path:
    """Return the folder of indexes: `$STEPPO_HOME/retrieval`, by default under ~/.cache/steppo."""
    return steppo_home() / "retrieval"


@dataclass(frozen=True)
class IndexFolder:
    """The place of one index; its name is a digest of all that determines the content.

    Attributes:
        kind: Which implementation reads it.
        facts: What the content depends on: corpus, library and its version, parameters.
    """

    kind: str
    facts: Mapping[str, JsonValue]

    @property
    def version(self) -> str:
        """The name of the index, equal for equal facts."""
        return f"{self.kind}-{digest(dict(self.facts))}"

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return indexes_home() / self.version

    @property
    def is_there(self) -> bool:
        """True when an index was finished here; its bytes are not looked at."""
        return (self.path / CHECKSUMS).is_file()

    def open(self, opener: Callable[[Path], OpenedT]) -> OpenedT | None:
        """Check the index and open it; None when it is missing, or damaged, which is logged."""
        if not self.is_there:
            return None
        try:
            if (self.path / CHECKSUMS).read_text() == _checksums(self.path):
                return opener(self.path)
            problem = "its files are not those that were written"
        except (OSError, ValueError) as error:
            problem = str(error)
        logger.warning("the index %s is damaged: %s", self.path, problem)
        return None

    def open_or_build(
        self, opener: Callable[[Path], OpenedT], write: Callable[[Path], None]
    ) -> OpenedT | None:
        """Open the index, building it first where it is missing or damaged.

        Of several processes one builds, and the others wait for it.

        Returns:
            None when the folder cannot be written, which is logged.
        """
        opened = self.open(opener)
        if opened is not None:
            return opened
        try:
            with self.lock(LOCK_S):
                opened = self.open(opener)
                if opened is None:
                    self.write(write)
                    opened = self.open(opener)
        except OSError as error:
            logger.warning(
                "the index %s cannot be kept under %s (%s): this process holds its own in memory; "
                "set STEPPO_HOME to a folder that can be written",
                self.version,
                indexes_home(),
                error,
            )
        return opened

    @contextmanager
    def lock(self, wait_s: float) -> Iterator[None]:
        """Be the only process, and thread, that builds this index.

        The system lifts the lock of a process that dies.

        Raises:
            TimeoutError: Another had it for all of `wait_s` seconds.
            OSError: The folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_s
        with self._beside("lock").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(
                            f"another process has been building it for {wait_s:g} s"
                        ) from None
                    time.sleep(LOCK_POLL_S)
            yield

    def write(self, write: Callable[[Path], None], *, resumes: bool = False) -> None:
        """Build the index beside its place and move it there in one piece. Needs the lock.

        Args:
            write: Writes the files into the folder it is given.
            resumes: True when `write` goes on from what it left there when it failed.
        """
        made = self._beside("partial")
        if not resumes:
            shutil.rmtree(made, ignore_errors=True)
        made.mkdir(exist_ok=True)
        try:
            write(made)
            facts = json.dumps({"kind": self.kind, **self.facts}, indent=2, sort_keys=True)
            (made / FACTS).write_text(facts + "\n")
            (made / CHECKSUMS).write_text(_checksums(made))
            self._replace(made)
        finally:
            if not resumes:
                shutil.rmtree(made, ignore_errors=True)

    def _replace(self, made: Path) -> None:
        discarded = self._beside("discarded")
        shutil.rmtree(discarded, ignore_errors=True)
        if self.path.exists():
            # A folder cannot replace one that has files. Whoever has mapped them keeps them.
            self.path.rename(discarded)
        made.rename(self.path)
        shutil.rmtree(discarded, ignore_errors=True)

    def _beside(self, what: str) -> Path:
        return self.path.with_name(f".{self.version}.{what}")


def _checksums(folder: Path) -> str:
    """Return the checksums of the files of an index, in the form of sha256sum."""
    lines: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name == CHECKSUMS:
            continue
        if path.stat().st_size > VERIFIED_BYTES:
            lines.append(f"# {path.stat().st_size} bytes  {path.name}\n")
            continue
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return "".join(lines)
