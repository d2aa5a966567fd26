"""Tasks of multi-hop QA and the corpora they are asked over: data packs and the built-in world."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from steppo_env.errors import InvalidInput, MissingData
from steppo_env.mdp import Task
from steppo_env.metrics import normalize_answer
from steppo_env.tasks import ListedTasks
from steppo_env.tools import explain
from steppo_multihop_qa.retrieval import Passage, words_of
from steppo_multihop_qa.world import WorldQuestion, make_world

__all__ = ["MultihopTask", "Pack", "load_pack", "load_passages", "world_pack"]

SPLITS = ("train", "dev", "test")
NonEmpty = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class MultihopTask(Task):
    """A question and its private solution.

    Attributes:
        question: What is asked; part of every state.
        answers: Every accepted answer; the first is the one to give.
        supporting: For each hop, the ids of the passages of which any one supports it. Empty when
            the pack names no gold passages.
    """

    question: str = ""
    answers: tuple[str, ...] = ()
    supporting: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Pack:
    """The tasks and the corpus of one data set, loaded once per process."""

    tasks: ListedTasks[MultihopTask]
    passages: Mapping[str, Passage]


class _QuestionRow(BaseModel):
    """A line of questions.jsonl. Members that no field names are data of other programs."""

    model_config = ConfigDict(strict=True)

    id: NonEmpty
    split: Literal["train", "dev", "test"]
    question: NonEmpty
    answer: NonEmpty
    aliases: tuple[NonEmpty, ...] = ()
    dataset: NonEmpty | None = None
    type: NonEmpty | None = None
    hops: Annotated[int, Field(ge=1)] | None = None
    level: NonEmpty | None = None
    supporting_ids: tuple[NonEmpty, ...] = ()
    supporting_any_of: Annotated[
        tuple[Annotated[tuple[NonEmpty, ...], Field(min_length=1)], ...] | None,
        Field(description="Takes precedence over supporting_ids."),
    ] = None

    @model_validator(mode="after")
    def _check(self) -> "_QuestionRow":
        if not normalize_answer(self.answer):
            raise ValueError(f"no answer can match {self.answer!r}: it normalises to nothing")
        if not self.question.strip():
            raise ValueError("the question is blank")
        return self

    def to_task(self, dataset: str) -> MultihopTask:
        facts = {
            "dataset": self.dataset or dataset,
            "type": self.type,
            "hops": self.hops,
            "level": self.level,
        }
        return MultihopTask(
            task_id=self.id,
            split=self.split,
            labels={name: value for name, value in facts.items() if value is not None},
            question=self.question.strip(),
            answers=tuple(dict.fromkeys((self.answer.strip(), *self.aliases))),
            supporting=self.supporting_any_of or tuple((item,) for item in self.supporting_ids),
        )


class _PassageRow(BaseModel):
    """A line of corpus.jsonl."""

    model_config = ConfigDict(strict=True)

    id: NonEmpty
    title: str
    text: str


def load_pack(folder: Path) -> Pack:
    """Load a data pack; the same folder gives the same object for the life of the process.

    Args:
        folder: Holds `questions.jsonl` and `corpus.jsonl`, each plain or as `.gz`.

    Raises:
        MissingData: The folder or a file is not there or not readable.
        InvalidInput: A line is not what the format asks for; the message names file and line.
    """
    return _load(folder.expanduser().resolve())


def load_passages(folder: Path) -> Mapping[str, Passage]:
    """Load the corpus of a pack, which needs no questions for it; by id, in the file's order.

    Raises:
        MissingData: `corpus.jsonl` is not there or not readable.
        InvalidInput: A line is not what the format asks for; the message names file and line.
    """
    return _passages(folder.expanduser().resolve(), blake2b(digest_size=16))


@cache
def world_pack() -> Pack:
    """Return the tasks and passages of the built-in world."""
    world = make_world()
    return _pack((_world_task(question) for question in world.questions), world.passages, world.key)


def _world_task(question: WorldQuestion) -> MultihopTask:
    return MultihopTask(
        task_id=question.question_id,
        split=question.split,
        labels={"dataset": "world", "type": question.type, "hops": question.hops},
        question=question.text,
        answers=question.answers,
        supporting=tuple((passage_id,) for passage_id in question.supporting_ids),
    )


@cache
def _load(folder: Path) -> Pack:
    if not folder.is_dir():
        raise MissingData(
            f"the data pack {folder} is not a folder; give one with questions.jsonl and "
            "corpus.jsonl (or .jsonl.gz), or leave the option data out for the built-in world"
        )
    key = blake2b(digest_size=16)
    passages = _passages(folder, key)
    tasks: dict[str, MultihopTask] = {}
    for where, row in _rows(folder, "questions.jsonl", _QuestionRow, key):
        task = row.to_task(folder.name)
        if task.task_id in tasks:
            raise InvalidInput(f"{where}: the question id {task.task_id!r} appears twice")
        for passage_id in (item for hop in task.supporting for item in hop):
            if passage_id not in passages:
                raise InvalidInput(
                    f"{where}: the supporting passage {passage_id!r} is not in the corpus"
                )
        tasks[task.task_id] = task
    if not tasks:
        raise InvalidInput(f"{folder}: questions.jsonl has no question")
    return _pack(tasks.values(), passages.values(), key.hexdigest())


def _passages(folder: Path, key: "blake2b") -> dict[str, Passage]:
    passages: dict[str, Passage] = {}
    for where, passage in _rows(folder, "corpus.jsonl", _PassageRow, key):
        if passage.id in passages:
            raise InvalidInput(f"{where}: the passage id {passage.id!r} appears twice")
        passages[passage.id] = Passage(passage.id, passage.title, passage.text)
    if not any(words_of(passage.title + " " + passage.text) for passage in passages.values()):
        raise InvalidInput(f"{folder}: corpus.jsonl has no passage with a word in it")
    return passages


def _pack(tasks: Iterable[MultihopTask], passages: Iterable[Passage], version: str) -> Pack:
    # Train first where there is one: gymnasium's reset draws from the first split.
    ordered = sorted(tasks, key=lambda task: SPLITS.index(task.split))
    return Pack(
        ListedTasks(ordered, version), {passage.passage_id: passage for passage in passages}
    )


RowT = TypeVar("RowT", bound=BaseModel)


def _rows(
    folder: Path, name: str, row_type: type[RowT], key: "blake2b"
) -> Iterator[tuple[str, RowT]]:
    """Yield each line with where it stands; its bytes, uncompressed, go into the key."""
    path, content = _read(folder, name)
    key.update(f"{name} {len(content)}\n".encode())
    key.update(content)
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        where = f"{path}, line {number}"
        try:
            row = row_type.model_validate_json(line)
        except ValidationError as error:
            raise InvalidInput(f"{where}: {explain(error)}") from None
        yield where, row


def _read(folder: Path, name: str) -> tuple[Path, bytes]:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            break
    else:
        raise MissingData(f"{folder} has neither {name} nor {name}.gz; a data pack has one of them")
    try:
        content = path.read_bytes()
        return path, gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise MissingData(f"{path} cannot be read: {error}") from error
