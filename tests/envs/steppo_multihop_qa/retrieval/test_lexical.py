"""BM25 twice: scores by hand, order, and what a query says nothing to."""

import math
import warnings
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_multihop_qa.options import MultihopOptions
from steppo_multihop_qa.retrieval import (
    BM25SRetriever,
    Corpus,
    Passage,
    RankBM25Retriever,
    Retriever,
    index_version,
    make_retriever,
    remembering,
    words_of,
)

Maker = Callable[[list[Passage]], Retriever]


def bm25s(corpus: list[Passage]) -> Retriever:
    return BM25SRetriever.in_memory(Corpus(corpus))


def rank_bm25(corpus: list[Passage]) -> Retriever:
    return RankBM25Retriever(Corpus(corpus))


BOTH = pytest.mark.parametrize("make", [bm25s, rank_bm25])


def passages(*texts: str) -> list[Passage]:
    return [Passage(f"p{number}", "", text) for number, text in enumerate(texts)]


def ids(retriever: Retriever, query: str, k: int = 5) -> list[str]:
    return [passage.passage_id for passage in retriever.search(query, k)]


def lucene_order(corpus: list[Passage], query: str, k: int) -> list[str]:
    """Rank by Lucene's BM25 written out from its definition, in double precision."""
    documents = {item.passage_id: words_of(f"{item.title} {item.text}") for item in corpus}
    mean = sum(len(words) for words in documents.values()) / len(documents)
    scores: dict[str, float] = {}
    for passage_id, words in documents.items():
        counts, score = Counter(words), 0.0
        for word in words_of(query):
            frequency = sum(word in other for other in documents.values())
            if counts[word]:
                idf = math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
                norm = 1.2 * (1 - 0.75 + 0.75 * len(words) / mean)
                score += idf * counts[word] / (counts[word] + norm)
        if score:
            scores[passage_id] = score
    return sorted(scores, key=lambda item: (-round(scores[item], 5), item))[:k]


@BOTH
def test_the_passage_with_the_rarer_word_comes_first(make: Maker) -> None:
    retriever = make(passages("river lune", "river trent", "river ouse", "town ouse", "hill"))
    assert ids(retriever, "river lune")[0] == "p0"
    assert set(ids(retriever, "river lune")) == {"p0", "p1", "p2"}


@BOTH
def test_the_title_is_searched_too(make: Maker) -> None:
    retriever = make([Passage("a", "Lune", "a river"), Passage("b", "Trent", "a river")])
    assert ids(retriever, "lune") == ["a"]


@BOTH
def test_equal_scores_are_ordered_by_id_whatever_the_order_of_the_corpus(make: Maker) -> None:
    corpus = [Passage(f"p{number}", "", "same words") for number in (3, 1, 4, 0, 2)]
    assert ids(make(corpus), "words", 3) == ["p0", "p1", "p2"]
    assert ids(make(corpus[::-1]), "words", 3) == ["p0", "p1", "p2"]


@BOTH
def test_a_word_in_half_or_in_all_of_the_passages_is_found(make: Maker) -> None:
    # Okapi's inverse document frequency is 0 for the one and below 0 for the other.
    retriever = make(passages("lune", "trent"))
    assert ids(retriever, "lune") == ["p0"]
    assert ids(make(passages("lune", "lune")), "lune") == ["p0", "p1"]


@BOTH
@pytest.mark.parametrize("query", ["", "?!", "zyx", "река"])
def test_a_query_without_a_known_word_finds_nothing(make: Maker, query: str) -> None:
    assert ids(make(passages("river lune", "")), query) == []


@BOTH
def test_unknown_words_beside_known_ones_change_nothing(make: Maker) -> None:
    retriever = make(passages("river lune", "river trent", "hill"))
    assert ids(retriever, "zyx lune qqq") == ids(retriever, "lune") == ["p0"]


