"""Dense retrieval against a real endpoint: what it asks, what it finds, and how it fails."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steppo_env.errors import Conflict, InvalidInput, InvalidOptions, MissingData, TransportError
from steppo_env.options import read_options
from steppo_multihop_qa.options import MultihopOptions
from steppo_multihop_qa.retrieval import (
    Corpus,
    Passage,
    Retriever,
    build_index,
    index_version,
    make_retriever,
)
from steppo_multihop_qa.retrieval.dense_index import dense_folder
from tests.envs.steppo_multihop_qa.retrieval.conftest import (
    DIMENSION,
    Answer,
    Service,
    embed,
    embedding,
)

Serve = Callable[[Answer], Service]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the indexes of each test apart."""
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "retrieval"


def dense(service: Service, **more: object) -> MultihopOptions:
    values = {"embeddings_url": f"{service.url}/v1", "embeddings_model": "hash", **more}
    return read_options(MultihopOptions, {"retriever": "dense", **values})


def built(options: MultihopOptions, corpus: Corpus) -> Retriever:
    build_index(options, corpus, batch_size=2, timeout_s=5)
    return make_retriever(options, corpus)


def brute_force(corpus: Corpus, query: str, k: int) -> list[str]:
    def score(passage: Passage) -> float:
        text = f"{passage.title}\n{passage.text}".strip() or "-"
        a, b = (np.array(embedding(part)) for part in (query, text))
        return round(float(a @ b / np.linalg.norm(a) / max(np.linalg.norm(b), 1e-9)), 6)

    return [
        item.passage_id
        for item in sorted(corpus.passages, key=lambda item: (-score(item), item.passage_id))
    ][:k]


@pytest.fixture
def full(corpus: Corpus) -> Corpus:
    """Return passages that all have a word: the endpoint of the tests counts words."""
    return Corpus(corpus.passages[:4])


def test_it_finds_what_brute_force_over_the_same_embeddings_finds(
    full: Corpus, serve: Serve
) -> None:
    with closing(built(dense(serve(embed)), full)) as retriever:
        for query in ("Oxmoor Lune", "born", "river miles", "Ada"):
            found = [item.passage_id for item in retriever.search(query, 3)]
            assert found == brute_force(full, query, 3)


def test_each_passage_is_embedded_once_and_each_query_with_its_prefix(
    full: Corpus, serve: Serve
) -> None:
    service = serve(embed)
    options = dense(service, query_prefix="find: ", passage_prefix="text: ")
    with closing(built(options, full)) as retriever:
        texts = [text for _, _, body in service.requests for text in body["input"]]
        assert sorted(texts) == sorted(f"text: {item.title}\n{item.text}" for item in full.passages)
        retriever.search_batch(["Ada", "Lune", "Ada"], 2)
        retriever.search("Lune", 2)
    path, _, body = service.requests[-1]
    assert path == "/v1/embeddings"
    assert body == {
        "model": "hash",
        "input": ["find: Ada", "find: Lune"],
        "encoding_format": "float",
    }
    assert len(service.requests) == 3


def test_concurrent_searches_share_requests(full: Corpus, serve: Serve) -> None:
    service = serve(embed)
    options = dense(service)
    go_on = threading.Event()
    with closing(built(options, full)) as retriever, ThreadPoolExecutor(12) as pool:
        num_built = len(service.requests)

        def slow(path: str, body: Any) -> tuple[int, Any]:
            assert go_on.wait(10)
            return embed(path, body)

        service.answer = slow
        queries = [f"Lune {number}" for number in range(12)]
        futures = [pool.submit(retriever.search, query, 2) for query in queries]
        batcher = retriever._batcher  # type: ignore[attr-defined]
        deadline = time.monotonic() + 10
        while len(batcher._waiting) < 11:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        go_on.set()
        found = [future.result(10) for future in futures]
        assert len(service.requests) - num_built == 2
        assert sorted(len(body["input"]) for _, _, body in service.requests[num_built:]) == [1, 11]
    assert [[item.passage_id for item in each] for each in found] == [
        brute_force(full, query, 2) for query in queries
    ]


def test_an_environment_does_not_embed_a_corpus_but_says_what_does(
    full: Corpus, serve: Serve
) -> None:
    options = dense(serve(embed))
    for ask in (make_retriever, index_version):
        with pytest.raises(MissingData, match="steppo data index --retriever dense"):
            ask(options, full)


def test_a_build_goes_on_where_the_endpoint_failed(full: Corpus, serve: Serve, once: None) -> None:
    service = serve(lambda path, body: embed(path, body))
    options = dense(service)

    def until_p3(path: str, body: Any) -> tuple[int, Any]:
        return (500, "down") if "miles" in str(body) else embed(path, body)

    service.answer = until_p3
    with pytest.raises(TransportError, match="500"):
        build_index(options, full, batch_size=2)
    service.answer = embed
    num_before, seen = len(service.requests), []
    folder, was_built = build_index(
        options, full, batch_size=1, progress=lambda done, total: seen.append((done, total))
    )
    assert was_built
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert len(service.requests) - num_before == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        "index.json",
        "vectors.npy",
    ]
    assert build_index(options, full) == (folder, False)
    with closing(make_retriever(options, full)) as retriever:
        found = [item.passage_id for item in retriever.search("53 miles", 4)]
        assert found == brute_force(full, "53 miles", 4)


