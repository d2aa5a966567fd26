"""Passages, the corpus they make, and the words that lexical retrieval sees in them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

__all__ = ["Corpus", "Passage", "words_of"]

_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Passage:
    """One document of a corpus."""

    passage_id: str
    title: str
    text: str


def words_of(text: str) -> list[str]:
    """Return the words that lexical retrieval sees in a text.

    >>> words_of("Who wrote 'The Tin-Drum' (1959)?")
    ['who', 'wrote', 'the', 'tin', 'drum', '1959']
    """
    return _WORD.findall(text.lower())


class Corpus:
    """The passages of a pack in order of their ids; a passage's place is its number in that order.

    The order of the places is what breaks ties between equal scores.

    Attributes:
        passages: Every passage, by place.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self.passages = tuple(sorted(passages, key=lambda passage: passage.passage_id))

    def __len__(self) -> int:
        return len(self.passages)

    @cached_property
    def key(self) -> str:
        """Digest of every id, title and text: equal exactly when two corpora are the same."""
        hashed = blake2b(digest_size=16)
        for passage in self.passages:
            for part in (passage.passage_id, passage.title, passage.text):
                content = part.encode("utf-8", "surrogatepass")
                hashed.update(b"%d:" % len(content))
                hashed.update(content)
        return hashed.hexdigest()

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The place of each passage, by id."""
        return {passage.passage_id: place for place, passage in enumerate(self.passages)}

    def words(self) -> Iterator[list[str]]:
        """Yield the words of each passage, title first."""
        for passage in self.passages:
            yield words_of(f"{passage.title} {passage.text}")
