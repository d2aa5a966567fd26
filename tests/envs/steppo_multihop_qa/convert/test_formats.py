"""The Parquet files of Hugging Face hold the same questions in other shapes."""

from pathlib import Path
from typing import Any

import pytest

from steppo_multihop_qa.convert import Kind
from steppo_multihop_qa.convert.formats import FORMATS, SourceQuestion
from steppo_multihop_qa.convert.records import read_records

PLAIN: dict[str, Any] = {
    "id": "q1",
    "question": "Which?",
    "answer": "b",
    "type": "bridge",
    "level": "easy",
    "supporting_facts": [["A", 0], ["B", 1]],
    "context": [["A", ["One.", "Two."]], ["B", ["Three."]]],
}
COLUMNS: dict[str, Any] = {
    "supporting_facts": {"title": ["A", "B"], "sent_id": [0, 1]},
    "context": {"title": ["A", "B"], "sentences": [["One.", "Two."], ["Three."]]},
}
OBJECTS: dict[str, Any] = {
    "supporting_facts": [{"title": "A", "sent_id": 0}, {"title": "B", "sent_id": 1}],
    "context": [
        {"title": "A", "sentences": ["One.", "Two."]},
        {"sentences": ["Three."], "title": "B"},
    ],
}
TEXTS: dict[str, Any] = {
    "supporting_facts": '[["A", 0], ["B", 1]]',
    "context": '[["A", ["One.", "Two."]], ["B", ["Three."]]]',
}
MUSIQUE: dict[str, Any] = {
    "id": "2hop__1_2",
    "question": "Which?",
    "answer": "b",
    "answer_aliases": [],
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "A", "paragraph_text": "One.", "is_supporting": True},
        {"idx": 1, "title": "B", "paragraph_text": "Two.", "is_supporting": False},
        {"idx": 2, "title": "A", "paragraph_text": "Three.", "is_supporting": True},
    ],
    "question_decomposition": [
        {"id": 1, "question": "x", "answer": "y", "paragraph_support_idx": 2},
        {"id": 2, "question": "x", "answer": "y", "paragraph_support_idx": 0},
    ],
}
MUSIQUE_COLUMNS: dict[str, Any] = {
    "paragraphs": {
        "idx": [0, 1, 2],
        "title": ["A", "B", "A"],
        "paragraph_text": ["One.", "Two.", "Three."],
        "is_supporting": [True, False, True],
    },
    "question_decomposition": {
        "id": [1, 2],
        "question": ["x", "x"],
        "answer": ["y", "y"],
        "paragraph_support_idx": [2, 0],
    },
}


def read(kind: Kind, value: object, number: int = 0) -> SourceQuestion:
    found = FORMATS[kind].read(value, number)
    assert isinstance(found, SourceQuestion)
    return found


@pytest.mark.parametrize("shape", [COLUMNS, OBJECTS, TEXTS], ids=["columns", "objects", "texts"])
def test_pairs_read_the_same_in_every_shape(shape: dict[str, Any]) -> None:
    for kind in (Kind.HOTPOTQA, Kind.TWO_WIKI):
        assert read(kind, PLAIN | shape) == read(kind, PLAIN)
    assert [hop.title for hop in read(Kind.HOTPOTQA, PLAIN).hops] == ["A", "B"]


def test_paragraphs_read_the_same_as_objects_and_as_columns() -> None:
    found = read(Kind.MUSIQUE, MUSIQUE)

    assert read(Kind.MUSIQUE, MUSIQUE | MUSIQUE_COLUMNS) == found
    assert [hop.passages[0].text for hop in found.hops] == ["Three.", "One."]


@pytest.mark.parametrize(
    "steps", [[], [{"paragraph_support_idx": None}, {}], [{"paragraph_support_idx": 1}, {}]]
)
def test_without_a_full_decomposition_the_marked_paragraphs_are_gold(steps: list[Any]) -> None:
    found = read(Kind.MUSIQUE, MUSIQUE | {"question_decomposition": steps})

    assert [hop.passages[0].text for hop in found.hops] == ["One.", "Three."]
    assert found.num_hops == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question_decomposition": [{"paragraph_support_idx": 9}]}, "no paragraph with the idx 9"),
        ({"paragraphs": [MUSIQUE["paragraphs"][0]] * 2}, "two paragraphs have the same idx"),
        ({"paragraphs": {"idx": 1}}, "an object of lists"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FORMATS[Kind.MUSIQUE].read(MUSIQUE | change, 0)


def test_bamboogle_is_numbered_in_the_order_of_the_records() -> None:
    for row in ({"Question": "Q?", "Answer": "A1"}, {"question": "Q?", "answer": "A1"}):
        assert read(Kind.BAMBOOGLE, row, 7).question_id == "bamboogle_7"


def test_parquet_files_read_as_the_published_ones(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for kind, plain, shape in (
        (Kind.HOTPOTQA, PLAIN, COLUMNS),
        (Kind.HOTPOTQA, PLAIN, OBJECTS),
        (Kind.TWO_WIKI, PLAIN, TEXTS),
        (Kind.MUSIQUE, MUSIQUE, MUSIQUE_COLUMNS),
        (Kind.MUSIQUE, MUSIQUE, {}),
    ):
        path = tmp_path / "validation-00000-of-00001.parquet"
        parquet.write_table(pyarrow.Table.from_pylist([plain | shape]), path)
        (record,) = read_records(path)

        assert record.where == f"{path}, row 1"
        assert read(kind, record.value) == read(kind, plain)
