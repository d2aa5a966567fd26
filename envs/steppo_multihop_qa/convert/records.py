"""Published files read record by record, so that a file of any size fits into memory.

JSON (one array, as HotpotQA and 2WikiMultihopQA come), JSON Lines, CSV, TSV and Parquet; all but
the last also compressed as `.gz`.
"""

import csv
import gzip
import importlib
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from steppo_env.errors import InvalidInput, MissingData, MissingDependency

__all__ = ["Record", "read_records"]

CHUNK_CHARS = 1 << 20
MAX_RECORD_CHARS = 1 << 24
"""Longest record of a JSON array; a broken one is given up after so many characters."""
PARQUET_ROWS = 256
"""Rows of a Parquet file that are in memory at a time."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        where: The file and the number of the record or line in it, from 1.
        value: What it holds; None where there is a problem.
        problem: Why it cannot be read, or None.
    """

    where: str
    value: object
    problem: str | None = None


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file in their order. A broken line is a record with a problem.

    Raises:
        MissingData: The file is not there or not readable.
        InvalidInput: It is of no known kind, or broken so that no later record can be found.
        MissingDependency: It is a Parquet file and pyarrow is not installed.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if not path.is_file():
        raise MissingData(f"there is no file {path}")
    if suffix == ".parquet":
        return _parquet_records(path)
    if suffix in DELIMITERS:
        return _table_records(path, DELIMITERS[suffix])
    if suffix in (".json", ".jsonl"):
        return _json_records(path)
    raise InvalidInput(
        f"{path}: the name of a file ends in .json, .jsonl, .csv or .tsv (or one of these and .gz) "
        "or in .parquet"
    )


@contextmanager
def _opened(path: Path, newline: str) -> Iterator[TextIO]:
    """Open a text, and turn every way in which reading can fail into an error that names it."""
    try:
        # A file may begin with a byte order mark, as spreadsheets write it.
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline=newline) as text:
                yield text
        else:
            with path.open(encoding="utf-8-sig", newline=newline) as text:
                yield text
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise MissingData(f"{path} cannot be read: {error}") from error


def _json_records(path: Path) -> Iterator[Record]:
    with _opened(path, "\n") as text:
        if text.read(CHUNK_CHARS).lstrip()[:1] == "[":
            text.seek(0)
            yield from _Array(path, text).records()
        else:
            text.seek(0)
            for number, line in enumerate(text, 1):
                if line.strip():
                    yield _line_record(f"{path}, line {number}", line)


def _line_record(where: str, line: str) -> Record:
    try:
        return Record(where, json.loads(line))
    except (ValueError, RecursionError) as error:
        return Record(where, None, f"not JSON: {error}")


class _Array:
    """The objects of one JSON array, decoded one by one from a window over the text."""

    def __init__(self, path: Path, text: TextIO) -> None:
        self._path, self._text = path, text
        self._window, self._at = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def records(self) -> Iterator[Record]:
        self._peek()
        self._at += 1  # the opening bracket
        number = 0
        while (sign := self._peek()) != "]":
            number += 1
            where = f"{self._path}, record {number}"
            if number > 1:
                if sign != ",":
                    raise InvalidInput(f"{where}: expected a comma or ], got {_shown(sign)}")
                self._at += 1
                sign = self._peek()
            if sign != "{":
                raise InvalidInput(f"{where}: expected an object, got {_shown(sign)}")
            yield Record(where, self._value(where))
        self._at += 1
        if rest := self._peek():
            raise InvalidInput(f"{self._path}: {rest!r} follows the end of the array")

    def _value(self, where: str) -> object:
        while True:
            try:
                value, self._at = self._decode(self._window, self._at)
                return value
            except (ValueError, RecursionError) as error:
                # An object that the window cuts off looks like a broken one.
                if len(self._window) - self._at > MAX_RECORD_CHARS or not self._read_on():
                    raise InvalidInput(f"{where}: not JSON: {error}") from None

    def _peek(self) -> str:
        """Go to the next character that is not white space and return it; "" at the end."""
        while True:
            space = _SPACE.match(self._window, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._read_on():
                return ""

    def _read_on(self) -> bool:
        rest = self._window[self._at :]
        # As much again each time, so that a long record is not decoded anew for each chunk.
        more = self._text.read(max(CHUNK_CHARS, len(rest)))
        self._window, self._at = rest + more, 0
        return bool(more)


def _shown(sign: str) -> str:
    return repr(sign) if sign else "the end of the file"


def _table_records(path: Path, delimiter: str) -> Iterator[Record]:
    with _opened(path, "") as text:
        rows = csv.DictReader(text, delimiter=delimiter, strict=True)
        try:
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                if None in row or None in row.values():
                    yield Record(where, None, "more or fewer fields than the first line names")
                else:
                    yield Record(where, row)
        except csv.Error as error:
            raise InvalidInput(f"{path}, after line {rows.line_num}: {error}") from error


def _parquet_records(path: Path) -> Iterator[Record]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependency(
            f"{path.name} needs pyarrow to be read ({error}); install it with: pip install pyarrow"
        ) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(f"{path}, row {number}", row)
    except (OSError, ValueError) as error:  # pyarrow's own errors are one or the other
        raise InvalidInput(f"{path} cannot be read as Parquet: {error}") from error
