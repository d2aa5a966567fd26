"""What the published multi-hop question sets look like.

Sources: HotpotQA (Yang et al. 2018, arXiv 1809.09600), 2WikiMultihopQA (Ho et al. 2020, arXiv
2011.01060), MuSiQue (Trivedi et al. 2022, arXiv 2108.00573) and Bamboogle (Press et al. 2023, arXiv
2210.03350), as their authors publish them and as Parquet files of Hugging Face hold them, where a
list of pairs or objects may be an object of lists, or JSON as text.
"""

import html
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from steppo_env.metrics import normalize_answer

__all__ = ["FORMATS", "Format", "Hop", "Kind", "SkipReason", "SourcePassage", "SourceQuestion"]


class Kind(StrEnum):
    """Which published format the files have."""

    HOTPOTQA = "hotpotqa"
    """Distractor and fullwiki setting alike."""
    MUSIQUE = "musique"
    """MuSiQue-Answerable, and the answerable questions of MuSiQue-Full."""
    TWO_WIKI = "2wiki"
    """2WikiMultihopQA."""
    BAMBOOGLE = "bamboogle"
    """Questions and answers only."""


class SkipReason(StrEnum):
    """Why a sound record gives no task."""

    UNANSWERABLE = "marked as unanswerable"
    """MuSiQue-Full asks every question a second time without one of its paragraphs."""
    NO_ANSWER = "no answer given"
    """The published test splits keep theirs."""
    EMPTY_ANSWER = "answer normalises to nothing"
    """No response could match it."""
    BLANK_QUESTION = "blank question"
    """Nothing is asked."""
    MISSING_GOLD = "a gold passage is in none of the files"
    """The fullwiki setting gives what a retriever found, which often is not all of the gold."""
    DUPLICATE = "same question again"
    """Id, question and answer are those of an earlier record."""


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """A paragraph as its data set has it, with white space made single."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Hop:
    """What supports one hop.

    Attributes:
        passages: The record's own passages that do; empty where it names only a title.
    """

    title: str
    passages: tuple[SourcePassage, ...]


@dataclass(frozen=True, slots=True)
class SourceQuestion:
    """A question with its passages, in the same form for every data set."""

    question_id: str
    question: str
    answer: str
    passages: tuple[SourcePassage, ...] = ()
    hops: tuple[Hop, ...] = ()
    aliases: tuple[str, ...] = ()
    type: str | None = None
    num_hops: int | None = None
    level: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A published format.

    Attributes:
        dataset: The label of its tasks.
        read: Makes a question of a record and its number among all, from 0; raises ValueError.
        has_passages: False where passages must come from another pack.
    """

    dataset: str
    read: Callable[[object, int], SourceQuestion | SkipReason]
    has_passages: bool = True


def _rows_of(value: object) -> object:
    """Return a list of objects where an object of lists came, or a text that holds either."""
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, Mapping):
        return value
    columns = list(value.values())
    if not all(isinstance(column, list) for column in columns):
        raise ValueError("expected a list, or an object of lists")
    if len({len(column) for column in columns}) > 1:
        raise ValueError("an object of lists has lists of one length")
    return [dict(zip(value, row)) for row in zip(*columns)]


def _pairs_of(first: str, second: str) -> Callable[[object], object]:
    def pairs(value: object) -> object:
        rows = _rows_of(value)
        if not isinstance(rows, list):
            return rows
        return [
            (row.get(first), row.get(second)) if isinstance(row, Mapping) else row for row in rows
        ]

    return pairs


Id = Annotated[str, Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]


class _HotpotRow(BaseModel):
    """HotpotQA and 2WikiMultihopQA; `id` is how Hugging Face spells `_id`."""

    id: Id = Field(validation_alias=AliasChoices("_id", "id"))
    question: str
    answer: str | None = None
    type: Text | None = None
    level: Text | None = None
    context: Annotated[
        list[tuple[str, list[str]]], BeforeValidator(_pairs_of("title", "sentences"))
    ]
    supporting_facts: Annotated[
        list[tuple[str, int]] | None, BeforeValidator(_pairs_of("title", "sent_id"))
    ] = None


class _Paragraph(BaseModel):
    idx: int
    title: str
    paragraph_text: str
    is_supporting: bool | None = None


