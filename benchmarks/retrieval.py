"""How much faster is the precomputed BM25 index than rank_bm25, and does it find as much?

Run with `python benchmarks/retrieval.py`. The named baseline of the ratio is rank_bm25's own
`BM25Okapi.get_scores` over the whole corpus, and the best of them. Both libraries see the same words,
and no ranking is remembered: every query is asked once. The corpus is the union of the published
packs with their questions, or, where those are not, one of the same size made on the spot.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from benchmarks import report
from steppo_multihop_qa import Passage, load_pack
from steppo_multihop_qa.options import MultihopOptions
from steppo_multihop_qa.retrieval import (
    BM25SRetriever,
    Corpus,
    RankBM25Retriever,
    make_retriever,
    words_of,
)
from steppo_multihop_qa.retrieval.ranking import best_places
from steppo_multihop_qa.tasks import load_passages

SEED = 20
TOP_K = 5
BATCH = 64
DATASETS = ("hotpotqa", "2wikimultihopqa", "musique")
UNION = "union"
BASELINE, OURS = "rank_bm25 get_scores", "bm25s"
MADE_SIZE = 50_944
"""Passages of the corpus that is made, as many as the published union has."""
COMPARED, QUICK_COMPARED = 100, 10
"""Questions of each data set that the baseline ranks too: it takes seconds for each ten."""
TARGETS = {"speedup": 20.0, "recall_closeness": -1.0}
"""bm25s is to be 20 times as fast, and to find as much to within a point in every data set."""
WAIT_S = 300.0

Hops = Sequence[frozenset[str]]
Search = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Question:
    """A query, and for each hop the ids of the passages of which any one will do."""

    text: str
    hops: Hops


@dataclass(frozen=True)
class Data:
    """A corpus, the folder it lies in, and questions over it by data set."""

    folder: Path
    corpus: Corpus
    questions: Mapping[str, Sequence[Question]]


def find_packs() -> Path | None:
    """Return the folder of the published packs where it lies beside the repository."""
    for parent in Path(__file__).resolve().parents:
        folder = parent / "shared" / "data" / "multihop_qa"
        if (folder / UNION).is_dir():
            return folder
    return None


def read_packs(folder: Path) -> Data:
    """Read the union of the corpora, and the questions that name gold passages."""
    questions: dict[str, list[Question]] = {}
    for name in DATASETS:
        tasks = load_pack(folder / name).tasks
        every = [tasks.at(split, i) for split, count in tasks.splits.items() for i in range(count)]
        questions[name] = [
            Question(task.question, [frozenset(hop) for hop in task.supporting])
            for task in every
            if task.supporting
        ]
    union = folder / UNION
    return Data(union, Corpus(load_passages(union).values()), questions)


def make_data(folder: Path, size: int) -> Data:
    """Write a corpus of words drawn by Zipf's law, with questions made of words of a passage."""
    rng = np.random.default_rng(SEED)
    passages: list[Passage] = []
    questions: list[Question] = []
    for number in range(size):
        drawn = [f"w{word}" for word in rng.zipf(1.2, 60) % 140_000]
        passages.append(Passage(f"p{number:06d}", " ".join(drawn[:3]), " ".join(drawn[3:])))
        if number % 40 == 0:
            asked = rng.choice(drawn, 12, replace=False)
            questions.append(Question(" ".join(asked), [frozenset({passages[-1].passage_id})]))
    rows = ({"id": item.passage_id, "title": item.title, "text": item.text} for item in passages)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Data(folder, Corpus(passages), {"made": questions})


def some(questions: Sequence[Question], count: int) -> Sequence[Question]:
    """Return at most `count` questions, evenly spread."""
    places = np.linspace(0, len(questions) - 1, min(count, len(questions))).astype(int)
    return [questions[place] for place in places]


def recall(found: Sequence[str], question: Question) -> float:
    """Return the share of hops of which a passage was found, in percent."""
    return 100 * float(np.mean([not hop.isdisjoint(found) for hop in question.hops]))


def library_search(corpus: Corpus, index: BM25Okapi) -> Search:
    """Return rank_bm25's own search: the scores of all passages, and the best of them."""
    return lambda query: _best(corpus, index.get_scores(words_of(query)))


