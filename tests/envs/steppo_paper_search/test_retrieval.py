"""Lexical search, against BM25 written out."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_paper_search.graph import Paper, PaperGraph
from steppo_paper_search.retrieval import LexicalIndex, query_key, tokenize

WORDS = ("sun", "moon", "dust", "ice")
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)


def brute_force(documents: list[list[str]], query: list[str]) -> list[float]:
    """Lucene's BM25 with k1 1.2 and b 0.75."""
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        counts = Counter(document)
        score = 0.0
        for word in query:
            having = sum(word in other for other in documents)
            if not having:
                continue
            rarity = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            length = 1.2 * (1 - 0.75 + 0.75 * len(document) / mean)
            score += rarity * counts[word] / (counts[word] + length)
        scores.append(score)
    return scores


def index(documents: list[list[str]], years: list[int | None] | None = None) -> LexicalIndex:
    papers = [
        Paper(f"p{place:02d}", " ".join(words), None, years[place] if years else None)
        for place, words in enumerate(documents)
    ]
    return LexicalIndex(PaperGraph(papers, {}))


@given(st.lists(texts, min_size=1, max_size=8), texts)
def test_scores_are_bm25(documents: list[list[str]], query: list[str]) -> None:
    scores = index(documents).scores(" ".join(query))
    assert scores.tolist() == pytest.approx(brute_force(documents, query), rel=1e-5)


@given(st.lists(texts, min_size=1, max_size=8), texts, st.integers(1, 9))
def test_a_search_is_the_sorted_head_of_the_scores(
    documents: list[list[str]], query: list[str], top_k: int
) -> None:
    built = index(documents)
    scores = built.scores(" ".join(query)).tolist()
    order = sorted(range(len(documents)), key=lambda place: (-scores[place], place))
    expected = [place for place in order if scores[place] > 0][:top_k]
    assert built.search(" ".join(query), top_k) == tuple(expected)


def test_ties_go_by_id_also_at_the_cut() -> None:
    assert index([["sun"]] * 6).search("sun", 3) == (0, 1, 2)


def test_papers_without_any_word_of_the_query_are_not_found() -> None:
    built = index([["sun"], ["moon"]])
    assert built.search("moon", 10) == (1,)
    assert built.search("comet", 10) == ()
    assert built.search("", 10) == ()


def test_papers_after_the_latest_year_are_not_found() -> None:
    built = index([["sun"], ["sun"], ["sun"]], [2001, 2002, None])
    assert built.search("sun", 10, 2001) == (0, 2)
    assert built.search("sun", 1, 2000) == (2,)


def test_words_are_lower_case_letters_and_digits() -> None:
    assert tokenize("N=2 Super-Yang–Mills") == ["n", "2", "super", "yang", "mills"]
    assert query_key(" Solar,  SAILS ") == query_key("solar sails")
    assert query_key("sails solar") != query_key("solar sails")


def test_scores_cannot_be_changed_by_who_reads_them() -> None:
    with pytest.raises(ValueError, match="read-only"):
        index([["sun"]]).scores("sun")[0] = 7
