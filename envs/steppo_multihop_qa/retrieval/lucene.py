"""Lucene's BM25 with the scores of every word computed ahead, by bm25s; mapped from disk."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import bm25s
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from steppo_multihop_qa.retrieval.index_store import IndexFolder
from steppo_multihop_qa.retrieval.passages import Corpus, words_of
from steppo_multihop_qa.retrieval.ranking import best_places
from steppo_multihop_qa.retrieval.remembering import RememberingRetriever
from steppo_multihop_qa.retrieval.vocabulary import Vocabulary

__all__ = ["BM25SRetriever"]

FORMAT = 1
"""Part of the key of a kept index: a change in how it is made or read is a new number."""
PARAMETERS: dict[str, Any] = {"method": "lucene", "k1": 1.2, "b": 0.75}

# bm25s sets its logger to DEBUG on import and reports each index it builds.
logging.getLogger("bm25s").setLevel(logging.WARNING)


class BM25SRetriever(RememberingRetriever):
    """Scores precomputed by bm25s: Lucene's BM25, k1 1.2, b 0.75.

    The queries of a batch are ranked one by one: a sparse product over all of them takes longer.
    """

    def __init__(self, corpus: Corpus, index: bm25s.BM25, vocabulary: Vocabulary) -> None:
        super().__init__(corpus, self.folder_of(corpus).version)
        self._index = index
        self._vocabulary = vocabulary

    @staticmethod
    def folder_of(corpus: Corpus) -> IndexFolder:
        """Return where the index of a corpus is kept."""
        facts: dict[str, JsonValue] = {
            "format": FORMAT,
            "library": f"bm25s {bm25s.__version__}",
            "corpus": corpus.key,
            **PARAMETERS,
        }
        return IndexFolder("bm25s", facts)

    @classmethod
    def in_memory(cls, corpus: Corpus) -> Self:
        """Index a corpus in this process only."""
        return cls(corpus, *_index(corpus))

    @classmethod
    def write(cls, corpus: Corpus, folder: Path) -> None:
        """Index a corpus and write the index into a folder."""
        index, vocabulary = _index(corpus)
        index.save(folder, show_progress=False)
        vocabulary.save(folder)

    @classmethod
    def open(cls, corpus: Corpus, folder: Path) -> Self:
        """Map a written index into memory; its pages are shared by all processes that do."""
        index = bm25s.BM25.load(folder, mmap=True, load_vocab=False, show_progress=False)
        # Slices of a plain array cost a third of those of a numpy.memmap; the memory is the same.
        for name in ("data", "indices", "indptr"):
            index.scores[name] = np.asarray(index.scores[name])
        return cls(corpus, index, Vocabulary.open(folder))

    def _key(self, query: str) -> str:
        return " ".join(words_of(query))

    def _rank(self, queries: Sequence[str], k: int) -> list[tuple[int, ...]]:
        return [best_places(*self._scores(query.split()), k) for query in queries]

    def _scores(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the ascending places of the passages that have any of the words, and scores."""
        ids = [self._vocabulary.id_of(word) for word in words]
        known = [word_id for word_id in ids if word_id is not None]
        if not known:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        scores = np.asarray(self._index.get_scores_from_ids(known))
        # Lucene's inverse document frequency is positive, so a score above 0 is a common word.
        places = np.flatnonzero(scores > 0)
        return places, scores[places]


def _index(corpus: Corpus) -> tuple[bm25s.BM25, Vocabulary]:
    corpus_words = list(corpus.words())
    words = sorted({word for passage_words in corpus_words for word in passage_words})
    # Numbered in alphabetical order: bm25s would number the words in the order of a set.
    word_ids = {word: number for number, word in enumerate(words)}
    ids = [[word_ids[word] for word in passage_words] for passage_words in corpus_words]
    index = bm25s.BM25(**PARAMETERS)
    index.index((ids, word_ids), create_empty_token=False, show_progress=False)
    # Saved as arrays; a dictionary of its own would be saved too, and never read.
    index.vocab_dict = {}
    return index, Vocabulary.of(words)
