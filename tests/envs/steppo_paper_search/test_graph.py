"""The citation graph."""

import pytest

from steppo_paper_search.graph import Neighbours, Paper, PaperGraph


def graph() -> PaperGraph:
    papers = [Paper(name, name.upper(), None, year) for name, year in YEARS.items()]
    references = {"d": ["b", "a", "gone"], "c": ["a"], "b": ["a"], "e": ["b", "b"]}
    return PaperGraph(papers, references)


YEARS: dict[str, int | None] = {"d": 2003, "a": 2000, "c": 2002, "b": 2001, "e": None}


def test_papers_are_in_the_order_of_their_ids() -> None:
    assert [paper.paper_id for paper in graph().papers] == ["a", "b", "c", "d", "e"]


def test_references_keep_their_own_order_and_count_once() -> None:
    assert graph().references(3) == (1, 0)
    assert graph().references(4) == (1,)


def test_a_reference_to_no_known_paper_is_counted() -> None:
    assert graph().num_dangling == 1


def test_citations_come_most_cited_first_then_by_id() -> None:
    # b (cited by d and e) before c and d (cited by none).
    assert graph().citations(0) == (1, 2, 3)


def test_neighbours_are_cut_after_hiding_and_dating() -> None:
    assert graph().neighbours(0, 1) == Neighbours((), (1,))
    assert graph().neighbours(0, 1, hidden=frozenset({1})) == Neighbours((), (2,))
    assert graph().neighbours(0, 9, latest_year=2001) == Neighbours((), (1,))
    assert graph().neighbours(3, 1) == Neighbours((1,), ())


def test_a_paper_of_unknown_year_is_always_visible() -> None:
    assert graph().is_visible(4, 1900)
    assert not graph().is_visible(3, 2002)
    assert graph().is_visible(3, 2003)
    assert graph().is_visible(3, None)


def test_ids_are_distinct() -> None:
    with pytest.raises(ValueError, match="distinct ids"):
        PaperGraph([Paper("a", "One"), Paper("a", "Two")], {})
