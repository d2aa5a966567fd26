"""Tasks and options of PaperSearch: which requests are served, and which papers answer them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from steppo_env.errors import InvalidInput
from steppo_env.keys import digest
from steppo_env.mdp import Task
from steppo_env.options import EnvOptions, OperatorOnly
from steppo_env.tasks import ListedTasks
from steppo_paper_search.library import Library, load_library
from steppo_paper_search.packs import PaperQuery
from steppo_paper_search.retrieval import query_key

__all__ = ["PaperSearchOptions", "PaperTask", "PaperTasks", "paper_tasks"]

Coverage: TypeAlias = Literal["covered", "all"]


class PaperSearchOptions(EnvOptions):
    """Options of `steppo/PaperSearch-v0`."""

    step_limit: int = Field(
        default=10, ge=1, le=1000, description="Steps after which an episode is truncated."
    )
    data: Annotated[Path | None, OperatorOnly()] = Field(
        default=None, description="Folder of a data pack; None is the built-in library."
    )
    queries: Coverage = Field(
        default="covered",
        description="Serve only requests of which every gold paper has an abstract, or all.",
    )
    date_cutoff: bool = Field(
        default=True, description="Hide papers younger than the year of the request."
    )
    search_top_k: int = Field(
        default=10, ge=1, le=100, description="Papers that one search brings at most."
    )
    expand_top_k: int = Field(
        default=30,
        ge=1,
        le=200,
        description="References that one expansion brings at most, and as many citations.",
    )
    list_size: int = Field(
        default=20,
        ge=2,
        le=200,
        description="Papers shown in a state, of which at most half are expanded ones.",
    )
    abstract_words: int = Field(
        default=100, ge=0, le=1000, description="Words after which a shown abstract is cut."
    )
    show_scores: bool = Field(
        default=False,
        description="Show the selector's score of each paper: leaks the reward to the policy.",
    )
    reward: Literal["recall_gain", "top3"] = Field(
        default="recall_gain",
        description="Share of the gold newly found, or the 3 best selector scores of each call.",
    )
    selector: Literal["gold", "lexical"] = Field(
        default="gold", description="Who scores papers for reward top3 and for show_scores."
    )
    search_cost: float = Field(
        default=0.0, ge=0.0, le=10.0, description="Subtracted for each search that is executed."
    )
    expand_cost: float = Field(
        default=0.0, ge=0.0, le=10.0, description="Subtracted for each expansion that is executed."
    )
    repeat_penalty: float = Field(
        default=0.0, ge=0.0, le=10.0, description="Subtracted for each call made before."
    )
    answer_f1_weight: float = Field(
        default=0.0,
        ge=0.0,
        le=10.0,
        description="Weight of the F1 of the answered papers, given when the agent stops.",
    )
    success_recall: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the gold that must have been listed for success.",
    )


@dataclass(frozen=True, slots=True)
class PaperTask(Task):
    """A request with its solution.

    Attributes:
        query: What is asked for, in words.
        latest_year: Papers that appeared later are not found; None without a limit.
        gold: Places of the papers to find, in the order of ids. All of them can be found.
        hidden: Places of papers that are never found: the one whose references are asked for.
    """

    query: str = ""
    latest_year: int | None = None
    gold: tuple[int, ...] = ()
    hidden: frozenset[int] = frozenset()


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
    return _paper_tasks(folder, options.queries, options.date_cutoff)


@cache
def _paper_tasks(folder: Path | None, coverage: Coverage, date_cutoff: bool) -> PaperTasks:
    library = load_library(folder)
    covered = [
        query for query in library.queries if coverage == "all" or _is_covered(library, query)
    ]
    titles: dict[str, list[int]] = {}
    for place, paper in enumerate(library.graph.papers):
        titles.setdefault(query_key(paper.title), []).append(place)
    made = [_task(library, titles, query, date_cutoff) for query in covered]
    tasks = [task for task in made if task.gold]
    if not tasks:
        raise InvalidInput(
            f"none of the {len(library.queries)} requests in {folder} can be served: "
            f"{len(library.queries) - len(covered)} have gold papers without abstract, "
            f'{len(made)} have no gold paper that can be found; try queries="all"'
        )
    return PaperTasks(
        tasks,
        version=digest([library.version, coverage, date_cutoff]),
        num_without_gold=len(made) - len(tasks),
        num_not_covered=len(library.queries) - len(covered),
    )


def _is_covered(library: Library, query: PaperQuery) -> bool:
    places = [library.graph.place(paper_id) for paper_id in query.gold_ids]
    return all(place is not None and library.graph.papers[place].abstract for place in places)


def _task(
    library: Library, titles: dict[str, list[int]], query: PaperQuery, date_cutoff: bool
) -> PaperTask:
    latest_year = query.year if date_cutoff else None
    graph = library.graph
    gold = sorted(
        place
        for place in map(graph.place, query.gold_ids)
        if place is not None
        and graph.is_visible(place, latest_year)
        and query_key(graph.papers[place].text)
    )
    # A gold paper may have the title of the paper that cites it (a preprint in two parts).
    same_title = titles.get(query_key(query.title), []) if query.title else []
    own = [place for place in (graph.place(query.query_id), *same_title) if place is not None]
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
        hidden=frozenset(own) - frozenset(gold),
    )