def retriever_search(retriever: RankBM25Retriever | BM25SRetriever) -> Search:
    """Return the ids that one of ours finds; its memory is emptied before each search."""

    def search(query: str) -> list[str]:
        retriever._recent.clear()
        return [passage.passage_id for passage in retriever.search(query, TOP_K)]

    return search


class OkapiTable:
    """The scores of rank_bm25, of each word in each passage, so that all questions can be asked.

    The same formula on the same numbers in the same order as `BM25Okapi.get_scores`, which takes a
    third of a second a query; `compare` checks that both find the same.
    """

    def __init__(self, corpus: Corpus, index: BM25Okapi) -> None:
        self._corpus = corpus
        lengths = np.array(index.doc_len)
        rows: dict[str, tuple[list[int], list[int]]] = {}
        for place, counts in enumerate(index.doc_freqs):
            for word, count in counts.items():
                places, numbers = rows.setdefault(word, ([], []))
                places.append(place)
                numbers.append(count)
        self._scores: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for word, (places, numbers) in rows.items():
            at, counts = np.array(places), np.array(numbers)
            norm = index.k1 * (1 - index.b + index.b * lengths[at] / index.avgdl)
            self._scores[word] = at, index.idf[word] * (counts * (index.k1 + 1) / (counts + norm))

    def search(self, query: str) -> list[str]:
        """Return the ids of the best passages."""
        scores = np.zeros(len(self._corpus))
        for word in words_of(query):
            if word in self._scores:
                at, gains = self._scores[word]
                scores[at] += gains
        return _best(self._corpus, scores)


def _best(corpus: Corpus, scores: NDArray[np.float64]) -> list[str]:
    best = best_places(np.arange(len(scores)), scores, TOP_K)
    return [corpus.passages[place].passage_id for place in best]


def compare_speed(data: Data, searches: Mapping[str, Search], count: int) -> float:
    """Print the time of the searches over the same questions, and return the ratio of medians."""
    report.say(f"{len(data.corpus):,} passages, k = {TOP_K}; {count} questions of each data set")
    for search in searches.values():
        search("once before the clock starts")
    times: dict[str, list[float]] = {name: [] for name in searches}
    for questions in data.questions.values():
        # Question by question, so that what else the machine does falls on all of them.
        for question in some(questions, count):
            for name, search in searches.items():
                start = time.perf_counter()
                search(question.text)
                times[name].append(time.perf_counter() - start)
    rows = [
        [
            name,
            *(f"{value * 1e3:.2f}" for value in np.quantile(seconds, (0.5, 0.99))),
            f"{len(seconds) / sum(seconds):.3g}",
        ]
        for name, seconds in times.items()
    ]
    report.say(report.table(["search", "p50 ms", "p99 ms", "queries/s"], rows) + "\n")
    return float(np.median(times[BASELINE]) / np.median(times[OURS]))


def compare_recall(data: Data, theirs: Search, ours: Search) -> dict[str, float]:
    """Print what both libraries find over every question, and return how close they are."""
    rows: list[list[str]] = []
    gains: list[float] = []
    for name, questions in data.questions.items():
        shares = [
            float(np.mean([recall(search(question.text), question) for question in questions]))
            for search in (theirs, ours)
        ]
        gains.append(shares[1] - shares[0])
        rows.append([name, str(len(questions)), *(f"{x:.1f}" for x in (*shares, gains[-1]))])
    report.say(f"recall@{TOP_K} of gold passages, in percent, over every question that names them")
    report.say(report.table(["data set", "questions", "rank_bm25", OURS, "gain"], rows) + "\n")
    return {"recall_closeness": -max(map(abs, gains))}


def compare(data: Data, count: int) -> dict[str, float]:
    """Compare both libraries, and return the figures.

    Raises:
        SystemExit: The table that stands for rank_bm25 where all questions are asked finds other
            passages than rank_bm25.
    """
    okapi = RankBM25Retriever(data.corpus)
    table = OkapiTable(data.corpus, okapi._index)
    library = library_search(data.corpus, okapi._index)
    for questions in data.questions.values():
        for question in some(questions, 3):
            if table.search(question.text) != library(question.text):
                raise SystemExit(f"the table of rank_bm25 is wrong about {question.text!r}")
    ours = retriever_search(bm25s_retriever(data.corpus))
    searches = {BASELINE: library, "rank_bm25 by postings": retriever_search(okapi), OURS: ours}
    figures = {"speedup": compare_speed(data, searches, count)}
    return figures | compare_recall(data, table.search, ours)


