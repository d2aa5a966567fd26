"""A process that loads a corpus, opens its index or builds one in memory, and searches once.

Run by `benchmarks/retrieval.py` as `python benchmarks/retrieval_start.py CORPUS_FOLDER QUERY`. Prints
one line of JSON with what each stage took and what memory the process had after it, and then stays,
with the index mapped, until its standard input is closed.
"""

import json
import sys
import time
from pathlib import Path

START_S = time.perf_counter()


def memory_mb() -> dict[str, float]:
    """Return the resident memory of this process, and the part that no other process shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name.rstrip(":"): int(size) for name, size, _ in map(str.split, lines)}
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"resident": sizes["Rss"] / 1024, "private": private / 1024}


def main(folder: str, query: str) -> None:
    """Go through the stages, and report."""
    from steppo_multihop_qa.options import MultihopOptions
    from steppo_multihop_qa.retrieval import Corpus, make_retriever
    from steppo_multihop_qa.tasks import load_passages

    stages: dict[str, object] = {}

    def note(name: str) -> None:
        stages[name] = {"s": time.perf_counter() - START_S, **memory_mb()}

    note("imported")
    corpus = Corpus(load_passages(Path(folder)).values())
    note("loaded")
    retriever = make_retriever(MultihopOptions.model_validate({"retriever": "bm25s"}), corpus)
    found = retriever.search(query, 5)
    note("searched")
    print(json.dumps({"stages": stages, "found": len(found)}), flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
