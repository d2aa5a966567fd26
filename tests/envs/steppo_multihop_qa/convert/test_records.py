"""Reading published files record by record."""

import csv
import gzip
import io
import json
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.errors import InvalidInput, MissingData, MissingDependency
from steppo_multihop_qa.convert import records
from steppo_multihop_qa.convert.records import Record, read_records

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
OBJECTS = st.lists(
    st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.lists(TEXT, max_size=3)), max_size=3),
    max_size=6,
)


def write(content: str | bytes, name: str) -> Path:
    path = Path(tempfile.mkdtemp()) / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(path: Path) -> list[object]:
    found = list(read_records(path))
    assert all(record.problem is None for record in found)
    return [record.value for record in found]


@given(OBJECTS, st.sampled_from([None, 2]), st.sampled_from([1, 2, 7, 1 << 20]), st.booleans())
def test_an_array_reads_the_same_whatever_its_layout_and_the_size_of_the_window(
    objects: list[object], indent: int | None, chunk: int, is_ascii: bool
) -> None:
    content = json.dumps(objects, indent=indent, ensure_ascii=is_ascii)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK_CHARS", chunk)
        assert values(write(content, "a.json")) == objects


def test_white_space_around_an_array_is_no_part_of_it() -> None:
    assert values(write('\ufeff \r\n[ {"a": 1} , {} ] \n', "a.json")) == [{"a": 1}, {}]


@given(OBJECTS, st.booleans())
def test_lines_read_the_same_plain_and_zipped(objects: list[object], is_zipped: bool) -> None:
    lines = "\n\n".join(json.dumps(item, ensure_ascii=False) for item in objects).encode()
    name = "a.jsonl.gz" if is_zipped else "a.jsonl"
    assert values(write(gzip.compress(lines) if is_zipped else lines, name)) == objects


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.sampled_from(["csv", "tsv"]))
def test_tables_read_what_the_csv_module_wrote(rows: list[tuple[str, str]], kind: str) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL)
    writer.writerows([("Question", "Answer"), *rows])
    # A NUL and other characters that the module refuses are no part of a spreadsheet.
    if "\0" not in out.getvalue():
        assert values(write("\ufeff" + out.getvalue(), f"a.{kind}")) == [
            {"Question": question, "Answer": answer} for question, answer in rows
        ]


@pytest.mark.parametrize(
    ("content", "number", "reason"),
    [
        ('[{"a": 1} {"a": 2}]', 2, "expected a comma or ], got '{'"),
        ('[{"a": 1}, 2]', 2, "expected an object, got '2'"),
        ('[{"a": 1},]', 2, "expected an object, got ']'"),
        ('[{"a": 1}', 2, "expected a comma or ], got the end of the file"),
        ("[", 1, "expected an object, got the end of the file"),
        ('[{"a": 1}, {"b": }]', 2, "not JSON: Expecting value"),
        ('[{"a": 1}, {"b": "c', 2, "not JSON: Unterminated string"),
        ('[{"a": ' + "[" * 100_000, 1, "not JSON: maximum recursion depth"),
    ],
    ids=range(8),
)
def test_a_broken_array_is_refused_where_it_breaks(content: str, number: int, reason: str) -> None:
    path = write(content, "a.json")
    with pytest.raises(InvalidInput) as caught:
        list(read_records(path))
    assert str(caught.value).startswith(f"{path}, record {number}: {reason}")


def test_a_record_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CHUNK_CHARS", 10)
    monkeypatch.setattr(records, "MAX_RECORD_CHARS", 100)
    read: list[int] = []

    class Endless(io.StringIO):
        def read(self, size: int | None = -1, /) -> str:
            assert size is not None
            read.append(size)
            return "x" * size if len(read) > 1 else '[{"a": "bc'

    array = records._Array(Path("a"), Endless())
    with pytest.raises(InvalidInput, match="record 1: not JSON"):
        list(array.records())
    assert sum(read) < 1000


def test_something_after_the_array_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'\[' follows the end of the array"):
        list(read_records(write("[] []", "a.json")))


def test_a_broken_line_is_a_record_with_a_problem_and_the_next_is_read() -> None:
    path = write('{"a": 1}\n{"a": \n{"a": 3}\n', "a.jsonl")
    first, second, third = read_records(path)

    assert (first, third) == (
        Record(f"{path}, line 1", {"a": 1}),
        Record(f"{path}, line 3", {"a": 3}),
    )
    assert (second.where, second.value) == (f"{path}, line 2", None)
    assert (second.problem or "").startswith("not JSON: Expecting value")


@pytest.mark.parametrize("row", ["one", "one,two,three"])
def test_a_row_of_another_length_is_a_record_with_a_problem(row: str) -> None:
    path = write(f"Question,Answer\na,b\n{row}\nc,d\n", "a.csv")
    first, second, third = read_records(path)

    assert (first.problem, third.problem) == (None, None)
    assert second.where == f"{path}, line 3"
    assert second.problem == "more or fewer fields than the first line names"


def test_a_quote_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidInput, match="after line 1: unexpected end of data"):
        list(read_records(write('Question,Answer\n"a,b\n', "a.csv")))


@pytest.mark.parametrize("name", ["a.txt", "a", "a.json.zip"])
def test_a_file_of_an_unknown_kind_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"ends in \.json, \.jsonl, \.csv or \.tsv"):
        read_records(write("{}", name))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="there is no file"):
        read_records(tmp_path / "a.json")
    with pytest.raises(InvalidInput, match="is not UTF-8"):
        list(read_records(write(b"[\xff]", "a.json")))
    for content in (b"no gzip", gzip.compress(b"[{}]" * 99, mtime=0)[:-9]):
        with pytest.raises(MissingData, match="cannot be read"):
            list(read_records(write(content, "a.json.gz")))


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependency, match=r"a\.parquet needs pyarrow .*pip install pyarrow"):
        list(read_records(write(b"", "a.parquet")))


def test_a_file_that_is_no_parquet_is_refused() -> None:
    pytest.importorskip("pyarrow.parquet")
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"):
        list(read_records(write(b"no parquet at all", "a.parquet")))