def test_a_build_is_not_continued_with_another_dimension(
    full: Corpus, serve: Serve, once: None
) -> None:
    service = serve(lambda path, body: (500, "") if "miles" in str(body) else embed(path, body))
    options = dense(service)
    with pytest.raises(TransportError):
        build_index(options, full, batch_size=2)
    service.answer = small
    with pytest.raises(TransportError, match=rf"of 3 numbers.* has {DIMENSION}"):
        build_index(options, full, batch_size=2)


def test_one_builds_at_a_time(full: Corpus, serve: Serve, home: Path) -> None:
    options = dense(serve(embed))
    with dense_folder(full, "hash", "").lock(1.0), pytest.raises(Conflict, match="another process"):
        build_index(options, full)


def test_a_folder_that_cannot_be_written_is_named(
    full: Corpus, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "file"))
    with pytest.raises(InvalidInput, match="STEPPO_HOME"):
        build_index(dense(serve(embed)), full)


def answer_with(vectors: list[list[float]]) -> Answer:
    data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    return lambda path, body: (200, {"data": data})


def small(path: str, body: Any) -> tuple[int, Any]:
    return answer_with([[1.0, 2.0, 3.0]] * len(body["input"]))(path, body)


ONE = [1.0] * DIMENSION
BAD_ANSWERS: dict[str, tuple[Answer, str]] = {
    "status": (lambda path, body: (500, {"error": "out of memory"}), "500.*out of memory"),
    "refused": (lambda path, body: (400, {"error": "too long"}), "400.*too long"),
    "form": (lambda path, body: (200, {"vectors": []}), "another form"),
    "none": (answer_with([]), "0 embeddings for 1 texts"),
    "two": (answer_with([ONE, ONE]), "2 embeddings for 1 texts"),
    "empty": (answer_with([[]]), "embeddings of 0 numbers"),
    "nan": (answer_with([[float("nan"), *ONE[1:]]]), "not finite, for 'Ada'"),
    "infinite": (answer_with([[float("inf"), *ONE[1:]]]), "not finite, for 'Ada'"),
    "zero": (answer_with([[0.0] * DIMENSION]), "is zero"),
    "dimension": (small, f"of 3 numbers, and the index was built with {DIMENSION}"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_an_error_and_the_next_search_is_not_spoilt(
    full: Corpus, serve: Serve, once: None, name: str
) -> None:
    service = serve(embed)
    with closing(built(dense(service), full)) as retriever:
        service.answer, problem = BAD_ANSWERS[name]
        with pytest.raises(TransportError, match=problem):
            retriever.search("Ada", 2)
        service.answer = embed
        assert retriever.search("Ada", 1)[0].passage_id == "p1"


def test_vectors_of_two_lengths_are_refused(full: Corpus, serve: Serve, once: None) -> None:
    service = serve(embed)
    with closing(built(dense(service), full)) as retriever:
        service.answer = answer_with([ONE, [1.0]])
        with pytest.raises(TransportError, match="of 1 and 64 numbers"):
            retriever.search_batch(["Ada", "Lune"], 2)


def test_a_service_that_does_not_answer_in_time_is_an_error(
    full: Corpus, serve: Serve, once: None
) -> None:
    service = serve(embed)
    options = dense(service, service_timeout_s=0.2)
    go_on = threading.Event()

    def hang(path: str, body: Any) -> tuple[int, Any]:
        go_on.wait(10)
        return embed(path, body)

    with closing(built(options, full)) as retriever:
        service.answer = hang
        with pytest.raises(TransportError, match="timed out"):
            retriever.search("Ada", 2)
        go_on.set()


def test_a_service_that_is_gone_is_an_error(full: Corpus, serve: Serve, once: None) -> None:
    options = dense(serve(embed))
    build_index(options, full)
    gone = options.model_copy(update={"embeddings_url": "http://127.0.0.1:9/v1"})
    with closing(make_retriever(gone, full)) as retriever, pytest.raises(TransportError):
        retriever.search("Ada", 2)


def test_the_key_is_read_from_the_environment_and_sent(
    full: Corpus, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(embed)
    options = dense(service, api_key_env="EMBED_KEY")
    monkeypatch.delenv("EMBED_KEY", raising=False)
    with pytest.raises(InvalidInput, match="EMBED_KEY"):
        build_index(options, full)
    monkeypatch.setenv("EMBED_KEY", "s3cret")
    build_index(options, full)
    assert service.requests[0][1]["authorization"] == "Bearer s3cret"


def test_version_and_index_depend_on_model_and_prefixes_and_not_on_the_address(
    full: Corpus, serve: Serve
) -> None:
    one, other = serve(embed), serve(embed)
    build_index(dense(one), full)
    version = index_version(dense(one), full)
    assert index_version(dense(other), full) == version
    assert index_version(dense(one, query_prefix="q: "), full) != version
    for changed in ({"embeddings_model": "new"}, {"passage_prefix": "p: "}):
        with pytest.raises(MissingData):
            index_version(dense(one, **changed), full)


@pytest.mark.parametrize("given", [{}, {"embeddings_url": "http://127.0.0.1:1"}])
def test_what_dense_needs_is_asked_for(given: dict[str, str]) -> None:
    with pytest.raises(InvalidOptions, match=r"retriever dense needs .*embeddings_model"):
        read_options(MultihopOptions, {"retriever": "dense", **given})


def test_a_url_that_is_none_is_refused(full: Corpus, serve: Serve) -> None:
    options = dense(serve(embed)).model_copy(update={"embeddings_url": "localhost:1"})
    with pytest.raises(InvalidInput, match="URL such as"):
        build_index(options, full)