def bm25s_retriever(corpus: Corpus) -> BM25SRetriever:
    """Return the retriever as an environment opens it: mapped from disk."""
    made = make_retriever(MultihopOptions.model_validate({"retriever": "bm25s"}), corpus)
    assert isinstance(made, BM25SRetriever)
    return made


def compare_batches(data: Data) -> dict[str, float]:
    """Print how many queries a second bm25s answers alone and in batches."""
    retriever = bm25s_retriever(data.corpus)
    texts = [question.text for questions in data.questions.values() for question in questions]
    rates: list[float] = []
    for size in (1, BATCH):
        retriever._recent.clear()
        start = time.perf_counter()
        for place in range(0, len(texts), size):
            retriever.search_batch(texts[place : place + size], TOP_K)
        rates.append(len(texts) / (time.perf_counter() - start))
    report.say(
        f"bm25s: {rates[0]:.0f} queries/s one by one, {rates[1]:.0f} in batches of {BATCH}\n"
    )
    return {"queries_per_s": rates[0], "batched_queries_per_s": rates[1]}


@contextlib.contextmanager
def started(data: Data, home: Path) -> Iterator[dict[str, dict[str, float]]]:
    """Run a process until it has found something, and keep it; gives its stages."""
    query = next(iter(data.questions.values()))[0].text
    program = Path(__file__).with_name("retrieval_start.py")
    process = subprocess.Popen(
        [sys.executable, str(program), str(data.folder), query],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "STEPPO_HOME": str(home)},
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["stages"]
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(WAIT_S)


def cold_start(data: Data, home: Path) -> dict[str, float]:
    """Print what a fresh process takes until its first result, and what memory it has then."""
    nowhere = home / "no-folder"
    nowhere.touch()  # an index is held in memory where none can be written
    with started(data, nowhere) as built:
        pass
    # The second of two that have it open: what it shares is not its own.
    with started(data, home), started(data, home) as opened:
        pass
    rows: list[list[str]] = []
    for name, stages in (("built in process", built), ("opened, second process", opened)):
        loaded, searched = stages["loaded"], stages["searched"]
        rows.append(
            [
                name,
                f"{searched['s']:.2f}",
                f"{searched['s'] - loaded['s']:.2f}",
                *(f"{stages[stage]['resident']:.0f}" for stage in ("imported", "loaded")),
                *(f"{searched[kind]:.0f}" for kind in ("resident", "private")),
            ]
        )
    header = ["a fresh process", "first result s", "of it index s"]
    header += ["imports MB", "+ texts MB", "+ index MB", "private MB"]
    report.say(report.table(header, rows))
    report.say("imports and texts are every process's own; a mapped index is resident and shared\n")
    return {
        "opened_index_s": opened["searched"]["s"] - opened["loaded"]["s"],
        "built_index_s": built["searched"]["s"] - built["loaded"]["s"],
        "opened_private_mb": opened["searched"]["private"] - opened["loaded"]["private"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; a missed target is reported, not an error."""
    parser = report.parser("Compare bm25s with rank_bm25 on one corpus.")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of the packs")
    parser.add_argument(
        "--passages", type=int, metavar="N", help="make a corpus of N passages, whatever is there"
    )
    chosen = parser.parse_args(arguments)
    if chosen.passages is not None and chosen.passages < BATCH:
        parser.error(f"it takes at least {BATCH} passages")
    packs = chosen.data or (find_packs() if chosen.passages is None else None)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["STEPPO_HOME"] = str(home)
        data = read_packs(packs) if packs else make_data(home, chosen.passages or MADE_SIZE)
        figures = compare(data, QUICK_COMPARED if chosen.quick else COMPARED)
        figures |= compare_batches(data)
        figures |= cold_start(data, home)
    for name in report.missed(figures, TARGETS):
        report.say(f"{name}: {figures[name]:.4g}, below its target of {TARGETS[name]:g}")
    if chosen.json:
        report.say(report.json_line(figures, TARGETS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
