"""The retriever that the options ask for, the version it has, and the index it is built from."""

from pathlib import Path

from steppo_env.errors import Conflict, InvalidInput, SteppoError
from steppo_multihop_qa.options import MultihopOptions, Retrieval
from steppo_multihop_qa.retrieval.dense import DenseRetriever, missing_index
from steppo_multihop_qa.retrieval.dense_index import Progress, dense_folder, write_vectors
from steppo_multihop_qa.retrieval.embeddings import EmbeddingsEndpoint
from steppo_multihop_qa.retrieval.index_store import IndexFolder
from steppo_multihop_qa.retrieval.lucene import BM25SRetriever
from steppo_multihop_qa.retrieval.okapi import RankBM25Retriever
from steppo_multihop_qa.retrieval.passages import Corpus
from steppo_multihop_qa.retrieval.protocol import Retriever
from steppo_multihop_qa.retrieval.remote import RemoteRetriever

__all__ = ["LARGE_CORPUS", "build_index", "index_version", "make_retriever"]

LARGE_CORPUS = 5_000
"""Passages above which `auto` takes the precomputed index."""
DEADLINES = 10
"""Timeouts that a search waits at most: for the call on its way and its own, each sent four times."""
BUILD_LOCK_S = 1.0


def make_retriever(options: MultihopOptions, corpus: Corpus) -> Retriever:
    """Open or make what ranks a corpus.

    Raises:
        MissingData: Dense retrieval is asked for, and its index was not built.
    """
    match _kind(options, corpus):
        case Retrieval.BM25S:
            folder = BM25SRetriever.folder_of(corpus)
            found = folder.open_or_build(
                lambda path: BM25SRetriever.open(corpus, path),
                lambda path: BM25SRetriever.write(corpus, path),
            )
            return BM25SRetriever.in_memory(corpus) if found is None else found
        case Retrieval.DENSE:
            return DenseRetriever(
                corpus,
                _endpoint(options, options.service_timeout_s),
                query_prefix=options.query_prefix,
                passage_prefix=options.passage_prefix,
                deadline_s=DEADLINES * options.service_timeout_s,
            )
        case Retrieval.REMOTE:
            return RemoteRetriever(
                corpus,
                options.search_url or "",
                api_key_env=options.api_key_env,
                timeout_s=options.service_timeout_s,
                deadline_s=DEADLINES * options.service_timeout_s,
            )
        case _:
            return RankBM25Retriever(corpus)


def index_version(options: MultihopOptions, corpus: Corpus) -> str:
    """Return the version of what `make_retriever` returns; no index is opened or built.

    Raises:
        MissingData: Dense retrieval is asked for, and its index was not built.
    """
    match _kind(options, corpus):
        case Retrieval.BM25S:
            return BM25SRetriever.folder_of(corpus).version
        case Retrieval.DENSE:
            folder = _dense_folder(options, corpus)
            if not folder.is_there:
                raise missing_index(folder)
            return DenseRetriever.version_of(folder, options.query_prefix)
        case Retrieval.REMOTE:
            return RemoteRetriever.version_of(corpus, options.search_url or "")
        case _:
            return RankBM25Retriever.version_of(corpus)


def build_index(
    options: MultihopOptions,
    corpus: Corpus,
    *,
    batch_size: int = 64,
    timeout_s: float = 120.0,
    progress: Progress = lambda done, total: None,
) -> tuple[Path, bool]:
    """Build the index that the options need, where there is not a whole one yet.

    Args:
        batch_size: Passages in one request to the embeddings endpoint.
        timeout_s: For one attempt of such a request.
        progress: Called with the passages embedded and their number.

    Returns:
        The folder of the index, and whether it was built now.

    Raises:
        InvalidInput: This retriever has no index to build, or the folder cannot be written.
        Conflict: Another process is building it.
        TransportError: The endpoint failed; a later call goes on where this one stopped.
    """
    kind = _kind(options, corpus)
    if kind is Retrieval.BM25S:
        folder = BM25SRetriever.folder_of(corpus)
    elif kind is Retrieval.DENSE:
        folder = _dense_folder(options, corpus)
    else:
        raise InvalidInput(f"the retriever {kind} has no index to build; bm25s and dense have")
    try:
        with folder.lock(BUILD_LOCK_S):
            if folder.open(lambda path: path) is not None:
                return folder.path, False
            if kind is Retrieval.BM25S:
                folder.write(lambda path: BM25SRetriever.write(corpus, path))
            else:
                _write_dense(options, corpus, folder, batch_size, timeout_s, progress)
            return folder.path, True
    except SteppoError:
        raise
    except TimeoutError as error:
        raise Conflict(f"{folder.path}: {error}; wait until it is done") from error
    except OSError as error:
        raise InvalidInput(
            f"{folder.path} cannot be written: {error}; set STEPPO_HOME to a folder that can"
        ) from error


def _write_dense(
    options: MultihopOptions,
    corpus: Corpus,
    folder: IndexFolder,
    batch_size: int,
    timeout_s: float,
    progress: Progress,
) -> None:
    endpoint = _endpoint(options, timeout_s)
    try:
        folder.write(
            lambda path: write_vectors(
                corpus,
                endpoint,
                path,
                passage_prefix=options.passage_prefix,
                batch_size=batch_size,
                progress=progress,
            ),
            resumes=True,
        )
    finally:
        endpoint.close()


def _dense_folder(options: MultihopOptions, corpus: Corpus) -> IndexFolder:
    return dense_folder(corpus, options.embeddings_model or "", options.passage_prefix)


def _endpoint(options: MultihopOptions, timeout_s: float) -> EmbeddingsEndpoint:
    return EmbeddingsEndpoint(
        options.embeddings_url or "",
        options.embeddings_model or "",
        api_key_env=options.api_key_env,
        timeout_s=timeout_s,
    )


def _kind(options: MultihopOptions, corpus: Corpus) -> Retrieval:
    if options.retriever is not Retrieval.AUTO:
        return options.retriever
    return Retrieval.BM25S if len(corpus) > LARGE_CORPUS else Retrieval.RANK_BM25