@BOTH
def test_no_warning_and_no_progress_bar(make: Maker, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(passages("river lune", "", "?")).search("river", 3)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@BOTH
def test_a_search_asked_again_is_not_ranked_again(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = make(passages("river lune", "hill"))
    first = retriever.search("Lune River", 2)
    monkeypatch.setattr(retriever, "_scores", None)
    assert retriever.search("lune, river", 2) is first
    assert retriever.search_batch(["LUNE river", "lune river"], 2) == [first, first]


@BOTH
def test_memory_of_rankings_is_bounded_and_loses_the_oldest(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "RESULTS_KEPT", 2)
    retriever = make(passages("river lune", "hill"))
    first = retriever.search("river", 1)
    retriever.search("hill", 1)
    assert retriever.search("river", 1) is first
    retriever.search("lune", 1)
    monkeypatch.setattr(retriever, "_scores", None)
    assert retriever.search("river", 1) is first
    with pytest.raises(TypeError):
        retriever.search("hill", 1)


@BOTH
def test_a_batch_gives_what_its_queries_give_alone(make: Maker) -> None:
    corpus = passages("river lune", "river trent", "river ouse", "town ouse", "hill")
    queries = ["river", "ouse town", "", "hill river", "river"]
    alone = [make(corpus).search(query, 2) for query in queries]
    assert make(corpus).search_batch(queries, 2) == alone
    assert make(corpus).search_batch([], 2) == []


def test_auto_takes_the_precomputed_index_above_5000_passages() -> None:
    corpus = [Passage(f"{number:05d}", "", f"w{number}") for number in range(5001)]
    auto, chosen = MultihopOptions(), MultihopOptions.model_validate({"retriever": "bm25s"})
    assert isinstance(make_retriever(auto, Corpus(corpus[:5000])), RankBM25Retriever)
    assert isinstance(make_retriever(auto, Corpus(corpus)), BM25SRetriever)
    assert isinstance(make_retriever(chosen, Corpus(corpus[:2])), BM25SRetriever)


def test_the_version_names_library_and_content_and_not_the_order_of_the_corpus() -> None:
    corpus = passages("river lune", "hill")
    other = [*corpus[:1], Passage("p1", "hi", "ll")]
    for kind in ("rank_bm25", "bm25s"):
        options = MultihopOptions.model_validate({"retriever": kind})
        version = index_version(options, Corpus(corpus))
        assert version == make_retriever(options, Corpus(corpus[::-1])).version
        assert version.startswith(f"{kind}-")
        assert version != index_version(options, Corpus(other))


def test_the_title_and_text_of_a_passage_are_told_apart_in_the_key() -> None:
    assert Corpus([Passage("a", "b", "c")]).key != Corpus([Passage("a", "bc", "")]).key


WORDS = st.lists(st.sampled_from(list("abcdef")), max_size=6).map(" ".join)


@settings(max_examples=80, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=12), WORDS, st.integers(1, 12))
def test_bm25s_ranks_as_the_formula_does(texts: list[str], query: str, k: int) -> None:
    corpus = passages(*texts, "z")
    found = ids(bm25s(corpus), query, k)
    expected = lucene_order(corpus, query, k)
    # Single precision may swap scores that differ in the last digits only.
    assert sorted(found) == sorted(expected) or len(found) == len(expected) == k
    assert found[:1] == expected[:1]


@settings(max_examples=80, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=12), WORDS, st.integers(1, 12))
def test_fewer_results_are_the_first_of_more(texts: list[str], query: str, k: int) -> None:
    for make in (bm25s, rank_bm25):
        retriever = make(passages(*texts, "z"))
        more = ids(retriever, query, 12)
        assert ids(retriever, query, k) == more[:k]
        has_word = {
            item.passage_id
            for item in passages(*texts)
            if set(words_of(item.text)) & set(query.split())
        }
        assert set(more) <= has_word
        assert len(more) == min(12, len(has_word))
