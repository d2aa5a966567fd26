"""What an episode of multi-hop QA has found out: its searches and the passages they brought."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from steppo_multihop_qa.retrieval import words_of

__all__ = ["History", "Reply", "Search"]


@dataclass(frozen=True, slots=True)
class Search:
    """A query and the ids of the passages it found, best first."""

    query: str
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of the last response.

    Attributes:
        made: Numbers of the searches that it made, in order.
        repeated: Numbers of the earlier searches that it asked for again, in order.
        notes: What was rejected and why.
        is_first: True before the first response; then the searches are not the policy's.
    """

    made: tuple[int, ...] = ()
    repeated: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    is_first: bool = False


@dataclass(slots=True)
class History:
    """The searches of an episode, each query once, and the passages in order of discovery.

    Searches and passages are numbered from 0.

    Attributes:
        searches: In the order made.
        passage_numbers: Number of each passage seen, by id.
        finders: Number of the search that found each passage, by number of the passage.
        num_repeated: How many times an earlier query was asked again.
        answer: The final answer, or None while there is none.
        reply: What came of the last response.
    """

    searches: list[Search] = field(default_factory=list)
    passage_numbers: dict[str, int] = field(default_factory=dict)
    finders: list[int] = field(default_factory=list)
    num_repeated: int = 0
    answer: str | None = None
    reply: Reply = field(default_factory=Reply)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number_of(self, query: str) -> int | None:
        """Return the number of the search with the same words, or None when it is a new one."""
        return self._numbers.get(_normal(query))

    def add(self, query: str, found: Sequence[str]) -> int:
        """Record a new search and return its number."""
        number = len(self.searches)
        self.searches.append(Search(query, tuple(found)))
        self._numbers[_normal(query)] = number
        for passage_id in found:
            if passage_id not in self.passage_numbers:
                self.passage_numbers[passage_id] = len(self.finders)
                self.finders.append(number)
        return number

    def new_in(self, number: int) -> tuple[str, ...]:
        """Return the ids of the passages that a search was the first to find."""
        return tuple(
            passage_id
            for passage_id in self.searches[number].found
            if self.finders[self.passage_numbers[passage_id]] == number
        )

    def canonical(self) -> JsonValue:
        """Return the state proper: queries, passages and answer, without counts or feedback."""
        queries: list[JsonValue] = [search.query for search in self.searches]
        return {"queries": queries, "passages": list(self.passage_numbers), "answer": self.answer}

    def to_json(self) -> bytes:
        """Return everything, for a snapshot."""
        return json.dumps(
            {
                "searches": [[search.query, search.found] for search in self.searches],
                "num_repeated": self.num_repeated,
                "answer": self.answer,
                "reply": [self.reply.made, self.reply.repeated, self.reply.notes],
                "is_first": self.reply.is_first,
            }
        ).encode()

    @classmethod
    def from_json(cls, saved: bytes) -> "History":
        """Return the history that `to_json` wrote."""
        values = json.loads(saved)
        history = cls(num_repeated=values["num_repeated"], answer=values["answer"])
        for query, found in values["searches"]:
            history.add(query, found)
        made, repeated, notes = (tuple(items) for items in values["reply"])
        history.reply = Reply(made, repeated, notes, values["is_first"])
        return history


def _normal(query: str) -> str:
    """Return what makes two queries one: the words that retrieval sees, in order.

    A query without such words, as in another script, stands for itself.
    """
    return " ".join(words_of(query)) or query.casefold()