class _Hop(BaseModel):
    paragraph_support_idx: int | None = None


class _MusiqueRow(BaseModel):
    id: Id
    question: str
    answer: str | None = None
    answer_aliases: list[str] = []
    answerable: bool = True
    paragraphs: Annotated[list[_Paragraph], BeforeValidator(_rows_of)]
    question_decomposition: Annotated[list[_Hop], BeforeValidator(_rows_of)] = []


class _BamboogleRow(BaseModel):
    question: str = Field(validation_alias=AliasChoices("Question", "question"))
    answer: str = Field(validation_alias=AliasChoices("Answer", "answer"))


def _read_hotpot(value: object, _: int) -> SourceQuestion | SkipReason:
    row = _HotpotRow.model_validate(value)
    reason = _reason(row.question, row.answer)
    if reason is not None:
        return reason
    passages = [_passage(title, " ".join(sentences)) for title, sentences in row.context]
    # Sentences of one passage are one hop; the order is that of the first of them.
    titles = dict.fromkeys(_clean_title(title) for title, _ in row.supporting_facts or ())
    hops = [Hop(title, tuple(p for p in passages if p.title == title)) for title in titles]
    return SourceQuestion(
        row.id,
        row.question.strip(),
        (row.answer or "").strip(),
        tuple(passages),
        tuple(hops),
        type=row.type,
        num_hops=len(hops) or None,
        level=row.level,
    )


def _read_musique(value: object, _: int) -> SourceQuestion | SkipReason:
    row = _MusiqueRow.model_validate(value)
    reason = _reason(row.question, row.answer) if row.answerable else SkipReason.UNANSWERABLE
    if reason is not None:
        return reason
    passages = {item.idx: _passage(item.title, item.paragraph_text) for item in row.paragraphs}
    if len(passages) < len(row.paragraphs):
        raise ValueError("two paragraphs have the same idx")
    named = [hop.paragraph_support_idx for hop in row.question_decomposition]
    order = [place for place in named if place is not None]
    if len(order) < len(named) or not order:
        order = [item.idx for item in row.paragraphs if item.is_supporting]
    for place in order:
        if place not in passages:
            raise ValueError(f"there is no paragraph with the idx {place} of a hop")
    gold = [passages[place] for place in dict.fromkeys(order)]
    prefix, mark, _rest = row.id.partition("__")
    return SourceQuestion(
        row.id,
        row.question.strip(),
        (row.answer or "").strip(),
        tuple(passages.values()),
        tuple(Hop(passage.title, (passage,)) for passage in gold),
        aliases=tuple(alias for alias in row.answer_aliases if normalize_answer(alias)),
        type=prefix if mark and prefix else None,
        num_hops=len(named) or len(gold) or None,
    )


def _read_bamboogle(value: object, number: int) -> SourceQuestion | SkipReason:
    row = _BamboogleRow.model_validate(value)
    reason = _reason(row.question, row.answer)
    if reason is not None:
        return reason
    # Published without ids; every question is made of two facts.
    return SourceQuestion(
        f"bamboogle_{number}",
        row.question.strip(),
        row.answer.strip(),
        type="compositional",
        num_hops=2,
    )


def _reason(question: str, answer: str | None) -> SkipReason | None:
    if not question.strip():
        return SkipReason.BLANK_QUESTION
    if answer is None or not answer.strip():
        return SkipReason.NO_ANSWER
    return None if normalize_answer(answer) else SkipReason.EMPTY_ANSWER


def _passage(title: str, text: str) -> SourcePassage:
    return SourcePassage(_clean_title(title), " ".join(text.split()))


def _clean_title(title: str) -> str:
    """Titles come with `&amp;` in them, texts do not."""
    return " ".join(html.unescape(title).split())


FORMATS: Mapping[Kind, Format] = {
    Kind.HOTPOTQA: Format("hotpotqa", _read_hotpot),
    Kind.MUSIQUE: Format("musique", _read_musique),
    Kind.TWO_WIKI: Format("2wikimultihopqa", _read_hotpot),
    Kind.BAMBOOGLE: Format("bamboogle", _read_bamboogle, has_passages=False),
}
