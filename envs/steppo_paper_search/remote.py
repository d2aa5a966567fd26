"""The library behind an API: papers become known as calls find them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from pydantic import JsonValue, TypeAdapter

from steppo_paper_search.collection import Collection
from steppo_paper_search.graph import PaperGraph
from steppo_paper_search.library import MAX_QUERY_CHARS, Plan, PlannedCall, Window
from steppo_paper_search.retrieval import LexicalIndex, query_key, tokenize
from steppo_paper_search.scholar_api import Direction, FoundPaper, ScholarApi

__all__ = ["RemoteLibrary", "RemoteView"]

_SAVED = TypeAdapter(list[FoundPaper])


class RemoteLibrary:
    """An API, and the data pack whose requests are served over it."""

    def __init__(self, api: ScholarApi, pack: Collection) -> None:
        self.api = api
        self.pack = pack

    def view(self, window: Window) -> "RemoteView":
        """Return the library as one task sees it."""
        return RemoteView(self, window)


class RemoteView:
    """An API as one task sees it. It knows the papers that its own calls have found."""

    def __init__(self, library: RemoteLibrary, window: Window) -> None:
        self._api = library.api
        self._pack = library.pack
        self._window = window
        self._papers: dict[str, FoundPaper] = {}
        # So many more are asked for, as so many at most are taken away.
        self._num_hidden = len(window.hidden) + bool(window.hidden_title)

    @property
    def query(self) -> str:
        """The task's request."""
        return self._window.query

    def paper(self, paper_id: str) -> FoundPaper:
        """Return a paper that a call of this episode found."""
        return self._papers[paper_id]

    def search(self, query: str) -> tuple[str, ...]:
        """Return the ids of the papers that a query finds, in the order of the API."""
        top_k = self._window.search_top_k
        found = self._api.search(query, top_k + self._num_hidden, self._window.latest_year)
        return self._visible(found)[:top_k]

    def expand(self, paper_id: str) -> tuple[str, ...]:
        """Return the ids of what a found paper cites, then of what cites it, each once."""
        source_id = self._papers[paper_id].source_id
        references, citations = (
            self._neighbours(source_id, direction) for direction in ("references", "citations")
        )
        return tuple(dict.fromkeys((*references, *citations)))

    def ranked(self, paper_ids: Iterable[str]) -> list[str]:
        """Return papers by BM25 for the request over these papers alone, best first, ties by id."""
        # In the order of ids, so that the order in which they were found does not matter.
        graph = PaperGraph([self._papers[paper_id] for paper_id in paper_ids], {})
        if not graph.papers:
            return []
        scores = LexicalIndex(graph).scores(self.query)
        places = sorted(range(len(graph)), key=lambda place: (-scores[place], place))
        return [graph.papers[place].paper_id for place in places]

    def overlap(self, paper_ids: Sequence[str]) -> tuple[float, ...]:
        """Return the share of the request's words that each paper's title and abstract contain."""
        wanted = set(tokenize(self.query))
        if not wanted:
            return (0.0,) * len(paper_ids)
        return tuple(
            len(wanted.intersection(tokenize(self._papers[paper_id].text))) / len(wanted)
            for paper_id in paper_ids
        )

    def plan(
        self,
        listed: Sequence[str],
        expanded: Sequence[str],
        queries: Sequence[str],
        gold: Sequence[str],
    ) -> Plan:
        """Return a search for the title of each gold paper that is not listed, made once each."""
        found, asked = set(listed), set(queries)
        calls: list[PlannedCall] = []
        for paper_id in gold:
            if paper_id in found:
                continue
            title = (self._title(paper_id) or "")[:MAX_QUERY_CHARS]
            key = query_key(title)
            if key and key not in asked:
                asked.add(key)
                calls.append(PlannedCall("search", title))
        return Plan(tuple(calls), is_exact=False)

    def save(self, listed: Sequence[str]) -> JsonValue:
        """Return the listed papers: the API may tell another process something else."""
        return [asdict(self._papers[paper_id]) for paper_id in listed]

    def load(self, saved: JsonValue) -> None:
        """Learn what `save` returned."""
        self._papers = {paper.paper_id: paper for paper in _SAVED.validate_python(saved)}

    def _neighbours(self, source_id: str, direction: Direction) -> tuple[str, ...]:
        top_k = self._window.expand_top_k
        found = self._api.neighbours(
            source_id, direction, top_k + self._num_hidden, self._window.latest_year
        )
        return self._visible(found)[:top_k]

    def _visible(self, papers: Iterable[FoundPaper]) -> tuple[str, ...]:
        """Return the ids of the papers that this task may see; know these from now on."""
        window = self._window
        kept = []
        for paper in papers:
            if paper.paper_id in window.hidden:
                continue
            if window.hidden_title and query_key(paper.title) == window.hidden_title:
                continue
            kept.append(paper.paper_id)
            self._papers.setdefault(paper.paper_id, paper)
        return tuple(kept)

    def _title(self, paper_id: str) -> str | None:
        paper = self._pack.graph.paper(paper_id)
        return self._api.title(paper_id) if paper is None else paper.title
