"""The embeddings of a corpus on disk: made in batches, continued where they stopped."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steppo_env.errors import TransportError
from steppo_multihop_qa.retrieval.embeddings import EmbeddingsEndpoint
from steppo_multihop_qa.retrieval.index_store import IndexFolder
from steppo_multihop_qa.retrieval.passages import Corpus, Passage

__all__ = ["Progress", "dense_folder", "open_vectors", "write_vectors"]

FORMAT = 1
"""Part of the key of a kept index: a change in how it is made or read is a new number."""
EMBEDDED_CHARS = 2000
"""What an encoder sees of a passage, title included: about the 512 tokens that most take."""
IN_FLIGHT = 4
"""Requests that the endpoint has at a time while a corpus is embedded."""

VECTORS, DONE = "vectors.npy", "done.json"

Progress = Callable[[int, int], None]


def dense_folder(corpus: Corpus, model: str, passage_prefix: str) -> IndexFolder:
    """Return where the embeddings of a corpus by a model are kept."""
    return IndexFolder(
        "dense",
        {
            "format": FORMAT,
            "corpus": corpus.key,
            "model": model,
            "passage_prefix": passage_prefix,
            "chars": EMBEDDED_CHARS,
        },
    )


def open_vectors(folder: Path) -> NDArray[np.float32]:
    """Map the vectors into memory, shape (passages, dimension); processes share the pages."""
    return np.asarray(np.load(folder / VECTORS, mmap_mode="r"))


def write_vectors(
    corpus: Corpus,
    endpoint: EmbeddingsEndpoint,
    folder: Path,
    *,
    passage_prefix: str,
    batch_size: int,
    progress: Progress,
) -> None:
    """Embed every passage into a folder, or those that an earlier call did not come to.

    Args:
        progress: Called with the passages done and their number, after every batch.

    Raises:
        TransportError: The endpoint failed, or has another dimension than before; call again to go on.
    """
    done = _num_done(folder)
    progress(done, len(corpus))
    vectors = np.load(folder / VECTORS, mmap_mode="r+") if done else None
    texts = [_embedded(passage_prefix, passage) for passage in corpus.passages]
    batches = [texts[start : start + batch_size] for start in range(done, len(texts), batch_size)]
    for made in _in_order(endpoint, batches):
        if vectors is None:
            shape = (len(corpus), made.shape[1])
            vectors = np.lib.format.open_memmap(folder / VECTORS, "w+", np.float32, shape)
        if made.shape[1] != vectors.shape[1]:
            raise TransportError(
                f"{endpoint.name} gave embeddings of {made.shape[1]} numbers, and the index begun in "
                f"{folder} has {vectors.shape[1]}; it is another model, or delete that folder"
            )
        vectors[done : done + len(made)] = made
        vectors.flush()
        done += len(made)
        _say_done(folder, done)
        progress(done, len(corpus))
    (folder / DONE).unlink()


def _embedded(prefix: str, passage: Passage) -> str:
    # An endpoint may refuse an empty text.
    return prefix + (f"{passage.title}\n{passage.text}".strip()[:EMBEDDED_CHARS] or "-")


def _in_order(
    endpoint: EmbeddingsEndpoint, batches: Sequence[list[str]]
) -> Iterator[NDArray[np.float32]]:
    """Yield the embeddings of each batch in turn, with a few requests under way."""
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="embed") as pool:
        waiting: deque[Future[NDArray[np.float32]]] = deque()
        try:
            for batch in batches:
                if len(waiting) == IN_FLIGHT:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(endpoint.embed, batch))
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _num_done(folder: Path) -> int:
    try:
        done = json.loads((folder / DONE).read_text())["done"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return done if isinstance(done, int) and (folder / VECTORS).is_file() else 0


def _say_done(folder: Path, done: int) -> None:
    # In one piece: whoever goes on believes it.
    new = folder / f"{DONE}.new"
    new.write_text(json.dumps({"done": done}))
    new.replace(folder / DONE)
