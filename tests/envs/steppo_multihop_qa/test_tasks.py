"""Loading packs: what they give and how a bad one is refused."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steppo_env.errors import InvalidInput, MissingData
from steppo_multihop_qa.retrieval import Passage
from steppo_multihop_qa.tasks import load_pack, world_pack

WritePack = Callable[..., Path]
PASSAGE = {"id": "p1", "title": "Lune", "text": "A river."}
QUESTION: dict[str, Any] = {"id": "q1", "split": "dev", "question": "Which?", "answer": "Lune"}


def test_a_pack_gives_tasks_with_labels_answers_and_hops(tiny: Path) -> None:
    pack = load_pack(tiny)
    assert list(pack.tasks.splits.items()) == [("train", 1), ("dev", 2)]
    task = pack.tasks.get("q1")
    assert task.labels == {"dataset": "tiny", "type": "bridge", "hops": 2, "level": "easy"}
    assert task.answers == ("the Lune", "River Lune")
    assert task.supporting == (("p1",), ("p2",))
    assert pack.tasks.get("q2").supporting == (("p1", "p4"),)
    assert pack.tasks.get("q3").supporting == ()
    assert pack.tasks.get("q3").labels == {"dataset": tiny.name}
    assert pack.passages["p3"] == Passage("p3", "Lune", "The Lune is 53 miles long.")


def test_a_pack_is_loaded_once_per_process_by_any_spelling_of_its_path(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    assert load_pack(Path(tiny.name)) is load_pack(tiny) is load_pack(tiny / ".." / tiny.name)
    assert world_pack() is world_pack()


def test_the_version_follows_the_content_and_not_the_compression(write_pack: WritePack) -> None:
    plain, zipped = load_pack(write_pack()), load_pack(write_pack(zipped=True))
    assert plain.tasks.version == zipped.tasks.version
    other = load_pack(write_pack([QUESTION]))
    assert other.tasks.version != plain.tasks.version
    edited = load_pack(write_pack([{**QUESTION, "answer": "Ouse"}]))
    assert edited.tasks.version != other.tasks.version
    moved = load_pack(write_pack([QUESTION], [PASSAGE, {**PASSAGE, "id": "p2"}]))
    assert moved.tasks.version != other.tasks.version


def test_a_folder_or_file_that_is_not_there_is_named(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(MissingData, match="nowhere is not a folder"):
        load_pack(tmp_path / "nowhere")
    (tiny / "corpus.jsonl").unlink()
    with pytest.raises(MissingData, match=r"neither corpus\.jsonl nor corpus\.jsonl\.gz"):
        load_pack(tiny)


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(b"x" * 99, mtime=0)[:-9]])
def test_a_broken_archive_is_named(tiny: Path, content: bytes) -> None:
    (tiny / "corpus.jsonl").unlink()
    (tiny / "corpus.jsonl.gz").write_bytes(content)
    with pytest.raises(MissingData, match=r"corpus\.jsonl\.gz cannot be read"):
        load_pack(tiny)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "object"),
        (json.dumps({**QUESTION, "split": "validation"}), "split"),
        (json.dumps({**QUESTION, "question": ""}), "question"),
        (json.dumps({**QUESTION, "question": " "}), "blank"),
        (json.dumps({**QUESTION, "answer": "The"}), "normalises to nothing"),
        (json.dumps({**QUESTION, "hops": "2"}), "hops"),
        (json.dumps({**QUESTION, "supporting_any_of": [[]]}), "supporting_any_of"),
        (json.dumps({"id": "q"}), "split: Field required"),
        (
            json.dumps({**QUESTION, "id": "q2", "supporting_ids": ["p9"]}),
            "'p9' is not in the corpus",
        ),
        (json.dumps(QUESTION), "'q1' appears twice"),
    ],
)
def test_a_bad_question_names_file_line_and_reason(
    write_pack: WritePack, line: str, reason: str
) -> None:
    folder = write_pack([QUESTION, line], [PASSAGE])
    with pytest.raises(InvalidInput, match=r"questions\.jsonl, line 2: ") as caught:
        load_pack(folder)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "p2"}', "title: Field required"),
        (json.dumps(PASSAGE), "'p1' appears twice"),
        ('{"id": "", "title": "", "text": ""}', "id"),
    ],
)
def test_a_bad_passage_names_file_line_and_reason(
    write_pack: WritePack, line: str, reason: str
) -> None:
    folder = write_pack([QUESTION], [PASSAGE, line])
    with pytest.raises(InvalidInput, match=r"corpus\.jsonl, line 2: ") as caught:
        load_pack(folder)
    assert reason in str(caught.value)


def test_a_corpus_without_words_and_a_pack_without_questions_are_refused(
    write_pack: WritePack,
) -> None:
    with pytest.raises(InvalidInput, match="no passage with a word"):
        load_pack(write_pack([QUESTION], [{"id": "p", "title": "", "text": "?"}]))
    with pytest.raises(InvalidInput, match="line 1"):
        load_pack(write_pack([], [PASSAGE]))


def test_line_separators_inside_a_text_do_not_end_a_line(write_pack: WritePack) -> None:
    line = json.dumps({"id": "p1", "title": "a\u2028b", "text": "x\x85y"}, ensure_ascii=False)
    pack = load_pack(write_pack([QUESTION], [line]))
    assert pack.passages["p1"].title == "a\u2028b"
