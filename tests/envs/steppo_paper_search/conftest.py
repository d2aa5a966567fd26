"""A library of five papers that can be checked by hand, as a data pack on disk."""

import json
from pathlib import Path

import pytest

PAPERS = [
    {
        "id": "a",
        "title": "Solar sails",
        "abstract": "Thin mirrors push a probe.",
        "year": 2000,
        "references": [],
    },
    {
        "id": "b",
        "title": "Drag on solar sails",
        "abstract": "Dust slows a mirror.",
        "year": 2005,
        "references": ["a"],
    },
    {
        "id": "c",
        "title": "Lunar dust",
        "abstract": "Grains charge in sunlight.",
        "year": 2010,
        "references": ["a", "b", "nowhere"],
    },
    {
        "id": "d",
        "title": "Comet tails",
        "abstract": "Ices leave the nucleus.",
        "year": 2015,
        "references": ["c"],
    },
    {
        "id": "e",
        "title": "Solar sails revisited",
        "abstract": None,
        "year": 2020,
        "references": ["c", "a"],
    },
]
QUERIES = [
    {
        "id": "q-sails",
        "set": "hand",
        "split": "train",
        "query": "solar sails",
        "gold_ids": ["a", "b", "c"],
        "year": 2015,
    },
    {
        "id": "q-late",
        "set": "hand",
        "split": "dev",
        "query": "dust",
        "gold_ids": ["c", "d", "elsewhere"],
        "published_time": "20101231",
    },
    {
        "id": "q-open",
        "set": "hand",
        "split": "dev",
        "query": "solar sails",
        "gold_ids": ["e"],
    },
    {
        "id": "q-own",
        "set": "hand",
        "split": "test",
        "query": "what Lunar Dust cites",
        "title": "Lunar dust.",
        "gold_ids": ["a", "b"],
        "year": 2010,
    },
    {
        "id": "q-four",
        "set": "hand",
        "split": "test",
        "query": "solar or dust",
        "gold_ids": ["a", "b", "c", "e"],
    },
    {
        "id": "q-none",
        "set": "hand",
        "split": "test",
        "query": "tails",
        "gold_ids": ["d"],
        "year": 1999,
    },
]


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    for name, records in (("papers", PAPERS), ("queries", QUERIES)):
        lines = [json.dumps(record) for record in records]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder
