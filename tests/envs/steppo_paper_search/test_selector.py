"""Selectors."""

from pathlib import Path

import pytest

from steppo_paper_search.library import View, load_library
from steppo_paper_search.selector import GoldSelector, LexicalSelector


def view(pack: Path, query: str, latest_year: int | None = None, hidden: int | None = None) -> View:
    own = frozenset() if hidden is None else frozenset({hidden})
    return View(load_library(pack), query, latest_year, own, 10, 30)


def test_gold_scores_are_membership() -> None:
    assert GoldSelector(frozenset({1, 4})).scores([4, 2, 1]) == (1.0, 0.0, 1.0)


def test_lexical_scores_are_shares_of_the_best_visible_score(pack: Path) -> None:
    scores = LexicalSelector(view(pack, "comet ices dust")).scores([0, 1, 2, 3, 4])
    assert scores[3] == 1.0
    assert 0.0 < scores[1] < 1.0
    assert scores[0] == scores[4] == 0.0


def test_the_best_is_a_paper_that_can_be_found(pack: Path) -> None:
    (sails,) = LexicalSelector(view(pack, "solar sails revisited", 2000)).scores([0])
    assert sails == 1.0
    (drag,) = LexicalSelector(view(pack, "dust lunar", 2010, hidden=2)).scores([1])
    assert drag == 1.0


def test_a_request_without_known_words_scores_nothing(pack: Path) -> None:
    assert LexicalSelector(view(pack, "zeppelin")).scores([0, 1]) == (0.0, 0.0)


def test_scores_are_in_the_unit_interval(pack: Path) -> None:
    for query in ("solar", "solar sails dust", "a the nucleus mirror"):
        scores = LexicalSelector(view(pack, query)).scores(range(5))
        assert max(scores) == pytest.approx(1.0)
        assert all(0.0 <= score <= 1.0 for score in scores)
