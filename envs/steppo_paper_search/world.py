"""The built-in library: an invented citation graph, the same in every process, from no file.

Each of 30 fields has six methods and four benchmarks, every one with the paper that introduced it,
and papers that pair one task with one method and one benchmark. A paper cites the introduction of
what it uses, and earlier papers of its field by preferential attachment. Half of the papers never
name their method: their abstracts describe it in the words that its introduction explains, or name
it not at all. So a search for the name finds some of the answers, and the citations of the
introduction lead to the rest.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from steppo_env.keys import seed_words
from steppo_paper_search.graph import Paper
from steppo_paper_search.packs import Pack, PaperQuery
from steppo_paper_search.vocabulary import (
    ABSTRACTS,
    ALIAS_OBJECTS,
    ALIAS_VERBS,
    BENCHMARK_ABSTRACTS,
    BENCHMARK_SUFFIXES,
    METHOD_ABSTRACTS,
    METHOD_KINDS,
    METHOD_NOUNS,
    PLAIN_TITLES,
    SYLLABLES,
    TITLES_WITH_METHOD,
    TOPICS,
    Topic,
)

__all__ = ["generate_world"]

SEED = "paper-search-world-1"
FIRST_YEAR = 2004
LAST_YEAR = 2024
NUM_METHODS = 6
NUM_BENCHMARKS = 4
NUM_STUDIES = 74
"""Papers of a field beside the introductions."""
QUERIES_OF_A_KIND = 5
TRAIN_FIELDS, DEV_FIELDS = 18, 6
MIN_GOLD, MAX_GOLD = 2, 20


@dataclass(slots=True)
class _Draft:
    """A paper while its field is being made; numbers are places in `_Field.drafts`."""

    title: str
    abstract: str
    year: int
    task: int = -1
    method: int = -1
    benchmark: int = -1
    references: list["_Draft"] = field(default_factory=list)
    citing: list["_Draft"] = field(default_factory=list)
    paper_id: str = ""

    def cite(self, other: "_Draft") -> None:
        self.references.append(other)
        other.citing.append(self)


@dataclass(slots=True)
class _Field:
    topic: Topic
    split: str
    methods: list[tuple[str, str]]
    """Name and description in other words."""
    benchmarks: list[str]
    method_papers: list[_Draft]
    benchmark_papers: list[_Draft]
    studies: list[_Draft]

    @property
    def drafts(self) -> list[_Draft]:
        return [*self.method_papers, *self.benchmark_papers, *self.studies]


def generate_world() -> Pack:
    """Make the built-in library: about 2,500 papers and 600 requests. Takes under a second."""
    rng = random.Random(seed_words(SEED)[0])
    names = _method_names(rng)
    benchmarks = _benchmark_names(rng)
    fields = [
        _field(rng, topic, _split(place), names[place], benchmarks[place])
        for place, topic in enumerate(_shuffled(rng, TOPICS))
    ]
    for item in fields:
        relatives = [other for other in fields if other.split == item.split and other is not item]
        _connect(rng, item, relatives)
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


def _split(place: int) -> str:
    if place < TRAIN_FIELDS:
        return "train"
    return "dev" if place < TRAIN_FIELDS + DEV_FIELDS else "test"


def _shuffled(rng: random.Random, items: Sequence[Topic]) -> list[Topic]:
    return rng.sample(items, len(items))


def _method_names(rng: random.Random) -> list[list[tuple[str, str]]]:
    """Return the methods of each field. No name and no description serves two of them."""
    count = len(TOPICS) * NUM_METHODS
    names = [f"{kind} {noun}" for kind in METHOD_KINDS for noun in METHOD_NOUNS]
    aliases = [f"{verb} {thing}" for verb in ALIAS_VERBS for thing in ALIAS_OBJECTS]
    pairs = list(zip(rng.sample(names, count), rng.sample(aliases, count)))
    return [pairs[start : start + NUM_METHODS] for start in range(0, count, NUM_METHODS)]


def _benchmark_names(rng: random.Random) -> list[list[str]]:
    count = len(TOPICS) * NUM_BENCHMARKS
    names: dict[str, None] = {}
    while len(names) < count:
        word = "".join(rng.sample(SYLLABLES, 3)).capitalize()
        names[word] = None
    suffixed = [name + rng.choice(BENCHMARK_SUFFIXES) for name in names]
    return [suffixed[start : start + NUM_BENCHMARKS] for start in range(0, count, NUM_BENCHMARKS)]


def _field(
    rng: random.Random,
    topic: Topic,
    split: str,
    methods: list[tuple[str, str]],
    benchmarks: list[str],
) -> _Field:
    method_papers = [
        _Draft(
            f"{_upper(name)}: {alias} in {topic.name}",
            _fill(rng, rng.choice(METHOD_ABSTRACTS), topic, method=name, alias=alias),
            rng.randint(FIRST_YEAR, FIRST_YEAR + 3),
        )
        for name, alias in methods
    ]
    benchmark_papers = [
        _Draft(
            f"{name}: a benchmark for {topic.name}",
            _fill(rng, rng.choice(BENCHMARK_ABSTRACTS), topic, dataset=name),
            rng.randint(FIRST_YEAR, FIRST_YEAR + 3),
        )
        for name in benchmarks
    ]
    years = sorted(rng.randint(FIRST_YEAR + 4, LAST_YEAR) for _ in range(NUM_STUDIES))
    studies: dict[str, _Draft] = {}
    for year in years:
        study = _study(rng, topic, methods, benchmarks, year)
        while study.title in studies:  # requests name papers by title
            study = _study(rng, topic, methods, benchmarks, year)
        studies[study.title] = study
    return _Field(
        topic, split, methods, benchmarks, method_papers, benchmark_papers, [*studies.values()]
    )


def _study(
    rng: random.Random,
    topic: Topic,
    methods: list[tuple[str, str]],
    benchmarks: list[str],
    year: int,
) -> _Draft:
    task = rng.randrange(len(topic.tasks))
    method = rng.randrange(len(methods))
    benchmark = rng.randrange(len(benchmarks))
    name, alias = methods[method]
    wording = rng.random()
    approach = name if wording < 0.5 else alias if wording < 0.8 else "an established procedure"
    titles = TITLES_WITH_METHOD if wording < 0.5 else PLAIN_TITLES
    dataset = benchmarks[benchmark] if rng.random() < 0.6 else "the customary benchmark"
    words = {"task": topic.tasks[task], "method": name, "approach": approach, "dataset": dataset}
    title = _fill(rng, rng.choice(titles), topic, **words)
    abstract = " ".join(_fill(rng, rng.choice(lines), topic, **words) for lines in ABSTRACTS)
    return _Draft(title, abstract, year, task, method, benchmark)


def _fill(rng: random.Random, template: str, topic: Topic, **words: str) -> str:
    word, other = rng.sample(topic.words, 2)
    values = {"topic": topic.name, "word": word, "other": other, **words}
    values |= {name.capitalize(): _upper(value) for name, value in values.items()}
    return template.format(number=rng.randint(3, 40), **values)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _connect(rng: random.Random, item: _Field, relatives: Sequence[_Field]) -> None:
    """Let every study cite what it uses, earlier studies of its field and a few of its split's."""
    for place, study in enumerate(item.studies):
        study.cite(item.method_papers[study.method])
        study.cite(item.benchmark_papers[study.benchmark])

        def weight(other: _Draft, study: _Draft = study) -> float:
            kinship = 1 + 4 * (other.task == study.task) + 3 * (other.method == study.method)
            return kinship * (1 + len(other.citing))

        for other in _weighted_sample(rng, item.studies[:place], rng.randint(2, 8), weight):
            study.cite(other)
        if relatives and rng.random() < 0.25:
            other = rng.choice(rng.choice(relatives).studies)
            if other.year < study.year:
                study.cite(other)


