"""The built-in library: an invented citation graph, the same in every process, from no file.

Each of 30 fields has six methods and four benchmarks, every one with the paper that introduced it,
and papers that pair one task with one method and one benchmark. A paper cites the introduction of
what it uses, and earlier papers of its field by preferential attachment. Half of the papers never
name their method: their abstracts describe it in the words that its introduction explains, or name
it not at all. So a search for the name finds some of the answers, and the citations of the
introduction lead to the rest.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

from steppo_env.keys import seed_words
from steppo_paper_search.graph import Paper
from steppo_paper_search.packs import Pack, PaperQuery
from steppo_paper_search.world_fields import (
    LAST_YEAR,
    Draft,
    ResearchField,
    make_fields,
    weighted_sample,
)

__all__ = ["generate_world"]

SEED = "paper-search-world-1"
QUERIES_OF_A_KIND = 5
MIN_GOLD, MAX_GOLD = 2, 20


def generate_world() -> Pack:
    """Make the built-in library: about 2,500 papers and 600 requests. Takes under a second."""
    rng = random.Random(seed_words(SEED)[0])
    fields = make_fields(rng)
    drafts = [draft for item in fields for draft in item.drafts]
    for draft, number in zip(drafts, rng.sample(range(1000, 1000 + 2 * len(drafts)), len(drafts))):
        draft.paper_id = f"P{number}"
    queries = _queries(rng, fields)
    papers = tuple(
        Paper(draft.paper_id, draft.title, draft.abstract, draft.year) for draft in drafts
    )
    references = {
        draft.paper_id: tuple(other.paper_id for other in draft.references) for draft in drafts
    }
    content = repr((papers, references, queries)).encode()
    return Pack(papers, references, queries, blake2b(content, digest_size=16).hexdigest())


def _queries(rng: random.Random, fields: Sequence[ResearchField]) -> tuple[PaperQuery, ...]:
    """Return the requests of all fields, the kinds mixed within each split."""
    drawn = [
        query
        for item in fields
        for make in (_by_method_and_task, _by_method_and_benchmark, _follow_ups, _reading_lists)
        for query in _some(rng, make(rng, item))
    ]
    rng.shuffle(drawn)
    counts: dict[str, int] = {}
    numbered = []
    for query in drawn:
        number = counts[query.split] = counts.get(query.split, -1) + 1
        query_id = f"{query.split}-{number:03d}-{query.query_set.replace('_', '-')}"
        numbered.append(replace(query, query_id=query_id))
    order = ("train", "dev", "test")
    return tuple(sorted(numbered, key=lambda query: order.index(query.split)))


def _some(rng: random.Random, queries: list[PaperQuery]) -> list[PaperQuery]:
    fit = [query for query in queries if MIN_GOLD <= len(query.gold_ids) <= MAX_GOLD]
    return rng.sample(fit, min(QUERIES_OF_A_KIND, len(fit)))


def _query(
    item: ResearchField, kind: str, text: str, gold: Sequence[Draft], year: int = LAST_YEAR
) -> PaperQuery:
    gold_ids = tuple(sorted(draft.paper_id for draft in gold))
    return PaperQuery("", kind, item.split, text, gold_ids, year)


def _by_method_and_task(rng: random.Random, item: ResearchField) -> list[PaperQuery]:
    forms = (
        "Papers that use {method} for {task}",
        "Which studies approach {task} with {method}?",
        "I am looking for work on {task} that relies on {method}, under whatever name.",
    )
    return [
        _query(
            item,
            "method_and_task",
            rng.choice(forms).format(method=name, task=task),
            [study for study in item.studies if (study.method, study.task) == (method, task_place)],
        )
        for method, (name, _) in enumerate(item.methods)
        for task_place, task in enumerate(item.topic.tasks)
    ]


def _by_method_and_benchmark(rng: random.Random, item: ResearchField) -> list[PaperQuery]:
    forms = (
        "Papers that evaluate {method} on {dataset}",
        "Who has reported results on {dataset} with {method}?",
        "All experiments with {method} that were run on the {dataset} benchmark",
    )
    return [
        _query(
            item,
            "method_and_benchmark",
            rng.choice(forms).format(method=name, dataset=dataset),
            [
                study
                for study in item.studies
                if (study.method, study.benchmark) == (method, benchmark)
            ],
        )
        for method, (name, _) in enumerate(item.methods)
        for benchmark, dataset in enumerate(item.benchmarks)
    ]


def _follow_ups(rng: random.Random, item: ResearchField) -> list[PaperQuery]:
    forms = (
        'Which later papers build directly on "{title}" ({year})?',
        'Papers that cite "{title}", published in {year}',
    )
    return [
        _query(
            item,
            "follow_ups",
            rng.choice(forms).format(title=study.title, year=study.year),
            study.citing,
        )
        for study in item.studies
    ]


def _reading_lists(rng: random.Random, item: ResearchField) -> list[PaperQuery]:
    """Return requests for the references of surveys that are not in the library."""
    queries = []
    for task_place, task in enumerate(item.topic.tasks):
        year = rng.randint(LAST_YEAR - 8, LAST_YEAR)
        known = [study for study in item.studies if study.task == task_place and study.year <= year]
        cited = weighted_sample(rng, known, rng.randint(6, 12), lambda study: 1 + len(study.citing))
        text = (
            f"Reading list for a survey of {task} in {item.topic.name}, written in {year}: "
            "the most influential studies up to then"
        )
        queries.append(_query(item, "reading_list", text, cited, year))
    return queries
