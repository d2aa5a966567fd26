"""Rankings that are remembered: the samples of a group ask much the same."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

from steppo_multihop_qa.retrieval.passages import Corpus, Passage

__all__ = ["RememberingRetriever"]

RESULTS_KEPT = 4096
"""Rankings that one index remembers; the least recently asked goes first."""

Found = tuple[Passage, ...]


class RememberingRetriever(ABC):
    """A retriever that ranks each query once. Subclasses write `_rank`.

    Args:
        corpus: What is ranked.
        version: Names the index; one memory belongs to one version.
    """

    def __init__(self, corpus: Corpus, version: str) -> None:
        self._corpus = corpus
        self._version = version
        self._lock = threading.Lock()
        self._recent: OrderedDict[tuple[str, int], Found] = OrderedDict()

    @property
    def version(self) -> str:
        """Names the index and all that its rankings depend on and that can be known here."""
        return self._version

    def search(self, query: str, k: int) -> Found:
        """Return at most `k` passages that the query finds, best first."""
        return self.search_batch((query,), k)[0]

    def search_batch(self, queries: Sequence[str], k: int) -> list[Found]:
        """Return what `search` returns for each query; what is not remembered is ranked at once."""
        keys = [(self._key(query), k) for query in queries]
        found = self._recall(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            ranked = self._rank([text for text, _ in missing], k)
            passages = self._corpus.passages
            for key, places in zip(missing, ranked, strict=True):
                found[key] = tuple(passages[place] for place in places)
            self._remember({key: found[key] for key in missing})
        return [found[key] for key in keys]

    def close(self) -> None:  # noqa: B027 - most hold nothing that must be given back
        """Give back connections and files."""

    def _key(self, query: str) -> str:
        """Return what makes two queries one, as `_rank` takes it."""
        return query

    @abstractmethod
    def _rank(self, queries: Sequence[str], k: int) -> Sequence[Sequence[int]]:
        """Return the places of at most `k` passages for each query, best first, ties by place."""

    def _recall(self, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Found]:
        with self._lock:
            found = {key: self._recent[key] for key in keys if key in self._recent}
            for key in found:
                self._recent.move_to_end(key)
        return found

    def _remember(self, ranked: dict[tuple[str, int], Found]) -> None:
        with self._lock:
            self._recent.update(ranked)
            while len(self._recent) > RESULTS_KEPT:
                self._recent.popitem(last=False)
