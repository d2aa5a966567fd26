"""A data pack in memory: its papers as a graph and its requests, read once per process."""

import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from steppo_paper_search.graph import PaperGraph
from steppo_paper_search.packs import PaperQuery, read_pack
from steppo_paper_search.world import generate_world

__all__ = ["Collection", "load_collection"]

_LOADING = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """What all episodes over one data pack share. Immutable."""

    graph: PaperGraph
    queries: tuple[PaperQuery, ...]
    version: str


def load_collection(folder: Path | None) -> Collection:
    """Return a data pack, or the built-in one for None; read it the first time only.

    Raises:
        MissingData: The folder or one of its files is not there or not readable.
        InvalidInput: A line of a file is not a record.
    """
    # Without the lock two sessions that start together would each read a hundred thousand papers.
    with _LOADING:
        return _load(None if folder is None else folder.resolve())


@cache
def _load(folder: Path | None) -> Collection:
    pack = generate_world() if folder is None else read_pack(folder)
    return Collection(PaperGraph(pack.papers, pack.references), pack.queries, pack.version)
