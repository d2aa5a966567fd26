"""The local library: the papers of a data pack, searched by BM25 and followed through its graph."""

import threading
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from pydantic import JsonValue

from steppo_paper_search.collection import load_collection
from steppo_paper_search.graph import Paper, PaperGraph
from steppo_paper_search.library import Plan, Window
from steppo_paper_search.planner import plan_calls
from steppo_paper_search.retrieval import LexicalIndex

__all__ = ["LocalLibrary", "LocalView", "load_local"]

_INDEXING = threading.Lock()


class LocalLibrary:
    """A graph and the index over its papers."""

    def __init__(self, graph: PaperGraph, index: LexicalIndex) -> None:
        self.graph = graph
        self.index = index

    def view(self, window: Window) -> "LocalView":
        """Return the library as one task sees it."""
        return LocalView(self, window)


def load_local(folder: Path | None) -> LocalLibrary:
    """Return the library of a data pack, or the built-in one for None; index it the first time only.

    Raises:
        MissingData: The folder or one of its files is not there or not readable.
        InvalidInput: A line of a file is not a record.
    """
    with _INDEXING:
        return _load(None if folder is None else folder.resolve())


@cache
def _load(folder: Path | None) -> LocalLibrary:
    graph = load_collection(folder).graph
    return LocalLibrary(graph, LexicalIndex(graph))


class LocalView:
    """A local library as one task sees it. Inside, papers are known by their place in the graph."""

    def __init__(self, library: LocalLibrary, window: Window) -> None:
        self.graph = library.graph
        self._index = library.index
        self._window = window
        places = map(self.graph.place, window.hidden)
        self._hidden = frozenset(place for place in places if place is not None)
        self._best_score: float | None = None

    @property
    def query(self) -> str:
        """The task's request."""
        return self._window.query

    def paper(self, paper_id: str) -> Paper:
        """Return a paper of the library."""
        return self.graph.papers[self._place(paper_id)]

    def search(self, query: str) -> tuple[str, ...]:
        """Return the ids of the papers that a query finds, best first."""
        return tuple(self._ids(self.search_places(query)))

    def expand(self, paper_id: str) -> tuple[str, ...]:
        """Return the references of a paper in its own order, then its citations, the most cited first."""
        return tuple(self._ids(self.expand_places(self._place(paper_id))))

    def ranked(self, paper_ids: Iterable[str]) -> list[str]:
        """Return papers by their BM25 score for the request, best first, ties by id."""
        scores = self._index.scores(self.query)
        # Places are in the order of ids.
        places = sorted(self._places(paper_ids), key=lambda place: (-scores[place], place))
        return self._ids(places)

    def overlap(self, paper_ids: Sequence[str]) -> tuple[float, ...]:
        """Return BM25 scores for the request, as shares of the best that any visible paper has."""
        if self._best_score is None:
            self._best_score = self._find_best_score()
        if not self._best_score:
            return (0.0,) * len(paper_ids)
        scores = self._index.scores(self.query)
        return tuple(float(scores[place]) / self._best_score for place in self._places(paper_ids))

    def plan(
        self,
        listed: Sequence[str],
        expanded: Sequence[str],
        queries: Sequence[str],
        gold: Sequence[str],
    ) -> Plan:
        """Return calls that list all the gold that calls can list, tried out beforehand."""
        calls = plan_calls(
            self, self._places(listed), self._places(expanded), list(self._places(gold))
        )
        return Plan(tuple(calls), is_exact=True)

    def save(self, listed: Sequence[str]) -> JsonValue:
        """Return nothing: every process has the same library."""
        return None

    def load(self, saved: JsonValue) -> None:
        """Learn nothing."""

    def search_places(self, query: str) -> tuple[int, ...]:
        """Return the places of the papers that a query finds, best first."""
        wanted = self._window.search_top_k + len(self._hidden)
        found = self._index.search(query, wanted, self._window.latest_year)
        visible = tuple(place for place in found if place not in self._hidden)
        return visible[: self._window.search_top_k]

    def expand_places(self, place: int) -> tuple[int, ...]:
        """Return the places of the papers that an expansion brings."""
        found = self.graph.neighbours(
            place, self._window.expand_top_k, self._window.latest_year, self._hidden
        )
        return tuple(dict.fromkeys((*found.references, *found.citations)))

    def _find_best_score(self) -> float:
        best = self._index.search(self.query, 1 + len(self._hidden), self._window.latest_year)
        scores = self._index.scores(self.query)
        return max((float(scores[place]) for place in best if place not in self._hidden), default=0)

    def _place(self, paper_id: str) -> int:
        place = self.graph.place(paper_id)
        if place is None:
            raise KeyError(paper_id)
        return place

    def _places(self, paper_ids: Iterable[str]) -> Sequence[int]:
        return [self._place(paper_id) for paper_id in paper_ids]

    def _ids(self, places: Iterable[int]) -> list[str]:
        return [self.graph.papers[place].paper_id for place in places]
