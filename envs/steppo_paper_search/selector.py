"""Selectors: how relevant a paper is to a request, for the paper's reward (top3)."""

from collections.abc import Sequence
from typing import Literal, Protocol

from steppo_paper_search.library import View

__all__ = ["GoldSelector", "LexicalSelector", "Selector", "make_selector"]


class Selector(Protocol):
    """Judges papers for one request."""

    def scores(self, places: Sequence[int]) -> tuple[float, ...]:
        """Return the relevance in [0, 1] of each paper, given by its place in the graph."""
        ...


class GoldSelector:
    """1 for the papers that answer the request, 0 for all others."""

    def __init__(self, gold: frozenset[int]) -> None:
        self._gold = gold

    def scores(self, places: Sequence[int]) -> tuple[float, ...]:
        return tuple(float(place in self._gold) for place in places)


class LexicalSelector:
    """The BM25 score for the request, as a share of the best that any visible paper has."""

    def __init__(self, view: View) -> None:
        self._view = view
        best = view.library.index.search(view.query, 1 + len(view.hidden), view.latest_year)
        visible = view.relevance(place for place in best if place not in view.hidden)
        self._best = max(visible.values(), default=0.0)

    def scores(self, places: Sequence[int]) -> tuple[float, ...]:
        if not self._best:
            return (0.0,) * len(places)
        relevance = self._view.relevance(places)
        return tuple(relevance[place] / self._best for place in places)


def make_selector(name: Literal["gold", "lexical"], view: View, gold: frozenset[int]) -> Selector:
    """Return the selector of a name for one task."""
    return GoldSelector(gold) if name == "gold" else LexicalSelector(view)
