"""The benchmark measures what it says, and ends as promised. Speed is not asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import retrieval as benchmark
from benchmarks.retrieval import Question

ROOT = Path(__file__).resolve().parents[2]


def test_recall_is_the_share_of_hops_of_which_any_passage_was_found() -> None:
    question = Question("q", [frozenset({"a", "b"}), frozenset({"c"})])
    assert benchmark.recall(["b", "a", "x"], question) == 50.0
    assert benchmark.recall(["c", "a"], question) == 100.0
    assert benchmark.recall([], question) == 0.0


def test_the_made_corpus_is_the_same_every_time_and_its_questions_have_answers(
    tmp_path: Path,
) -> None:
    first, again = (benchmark.make_data(tmp_path, 100) for _ in range(2))
    assert first.corpus.key == again.corpus.key
    assert len(first.corpus) == 100
    (questions,) = first.questions.values()
    assert len(questions) == 3
    ids = {passage.passage_id for passage in first.corpus.passages}
    assert all(hop <= ids for question in questions for hop in question.hops)


def test_both_libraries_find_the_same_in_the_made_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "home"))
    figures = benchmark.compare(benchmark.make_data(tmp_path, 200), 5)
    assert figures["recall_closeness"] == 0.0


def test_some_are_spread_over_all() -> None:
    questions = [Question(str(number), []) for number in range(10)]
    assert [item.text for item in benchmark.some(questions, 4)] == ["0", "3", "6", "9"]
    assert benchmark.some(questions, 20) == questions


def test_it_ends_with_its_figures_as_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.retrieval", "--quick", "--json", "--passages", "100"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"figures", "targets", "missed"}
    assert set(found["targets"]) == {"speedup", "recall_closeness"}
    assert found["figures"]["opened_index_s"] > 0
    assert "rank_bm25 get_scores" in done.stdout
