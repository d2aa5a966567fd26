"""Reward top3 in its variants, what calls cost, and what is told of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from steppo_env.env import AnyEnv
from steppo_env.errors import InvalidOptions
from steppo_env.registry import make
from steppo_paper_search.episode import CallRecord, Episode
from steppo_paper_search.options import PaperSearchOptions
from steppo_paper_search.rewards import list_facts, reward_terms

SCORES = {"a": 0.9, "b": 0.4, "c": 0.39, "d": 0.01, "e": 0.009}


class Table:
    """Scores from a table."""

    def scores(self, paper_ids: Sequence[str]) -> tuple[float, ...]:
        return tuple(SCORES[paper_id] for paper_id in paper_ids)


def top3(*arrivals: str, **options: float) -> float:
    settings = PaperSearchOptions.model_validate({"reward": "top3", **options})
    new = [tuple(names) for names in arrivals]
    return reward_terms(settings, Episode(num_steps=1), new, frozenset("a"), Table())["top3"]


def test_the_best_scores_of_each_call_count() -> None:
    assert top3("edcba") == pytest.approx(0.9 + 0.4 + 0.39)
    assert top3("edc", "ba") == pytest.approx(0.39 + 0.01 + 0.9 + 0.4)
    assert top3("edcba", top_k_new=1) == 0.9
    assert top3("edcba", top_k_new=9) == pytest.approx(0.9 + 0.4 + 0.39 + 0.01)
    assert top3("", "") == top3() == 0.0


def test_scores_under_the_least_count_nothing() -> None:
    assert top3("de") == 0.01
    assert top3("de", min_score=0.0) == pytest.approx(0.019)
    assert top3("cba", min_score=0.395) == pytest.approx(1.3)


def test_the_discrete_variant_counts_papers() -> None:
    assert top3("edcba", discrete_score=0.4) == 2.0
    assert top3("edcba", discrete_score=0.4, top_k_new=1) == 1.0
    assert top3("edcba", discrete_score=0.005, top_k_new=9) == 4.0


@pytest.mark.parametrize(
    ("options", "penalty"),
    [
        ({}, 0.0),
        ({"reward": "top3"}, 0.5),
        ({"reward": "top3", "repeat_penalty": 0.0}, 0.0),
        ({"repeat_penalty": 0.2}, 0.2),
    ],
)
def test_a_repeat_costs_half_a_point_with_the_paper_s_reward(
    options: dict[str, object], penalty: float
) -> None:
    assert PaperSearchOptions.model_validate(options).penalty_of_a_repeat == penalty


def test_facts_count_calls_and_what_they_cost() -> None:
    calls = [
        CallRecord(1, "search", "x", 3, 3),
        CallRecord(1, "search", "x", is_repeat=True),
        CallRecord(2, "expand", "a", 2, 1),
        CallRecord(2, "search", "y", 0, 0),
    ]
    episode = Episode(listed=list("abcd"), listed_at=[1, 1, 1, 2], calls=calls, num_steps=2)
    options = PaperSearchOptions(search_cost=0.1, expand_cost=0.3)
    facts = list_facts(options, episode, list("cabd"), frozenset("ax"))
    assert facts["cost"] == pytest.approx(0.5)
    counts = [facts[f"num_{name}"] for name in ("searches", "expansions", "repeats", "papers")]
    assert counts == [2, 1, 1, 4]
    assert (facts["precision"], facts["recall"], facts["success"]) == (0.25, 0.5, False)
    terms = reward_terms(options, episode, [("d",), ()], frozenset("ax"), Table())
    # Of the last step: one expansion and one search.
    assert terms == {"recall_gain": 0.0, "cost": pytest.approx(-0.4)}


def _play(env: AnyEnv, *words: str) -> list[object]:
    env.start("q-sails", 0)
    call = {"name": "search"}
    return [
        env.advance(
            f"<tool_call>{json.dumps({**call, 'arguments': {'query': word}})}</tool_call>"
        ).info["cost"]
        for word in words
    ]


def test_cost_adds_up_over_an_episode_without_repeats(pack: Path) -> None:
    env = make("steppo/PaperSearch-v0", data=pack, queries="all", search_cost=0.25)
    assert _play(env, "lunar", "lunar", "drag") == [0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    "options", [{"top_k_new": 0}, {"min_score": 1.5}, {"discrete_score": 0.0}, {"attempts": 0}]
)
def test_options_have_bounds(options: dict[str, object]) -> None:
    with pytest.raises(InvalidOptions):
        make("steppo/PaperSearch-v0", **options)
