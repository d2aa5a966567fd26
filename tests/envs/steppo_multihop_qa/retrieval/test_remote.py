"""A search service in Search-R1's form: what it is asked, how passages are known, how it fails."""

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from steppo_env.errors import InvalidOptions, TransportError
from steppo_env.options import read_options
from steppo_multihop_qa.options import MultihopOptions
from steppo_multihop_qa.retrieval import Corpus, Passage, RemoteRetriever, make_retriever, words_of
from tests.envs.steppo_multihop_qa.retrieval.conftest import Answer, Service

Serve = Callable[[Answer], Service]
Hits = list[dict[str, Any]]


def ids(retriever: RemoteRetriever, query: str, k: int = 5) -> list[str]:
    return [passage.passage_id for passage in retriever.search(query, k)]


def finds(hits: Hits) -> Answer:
    return lambda path, body: (200, {"result": [hits for _ in body["queries"]]})


def hit(score: float = 1.0, **document: object) -> dict[str, Any]:
    return {"document": document, "score": score}


def by_words(corpus: Corpus) -> Answer:
    """Answer with the passages by their number of common words."""

    def answer(path: str, body: Any) -> tuple[int, Any]:
        assert path == "/retrieve"
        result = []
        for query in body["queries"]:
            wanted = set(words_of(query))
            counts = {item: len(wanted & set(words_of(item.text))) for item in corpus.passages}
            best = sorted((item for item in counts if counts[item]), key=lambda item: -counts[item])
            result.append(
                [hit(counts[item], **as_search_r1(item)) for item in best[: body["topk"]]]
            )
        return 200, {"result": result}

    return answer


def as_search_r1(passage: Passage) -> dict[str, str]:
    return {"id": passage.passage_id, "contents": f'"{passage.title}"\n{passage.text}'}


def test_queries_go_in_one_request_each_once(corpus: Corpus, serve: Serve) -> None:
    service = serve(by_words(corpus))
    with closing(RemoteRetriever(corpus, service.url)) as retriever:
        found = retriever.search_batch(["born", "miles long", "born", "zyx"], 2)
        assert [[item.passage_id for item in each] for each in found] == [
            ["p1"],
            ["p3"],
            ["p1"],
            [],
        ]
        assert found[0][0] is corpus.passages[0]
        retriever.search("miles long", 2)
    assert [(path, body) for path, _, body in service.requests] == [
        (
            "/retrieve",
            {"queries": ["born", "miles long", "zyx"], "topk": 2, "return_scores": True},
        )
    ]


@pytest.mark.parametrize(
    "document",
    [
        {"id": "p2"},
        {"id": "p2", "title": "oxmoor ", "text": "cut sho"},
        {"id": "p2", "contents": "Oxmoor lies ..."},
        {"id": 17, "title": "Oxmoor", "text": "Oxmoor lies on the river Lune."},
        {"contents": '"Oxmoor"\nOxmoor lies on  the river Lune.'},
        {"contents": "Oxmoor\nOxmoor lies on the river Lune."},
    ],
)
def test_a_document_is_known_by_id_or_by_title_and_text(
    corpus: Corpus, serve: Serve, document: dict[str, object]
) -> None:
    with closing(
        RemoteRetriever(corpus, serve(finds([{"document": document, "score": 1.0}])).url)
    ) as retriever:
        assert ids(retriever, "Oxmoor") == ["p2"]


def test_a_number_is_an_id_too(serve: Serve) -> None:
    corpus = Corpus([Passage("12", "", "a"), Passage("7", "", "b")])
    with closing(RemoteRetriever(corpus, serve(finds([hit(id=7)])).url)) as retriever:
        assert ids(retriever, "x") == ["7"]


def test_order_is_the_services_with_equal_scores_by_id_each_passage_once(
    corpus: Corpus, serve: Serve
) -> None:
    scored = [("p3", 9.0), ("p4", 2.0), ("p1", 2.0), ("p3", 1.0), ("p2", 0.5)]
    service = serve(finds([hit(score, id=name) for name, score in scored]))
    with closing(RemoteRetriever(corpus, service.url)) as retriever:
        assert ids(retriever, "a") == ["p3", "p1", "p4", "p2"]
        assert ids(retriever, "a", 2) == ["p3", "p1"]


BAD_ANSWERS: dict[str, tuple[Answer, str]] = {
    "status": (lambda path, body: (500, "no index"), "500.*no index"),
    "form": (lambda path, body: (200, {"results": []}), "another form"),
    "unscored": (lambda path, body: (200, {"result": [[{"id": "p1"}]]}), "another form"),
    "too few": (lambda path, body: (200, {"result": []}), "0 results for 1 queries"),
    "too many": (lambda path, body: (200, {"result": [[], []]}), "2 results for 1 queries"),
    "nan": (finds([hit(float("nan"), id="p1")]), "another form"),
    "unknown": (finds([hit(id="p9", title="Trent")]), "'p9' 'Trent', which the corpus has not"),
    "no name": (finds([hit()]), "which the corpus has not"),
    "other": (finds([hit(id="p1", title="Lune")]), "'p1' is 'Lune', and the corpus .* 'Ada Byrne'"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_an_error_and_no_empty_result(
    corpus: Corpus, serve: Serve, once: None, name: str
) -> None:
    answer, problem = BAD_ANSWERS[name]
    service = serve(answer)
    with closing(RemoteRetriever(corpus, service.url)) as retriever:
        with pytest.raises(TransportError, match=problem):
            retriever.search("Ada", 2)
        service.answer = by_words(corpus)
        assert ids(retriever, "Ada") == ["p1"]


def test_a_service_that_does_not_answer_in_time_is_an_error(
    corpus: Corpus, serve: Serve, once: None
) -> None:
    go_on = threading.Event()

    def hang(path: str, body: Any) -> tuple[int, Any]:
        go_on.wait(10)
        return 200, {"result": [[]]}

    with closing(RemoteRetriever(corpus, serve(hang).url, timeout_s=0.2)) as retriever:
        with pytest.raises(TransportError, match="timed out"):
            retriever.search("Ada", 2)
        go_on.set()


def test_a_busy_service_is_asked_again(corpus: Corpus, serve: Serve) -> None:
    answers = iter([(503, "loading"), (200, {"result": [[hit(id="p1")]]})])
    with closing(RemoteRetriever(corpus, serve(lambda path, body: next(answers)).url)) as retriever:
        assert ids(retriever, "Ada") == ["p1"]


def test_the_options_make_it_and_its_url_is_asked_for(corpus: Corpus, serve: Serve) -> None:
    with pytest.raises(InvalidOptions, match="retriever remote needs search_url"):
        read_options(MultihopOptions, {"retriever": "remote"})
    service = serve(by_words(corpus))
    options = read_options(MultihopOptions, {"retriever": "remote", "search_url": service.url})
    with closing(make_retriever(options, corpus)) as retriever:
        assert [item.passage_id for item in retriever.search("Ada", 1)] == ["p1"]
