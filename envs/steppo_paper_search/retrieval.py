"""Lexical search over title and abstract: BM25, exact, deterministic, built once per graph."""

import logging
import re
from functools import lru_cache
from typing import TypeAlias, cast

import bm25s
import numpy as np
import numpy.typing as npt

from steppo_paper_search.graph import PaperGraph

__all__ = ["LexicalIndex", "Scores", "query_key", "tokenize"]

Scores: TypeAlias = npt.NDArray[np.float32]

K1 = 1.2
B = 0.75
NUM_CACHED_SEARCHES = 8_192
NUM_CACHED_SCORES = 32

_WORD = re.compile("[a-z0-9]+")

# bm25s sets its logger to DEBUG on import and reports each index it builds.
logging.getLogger("bm25s").setLevel(logging.WARNING)


def tokenize(text: str) -> list[str]:
    """Return the words of a text.

    >>> tokenize("Chern-Simons theory, revisited (1994)")
    ['chern', 'simons', 'theory', 'revisited', '1994']
    """
    return _WORD.findall(text.lower())


def query_key(query: str) -> str:
    """Return what two queries share exactly when they find the same: their words, in order."""
    return " ".join(tokenize(query))


class LexicalIndex:
    """BM25 (the variant of Lucene, k1 1.2, b 0.75) over the papers of a graph.

    Safe to share between threads: nothing changes after construction but the two caches.
    """

    def __init__(self, graph: PaperGraph) -> None:
        self._years = graph.years
        self._vocabulary: dict[str, int] = {}
        number = self._vocabulary.setdefault
        # Word numbers are given here, in the order of the texts: bm25s numbers them by set order.
        documents = [
            [number(word, len(self._vocabulary)) for word in tokenize(paper.text)]
            for paper in graph.papers
        ]
        self._bm25 = bm25s.BM25(method="lucene", k1=K1, b=B)
        if self._vocabulary:
            self._bm25.index(
                (documents, self._vocabulary), create_empty_token=False, show_progress=False
            )
        self._cached_search = lru_cache(NUM_CACHED_SEARCHES)(self._search)
        self._cached_scores = lru_cache(NUM_CACHED_SCORES)(self._scores)

    def search(self, query: str, top_k: int, latest_year: int | None = None) -> tuple[int, ...]:
        """Return the places of the best papers for a query, best first, ties by id.

        Papers that share no word with the query are not found.

        Args:
            latest_year: Papers that appeared later are not found (None: no limit).
        """
        return self._cached_search(query_key(query), top_k, latest_year)

    def scores(self, query: str) -> Scores:
        """Return the BM25 score of every paper, shape (number of papers,). Not to be changed."""
        return self._cached_scores(query_key(query))

    def _scores(self, key: str) -> Scores:
        known = [self._vocabulary[word] for word in key.split() if word in self._vocabulary]
        if not known:
            scores: Scores = np.zeros(len(self._years), dtype=np.float32)
        else:
            scores = cast(Scores, self._bm25.get_scores_from_ids(known))
        scores.flags.writeable = False
        return scores

    def _search(self, key: str, top_k: int, latest_year: int | None) -> tuple[int, ...]:
        scores = self._scores(key)
        if latest_year is not None:
            scores = np.where(self._years <= latest_year, scores, np.float32(0.0))
        if top_k < len(scores):
            # Everything as good as the last of the best, so that ties are cut by id.
            threshold = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
            (places,) = np.nonzero((scores >= threshold) & (scores > 0))
        else:
            (places,) = np.nonzero(scores > 0)
        order = np.argsort(-scores[places], kind="stable")[:top_k]
        return tuple(int(place) for place in places[order])
