"""Small packs and the real ones, where they are."""

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

PASSAGES = (
    {"id": "p1", "title": "Ada Byrne", "text": "Ada Byrne was born in Oxmoor."},
    {"id": "p2", "title": "Oxmoor", "text": "Oxmoor lies on the river Lune."},
    {"id": "p3", "title": "Lune", "text": "The Lune is 53 miles long."},
    {"id": "p4", "title": "Tin Drums", "text": "A band from Oxmoor & Lune."},
)
QUESTIONS = (
    {
        "id": "q1",
        "split": "dev",
        "question": "On which river does the birthplace of Ada Byrne lie?",
        "answer": "the Lune",
        "aliases": ["River Lune"],
        "dataset": "tiny",
        "type": "bridge",
        "hops": 2,
        "level": "easy",
        "supporting_ids": ["p1", "p2"],
    },
    {
        "id": "q2",
        "split": "train",
        "question": "Who was born in Oxmoor?",
        "answer": "Ada Byrne",
        "supporting_any_of": [["p1", "p4"]],
    },
    {"id": "q3", "split": "dev", "question": "What is the Lune?", "answer": "a river"},
)

WritePack = Callable[..., Path]


@pytest.fixture
def write_pack(tmp_path: Path) -> WritePack:
    """Write a pack and return its folder; what is not given is the tiny pack above."""
    count = iter(range(100))

    def write(
        questions: Iterable[object] = QUESTIONS,
        passages: Iterable[object] = PASSAGES,
        *,
        zipped: bool = False,
    ) -> Path:
        folder = tmp_path / f"pack{next(count)}"
        folder.mkdir()
        for name, rows in (("questions.jsonl", questions), ("corpus.jsonl", passages)):
            lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
            content = "".join(f"{line}\n" for line in lines).encode()
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
        return folder

    return write


@pytest.fixture
def tiny(write_pack: WritePack) -> Path:
    """Return the folder of the tiny pack."""
    return write_pack()
