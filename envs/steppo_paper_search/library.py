"""A library: papers, their graph and index, loaded once per process; a view is one task's window."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from steppo_paper_search.graph import Neighbours, Paper, PaperGraph
from steppo_paper_search.packs import PaperQuery, read_pack
from steppo_paper_search.retrieval import LexicalIndex
from steppo_paper_search.world import generate_world

__all__ = ["Library", "View", "load_library"]

_LOADING = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """What all episodes over one data pack share. Immutable."""

    graph: PaperGraph
    index: LexicalIndex
    queries: tuple[PaperQuery, ...]
    version: str


def load_library(folder: Path | None) -> Library:
    """Return the library of a data pack, or the built-in one for None; read it the first time only.

    Raises:
        MissingData: The folder or one of its files is not there or not readable.
        InvalidInput: A line of a file is not a record.
    """
    # Without the lock two sessions that start together would each read a hundred thousand papers.
    with _LOADING:
        return _load(None if folder is None else folder.resolve())


@cache
def _load(folder: Path | None) -> Library:
    pack = generate_world() if folder is None else read_pack(folder)
    graph = PaperGraph(pack.papers, pack.references)
    return Library(graph, LexicalIndex(graph), pack.queries, pack.version)


@dataclass(frozen=True, slots=True)
class View:
    """The part of a library that one task may see, and how much of it a call brings.

    Attributes:
        query: The task's request; papers are ranked by their BM25 score for it.
        latest_year: Papers that appeared later do not exist here (None: no limit).
        hidden: Places of papers that are never found: the one whose references are asked for.
        search_top_k: Papers that a search brings at most.
        expand_top_k: References that an expansion brings at most, and as many citations.
    """

    library: Library
    query: str
    latest_year: int | None
    hidden: frozenset[int]
    search_top_k: int
    expand_top_k: int

    @property
    def papers(self) -> Sequence[Paper]:
        """The papers of the library by place, visible or not."""
        return self.library.graph.papers

    def search(self, query: str) -> tuple[int, ...]:
        """Return the places of the papers that a query finds, best first."""
        wanted = self.search_top_k + len(self.hidden)
        found = self.library.index.search(query, wanted, self.latest_year)
        return tuple(place for place in found if place not in self.hidden)[: self.search_top_k]

    def expand(self, place: int) -> Neighbours:
        """Return the references and citations that expanding a paper brings."""
        graph = self.library.graph
        return graph.neighbours(place, self.expand_top_k, self.latest_year, self.hidden)

    def relevance(self, places: Iterable[int]) -> dict[int, float]:
        """Return how well papers match the request: BM25, not bounded."""
        scores = self.library.index.scores(self.query)
        return {place: float(scores[place]) for place in places}

    def ranked(self, places: Iterable[int]) -> list[int]:
        """Return papers by relevance to the request, best first, ties by id."""
        relevance = self.relevance(places)
        return sorted(relevance, key=lambda place: (-relevance[place], place))

    def ids(self, places: Iterable[int]) -> list[str]:
        """Return the ids of papers."""
        return [self.papers[place].paper_id for place in places]
