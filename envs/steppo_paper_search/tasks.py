"""Tasks of PaperSearch: which requests are served, and which papers answer them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from steppo_env.errors import InvalidInput
from steppo_env.keys import digest
from steppo_env.mdp import Task
from steppo_env.tasks import ListedTasks
from steppo_paper_search.collection import Collection, load_collection
from steppo_paper_search.options import Coverage, PaperSearchOptions
from steppo_paper_search.packs import PaperQuery
from steppo_paper_search.retrieval import query_key

__all__ = ["PaperTask", "PaperTasks", "paper_tasks"]


@dataclass(frozen=True, slots=True)
class PaperTask(Task):
    """A request with its solution.

    Attributes:
        query: What is asked for, in words.
        latest_year: Papers that appeared later are not found; None without a limit.
        gold: Ids of the papers to find, in order. A local library can find all of them.
        hidden: Ids of papers that are never found: the one whose references are asked for.
        hidden_title: The words of its title.
    """

    query: str = ""
    latest_year: int | None = None
    gold: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    hidden_title: str = ""


class PaperTasks(ListedTasks[PaperTask]):
    """The served tasks.

    Attributes:
        num_without_gold: Requests left out because no paper that answers them can be found.
        num_not_covered: Requests left out because a gold paper has no abstract (queries="covered").
    """

    def __init__(
        self, tasks: Sequence[PaperTask], version: str, num_without_gold: int, num_not_covered: int
    ) -> None:
        super().__init__(tasks, version)
        self.num_without_gold = num_without_gold
        self.num_not_covered = num_not_covered


def paper_tasks(options: PaperSearchOptions) -> PaperTasks:
    """Return the tasks that the options select; they are made once per process.

    Raises:
        MissingData: The data pack is not there or not readable.
        InvalidInput: It has a bad line, or no request that can be served.
    """
    folder = None if options.data is None else options.data.resolve()
    return _paper_tasks(folder, options.queries, options.date_cutoff, options.api_url is not None)


@cache
def _paper_tasks(
    folder: Path | None, coverage: Coverage, date_cutoff: bool, is_remote: bool
) -> PaperTasks:
    """Make the tasks. True `is_remote`: an API is searched, which may have more than the pack."""
    pack = load_collection(folder)
    covered = [query for query in pack.queries if coverage == "all" or _is_covered(pack, query)]
    titles: dict[str, list[str]] = {}
    for paper in pack.graph.papers:
        titles.setdefault(query_key(paper.title), []).append(paper.paper_id)
    made = [_task(pack, titles, query, date_cutoff, is_remote) for query in covered]
    tasks = [task for task in made if task.gold]
    if not tasks:
        raise InvalidInput(
            f"none of the {len(pack.queries)} requests in {folder} can be served: "
            f"{len(pack.queries) - len(covered)} have gold papers without abstract, "
            f'{len(made)} have no gold paper that can be found; try queries="all"'
        )
    return PaperTasks(
        tasks,
        version=digest([pack.version, coverage, date_cutoff, *(["api"] if is_remote else [])]),
        num_without_gold=len(made) - len(tasks),
        num_not_covered=len(pack.queries) - len(covered),
    )


def _is_covered(pack: Collection, query: PaperQuery) -> bool:
    papers = map(pack.graph.paper, query.gold_ids)
    return all(paper is not None and paper.abstract for paper in papers)


def _task(
    pack: Collection,
    titles: dict[str, list[str]],
    query: PaperQuery,
    date_cutoff: bool,
    is_remote: bool,
) -> PaperTask:
    latest_year = query.year if date_cutoff else None
    gold = sorted(
        paper_id
        for paper_id in query.gold_ids
        if _can_be_found(pack, paper_id, latest_year, is_remote)
    )
    # A gold paper may have the title of the paper that cites it (a preprint in two parts).
    title = query_key(query.title or "")
    same_title = titles.get(title, []) if title else []
    return PaperTask(
        task_id=query.query_id,
        split=query.split,
        labels={
            "set": query.query_set,
            "n_gold": len(gold),
            "n_gold_not_findable": len(query.gold_ids) - len(gold),
        },
        query=query.query,
        latest_year=latest_year,
        gold=tuple(gold),
        hidden=frozenset({query.query_id, *same_title} - set(gold)),
        hidden_title="" if set(same_title) & set(gold) else title,
    )


def _can_be_found(
    pack: Collection, paper_id: str, latest_year: int | None, is_remote: bool
) -> bool:
    paper = pack.graph.paper(paper_id)
    if paper is None:
        return is_remote
    is_visible = paper.year is None or latest_year is None or paper.year <= latest_year
    return is_visible and bool(query_key(paper.text))
