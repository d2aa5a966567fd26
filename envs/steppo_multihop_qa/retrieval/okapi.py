"""BM25Okapi of rank_bm25: nothing to build ahead, for small corpora."""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from steppo_env.keys import digest
from steppo_multihop_qa.retrieval.passages import Corpus, words_of
from steppo_multihop_qa.retrieval.ranking import best_places
from steppo_multihop_qa.retrieval.remembering import RememberingRetriever

__all__ = ["RankBM25Retriever"]

K1, B, EPSILON = 1.2, 0.75, 0.0


class RankBM25Retriever(RememberingRetriever):
    """BM25Okapi (k1 1.2, b 0.75, epsilon 0) over the passages that share a word with the query.

    With the library's own epsilon of 0.25 a word of more than half of the passages weighs a quarter of
    the average word, which costs up to 5 points of recall; with 0 it weighs nothing, and the rankings
    are nearly those of bm25s. Postings select the passages, because a score says nothing about it: the inverse document
    frequency of Okapi is 0 for a word in exactly half of the passages.
    """

    def __init__(self, corpus: Corpus) -> None:
        super().__init__(corpus, self.version_of(corpus))
        corpus_words = list(corpus.words())
        self._index = BM25Okapi(corpus_words, k1=K1, b=B, epsilon=EPSILON)
        postings: dict[str, list[int]] = {}
        for place, words in enumerate(corpus_words):
            for word in dict.fromkeys(words):
                postings.setdefault(word, []).append(place)
        self._postings = {word: np.array(places) for word, places in postings.items()}

    @staticmethod
    def version_of(corpus: Corpus) -> str:
        """Return the version that the index of a corpus has, without making it."""
        return f"rank_bm25-{digest([version('rank-bm25'), K1, B, EPSILON, corpus.key])}"

    def _key(self, query: str) -> str:
        return " ".join(words_of(query))

    def _rank(self, queries: Sequence[str], k: int) -> list[tuple[int, ...]]:
        return [best_places(*self._scores(query.split()), k) for query in queries]

    def _scores(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the ascending places of the passages that have any of the words, and scores."""
        found = [self._postings[word] for word in words if word in self._postings]
        if not found:
            return np.empty(0, dtype=np.int64), np.empty(0)
        places = np.unique(np.concatenate(found))
        scores = self._index.get_batch_scores(list(words), places.tolist())
        return places, np.asarray(scores, dtype=np.float64)
