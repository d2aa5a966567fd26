"""A data pack that appears whole, or not at all."""

import gzip
import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from pydantic import JsonValue

from steppo_env.errors import InvalidInput

__all__ = ["PackWriter"]

ID_BYTES = 10
"""Two of a billion passages share 80 bits of a digest with a chance below one in a million."""
QUESTIONS = "questions.jsonl.gz"
CORPUS = "corpus.jsonl.gz"


class PackWriter:
    """Writes a pack into a folder beside the wanted one, which takes its name on `commit`.

    Leaving the context without a commit removes everything. The same passages and questions in the
    same order give the same bytes: ids are digests of title and text, and no time is written.

    Attributes:
        num_passages: Passages written.
        num_merged: Passages not written because their title and text had been.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:12]}.partial"
        self._ids: dict[bytes, str] = {}
        self._used: set[str] = set()
        self._files = ExitStack()
        self._corpus: BinaryIO | None = None
        self.num_passages = 0
        self.num_merged = 0

    def __enter__(self) -> Self:
        _check_free(self._folder)
        try:
            self._partial.mkdir(parents=True)
            self._corpus = self._create(CORPUS)
        except OSError as error:
            self._remove()
            raise InvalidInput(
                f"cannot write beside {self._folder}: {error.strerror}; name another folder"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        self._files.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def add_passage(self, title: str, text: str, passage_id: str | None = None) -> str:
        """Write a passage unless it has been, and return its id.

        Args:
            passage_id: The id to give it if it is new; None makes one of title and text.

        Raises:
            InvalidInput: The id is another passage's.
        """
        assert self._corpus is not None
        key = blake2b(f"{title}\n{text}".encode(), digest_size=16).digest()
        known = self._ids.get(key)
        if known is not None:
            self.num_merged += 1
            return known
        made = passage_id or f"d{key.hex()[: 2 * ID_BYTES]}"
        if made in self._used:
            raise InvalidInput(f"the passage id {made!r} appears twice, with different texts")
        self._ids[key] = made
        self._used.add(made)
        self._corpus.write(_line({"id": made, "title": title, "text": text}))
        self.num_passages += 1
        return made

    def find(self, titles: frozenset[str]) -> dict[str, tuple[str, ...]]:
        """Return the ids of the passages with each of the titles. Ends the corpus."""
        self._files.close()
        found: dict[str, list[str]] = {}
        with gzip.open(self._partial / CORPUS) as lines:
            for line in lines:
                row = json.loads(line)
                if row["title"] in titles:
                    found.setdefault(row["title"], []).append(row["id"])
        return {title: tuple(ids) for title, ids in found.items()}

    def commit(self, questions: Iterable[Mapping[str, JsonValue]]) -> None:
        """Write the questions and give the folder its name.

        Raises:
            InvalidInput: The wanted folder has been filled meanwhile.
        """
        file = self._create(QUESTIONS)
        for row in questions:
            file.write(_line(row))
        self._files.close()
        _check_free(self._folder)
        try:
            if self._folder.exists():
                self._folder.rmdir()
            self._partial.rename(self._folder)
        except OSError as error:
            raise InvalidInput(f"cannot make the folder {self._folder}: {error.strerror}") from None

    def _create(self, name: str) -> BinaryIO:
        raw = self._files.enter_context((self._partial / name).open("xb"))
        # Neither name nor time, so that equal content gives equal bytes.
        zipped = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0)
        return cast(BinaryIO, self._files.enter_context(zipped))


def _check_free(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise InvalidInput(f"{folder} is there and not an empty folder; name another, or empty it")


def _line(row: Mapping[str, JsonValue]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
