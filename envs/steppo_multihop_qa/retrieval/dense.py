"""Dense retrieval: a query's embedding against those of all passages."""

from collections.abc import Sequence

from steppo_env.errors import MissingData, TransportError
from steppo_env.keys import digest
from steppo_multihop_qa.retrieval.batcher import Batcher
from steppo_multihop_qa.retrieval.dense_index import dense_folder, open_vectors
from steppo_multihop_qa.retrieval.embeddings import EmbeddingsEndpoint
from steppo_multihop_qa.retrieval.index_store import IndexFolder
from steppo_multihop_qa.retrieval.passages import Corpus
from steppo_multihop_qa.retrieval.remembering import RememberingRetriever
from steppo_multihop_qa.retrieval.vectors import nearest

__all__ = ["DenseRetriever", "missing_index"]

MAX_BATCH = 64
"""Most queries of concurrent episodes that go into one request."""

_Ask = tuple[str, int]


class DenseRetriever(RememberingRetriever):
    """Exact inner product with the unit embeddings of the passages, mapped from disk.

    Every query finds `k` passages, where there are so many.

    Args:
        corpus: What was embedded.
        endpoint: Embeds the queries; the retriever closes it.
        query_prefix: Stands before each query, such as the instruction of a BGE model.
        passage_prefix: Stood before each passage when the index was built.
        deadline_s: Longest that a search waits for its turn and its answer, in seconds.

    Raises:
        MissingData: No index was built for this corpus, model and prefix, or it is damaged.
    """

    def __init__(
        self,
        corpus: Corpus,
        endpoint: EmbeddingsEndpoint,
        *,
        query_prefix: str = "",
        passage_prefix: str = "",
        deadline_s: float = 120.0,
    ) -> None:
        folder = dense_folder(corpus, endpoint.model, passage_prefix)
        super().__init__(corpus, self.version_of(folder, query_prefix))
        self._endpoint = endpoint
        self._query_prefix = query_prefix
        vectors = folder.open(open_vectors)
        if vectors is None or vectors.shape[0] != len(corpus):
            raise missing_index(folder)
        self._vectors = vectors
        self._batcher = Batcher(
            self._find, endpoint.name, max_items=MAX_BATCH, deadline_s=deadline_s
        )

    @staticmethod
    def version_of(folder: IndexFolder, query_prefix: str) -> str:
        """Return the version of an index with the prefix of its queries, without opening it."""
        return f"dense-{digest([folder.version, query_prefix])}"

    def close(self) -> None:
        """Close the connections to the endpoint."""
        self._endpoint.close()

    def _rank(self, queries: Sequence[str], k: int) -> Sequence[tuple[int, ...]]:
        return self._batcher.ask([(query, k) for query in queries])

    def _find(self, asked: Sequence[_Ask]) -> list[tuple[int, ...]]:
        """Rank the queries of several episodes, each different one embedded once.

        Together, because one product with 64 queries takes a seventh of the time of 64 products.
        """
        queries = list(dict.fromkeys(query for query, _ in asked))
        embedded = self._endpoint.embed([self._query_prefix + query for query in queries])
        if embedded.shape[1] != self._vectors.shape[1]:
            raise TransportError(
                f"{self._endpoint.name} gives embeddings of {embedded.shape[1]} numbers, and the "
                f"index was built with {self._vectors.shape[1]}; it is another model than the one "
                "that embedded the passages"
            )
        found: dict[_Ask, tuple[int, ...]] = {}
        for k in dict.fromkeys(k for _, k in asked):
            places = nearest(self._vectors, embedded, k)
            found.update(((query, k), ranked) for query, ranked in zip(queries, places))
        return [found[ask] for ask in asked]


def missing_index(folder: IndexFolder) -> MissingData:
    """Return the error of an index that is not there; environments do not embed whole corpora."""
    return MissingData(
        f"there is no whole index {folder.path} of this corpus by the model "
        f"{folder.facts['model']!r}; build it with: steppo data index --retriever dense"
    )
