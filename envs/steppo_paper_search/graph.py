"""Papers and who cites whom, held once per process and shared by every episode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Neighbours", "Paper", "PaperGraph", "YearArray"]

YearArray: TypeAlias = npt.NDArray[np.int32]

UNKNOWN_YEAR = -1
"""Sorts before every year: a paper of unknown year is never too young."""


@dataclass(frozen=True, slots=True)
class Paper:
    """A paper as it is shown. An abstract or a year that the data lacks is None."""

    paper_id: str
    title: str
    abstract: str | None = None
    year: int | None = None

    @property
    def text(self) -> str:
        """What lexical search sees."""
        return f"{self.title} {self.abstract or ''}"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What expanding a paper brings, as places in `PaperGraph.papers`."""

    references: tuple[int, ...]
    citations: tuple[int, ...]


class PaperGraph:
    """An immutable citation graph; papers are known by their place in the order of ids.

    Args:
        papers: In any order, with distinct ids.
        references: Ids of the papers that a paper cites, in the paper's own order.

    Attributes:
        papers: In the order of their ids.
        years: Publication years, shape (number of papers,); -1 where unknown.
        num_dangling: References to papers that are not in the graph; they are left out.

    >>> graph = PaperGraph([Paper("b", "Later"), Paper("a", "Earlier")], {"b": ["a", "z"]})
    >>> graph.neighbours(graph.place("b"), 30)
    Neighbours(references=(0,), citations=())
    >>> graph.num_dangling
    1
    """

    def __init__(self, papers: Sequence[Paper], references: Mapping[str, Sequence[str]]) -> None:
        self.papers = tuple(sorted(papers, key=lambda paper: paper.paper_id))
        self._places = {paper.paper_id: place for place, paper in enumerate(self.papers)}
        if len(self._places) != len(self.papers):
            raise ValueError("a citation graph needs papers with distinct ids")
        self.years: YearArray = np.array(
            [UNKNOWN_YEAR if paper.year is None else paper.year for paper in self.papers],
            dtype=np.int32,
        )
        self.num_dangling = 0
        self._references: dict[int, tuple[int, ...]] = {}
        citing: dict[int, list[int]] = {}
        for place, paper in enumerate(self.papers):
            ids = dict.fromkeys(references.get(paper.paper_id, ()))
            known = tuple(self._places[name] for name in ids if name in self._places)
            self.num_dangling += len(ids) - len(known)
            if known:
                self._references[place] = known
            for cited in known:
                citing.setdefault(cited, []).append(place)
        self._citations = {
            cited: tuple(sorted(places, key=lambda place: (-len(citing.get(place, ())), place)))
            for cited, places in citing.items()
        }

    def __len__(self) -> int:
        return len(self.papers)

    def place(self, paper_id: str) -> int | None:
        """Return a paper's place, or None when there is no such paper."""
        return self._places.get(paper_id)

    def paper(self, paper_id: str) -> Paper | None:
        """Return a paper, or None when there is no such paper."""
        place = self._places.get(paper_id)
        return None if place is None else self.papers[place]

    def is_visible(self, place: int, latest_year: int | None) -> bool:
        """Return whether a paper had appeared by the end of a year (None: no limit)."""
        return latest_year is None or int(self.years[place]) <= latest_year

    def references(self, place: int) -> tuple[int, ...]:
        """Return what a paper cites, in the paper's own order."""
        return self._references.get(place, ())

    def citations(self, place: int) -> tuple[int, ...]:
        """Return who cites a paper: the most cited first, equals in the order of ids."""
        return self._citations.get(place, ())

    def neighbours(
        self,
        place: int,
        top_k: int,
        latest_year: int | None = None,
        hidden: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """Return the first `top_k` visible references and as many citations of a paper."""

        def visible(places: Sequence[int]) -> tuple[int, ...]:
            kept = (
                other
                for other in places
                if other not in hidden and self.is_visible(other, latest_year)
            )
            return tuple(kept)[:top_k]

        return Neighbours(visible(self.references(place)), visible(self.citations(place)))
