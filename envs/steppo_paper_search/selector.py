"""Selectors: how relevant a paper is to a request, for the paper's reward (top3)."""

from collections.abc import Sequence
from typing import Literal, Protocol

from steppo_env.errors import InvalidInput
from steppo_paper_search.judge import Judge
from steppo_paper_search.library import View

__all__ = ["EndpointSelector", "GoldSelector", "LexicalSelector", "Selector", "make_selector"]


class Selector(Protocol):
    """Judges papers for one request."""

    def scores(self, paper_ids: Sequence[str]) -> tuple[float, ...]:
        """Return the relevance in [0, 1] of each of these found papers."""
        ...


class GoldSelector:
    """1 for the papers that answer the request, 0 for all others."""

    def __init__(self, gold: frozenset[str]) -> None:
        self._gold = gold

    def scores(self, paper_ids: Sequence[str]) -> tuple[float, ...]:
        return tuple(float(paper_id in self._gold) for paper_id in paper_ids)


class LexicalSelector:
    """How well the words of a paper match the request, as the library measures it."""

    def __init__(self, view: View) -> None:
        self._view = view

    def scores(self, paper_ids: Sequence[str]) -> tuple[float, ...]:
        return self._view.overlap(paper_ids)


class EndpointSelector:
    """What a model says of each paper."""

    def __init__(self, view: View, judge: Judge) -> None:
        self._view = view
        self._judge = judge

    def scores(self, paper_ids: Sequence[str]) -> tuple[float, ...]:
        """Return the relevance in [0, 1] of each of these found papers.

        Raises:
            TransportError: The model could not be asked, or gave no verdict.
        """
        return self._judge.scores(self._view.query, [*map(self._view.paper, paper_ids)])


def make_selector(
    name: Literal["gold", "lexical", "endpoint"],
    view: View,
    gold: frozenset[str],
    judge: Judge | None,
) -> Selector:
    """Return the selector of a name for one task; `endpoint` needs a judge."""
    if name == "gold":
        return GoldSelector(gold)
    if name == "lexical":
        return LexicalSelector(view)
    if judge is None:
        raise InvalidInput("selector endpoint asks a model: set judge_url and judge_model")
    return EndpointSelector(view, judge)
