"""Published files become packs that load, and whose every question the expert solves."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from steppo_env.errors import InvalidInput, MissingData
from steppo_env.registry import make
from steppo_multihop_qa import load_pack
from steppo_multihop_qa.convert import Kind, convert_files, split_of

Published = dict[str, Path]
NEEDS = {"bamboogle": {"split": "test", "corpus": True}}


def converted(kind: str, published: Published, other_pack: Path, out: Path) -> Any:
    needs = dict(NEEDS.get(kind, {}))
    if needs.pop("corpus", False):
        needs["corpus"] = other_pack
    return convert_files(Kind(kind), [published[kind]], out, **needs)  # type: ignore[arg-type]


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(folder / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_loads_and_the_expert_solves_it(
    kind: str, published: Published, other_pack: Path, tmp_path: Path
) -> None:
    done = converted(kind, published, other_pack, tmp_path / "pack")
    tasks = load_pack(tmp_path / "pack").tasks
    env = make("steppo/MultihopQA-v0", data=tmp_path / "pack", top_k=1)

    assert sum(done.questions.values()) == sum(tasks.splits.values()) > 0
    for split, count in tasks.splits.items():
        assert done.questions[split] == count
        for index in range(count):
            env.start(tasks.at(split, index).task_id, seed=0)
            info: Mapping[str, object] = {}
            while not env.has_ended:
                action = env.expert()
                assert action is not None
                info = env.advance(action).info
            assert info["success"] is True
            assert info["supporting_recall"] == (None if kind == "bamboogle" else 1.0)


def test_hotpotqa_keeps_its_labels_and_resolves_titles_to_passages(
    published: Published, other_pack: Path, tmp_path: Path
) -> None:
    done = converted("hotpotqa", published, other_pack, tmp_path / "pack")
    corpus = {row["id"]: row for row in rows(tmp_path / "pack", "corpus.jsonl.gz")}
    first, second = rows(tmp_path / "pack", "questions.jsonl.gz")

    # Of six paragraphs two stand twice; white space is made single, and &amp; in a title read.
    assert (done.num_passages, done.num_merged, done.num_bad) == (4, 2, 0)
    assert [(row["title"], row["text"]) for row in corpus.values()] == [
        ("Ada Byrne", "Ada Byrne is a painter. She was born in Oxmoor."),
        ("Oxmoor & Lune", "Oxmoor is a town. It lies on the river Lune."),
        ("Tin Drums", "A band from Kendal."),
        ("Empty", ""),
    ]
    assert [corpus[item]["title"] for item in first["supporting_ids"]] == [
        "Ada Byrne",
        "Oxmoor & Lune",
    ]
    assert first["supporting_titles"] == ["Ada Byrne", "Oxmoor & Lune"]
    assert {name: first[name] for name in ("id", "dataset", "split", "type", "hops", "level")} == {
        "id": "5a1",
        "dataset": "hotpotqa",
        "split": "dev",
        "type": "bridge",
        "hops": 2,
        "level": "hard",
    }
    assert [corpus[item]["title"] for item in second["supporting_ids"]] == [
        "Ada Byrne",
        "Tin Drums",
    ]


def test_musique_follows_the_order_of_its_decomposition_and_skips_the_unanswerable(
    published: Published, other_pack: Path, tmp_path: Path
) -> None:
    done = converted("musique", published, other_pack, tmp_path / "pack")
    corpus = {row["id"]: row for row in rows(tmp_path / "pack", "corpus.jsonl.gz")}
    (question,) = rows(tmp_path / "pack", "questions.jsonl.gz")

    assert done.skipped == {"marked as unanswerable": 1}
    # Two passages are titled Zhejiang; only the one that the decomposition names is gold.
    assert [corpus[item]["text"] for item in question["supporting_ids"]] == [
        "Borders it.",
        "Capital of it.",
        "Chen Zheng led.",
    ]
    assert (question["type"], question["hops"], question["level"]) == ("3hop1", 3, None)
    assert question["aliases"] == ["Zheng Chen", "Chen"], (
        "an alias that matches nothing is no alias"
    )
    assert "Oslo" not in {row["title"] for row in corpus.values()}


def test_bamboogle_takes_the_passages_of_another_pack(
    published: Published, other_pack: Path, tmp_path: Path
) -> None:
    done = converted("bamboogle", published, other_pack, tmp_path / "pack")

    assert [row["id"] for row in rows(tmp_path / "pack", "corpus.jsonl.gz")] == ["p1"]
    assert [
        (row["id"], row["question"], row["answer"])
        for row in rows(tmp_path / "pack", "questions.jsonl.gz")
    ] == [
        ("bamboogle_0", "Where does the Lune end?", "Morecambe Bay"),
        ("bamboogle_1", "Who, then, was it?", "Ada"),
    ]
    assert done.num_without_gold == 2
    with pytest.raises(InvalidInput, match="bamboogle has no passages of its own"):
        convert_files(Kind.BAMBOOGLE, [published["bamboogle"]], tmp_path / "no", split="test")


def test_a_gold_title_outside_of_the_own_context_is_found_in_the_corpus_or_the_question_skipped(
    published: Published, tmp_path: Path
) -> None:
    fullwiki = json.loads(published["hotpotqa"].read_text())
    fullwiki[0]["context"] = fullwiki[0]["context"][2:]  # both gold passages lost
    fullwiki[1]["supporting_facts"] = [["Tin Drums", 0], ["Ada Byrne", 0]]
    fullwiki.insert(0, {**fullwiki[1], "_id": "first", "context": [], "question": "Both?"})
    path = tmp_path / "hotpot_dev_fullwiki_v1.json"
    path.write_text(json.dumps(fullwiki))
    done = convert_files(Kind.HOTPOTQA, [path], tmp_path / "pack")
    found = rows(tmp_path / "pack", "questions.jsonl.gz")

    assert done.skipped == {"a gold passage is in none of the files": 1}
    assert [row["id"] for row in found] == ["first", "5a2"]
    assert found[0]["supporting_ids"] == found[1]["supporting_ids"]
    assert "supporting_any_of" not in found[0]


def test_a_title_with_several_texts_is_supported_by_any_of_them(tmp_path: Path) -> None:
    row = {
        "_id": "a",
        "question": "Which?",
        "answer": "b",
        "supporting_facts": [["T", 0]],
        "context": [["T", ["One text."]], ["T", ["Another text."]]],
    }
    (tmp_path / "dev.json").write_text(json.dumps([row]))
    convert_files(Kind.HOTPOTQA, [tmp_path / "dev.json"], tmp_path / "pack")
    (question,) = rows(tmp_path / "pack", "questions.jsonl.gz")
    ids = [item["id"] for item in rows(tmp_path / "pack", "corpus.jsonl.gz")]

    assert (question["supporting_ids"], question["supporting_any_of"]) == (ids[:1], [ids])
    assert load_pack(tmp_path / "pack").tasks.get("a").supporting == (tuple(ids),)


def test_equal_files_give_equal_bytes(
    published: Published, other_pack: Path, tmp_path: Path
) -> None:
    for out in ("one", "two"):
        converted("hotpotqa", published, other_pack, tmp_path / out)
    for name in ("questions.jsonl.gz", "corpus.jsonl.gz"):
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        assert content[3:8] == bytes(5), "neither a name nor a time in the header"


def test_several_files_make_one_pack_with_several_splits(
    published: Published, tmp_path: Path
) -> None:
    train = tmp_path / "hotpot_train_v1.1.json"
    row = json.loads(published["hotpotqa"].read_text())[0]
    train.write_text(json.dumps([{**row, "_id": "t1"}]))
    done = convert_files(Kind.HOTPOTQA, [train, published["hotpotqa"]], tmp_path / "pack")

    assert done.questions == {"train": 1, "dev": 2, "test": 0}
    assert done.num_passages == 4


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("hotpot_train_v1.1.json", "train"),
        ("hotpot_dev_fullwiki_v1.json", "dev"),
        ("musique_ans_v1.0_test.jsonl.gz", "test"),
        ("validation-00000-of-00001.parquet", "dev"),
        ("val.json", "dev"),
        ("contest.json", None),
        ("train_and_dev.json", None),
        ("dev_validation.json", "dev"),
    ],
)
def test_the_split_is_a_word_of_the_name(name: str, split: str | None) -> None:
    assert split_of(Path("test") / name) == split


def test_a_split_that_is_not_known_is_asked_for(published: Published, tmp_path: Path) -> None:
    path = published["hotpotqa"].rename(tmp_path / "questions.json")
    with pytest.raises(InvalidInput, match=r"questions\.json does not say which split .*--split"):
        convert_files(Kind.HOTPOTQA, [path], tmp_path / "pack")
    with pytest.raises(InvalidInput, match="train, dev or test; got 'validation'"):
        convert_files(Kind.HOTPOTQA, [path], tmp_path / "pack", split="validation")
    assert convert_files(Kind.HOTPOTQA, [path], tmp_path / "pack", split="test").questions == {
        "train": 0,
        "dev": 0,
        "test": 2,
    }


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"question": None}, "question: Input should be a valid string"),
    ({"_id": ""}, "_id: String should have at least 1 character"),
    ({"_id": "5a2"}, "the id '5a2' is an earlier question's"),
    ({"context": {"title": ["a"], "sentences": []}}, "lists of one length"),
    ({"context": [["a"]]}, "context.0.1: Field required"),
    ({"context": "[["}, "context: Value error"),
    ({"question": "\ud800"}, "half of a surrogate pair"),
    ({"context": [["a", ["\ud800"]]]}, "half of a surrogate pair"),
]


@pytest.mark.parametrize(("change", "reason"), BROKEN, ids=range(len(BROKEN)))
def test_a_bad_record_is_named_with_file_and_number(
    change: dict[str, Any], reason: str, published: Published, tmp_path: Path
) -> None:
    sound = json.loads(published["hotpotqa"].read_text())
    path = tmp_path / "dev.json"
    path.write_text(json.dumps([sound[1], {**sound[0], **change}, sound[0]]))
    told: list[str] = []
    with pytest.raises(
        InvalidInput, match="1 of 3 records are not what hotpotqa asks for"
    ) as caught:
        convert_files(Kind.HOTPOTQA, [path], tmp_path / "pack", notice=told.append)

    (line,) = told
    assert line in str(caught.value)
    assert line.startswith(f"{path}, record 2: ")
    assert reason in line
    assert sorted(item.name for item in tmp_path.iterdir() if item.is_dir()) == []

    done = convert_files(Kind.HOTPOTQA, [path], tmp_path / "pack", skip_bad=True)
    assert (sum(done.questions.values()), done.num_bad) == (2, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": None}, "no answer given"),
        ({"answer": " "}, "no answer given"),
        ({"answer": "The"}, "answer normalises to nothing"),
        ({"question": " "}, "blank question"),
    ],
)
def test_a_sound_record_that_gives_no_task_is_skipped_and_counted(
    change: dict[str, Any], reason: str, published: Published, tmp_path: Path
) -> None:
    sound = json.loads(published["hotpotqa"].read_text())
    path = tmp_path / "dev.json"
    path.write_text(json.dumps([sound[0], {**sound[1], **change}, sound[0]]))
    done = convert_files(Kind.HOTPOTQA, [path], tmp_path / "pack")

    assert done.skipped == {reason: 1, "same question again": 1}
    assert load_pack(tmp_path / "pack").tasks.splits == {"dev": 1}


def test_nothing_left_to_write_writes_nothing_and_says_why(
    published: Published, tmp_path: Path
) -> None:
    path = tmp_path / "hotpot_test_fullwiki_v1.json"
    # The published test split: neither answers nor supporting facts.
    sound = json.loads(published["hotpotqa"].read_text())
    path.write_text(
        json.dumps([{k: row[k] for k in ("_id", "question", "context")} for row in sound])
    )
    with pytest.raises(InvalidInput, match=r"none of 2 records .*skipped: 2 no answer given"):
        convert_files(Kind.HOTPOTQA, [path], tmp_path / "pack")
    assert [item for item in tmp_path.iterdir() if item.is_dir()] == []


def test_what_is_there_is_never_overwritten(
    published: Published, other_pack: Path, tmp_path: Path
) -> None:
    kind, files = Kind.HOTPOTQA, [published["hotpotqa"]]
    with pytest.raises(InvalidInput, match="not an empty folder"):
        convert_files(kind, files, other_pack)
    with pytest.raises(InvalidInput, match="not an empty folder"):
        convert_files(kind, files, files[0])
    with pytest.raises(InvalidInput, match="not an empty folder"):  # before a file is opened
        convert_files(kind, [tmp_path / "no_such_dev.json"], other_pack)
    assert [item.name for item in other_pack.iterdir()] == ["corpus.jsonl"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert convert_files(kind, files, empty).num_passages == 4
    assert convert_files(kind, files, tmp_path / "a" / "b").num_passages == 4


@pytest.mark.parametrize("content", ["{", '{"id": "p1", "title": "t"}', '{"id": ""}'])
def test_a_bad_corpus_is_an_error_that_names_the_line(
    content: str, published: Published, other_pack: Path, tmp_path: Path
) -> None:
    corpus = other_pack / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + content + "\n")
    with pytest.raises(InvalidInput, match=r"corpus\.jsonl, line 2: "):
        converted("bamboogle", published, other_pack, tmp_path / "pack")
    corpus.unlink()
    with pytest.raises(MissingData, match=r"neither corpus\.jsonl nor corpus\.jsonl\.gz"):
        converted("bamboogle", published, other_pack, tmp_path / "pack")


def test_one_id_for_two_texts_of_a_corpus_is_refused(
    published: Published, other_pack: Path, tmp_path: Path
) -> None:
    line = json.dumps({"id": "p1", "title": "Lune", "text": "Another."})
    corpus = other_pack / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + line + "\n")
    with pytest.raises(InvalidInput, match="line 2: the passage id 'p1' appears twice"):
        converted("bamboogle", published, other_pack, tmp_path / "pack")


def test_files_are_named_once_and_at_least_one(published: Published, tmp_path: Path) -> None:
    path = published["hotpotqa"]
    with pytest.raises(InvalidInput, match="named twice"):
        convert_files(Kind.HOTPOTQA, [path, path], tmp_path / "pack")
    with pytest.raises(InvalidInput, match="at least one file"):
        convert_files(Kind.HOTPOTQA, [], tmp_path / "pack")
