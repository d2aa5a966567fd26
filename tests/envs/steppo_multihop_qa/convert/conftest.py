"""Small files in the formats in which the question sets are published."""

import json
from pathlib import Path
from typing import Any

import pytest

HOTPOT: tuple[dict[str, Any], ...] = (
    {
        "_id": "5a1",
        "answer": "the Lune",
        "question": "On which river does the birthplace of Ada Byrne lie?",
        "supporting_facts": [["Ada Byrne", 0], ["Oxmoor &amp; Lune", 1], ["Ada Byrne", 1]],
        "context": [
            ["Ada Byrne", ["Ada Byrne is a painter.", " She was born in Oxmoor."]],
            ["Oxmoor &amp; Lune", ["Oxmoor is a town.", " It lies on the river Lune."]],
            ["Tin Drums", ["A band  from Kendal."]],
        ],
        "type": "bridge",
        "level": "hard",
    },
    {
        "_id": "5a2",
        "answer": "yes",
        "question": "Are Ada Byrne and Tin Drums both from the north?",
        "supporting_facts": [["Ada Byrne", 1], ["Tin Drums", 0]],
        "context": [
            ["Tin Drums", ["A band from Kendal."]],
            ["Ada Byrne", ["Ada Byrne is a painter.", " She was born in Oxmoor."]],
            ["Empty", []],
        ],
        "type": "comparison",
        "level": "medium",
    },
)
TWO_WIKI: tuple[dict[str, Any], ...] = (
    {
        "_id": "8813f8",
        "type": "compositional",
        "question": "Who is the mother of the director of film Polar (Film)?",
        "context": [
            ["Polar (film)", ["Polar is a film.", "Its director is Ivo Zul."]],
            ["Ivo Zul", ["Ivo Zul was born to Mara Zul."]],
            ["Maheen", ["Maheen is a designer."]],
        ],
        "supporting_facts": [["Polar (film)", 1], ["Ivo Zul", 0]],
        "evidences": [["Polar", "director", "Ivo Zul"], ["Ivo Zul", "mother", "Mara Zul"]],
        "answer": "Mara Zul",
        "answer_id": "Q1",
        "evidences_id": [],
    },
)
MUSIQUE: tuple[dict[str, Any], ...] = (
    {
        "id": "3hop1__9_8_7",
        "paragraphs": [
            {
                "idx": 0,
                "title": "Fuzhou",
                "paragraph_text": "Capital of it.",
                "is_supporting": True,
            },
            {"idx": 1, "title": "Zhejiang", "paragraph_text": "Borders it.", "is_supporting": True},
            {
                "idx": 2,
                "title": "Zhejiang",
                "paragraph_text": "A province.",
                "is_supporting": False,
            },
            {
                "idx": 3,
                "title": "Hokkien",
                "paragraph_text": "Chen Zheng led.",
                "is_supporting": True,
            },
        ],
        "question": "Who led the expedition in the province south of Zhejiang?",
        "question_decomposition": [
            {"id": 9, "question": "a", "answer": "b", "paragraph_support_idx": 1},
            {"id": 8, "question": "a #1", "answer": "c", "paragraph_support_idx": 0},
            {"id": 7, "question": "a #2", "answer": "Chen Zheng", "paragraph_support_idx": 3},
        ],
        "answer": "Chen Zheng",
        "answer_aliases": ["Zheng Chen", "Chen", "the"],
        "answerable": True,
    },
    {
        "id": "2hop__1_2",
        "paragraphs": [
            {"idx": 0, "title": "Oslo", "paragraph_text": "In Norway.", "is_supporting": True}
        ],
        "question": "In which country does it lie?",
        "question_decomposition": [
            {"id": 1, "question": "a", "answer": "b", "paragraph_support_idx": None},
            {"id": 2, "question": "a", "answer": "b", "paragraph_support_idx": 0},
        ],
        "answer": "Norway",
        "answer_aliases": [],
        "answerable": False,
    },
)
BAMBOOGLE = 'Question,Answer\nWhere does the Lune end?,Morecambe Bay\n"Who, then, was it?",Ada\n'
PASSAGE = {"id": "p1", "title": "Lune", "text": "The Lune ends in Morecambe Bay."}


@pytest.fixture
def published(tmp_path: Path) -> dict[str, Path]:
    """Write one file of each kind, as published, and return them by kind."""
    files = {
        "hotpotqa": tmp_path / "hotpot_dev_distractor_v1.json",
        "2wiki": tmp_path / "train.json",
        "musique": tmp_path / "musique_full_v1.0_dev.jsonl",
        "bamboogle": tmp_path / "Bamboogle Prerelease - Sheet1.csv",
    }
    files["hotpotqa"].write_text(json.dumps(HOTPOT), encoding="utf-8")
    files["2wiki"].write_text(json.dumps(TWO_WIKI), encoding="utf-8")
    files["musique"].write_text("".join(json.dumps(row) + "\n" for row in MUSIQUE), "utf-8")
    files["bamboogle"].write_text(BAMBOOGLE, encoding="utf-8")
    return files


@pytest.fixture
def other_pack(tmp_path: Path) -> Path:
    """Write a pack whose passages others may search."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(json.dumps(PASSAGE) + "\n", encoding="utf-8")
    return folder
