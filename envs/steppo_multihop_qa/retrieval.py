"""Retrieval over a corpus of passages: two implementations of BM25 behind one protocol.

Both see a passage as the words of its title and text, [a-z0-9]+ in lower case, without stemming or
stop words, and rank deterministically: equal scores are ordered by passage id.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import bm25s
import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from steppo_multihop_qa.options import Retrieval

__all__ = [
    "BM25SRetriever",
    "Passage",
    "RankBM25Retriever",
    "Retriever",
    "make_retriever",
    "words_of",
]

_WORD = re.compile(r"[a-z0-9]+")
RESULTS_KEPT = 4096
"""Rankings that one index remembers; the samples of a group ask much the same."""
LARGE_CORPUS = 5_000
"""Passages above which `auto` takes the precomputed index."""

# bm25s sets its logger to DEBUG on import and reports each index it builds.
logging.getLogger("bm25s").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Passage:
    """One document of a corpus."""

    passage_id: str
    title: str
    text: str


class Retriever(Protocol):
    """Ranks the passages of one corpus. Shared by every episode of a process."""

    def search(self, query: str, k: int) -> tuple[Passage, ...]:
        """Return at most `k` passages that have a word of the query, best first."""
        ...


def words_of(text: str) -> list[str]:
    """Return the words that retrieval sees in a text.

    >>> words_of("Who wrote 'The Tin-Drum' (1959)?")
    ['who', 'wrote', 'the', 'tin', 'drum', '1959']
    """
    return _WORD.findall(text.lower())


class _BM25(ABC):
    """What the implementations share: order by id, known words, and memory of recent results."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        # In order of id, so that a stable sort by score breaks ties by id.
        self._passages = sorted(passages, key=lambda passage: passage.passage_id)
        self._ranked: Callable[[tuple[str, ...], int], tuple[Passage, ...]] = lru_cache(
            maxsize=RESULTS_KEPT
        )(self._rank)

    def search(self, query: str, k: int) -> tuple[Passage, ...]:
        """Return at most `k` passages that have a word of the query, best first."""
        return self._ranked(tuple(words_of(query)), k)

    def _rank(self, words: tuple[str, ...], k: int) -> tuple[Passage, ...]:
        places, scores = self._scores(words)
        if len(places) > k:
            cut = np.partition(scores, len(scores) - k)[len(scores) - k]
            places, scores = places[scores >= cut], scores[scores >= cut]
        order = np.argsort(-scores, kind="stable")[:k]
        return tuple(self._passages[place] for place in places[order])

    @abstractmethod
    def _scores(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the ascending places of the passages that have any of the words, and scores."""

    def _corpus_words(self) -> list[list[str]]:
        return [words_of(f"{passage.title} {passage.text}") for passage in self._passages]


class RankBM25Retriever(_BM25):
    """BM25Okapi (k1 1.5, b 0.75, epsilon 0.25) over the passages that share a word with the query.

    Postings select those passages, because a score says nothing about it: the inverse document
    frequency of Okapi is 0 for a word in exactly half of the passages.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        super().__init__(passages)
        corpus_words = self._corpus_words()
        self._index = BM25Okapi(corpus_words)
        postings: dict[str, list[int]] = {}
        for place, words in enumerate(corpus_words):
            for word in dict.fromkeys(words):
                postings.setdefault(word, []).append(place)
        self._postings = {word: np.array(places) for word, places in postings.items()}

    def _scores(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        found = [self._postings[word] for word in words if word in self._postings]
        if not found:
            return np.empty(0, dtype=np.int64), np.empty(0)
        places = np.unique(np.concatenate(found))
        scores = self._index.get_batch_scores(list(words), places.tolist())
        return places, np.asarray(scores, dtype=np.float64)


class BM25SRetriever(_BM25):
    """Scores precomputed by bm25s: Lucene's BM25, k1 1.2, b 0.75."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        super().__init__(passages)
        # Numbered in order of appearance: bm25s would number the words in the order of a set.
        self._word_ids: dict[str, int] = {}
        word_ids = self._word_ids
        ids = [
            [word_ids.setdefault(word, len(word_ids)) for word in words]
            for words in self._corpus_words()
        ]
        self._index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        self._index.index((ids, dict(word_ids)), create_empty_token=False, show_progress=False)

    def _scores(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        known = [self._word_ids[word] for word in words if word in self._word_ids]
        if not known:
            return np.empty(0, dtype=np.int64), np.empty(0)
        scores = np.asarray(self._index.get_scores_from_ids(known))
        # Lucene's inverse document frequency is positive, so a score above 0 is a common word.
        places = np.flatnonzero(scores > 0)
        return places, scores[places].astype(np.float64)


def make_retriever(kind: Retrieval, passages: Sequence[Passage]) -> Retriever:
    """Index a corpus."""
    if kind is Retrieval.AUTO:
        kind = Retrieval.BM25S if len(passages) > LARGE_CORPUS else Retrieval.RANK_BM25
    return BM25SRetriever(passages) if kind is Retrieval.BM25S else RankBM25Retriever(passages)
