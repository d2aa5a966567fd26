"""Indexes on disk: the same rankings, built once, never half, and memory where there is no disk."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_multihop_qa.options import MultihopOptions
from steppo_multihop_qa.retrieval import BM25SRetriever, Corpus, Passage, index_store
from steppo_multihop_qa.retrieval.factory import make_retriever
from steppo_multihop_qa.retrieval.index_store import IndexFolder
from steppo_multihop_qa.retrieval.vocabulary import Vocabulary

BM25S = MultihopOptions.model_validate({"retriever": "bm25s"})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the indexes of each test apart."""
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "retrieval"


def write_seven(folder: Path) -> None:
    (folder / "number").write_text("7")


def read_number(folder: Path) -> int:
    return int((folder / "number").read_text())


def test_an_opened_index_ranks_as_one_in_memory(corpus: Corpus, home: Path) -> None:
    opened, in_memory = make_retriever(BM25S, corpus), BM25SRetriever.in_memory(corpus)
    assert (home / opened.version / "SHA256SUMS").is_file()
    for query in ("Oxmoor Lune", "the river", "born", "zyx", "53 53 miles"):
        assert opened.search(query, 3) == in_memory.search(query, 3)


def test_scores_and_words_of_an_opened_index_are_mapped_from_its_files(corpus: Corpus) -> None:
    retriever = make_retriever(BM25S, corpus)
    assert isinstance(retriever, BM25SRetriever)
    vocabulary = retriever._vocabulary
    arrays = [retriever._index.scores[name] for name in ("data", "indices", "indptr")]
    for array in (*arrays, vocabulary._letters, vocabulary._ends):
        assert isinstance(array.base, np.memmap)


def test_one_of_many_threads_builds_and_all_open(home: Path) -> None:
    folder = IndexFolder("test", {"a": 1})
    num_writes, found = [], []
    start = threading.Barrier(6)

    def write(path: Path) -> None:
        num_writes.append(1)
        write_seven(path)

    def work() -> None:
        start.wait(10)
        found.append(folder.open_or_build(read_number, write))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [7] * 6
    assert num_writes == [1]
    assert sorted(path.name for path in home.iterdir()) == [
        f".{folder.version}.lock",
        folder.version,
    ]


PROGRAM = """
import sys
from pathlib import Path
from steppo_multihop_qa.retrieval.index_store import IndexFolder

def write(path):
    print("built", flush=True)
    # Long enough for the other process to come and find the lock taken.
    try:
        with folder.lock(0.5):
            print("the lock is not kept")
    except TimeoutError:
        pass
    (path / "number").write_text("7")

folder = IndexFolder("test", {"a": 2})
print(folder.open_or_build(lambda path: (path / "number").read_text(), write))
"""


def test_one_of_two_processes_builds() -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = sorted(process.communicate(timeout=40)[0] for process in processes)
    assert outputs == ["7\n", "built\n7\n"]


@pytest.mark.parametrize("change", ["flip", "truncate", "remove"])
def test_a_damaged_index_is_told_and_built_again(
    corpus: Corpus, home: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    version = make_retriever(BM25S, corpus).version
    path = home / version / "data.csc.index.npy"
    content = path.read_bytes()
    path.unlink()
    if change != "remove":
        end = len(content) - 1
        path.write_bytes(content[:end] + (bytes([content[end] ^ 1]) if change == "flip" else b""))
    assert make_retriever(BM25S, corpus).search("Ada", 1)[0].passage_id == "p1"
    assert "damaged" in caplog.text
    assert path.read_bytes() == content


def test_a_failed_build_leaves_no_index(home: Path) -> None:
    folder = IndexFolder("test", {})

    def fail(path: Path) -> None:
        write_seven(path)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        folder.open_or_build(read_number, fail)
    assert folder.open(read_number) is None
    assert folder.open_or_build(read_number, write_seven) == 7


def test_without_a_folder_to_write_the_index_is_held_in_memory_with_a_warning(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "file"))
    assert make_retriever(BM25S, corpus).search("Ada", 1)[0].passage_id == "p1"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "cannot be kept" in record.getMessage()
    assert "STEPPO_HOME" in record.getMessage()


def test_a_builder_that_hangs_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index_store, "LOCK_S", 0.1)
    folder = IndexFolder("test", {})
    with folder.lock(1.0):
        assert folder.open_or_build(read_number, write_seven) is None
    assert "another process has been building it for 0.1 s" in caplog.text


def test_other_facts_are_another_index() -> None:
    versions = {IndexFolder("test", {"k1": k1}).version for k1 in (1.2, 1.5)}
    assert len(versions) == 2


def test_two_builds_of_one_corpus_are_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder, passages in zip(folders, (corpus.passages, corpus.passages[::-1]), strict=True):
        folder.mkdir()
        BM25SRetriever.write(Corpus(passages), folder)
    names = sorted(path.name for path in folders[0].iterdir())
    assert len(names) >= 5
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


WORDS = st.text("abz019", min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(st.sets(WORDS, min_size=1), WORDS)
def test_the_vocabulary_numbers_words_in_order_and_knows_no_other(
    words: set[str], other: str
) -> None:
    vocabulary = Vocabulary.of(words)
    assert [vocabulary.id_of(word) for word in sorted(words)] == list(range(len(words)))
    assert (vocabulary.id_of(other) is None) == (other not in words)


def test_a_passage_is_one_object_however_often_it_is_found(corpus: Corpus) -> None:
    retriever = make_retriever(BM25S, corpus)
    (first,) = retriever.search("Ada", 1)
    (again,) = retriever.search("Ada Byrne born", 1)
    assert first is again
    assert isinstance(first, Passage)
