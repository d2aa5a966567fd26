"""Calls to a Semantic-Scholar-compatible API, each answer checked, dated and kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias
from urllib.parse import quote

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    model_validator,
)

from steppo_env.errors import TransportError
from steppo_paper_search.graph import Paper
from steppo_paper_search.identity import Identities, arxiv_number
from steppo_paper_search.packs import clean
from steppo_paper_search.results import SharedResults
from steppo_services import JsonService

__all__ = ["Direction", "FoundPaper", "ScholarApi"]

FIELDS = "title,abstract,year,externalIds"
MAX_SEARCH_LIMIT = 100
PAGE_SIZE = 1_000
"""Most results of one request that the API gives: for a search, and for citations."""
MAX_PAGES = 5
MAX_SENT_CHARS = 300
"""Of a query: a policy's endless one must not fail as an address that is too long."""
NUM_CACHED_RESULTS = 2_048

Direction: TypeAlias = Literal["references", "citations"]


@dataclass(frozen=True, slots=True)
class FoundPaper(Paper):
    """A paper that the API listed; `source_id` is its id there, `paper_id` the one shown."""

    source_id: str = ""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Record(_Answer):
    # Both are null for what the API knows by name only: such a record cannot be listed.
    source_id: str | None = Field(
        alias="paperId", max_length=200, pattern=r"^[A-Za-z0-9][^\s,;\[\]]*$"
    )
    title: str | None
    abstract: str | None = None
    year: int | None = Field(default=None, ge=0, le=9999)
    external_ids: dict[str, JsonValue] | None = Field(default=None, alias="externalIds")


class _Found(_Answer):
    total: int | None = None
    data: list[_Record] | None = None

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if self.data is None and self.total != 0:
            raise ValueError("an answer without data needs total 0")
        return self


def _unwrapped(edge: object) -> object:
    """Return the paper at the other end of an edge, whichever its direction."""
    if isinstance(edge, dict):
        return edge.get("citedPaper", edge.get("citingPaper", edge))
    return edge


class _Page(_Answer):
    # Null where a publisher keeps the reference list to itself.
    data: list[Annotated[_Record, BeforeValidator(_unwrapped)]] | None
    next: int | None = None


class _Title(_Answer):
    title: str | None


_FOUND, _PAGE, _TITLE = TypeAdapter(_Found), TypeAdapter(_Page), TypeAdapter(_Title)


class ScholarApi:
    """The calls that an episode needs. Safe to share between threads.

    Every answer is kept (the latest 2,048), so that all episodes of a process that ask the same get
    the same. Papers younger than `latest_year` are left out; those of unknown year are not.

    Raises:
        TransportError: From every method, when the service fails or answers in another form.
    """

    def __init__(self, service: JsonService, identities: Identities) -> None:
        self._service = service
        self._identities = identities
        self._lists = SharedResults[tuple[str | int | None, ...], tuple[FoundPaper, ...]](
            NUM_CACHED_RESULTS
        )
        self._titles = SharedResults[str, str | None](NUM_CACHED_RESULTS)

    def search(self, query: str, limit: int, latest_year: int | None) -> tuple[FoundPaper, ...]:
        """Return up to `limit` papers (at most 100) in the order of the API."""
        # Semantic Scholar finds nothing for words with a hyphen.
        asked = clean(query.replace("-", " "))[:MAX_SENT_CHARS]
        key = ("search", asked, limit, latest_year)
        return self._lists.get(key, lambda: self._search(asked, limit, latest_year))

    def neighbours(
        self, source_id: str, direction: Direction, limit: int, latest_year: int | None
    ) -> tuple[FoundPaper, ...]:
        """Return the first `limit` references or citations of a paper in the order of the API.

        To find old citations of a much cited paper, up to 5,000 of them are looked through.
        """
        key = (direction, source_id, limit, latest_year)
        return self._lists.get(
            key, lambda: self._neighbours(source_id, direction, limit, latest_year)
        )

    def title(self, paper_id: str) -> str | None:
        """Return the title of the paper with an arXiv id or the API's id, None without such."""
        return self._titles.get(paper_id, lambda: self._title(paper_id))

    def _search(self, query: str, limit: int, latest_year: int | None) -> tuple[FoundPaper, ...]:
        asked: dict[str, str | int] = {
            "query": query,
            "limit": min(limit, MAX_SEARCH_LIMIT),
            "fields": FIELDS,
        }
        if latest_year is not None:
            asked["year"] = f"-{latest_year}"
        found = self._service.get("paper/search", asked, _FOUND).data
        return self._listed(found or (), latest_year)[:limit]

    def _neighbours(
        self, source_id: str, direction: Direction, limit: int, latest_year: int | None
    ) -> tuple[FoundPaper, ...]:
        path = f"paper/{quote(source_id, safe='')}/{direction}"
        # The API may list the youngest first. Without a date only records without an id drop out.
        size = min(PAGE_SIZE, 2 * limit) if latest_year is None else PAGE_SIZE
        found: dict[str, FoundPaper] = {}
        offset = 0
        for _ in range(MAX_PAGES):
            asked: dict[str, str | int] = {"fields": FIELDS, "limit": size, "offset": offset}
            page = self._service.get(path, asked, _PAGE)
            for paper in self._listed(page.data or (), latest_year):
                found.setdefault(paper.paper_id, paper)
            if page.next is None or len(found) >= limit:
                break
            offset = page.next
        return tuple(found.values())[:limit]

    def _title(self, paper_id: str) -> str | None:
        number = arxiv_number(paper_id)
        name = paper_id if number is None else f"ARXIV:{number}"
        try:
            answer = self._service.get(f"paper/{quote(name, safe='')}", {"fields": "title"}, _TITLE)
        except TransportError as error:
            if error.members.get("http_status") == 404:
                return None
            raise
        return clean(answer.title or "") or None

    def _listed(
        self, records: Sequence[_Record], latest_year: int | None
    ) -> tuple[FoundPaper, ...]:
        found: dict[str, FoundPaper] = {}
        for record in records:
            title = clean(record.title or "")
            if record.source_id is None or not title:
                continue
            year = record.year
            if year is not None and latest_year is not None and year > latest_year:
                continue
            arxiv = (record.external_ids or {}).get("ArXiv")
            paper_id = self._identities.identify(
                record.source_id, arxiv if isinstance(arxiv, str) else None, title
            )
            abstract = clean(record.abstract or "") or None
            paper = FoundPaper(paper_id, title, abstract, year, record.source_id)
            found.setdefault(paper_id, paper)
        return tuple(found.values())
