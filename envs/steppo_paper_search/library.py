"""What an episode asks of a library: the protocols that the local graph and the HTTP API share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from pydantic import JsonValue

from steppo_paper_search.graph import Paper

__all__ = [
    "MAX_CALLS",
    "MAX_QUERY_CHARS",
    "CallKind",
    "Library",
    "Plan",
    "PlannedCall",
    "View",
    "Window",
]

MAX_CALLS = 5
"""Calls of one step that are executed."""

MAX_QUERY_CHARS = 2_000

CallKind: TypeAlias = Literal["search", "expand"]


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a library that one task may see, and how much of it a call brings.

    Attributes:
        query: The task's request; listed papers are ranked by how well they match it.
        latest_year: Papers that appeared later do not exist here (None: no limit).
        hidden: Ids of papers that are never found: the one whose references are asked for.
        hidden_title: The words of its title, for a library that knows it under another id.
        search_top_k: Papers that a search brings at most.
        expand_top_k: References that an expansion brings at most, and as many citations.
    """

    query: str
    latest_year: int | None = None
    hidden: frozenset[str] = frozenset()
    hidden_title: str = ""
    search_top_k: int = 10
    expand_top_k: int = 30


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that the expert means to make; the argument is a query or a paper's id."""

    kind: CallKind
    argument: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The expert's calls up to the answer. True `is_exact`: it will make these and no others."""

    calls: tuple[PlannedCall, ...]
    is_exact: bool


class View(Protocol):
    """A library through the window of one task, for the length of one episode.

    Raises:
        TransportError: `search`, `expand` or `plan` had to ask a service that failed. Nothing is
            taken for an empty result.
    """

    @property
    def query(self) -> str:
        """The task's request."""
        ...

    def paper(self, paper_id: str) -> Paper:
        """Return a paper that a call of this episode found."""
        ...

    def search(self, query: str) -> tuple[str, ...]:
        """Return the ids of the papers that a query finds, best first."""
        ...

    def expand(self, paper_id: str) -> tuple[str, ...]:
        """Return the ids of what a found paper cites, then of what cites it, each once."""
        ...

    def ranked(self, paper_ids: Iterable[str]) -> list[str]:
        """Return found papers by how well they match the request, best first, ties by id."""
        ...

    def overlap(self, paper_ids: Sequence[str]) -> tuple[float, ...]:
        """Return how well the words of found papers match the request, each in [0, 1]."""
        ...

    def plan(
        self,
        listed: Sequence[str],
        expanded: Sequence[str],
        queries: Sequence[str],
        gold: Sequence[str],
    ) -> Plan:
        """Return how the expert finds the gold papers that are not listed.

        Args:
            queries: The words of the queries made so far.
        """
        ...

    def save(self, listed: Sequence[str]) -> JsonValue:
        """Return what another process must know to show the listed papers."""
        ...

    def load(self, saved: JsonValue) -> None:
        """Learn what `save` returned."""
        ...


class Library(Protocol):
    """Where papers are found. Shared by all episodes of a process, from any thread."""

    def view(self, window: Window) -> View:
        """Return the library as one task sees it."""
        ...
