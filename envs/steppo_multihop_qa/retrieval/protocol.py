"""What the environment asks of retrieval."""

from collections.abc import Sequence
from typing import Protocol

from steppo_multihop_qa.retrieval.passages import Passage

__all__ = ["Retriever"]


class Retriever(Protocol):
    """Ranks the passages of one corpus. Shared by every episode of a process, from any thread."""

    @property
    def version(self) -> str:
        """Names the index and all that its rankings depend on and that can be known here."""
        ...

    def search(self, query: str, k: int) -> tuple[Passage, ...]:
        """Return at most `k` passages that the query finds, best first.

        Raises:
            TransportError: A service that it takes failed; a failure is never an empty result.
        """
        ...

    def search_batch(self, queries: Sequence[str], k: int) -> list[tuple[Passage, ...]]:
        """Return what `search` returns for each query, asking for all at once.

        Raises:
            TransportError: A service that it takes failed; then for none of the queries.
        """
        ...

    def close(self) -> None:
        """Give back connections and files. Nothing is searched afterwards."""
        ...
