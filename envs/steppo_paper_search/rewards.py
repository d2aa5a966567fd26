"""What a step is worth, and what is known of the list so far."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from steppo_env.metrics import retrieval_score
from steppo_paper_search.episode import Episode
from steppo_paper_search.options import PaperSearchOptions
from steppo_paper_search.selector import Selector

__all__ = ["answer_scores", "list_facts", "reward_terms"]

CUTS = (None, 100, 50, 25)
"""The ranks at which the list is scored; None is all of it."""


def reward_terms(
    options: PaperSearchOptions,
    episode: Episode,
    arrivals: Sequence[tuple[str, ...]],
    gold: frozenset[str],
    selector: Selector,
) -> Mapping[str, float]:
    """Return the parts of the last step's reward.

    Args:
        arrivals: For each executed call of the step, the papers that it newly listed.

    Raises:
        TransportError: The selector asks a service, which failed.
    """
    terms: dict[str, float] = {}
    if options.reward == "recall_gain":
        num_new_gold = sum(paper_id in gold for new in arrivals for paper_id in new)
        terms["recall_gain"] = num_new_gold / len(gold)
    else:
        scored = [selector.scores(new) for new in arrivals]
        terms["top3"] = sum(_worth(scores, options) for scores in scored)
    executed = [call.kind for call in episode.last_calls if not call.is_repeat]
    if options.search_cost or options.expand_cost:
        terms["cost"] = 0.0 - _cost(executed.count("search"), executed.count("expand"), options)
    if options.penalty_of_a_repeat:
        num_repeats = len(episode.last_calls) - len(executed)
        terms["repeat"] = 0.0 - num_repeats * options.penalty_of_a_repeat
    if options.answer_f1_weight:
        f1 = answer_scores(episode, gold).get("answer_f1", 0.0)
        terms["answer"] = options.answer_f1_weight * f1
    return terms


def _worth(scores: Sequence[float], options: PaperSearchOptions) -> float:
    """Return what one call's new papers are worth: the sum of their best scores that count."""
    counted = [score for score in scores if score >= options.min_score]
    if options.discrete_score is not None:
        counted = [float(score >= options.discrete_score) for score in counted]
    return sum(sorted(counted, reverse=True)[: options.top_k_new])


def _cost(num_searches: int, num_expansions: int, options: PaperSearchOptions) -> float:
    return num_searches * options.search_cost + num_expansions * options.expand_cost


def answer_scores(episode: Episode, gold: frozenset[str]) -> dict[str, float]:
    """Return precision, recall and F1 of the answered papers; nothing before there is an answer."""
    if episode.answer is None:
        return {}
    score = retrieval_score(episode.answer, gold)
    return {
        "answer_precision": score.precision,
        "answer_recall": score.recall,
        "answer_f1": score.f1,
    }


def list_facts(
    options: PaperSearchOptions, episode: Episode, ranked: Sequence[str], gold: frozenset[str]
) -> dict[str, JsonValue]:
    """Return the scores of the list, what was done for it, and what that cost.

    Args:
        ranked: The listed papers, best first.
    """
    facts: dict[str, JsonValue] = {}
    for cut in CUTS:
        score = retrieval_score(ranked, gold, cut)
        suffix = "" if cut is None else f"@{cut}"
        facts[f"precision{suffix}"] = score.precision
        facts[f"recall{suffix}"] = score.recall
        facts[f"f1{suffix}"] = score.f1
    num_searches, num_expansions = episode.count("search"), episode.count("expand")
    facts["success"] = retrieval_score(ranked, gold).recall >= options.success_recall
    facts["num_searches"] = num_searches
    facts["num_expansions"] = num_expansions
    facts["num_repeats"] = episode.num_repeats
    facts["num_papers"] = len(episode.listed)
    facts["cost"] = _cost(num_searches, num_expansions, options)
    return {**facts, **answer_scores(episode, gold)}
