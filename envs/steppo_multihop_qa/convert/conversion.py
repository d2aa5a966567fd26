"""From published files to a data pack."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, JsonValue, ValidationError

from steppo_env.errors import InvalidInput, MissingData
from steppo_env.keys import digest
from steppo_env.tools import explain
from steppo_multihop_qa.convert.formats import (
    FORMATS,
    Format,
    Kind,
    SkipReason,
    SourceQuestion,
)
from steppo_multihop_qa.convert.pack_writer import PackWriter
from steppo_multihop_qa.convert.records import Record, read_records

__all__ = ["Conversion", "convert_files", "split_of"]

SPLIT_NAMES = {
    "train": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}
"""Words of a file's name, and the split that each says."""
Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion wrote and what it left out.

    Attributes:
        questions: Number of questions by split.
        num_without_gold: How many of them name no supporting passage.
        num_merged: Passages left out because their title and text had been written.
        skipped: Sound records that gave no question, by reason.
        num_bad: Records that are not what the format asks for.
    """

    questions: Mapping[str, int]
    num_without_gold: int
    num_passages: int
    num_merged: int
    skipped: Mapping[str, int]
    num_bad: int

    def to_json(self) -> dict[str, JsonValue]:
        """Return the numbers as a JSON object."""
        return {
            "questions": dict(self.questions),
            "num_without_gold": self.num_without_gold,
            "num_passages": self.num_passages,
            "num_merged": self.num_merged,
            "skipped": dict(self.skipped),
            "num_bad": self.num_bad,
        }


def split_of(path: Path) -> str | None:
    """Return the split that a file's name says, or None where it says none or several.

    >>> split_of(Path("hotpot_dev_distractor_v1.json")), split_of(Path("validation-0.parquet"))
    ('dev', 'dev')
    >>> split_of(Path("Bamboogle Prerelease - Sheet1.csv"))
    """
    words = re.findall(r"[a-z]+", path.name.lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def convert_files(
    kind: Kind,
    files: Sequence[Path],
    out: Path,
    *,
    split: str | None = None,
    corpus: Path | None = None,
    skip_bad: bool = False,
    notice: Notice | None = None,
) -> Conversion:
    """Write the questions and passages of published files as one data pack.

    Questions and passages keep the order of the files. A gold title that the record's own passages
    do not have (HotpotQA's fullwiki setting) is looked for in the whole corpus.

    Args:
        out: Folder to write; it must not exist, or be empty. It appears when all is done.
        split: "train", "dev" or "test" for every file; None takes it from each file's name.
        corpus: Folder of another pack, whose passages go first and keep their ids.
        skip_bad: Leave out records that the format does not allow, rather than write nothing.
        notice: Told of each such record, with file and number.

    Raises:
        InvalidInput: A split is not known, a record is bad, or nothing is left to write.
        MissingData: A file is not there or not readable.
        MissingDependency: A Parquet file is given and pyarrow is not installed.
    """
    source = FORMATS[kind]
    splits = [_checked_split(path, split) for path in files]
    if not files:
        raise InvalidInput("give at least one file to convert")
    if len(set(files)) < len(files):
        raise InvalidInput(f"a file is named twice: {', '.join(map(str, files))}")
    if corpus is None and not source.has_passages:
        raise InvalidInput(f"{kind} has no passages of its own; name a pack that has: --corpus")
    with PackWriter(out) as pack:
        run = _Run(source, pack, notice or _ignore)
        if corpus is not None:
            run.add_corpus(corpus)
        for path, name in zip(files, splits):
            run.add_file(path, name)
        if run.bad and not skip_bad:
            raise InvalidInput(
                f"{len(run.bad)} of {run.num_records} records are not what {kind} asks for; nothing "
                f"was written; mend them or leave them out with --skip-bad; the first: {run.bad[0]}"
            )
        return run.finish()


def _ignore(_: str) -> None:
    return None


def _checked_split(path: Path, split: str | None) -> str:
    found = split or split_of(path)
    if found is None:
        raise InvalidInput(
            f"the name {path.name} does not say which split it is; say it with --split"
        )
    if found not in SPLIT_NAMES.values():
        raise InvalidInput(f"a split is train, dev or test; got {found!r}")
    return found


class _CorpusRow(BaseModel):
    id: str = Field(min_length=1)
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A question of which some gold is known by title only, until the corpus is complete."""

    row: dict[str, JsonValue]
    hops: tuple[tuple[str, tuple[str, ...]], ...]


class _Run:
    """One conversion on its way: what has been read and what is to be written.

    Attributes:
        bad: Every bad record, with file, number and reason.
    """

    def __init__(self, source: Format, pack: PackWriter, notice: Notice) -> None:
        self._source, self._pack, self._notice = source, pack, notice
        self._waiting: list[_Waiting] = []
        self._seen: dict[str, str] = {}
        self._skipped: Counter[str] = Counter()
        self._questions: Counter[str] = Counter()
        self._num_without_gold = 0
        self.num_records = 0
        self.bad: list[str] = []

    def add_corpus(self, folder: Path) -> None:
        paths = [folder / name for name in ("corpus.jsonl", "corpus.jsonl.gz")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise MissingData(f"{folder} has neither corpus.jsonl nor corpus.jsonl.gz")
        for record in read_records(path):
            try:
                row = _CorpusRow.model_validate(_value(record))
                self._pack.add_passage(row.title, row.text, row.id)
            except ValueError as error:
                raise InvalidInput(f"{record.where}: {_told(error)}") from None

    def add_file(self, path: Path, split: str) -> None:
        for record in read_records(path):
            number = self.num_records
            self.num_records += 1
            try:
                question = self._source.read(_value(record), number)
                skipped = (
                    question if isinstance(question, SkipReason) else self._add(question, split)
                )
            except ValueError as error:
                self.bad.append(f"{record.where}: {_told(error)}")
                self._notice(self.bad[-1])
            else:
                if skipped is not None:
                    self._skipped[skipped.value] += 1

    def _add(self, question: SourceQuestion, split: str) -> SkipReason | None:
        _check_text(question)
        key = digest([question.question, question.answer])
        known = self._seen.get(question.question_id)
        if known == key:
            return SkipReason.DUPLICATE
        if known is not None:
            raise ValueError(f"the id {question.question_id!r} is an earlier question's")
        self._seen[question.question_id] = key
        ids = {item: self._pack.add_passage(item.title, item.text) for item in question.passages}
        hops = [
            (hop.title, tuple(dict.fromkeys(ids[item] for item in hop.passages)))
            for hop in question.hops
        ]
        row: dict[str, JsonValue] = {
            "id": question.question_id,
            "dataset": self._source.dataset,
            "split": split,
            "question": question.question,
            "answer": question.answer,
            "aliases": list(question.aliases),
            "type": question.type,
            "hops": question.num_hops,
            "level": question.level,
        }
        self._waiting.append(_Waiting(row, tuple(hops)))
        return None

    def finish(self) -> Conversion:
        """Write the questions, now that every passage is known."""
        wanted = {title for item in self._waiting for title, ids in item.hops if not ids}
        elsewhere = self._pack.find(frozenset(wanted)) if wanted else {}
        rows = list(self._rows(elsewhere))
        if not rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._skipped.items())
            raise InvalidInput(
                f"none of {self.num_records} records gives a question, so nothing was written "
                f"({len(self.bad)} bad; skipped: {reasons or 'none'})"
            )
        self._pack.commit(rows)
        return Conversion(
            questions={name: self._questions[name] for name in ("train", "dev", "test")},
            num_without_gold=self._num_without_gold,
            num_passages=self._pack.num_passages,
            num_merged=self._pack.num_merged,
            skipped=dict(sorted(self._skipped.items())),
            num_bad=len(self.bad),
        )

    def _rows(self, elsewhere: Mapping[str, tuple[str, ...]]) -> Iterator[Mapping[str, JsonValue]]:
        for item in self._waiting:
            hops = [ids or elsewhere.get(title, ()) for title, ids in item.hops]
            if not all(hops):
                self._skipped[SkipReason.MISSING_GOLD.value] += 1
                continue
            row = dict(item.row)
            row["supporting_titles"] = [title for title, _ in item.hops]
            row["supporting_ids"] = [ids[0] for ids in hops]
            if any(len(ids) > 1 for ids in hops):
                row["supporting_any_of"] = [list(ids) for ids in hops]
            self._num_without_gold += not hops
            self._questions[str(row["split"])] += 1
            yield row


def _check_text(question: SourceQuestion) -> None:
    """JSON can spell half of a surrogate pair, which is no text and cannot be written as UTF-8."""
    texts = [question.question_id, question.question, question.answer, *question.aliases]
    texts += [question.type or "", question.level or "", *(hop.title for hop in question.hops)]
    texts += [text for item in question.passages for text in (item.title, item.text)]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half of a surrogate pair") from None


def _value(record: Record) -> object:
    if record.problem is not None:
        raise ValueError(record.problem)
    return record.value


def _told(error: ValueError) -> str:
    return explain(error) if isinstance(error, ValidationError) else str(error)
