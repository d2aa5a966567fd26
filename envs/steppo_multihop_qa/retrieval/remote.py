"""Retrieval by a search service over HTTP, in the form of Search-R1's retrieval server.

`POST /retrieve {"queries": [...], "topk": k, "return_scores": true}` is answered by
`{"result": [[{"document": {...}, "score": s}, ...], ...]}`, a list for each query, best first. A
document has `id`, or `title` and `text`, or `contents`, which is the title in quotes, a line break
and the text (PeterGriffinJin/Search-R1, search_r1/search/retrieval_server.py).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby

from pydantic import BaseModel, FiniteFloat, JsonValue, TypeAdapter

from steppo_env.errors import TransportError
from steppo_env.keys import digest
from steppo_multihop_qa.retrieval.batcher import Batcher
from steppo_multihop_qa.retrieval.passages import Corpus
from steppo_multihop_qa.retrieval.remembering import RememberingRetriever
from steppo_services import JsonService

__all__ = ["RemoteRetriever"]

WHAT = "the search service"
MAX_BATCH = 64
"""Most queries of concurrent episodes that go into one request."""


class _Document(BaseModel):
    """A passage as the service names it; its other members are not read."""

    id: str | int | None = None
    title: str | None = None
    text: str | None = None
    contents: str | None = None

    def parts(self) -> tuple[str | None, str]:
        """Return the title, where it is given, and the text."""
        if self.contents is None or self.text is not None:
            return self.title, self.text or ""
        first, _, rest = self.contents.partition("\n")
        is_quoted = len(first) > 1 and first.startswith('"') and first.endswith('"')
        return (first[1:-1], rest) if is_quoted else (self.title, self.contents)


class _Hit(BaseModel):
    document: _Document
    score: FiniteFloat


class _Answer(BaseModel):
    result: list[list[_Hit]]


_ANSWER = TypeAdapter(_Answer)
_Ask = tuple[str, int]


class RemoteRetriever(RememberingRetriever):
    """Asks a search service, whose passages must be those of the corpus.

    A document is the passage of its `id`; where that is none of the corpus or not given, the passage
    with the same title and text. What the corpus does not have is an error: the state of an
    episode could not be shown or restored. The service's order is kept, with equal scores by id.

    Args:
        corpus: The passages that the service has, too.
        url: The base URL, such as `http://127.0.0.1:8000`; `/retrieve` is appended.
        api_key_env: Environment variable that holds the key; None sends none.
        timeout_s: For one attempt.
        deadline_s: Longest that a search waits for its turn and its answer, in seconds.
    """

    def __init__(
        self,
        corpus: Corpus,
        url: str,
        *,
        api_key_env: str | None = None,
        timeout_s: float = 30.0,
        deadline_s: float = 120.0,
    ) -> None:
        super().__init__(corpus, self.version_of(corpus, url))
        self._service = JsonService(url, WHAT, api_key_env=api_key_env, timeout_s=timeout_s)
        self._batcher = Batcher(self._retrieve, WHAT, max_items=MAX_BATCH, deadline_s=deadline_s)

    @staticmethod
    def version_of(corpus: Corpus, url: str) -> str:
        """Return the version of the corpus at a service, whose own index nobody names here."""
        return f"remote-{digest([corpus.key, url])}"

    def close(self) -> None:
        """Close the connections to the service."""
        self._service.close()

    def _rank(self, queries: Sequence[str], k: int) -> Sequence[tuple[int, ...]]:
        return self._batcher.ask([(query, k) for query in queries])

    def _retrieve(self, asked: Sequence[_Ask]) -> list[tuple[int, ...]]:
        """Ask for the queries of several episodes, each different one once."""
        found: dict[_Ask, tuple[int, ...]] = {}
        for k in dict.fromkeys(k for _, k in asked):
            queries = list(dict.fromkeys(query for query, other in asked if other == k))
            for query, hits in zip(queries, self._hits(queries, k), strict=True):
                found[query, k] = self._places(hits)[:k]
        return [found[key] for key in asked]

    def _hits(self, queries: Sequence[str], k: int) -> list[list[_Hit]]:
        asked: list[JsonValue] = list(queries)
        body: JsonValue = {"queries": asked, "topk": k, "return_scores": True}
        result = self._service.post("retrieve", body, _ANSWER).result
        if len(result) != len(queries):
            raise self._error(f"gave {len(result)} results for {len(queries)} queries")
        return result

    def _places(self, hits: Sequence[_Hit]) -> tuple[int, ...]:
        """Return the places of the documents, each once, those of equal scores in order of place."""
        places: list[int] = []
        for _, equal in groupby(hits, key=lambda hit: hit.score):
            places += sorted(self._place(hit.document) for hit in equal)
        return tuple(dict.fromkeys(places))

    def _place(self, document: _Document) -> int:
        title, text = document.parts()
        by_id = None if document.id is None else self._corpus.places.get(str(document.id))
        if by_id is not None:
            known = self._corpus.passages[by_id].title
            if title is not None and _normal(title) != _normal(known):
                raise self._error(
                    f"says that passage {document.id!r} is {title[:80]!r}, and the corpus that it is "
                    f"{known[:80]!r}; both must have one corpus"
                )
            return by_id
        is_named = bool(title or text)
        by_text = self._by_text.get(_text_key(title or "", text)) if is_named else None
        if by_text is None:
            raise self._error(
                f"found passage {document.id!r} {(title or text)[:80]!r}, which the corpus has not; "
                "both must have one corpus"
            )
        return by_text

    @cached_property
    def _by_text(self) -> Mapping[str, int]:
        """The first place of each title and text; most services give ids and never need it."""
        found: dict[str, int] = {}
        for place, passage in enumerate(self._corpus.passages):
            found.setdefault(_text_key(passage.title, passage.text), place)
        return found

    def _error(self, problem: str) -> TransportError:
        return TransportError(f"{WHAT} {self._service.base_url} {problem}", http_status=200)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _text_key(title: str, text: str) -> str:
    """Return a digest in place of the text: a second copy of a corpus would be held for it."""
    return digest(_normal(f"{title} {text}"))
