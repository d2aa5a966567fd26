"""Reading data packs."""

import gzip
import json
from pathlib import Path

import pytest

from steppo_env.errors import InvalidInput, MissingData
from steppo_env.registry import make
from steppo_paper_search.packs import read_pack

PAPER = {"id": "a", "title": "Solar sails", "abstract": "Thin mirrors.", "year": 2000}
QUERY = {"id": "q", "split": "test", "query": "sails", "gold_ids": ["a", "a"]}


def write(folder: Path, papers: list[object], queries: list[object]) -> Path:
    for name, records in (("papers", papers), ("queries", queries)):
        lines = [item if isinstance(item, str) else json.dumps(item) for item in records]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_a_pack_is_read_whole(pack: Path) -> None:
    read = read_pack(pack)
    assert [paper.paper_id for paper in read.papers] == ["a", "b", "c", "d", "e"]
    assert read.references["c"] == ("a", "b", "nowhere")
    assert [query.year for query in read.queries] == [2015, 2010, None, 2010, None, 1999]


def test_compression_does_not_change_the_version(tmp_path: Path, pack: Path) -> None:
    for path in pack.iterdir():
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_pack(tmp_path) == read_pack(pack)


def test_changed_data_change_the_version(tmp_path: Path) -> None:
    before = read_pack(write(tmp_path, [PAPER], [QUERY])).version
    assert read_pack(write(tmp_path, [{**PAPER, "year": 2001}], [QUERY])).version != before


def test_texts_come_on_one_line_without_control_characters(tmp_path: Path) -> None:
    paper = {**PAPER, "title": " Solar\b\n sails ", "abstract": "\t"}
    (read,) = read_pack(write(tmp_path, [paper], [QUERY])).papers
    assert (read.title, read.abstract) == ("Solar sails", None)


def test_repeated_gold_ids_count_once(tmp_path: Path) -> None:
    assert read_pack(write(tmp_path, [PAPER], [QUERY])).queries[0].gold_ids == ("a",)


@pytest.mark.parametrize(
    ("papers", "queries", "message"),
    [
        ([PAPER, "{"], [QUERY], r"papers.jsonl, line 2: .*JSON"),
        ([PAPER, "", PAPER], [QUERY], r"papers.jsonl, line 3: id 'a' was on line 1 before"),
        ([{"id": "a"}], [QUERY], r"papers.jsonl, line 1: title: Field required"),
        ([{**PAPER, "title": " \b"}], [QUERY], r"papers.jsonl, line 1: title"),
        ([{**PAPER, "id": "a b"}], [QUERY], r"papers.jsonl, line 1: id"),
        ([{**PAPER, "year": "2000"}], [QUERY], r"papers.jsonl, line 1: year"),
        ([], [QUERY], r"papers.jsonl has no records"),
        ([PAPER], [], r"queries.jsonl has no records"),
        ([PAPER], [QUERY, QUERY], r"queries.jsonl, line 2: id 'q' was on line 1"),
        ([PAPER], [{**QUERY, "split": "eval"}], r"queries.jsonl, line 1: split is one of train"),
        ([PAPER], [{**QUERY, "gold_ids": []}], r"queries.jsonl, line 1: gold_ids"),
        ([PAPER], [{**QUERY, "published_time": "soon"}], r"line 1: published_time"),
    ],
)
def test_a_bad_line_is_named_with_its_file(
    tmp_path: Path, papers: list[object], queries: list[object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_pack(write(tmp_path, papers, queries))


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="there is no folder"):
        read_pack(tmp_path / "absent")
    with pytest.raises(MissingData, match=r"no papers\.jsonl\.gz and no papers\.jsonl"):
        read_pack(tmp_path)
    (tmp_path / "papers.jsonl.gz").write_bytes(b"this is not gzip")
    with pytest.raises(MissingData, match="cannot read"):
        read_pack(tmp_path)
    (tmp_path / "papers.jsonl.gz").write_bytes(gzip.compress(b'{"id": "a"}' * 99)[:30])
    with pytest.raises(MissingData, match="cannot read"):
        read_pack(tmp_path)


def test_what_is_wrong_with_a_pack_reaches_who_makes_the_environment(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="there is no folder"):
        make("steppo/PaperSearch-v0", data=tmp_path / "absent")
    write(tmp_path, [PAPER], [{**QUERY, "gold_ids": ["z"]}])
    with pytest.raises(InvalidInput, match="none of the 1 requests"):
        make("steppo/PaperSearch-v0", data=tmp_path, queries="all")
