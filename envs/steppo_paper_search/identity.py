"""Which paper of a data pack a record of a service is."""

import re
from collections.abc import Iterable

from steppo_paper_search.graph import Paper
from steppo_paper_search.retrieval import query_key

__all__ = ["Identities", "arxiv_number"]

_ARXIV = re.compile(
    r"(?:arxiv:)?(?:(?P<new>\d{4}\.\d{4,5})|(?P<archive>[a-z]+(?:-[a-z]+)*)(?:\.[a-z-]{2,})?/(?P<old>\d{7}))"
    r"(?:v\d+)?",
    re.IGNORECASE,
)


def arxiv_number(text: str) -> str | None:
    """Return the number of an arXiv id without prefix, subject class and version, or None.

    https://info.arxiv.org/help/arxiv_identifier.html

    >>> arxiv_number("arXiv:2410.01234v2"), arxiv_number("solv-int/9801001v1")
    ('2410.01234', 'solv-int/9801001')
    >>> arxiv_number("math.GT/0309136"), arxiv_number("p:2c2a5e5ca73e")
    ('math/0309136', None)
    """
    found = _ARXIV.fullmatch(text.strip())
    if found is None:
        return None
    new: str | None = found["new"]
    return new if new is not None else f"{found['archive'].lower()}/{found['old']}"


class Identities:
    """The papers that a data pack knows, by arXiv id, by id, and by title.

    A title counts only for papers whose id is no arXiv id, and only where no two of them share it.

    Args:
        papers: Of the pack.
        ids: Further ids that its requests name.

    >>> known = Identities([Paper("arxiv:2410.01234", "Solar sails"), Paper("p7", "Dust")], ())
    >>> known.identify("f00d", "2410.01234v3", "Sailing"), known.identify("beef", None, "Dust!")
    ('arxiv:2410.01234', 'p7')
    >>> known.identify("cafe", "2410.09999v1", "Ice"), known.identify("cafe", None, "Ice")
    ('arxiv:2410.09999', 'cafe')
    """

    def __init__(self, papers: Iterable[Paper], ids: Iterable[str]) -> None:
        self._ids: set[str] = set()
        self._by_number: dict[str, str] = {}
        self._by_title: dict[str, str | None] = {}
        for paper in papers:
            if self._add(paper.paper_id) is None:
                title = query_key(paper.title)
                self._by_title[title] = None if title in self._by_title else paper.paper_id
        for paper_id in ids:
            self._add(paper_id)
        self._by_title.pop("", None)

    def identify(self, source_id: str, arxiv_id: str | None, title: str) -> str:
        """Return the pack's id of a record, or else its arXiv id, or else the service's own id."""
        number = None if arxiv_id is None else arxiv_number(arxiv_id)
        if number is not None and number in self._by_number:
            return self._by_number[number]
        if source_id in self._ids:
            return source_id
        return self._by_title.get(query_key(title)) or (number and f"arxiv:{number}") or source_id

    def _add(self, paper_id: str) -> str | None:
        self._ids.add(paper_id)
        number = arxiv_number(paper_id)
        if number is not None:
            self._by_number.setdefault(number, paper_id)
        return number