def _weighted_sample(
    rng: random.Random, items: Sequence[_Draft], count: int, weight: Callable[[_Draft], float]
) -> list[_Draft]:
    """Draw without replacement by exponential keys (Efraimidis and Spirakis 2006)."""
    keys = [(rng.expovariate(weight(item)), place) for place, item in enumerate(items)]
    return [items[place] for _, place in sorted(keys)[:count]]


def _queries(rng: random.Random, fields: Sequence[_Field]) -> tuple[PaperQuery, ...]:
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
    item: _Field, kind: str, text: str, gold: Sequence[_Draft], year: int = LAST_YEAR
) -> PaperQuery:
    gold_ids = tuple(sorted(draft.paper_id for draft in gold))
    return PaperQuery("", kind, item.split, text, gold_ids, year)


def _by_method_and_task(rng: random.Random, item: _Field) -> list[PaperQuery]:
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


def _by_method_and_benchmark(rng: random.Random, item: _Field) -> list[PaperQuery]:
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


def _follow_ups(rng: random.Random, item: _Field) -> list[PaperQuery]:
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


def _reading_lists(rng: random.Random, item: _Field) -> list[PaperQuery]:
    """Return requests for the references of surveys that are not in the library."""
    queries = []
    for task_place, task in enumerate(item.topic.tasks):
        year = rng.randint(LAST_YEAR - 8, LAST_YEAR)
        known = [study for study in item.studies if study.task == task_place and study.year <= year]
        cited = _weighted_sample(
            rng, known, rng.randint(6, 12), lambda study: 1 + len(study.citing)
        )
        text = (
            f"Reading list for a survey of {task} in {item.topic.name}, written in {year}: "
            "the most influential studies up to then"
        )
        queries.append(_query(item, "reading_list", text, cited, year))
    return queries
