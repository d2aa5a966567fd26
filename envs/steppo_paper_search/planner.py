"""The expert's plan over a local library, where every call can be tried out beforehand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from steppo_paper_search.graph import PaperGraph
from steppo_paper_search.library import MAX_QUERY_CHARS, PlannedCall

__all__ = ["Searchable", "plan_calls"]

ABSTRACT_WORDS = (0, 12, 40, 200)
"""How much of a paper's abstract is added to its title until a search finds the paper."""


class Searchable(Protocol):
    """A graph of which calls show a part; papers are known by their place in it."""

    graph: PaperGraph

    def search_places(self, query: str) -> tuple[int, ...]:
        """Return what a search would find."""
        ...

    def expand_places(self, place: int) -> tuple[int, ...]:
        """Return what an expansion would bring."""
        ...


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A call, the papers that it brings, how many of them are wanted, and the paper it expands."""

    call: PlannedCall
    found: tuple[int, ...]
    gain: int = 1
    expands: int | None = None

    @property
    def preference(self) -> tuple[int, bool]:
        # An expansion is worth its many results only when several of them are wanted. Among
        # equals, max() takes the first, and the calls come in the order of papers.
        return self.gain, (self.expands is not None) == (self.gain > 1)


def plan_calls(
    view: Searchable, listed: Iterable[int], expanded: Iterable[int], gold: Sequence[int]
) -> list[PlannedCall]:
    """Return the calls that list all wanted papers, the one with the largest gain first each time.

    Every choice depends only on what is listed, expanded and missing at its point (a search aims at
    a paper that is missing still, even where the one for a paper found by now would do more). So
    the plan made after executing its beginning is its rest, and its length is exact.
    """
    listed, expanded = set(listed), set(expanded)
    missing = [place for place in gold if place not in listed]
    searches = {place: _search_for(view, place) for place in missing}
    plan: list[PlannedCall] = []
    while missing:
        candidates = [
            *_searches([searches[place] for place in missing], missing),
            *_expansions(view, missing, listed - expanded),
        ]
        if not candidates:
            break
        best = max(candidates, key=lambda candidate: candidate.preference)
        plan.append(best.call)
        listed.update(best.found)
        if best.expands is not None:
            expanded.add(best.expands)
        missing = [place for place in missing if place not in listed]
    return plan


def _searches(searches: Sequence[_Candidate | None], missing: Sequence[int]) -> list[_Candidate]:
    wanted = set(missing)
    counted = [
        replace(search, gain=len(wanted.intersection(search.found)))
        for search in searches
        if search is not None
    ]
    return [search for search in counted if search.gain]


def _search_for(view: Searchable, place: int) -> _Candidate | None:
    """Return a search that finds a paper, by its title and as much of its abstract as it takes."""
    paper = view.graph.papers[place]
    for num_words in ABSTRACT_WORDS:
        words = (paper.abstract or "").split()[:num_words]
        query = " ".join([paper.title, *words])[:MAX_QUERY_CHARS]
        found = view.search_places(query)
        if place in found:
            return _Candidate(PlannedCall("search", query), found)
    return None


def _expansions(view: Searchable, missing: list[int], candidates: set[int]) -> list[_Candidate]:
    near = {
        other
        for place in missing
        for other in (*view.graph.references(place), *view.graph.citations(place))
        if other in candidates
    }
    wanted = set(missing)
    expansions = []
    for place in sorted(near):
        found = view.expand_places(place)
        gain = len(wanted.intersection(found))
        if gain:
            call = PlannedCall("expand", view.graph.papers[place].paper_id)
            expansions.append(_Candidate(call, found, gain, place))
    return expansions
