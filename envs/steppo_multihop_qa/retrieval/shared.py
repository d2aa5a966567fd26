"""One retriever a process for each corpus and setting, however many episodes search it."""

import atexit
import threading
from collections.abc import Callable

from steppo_multihop_qa.options import MultihopOptions
from steppo_multihop_qa.retrieval.factory import make_retriever
from steppo_multihop_qa.retrieval.passages import Corpus
from steppo_multihop_qa.retrieval.protocol import Retriever

__all__ = ["close_shared", "shared_retriever"]

SETTINGS = (
    "retriever",
    "embeddings_url",
    "embeddings_model",
    "query_prefix",
    "passage_prefix",
    "search_url",
    "api_key_env",
    "service_timeout_s",
)
"""The options that a retriever depends on, beside the corpus."""


class _Shared:
    """A retriever that the first who asks for it makes, while the others wait."""

    def __init__(self, make: Callable[[], Retriever]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: Retriever | None = None

    def get(self) -> Retriever:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None


_lock = threading.Lock()
_shared: dict[tuple[object, ...], _Shared] = {}


def shared_retriever(options: MultihopOptions, corpus: Corpus) -> Retriever:
    """Return the process's retriever of a corpus, made when it is first asked for.

    Raises:
        MissingData: Dense retrieval is asked for, and its index was not built.
    """
    key = (corpus.key, *(getattr(options, name) for name in SETTINGS))
    with _lock:
        shared = _shared.setdefault(key, _Shared(lambda: make_retriever(options, corpus)))
    return shared.get()


def close_shared() -> None:
    """Close every shared retriever; the next episode makes a new one."""
    with _lock:
        closed = list(_shared.values())
        _shared.clear()
    for shared in closed:
        shared.close()


atexit.register(close_shared)
