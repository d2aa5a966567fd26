"""Selectors."""

from pathlib import Path

import pytest

from steppo_env.errors import InvalidInput
from steppo_paper_search.library import View, Window
from steppo_paper_search.local import load_local
from steppo_paper_search.selector import GoldSelector, LexicalSelector, make_selector


def view(pack: Path, query: str, latest_year: int | None = None, hidden: str = "") -> View:
    window = Window(query, latest_year, frozenset({hidden} - {""}))
    return load_local(pack).view(window)


def test_gold_scores_are_membership() -> None:
    assert GoldSelector(frozenset("be")).scores(["e", "c", "b"]) == (1.0, 0.0, 1.0)


def test_lexical_scores_are_shares_of_the_best_visible_score(pack: Path) -> None:
    scores = LexicalSelector(view(pack, "comet ices dust")).scores("abcde")
    assert scores[3] == 1.0
    assert 0.0 < scores[1] < 1.0
    assert scores[0] == scores[4] == 0.0


def test_the_best_is_a_paper_that_can_be_found(pack: Path) -> None:
    (sails,) = LexicalSelector(view(pack, "solar sails revisited", 2000)).scores(["a"])
    assert sails == 1.0
    (drag,) = LexicalSelector(view(pack, "dust lunar", 2010, hidden="c")).scores(["b"])
    assert drag == 1.0


def test_a_request_without_known_words_scores_nothing(pack: Path) -> None:
    assert LexicalSelector(view(pack, "zeppelin")).scores("ab") == (0.0, 0.0)


def test_scores_are_in_the_unit_interval(pack: Path) -> None:
    for query in ("solar", "solar sails dust", "a the nucleus mirror"):
        scores = LexicalSelector(view(pack, query)).scores("abcde")
        assert max(scores) == pytest.approx(1.0)
        assert all(0.0 <= score <= 1.0 for score in scores)


def test_the_endpoint_needs_a_model_to_ask(pack: Path) -> None:
    with pytest.raises(InvalidInput, match="judge_url and judge_model"):
        make_selector("endpoint", view(pack, "solar"), frozenset(), None)
