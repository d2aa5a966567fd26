"""Data packs: a folder with papers.jsonl.gz and queries.jsonl.gz (or the same without .gz)."""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from steppo_env.errors import InvalidInput, MissingData
from steppo_env.tools import explain
from steppo_paper_search.graph import Paper

__all__ = ["Pack", "PaperQuery", "clean", "read_pack"]

SPLITS = ("train", "dev", "test")

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class PaperQuery:
    """A request and the ids of the papers that answer it, as the data says.

    Attributes:
        query_set: Where it comes from, for grouping results.
        year: The last year whose papers may answer it, or None when there is no limit.
        title: Of the paper whose reference list is asked for, where it is one.
    """

    query_id: str
    query_set: str
    split: str
    query: str
    gold_ids: tuple[str, ...]
    year: int | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Pack:
    """Everything that is read or generated; `version` is a hash of it."""

    papers: tuple[Paper, ...]
    references: dict[str, tuple[str, ...]]
    queries: tuple[PaperQuery, ...]
    version: str


def clean(text: str) -> str:
    """Return a text on one line, without control characters.

    >>> clean(" Two\\nlines\\x08 ")
    'Two lines'
    """
    return " ".join(_CONTROL.sub(" ", text).split())


_Line: TypeAlias = Annotated[str, AfterValidator(clean), Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    id: str = Field(min_length=1, max_length=200, pattern=r"^[^\s,;\[\]]+$")


class _PaperRecord(_Record):
    title: _Line
    abstract: str | None = None
    year: int | None = Field(default=None, ge=0, le=9999)
    references: list[str] = []


class _QueryRecord(_Record):
    query: _Line
    gold_ids: list[str] = Field(min_length=1)
    split: str
    set: str = "unnamed"
    title: str | None = None
    year: int | None = Field(default=None, ge=0, le=9999)
    published_time: str | None = Field(default=None, pattern=r"^\d{4}([-\d]*)$")


_RecordT = TypeVar("_RecordT", bound=_Record)


def read_pack(folder: Path) -> Pack:
    """Read a pack.

    Raises:
        MissingData: The folder or one of the files is not there or not readable.
        InvalidInput: A line is not a record of its file, or its id came before.
    """
    if not folder.is_dir():
        raise MissingData(f"there is no folder {folder}; option data names a folder of a data pack")
    hasher = blake2b(digest_size=16)
    papers: list[Paper] = []
    references: dict[str, tuple[str, ...]] = {}
    for _, paper in _records(folder, "papers.jsonl", _PaperRecord, hasher):
        abstract = clean(paper.abstract or "") or None
        papers.append(Paper(paper.id, paper.title, abstract, paper.year))
        if paper.references:
            references[paper.id] = tuple(paper.references)
    queries = tuple(
        _query(where, query)
        for where, query in _records(folder, "queries.jsonl", _QueryRecord, hasher)
    )
    return Pack(tuple(papers), references, queries, hasher.hexdigest())


def _query(where: str, record: _QueryRecord) -> PaperQuery:
    if record.split not in SPLITS:
        raise InvalidInput(f"{where}: split is one of {', '.join(SPLITS)}, not {record.split!r}")
    year = record.year
    if year is None and record.published_time is not None:
        year = int(record.published_time[:4])
    return PaperQuery(
        query_id=record.id,
        query_set=record.set,
        split=record.split,
        query=record.query,
        gold_ids=tuple(dict.fromkeys(record.gold_ids)),
        year=year,
        title=record.title,
    )


def _records(
    folder: Path, name: str, record_type: type[_RecordT], hasher: "blake2b"
) -> Iterator[tuple[str, _RecordT]]:
    """Yield the records of a file, each with its file and line for messages."""
    path = _find(folder, name)
    seen: dict[str, int] = {}
    for number, line in _lines(path, hasher):
        where = f"{path}, line {number}"
        try:
            record = record_type.model_validate_json(line)
        except ValidationError as error:
            raise InvalidInput(f"{where}: {explain(error)}") from None
        first = seen.setdefault(record.id, number)
        if first != number:
            raise InvalidInput(
                f"{where}: id {record.id!r} was on line {first} before; ids must be distinct"
            )
        yield where, record
    if not seen:
        raise InvalidInput(f"{path} has no records; it needs one JSON object on each line")


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise MissingData(f"{folder} has no {name}.gz and no {name}; a data pack has both of its files")


def _lines(path: Path, hasher: "blake2b") -> Iterator[tuple[int, bytes]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                hasher.update(line)
                if line.strip():
                    yield number, line
    except (OSError, EOFError) as error:
        raise MissingData(f"cannot read {path}: {error}") from error
