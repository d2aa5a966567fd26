"""The invented fields of research of the built-in library: their papers, and who cites whom."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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

__all__ = ["LAST_YEAR", "Draft", "ResearchField", "make_fields", "weighted_sample"]

FIRST_YEAR = 2004
LAST_YEAR = 2024
NUM_METHODS = 6
NUM_BENCHMARKS = 4
NUM_STUDIES = 74
"""Papers of a field beside the introductions."""
TRAIN_FIELDS, DEV_FIELDS = 18, 6


@dataclass(slots=True)
class Draft:
    """A paper while its field is being made; numbers are places in `ResearchField.drafts`."""

    title: str
    abstract: str
    year: int
    task: int = -1
    method: int = -1
    benchmark: int = -1
    references: list["Draft"] = field(default_factory=list)
    citing: list["Draft"] = field(default_factory=list)
    paper_id: str = ""

    def cite(self, other: "Draft") -> None:
        self.references.append(other)
        other.citing.append(self)


@dataclass(slots=True)
class ResearchField:
    topic: Topic
    split: str
    methods: list[tuple[str, str]]
    """Name and description in other words."""
    benchmarks: list[str]
    method_papers: list[Draft]
    benchmark_papers: list[Draft]
    studies: list[Draft]

    @property
    def drafts(self) -> list[Draft]:
        return [*self.method_papers, *self.benchmark_papers, *self.studies]


def make_fields(rng: random.Random) -> list[ResearchField]:
    """Return the 30 fields, their papers connected."""
    names = _method_names(rng)
    benchmarks = _benchmark_names(rng)
    fields = [
        _field(rng, topic, _split(place), names[place], benchmarks[place])
        for place, topic in enumerate(_shuffled(rng, TOPICS))
    ]
    for item in fields:
        relatives = [other for other in fields if other.split == item.split and other is not item]
        _connect(rng, item, relatives)
    return fields


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
) -> ResearchField:
    method_papers = [
        Draft(
            f"{_upper(name)}: {alias} in {topic.name}",
            _fill(rng, rng.choice(METHOD_ABSTRACTS), topic, method=name, alias=alias),
            rng.randint(FIRST_YEAR, FIRST_YEAR + 3),
        )
        for name, alias in methods
    ]
    benchmark_papers = [
        Draft(
            f"{name}: a benchmark for {topic.name}",
            _fill(rng, rng.choice(BENCHMARK_ABSTRACTS), topic, dataset=name),
            rng.randint(FIRST_YEAR, FIRST_YEAR + 3),
        )
        for name in benchmarks
    ]
    years = sorted(rng.randint(FIRST_YEAR + 4, LAST_YEAR) for _ in range(NUM_STUDIES))
    studies: dict[str, Draft] = {}
    for year in years:
        study = _study(rng, topic, methods, benchmarks, year)
        while study.title in studies:  # requests name papers by title
            study = _study(rng, topic, methods, benchmarks, year)
        studies[study.title] = study
    return ResearchField(
        topic, split, methods, benchmarks, method_papers, benchmark_papers, [*studies.values()]
    )


def _study(
    rng: random.Random,
    topic: Topic,
    methods: list[tuple[str, str]],
    benchmarks: list[str],
    year: int,
) -> Draft:
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
    return Draft(title, abstract, year, task, method, benchmark)


def _fill(rng: random.Random, template: str, topic: Topic, **words: str) -> str:
    word, other = rng.sample(topic.words, 2)
    values = {"topic": topic.name, "word": word, "other": other, **words}
    values |= {name.capitalize(): _upper(value) for name, value in values.items()}
    return template.format(number=rng.randint(3, 40), **values)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _connect(rng: random.Random, item: ResearchField, relatives: Sequence[ResearchField]) -> None:
    """Let every study cite what it uses, earlier studies of its field and a few of its split's."""
    for place, study in enumerate(item.studies):
        study.cite(item.method_papers[study.method])
        study.cite(item.benchmark_papers[study.benchmark])

        def weight(other: Draft, study: Draft = study) -> float:
            kinship = 1 + 4 * (other.task == study.task) + 3 * (other.method == study.method)
            return kinship * (1 + len(other.citing))

        for other in weighted_sample(rng, item.studies[:place], rng.randint(2, 8), weight):
            study.cite(other)
        if relatives and rng.random() < 0.25:
            other = rng.choice(rng.choice(relatives).studies)
            if other.year < study.year:
                study.cite(other)


def weighted_sample(
    rng: random.Random, items: Sequence[Draft], count: int, weight: Callable[[Draft], float]
) -> list[Draft]:
    """Draw without replacement by exponential keys (Efraimidis and Spirakis 2006)."""
    keys = [(rng.expovariate(weight(item)), place) for place, item in enumerate(items)]
    return [items[place] for _, place in sorted(keys)[:count]]
