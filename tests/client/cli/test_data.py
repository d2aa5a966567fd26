import json
from pathlib import Path
from typing import Any

import pytest

KEYDOOR = "steppo/KeyDoor-v0"
QA = "steppo/MultihopQA-v0"


def rows(text: str) -> list[list[str]]:
    """Return the words of each line of a table, without thousands separators."""
    return [line.replace(",", "").split() for line in text.splitlines()]


def test_tasks_are_counted_by_split_and_label(steppo: Any) -> None:
    done = steppo("data", "stats", QA)
    found = rows(done.out)

    assert (done.code, done.err) == (0, "")
    # 1,200 / 250 / 250 questions, half of them of two hops, as the README says.
    assert ["tasks", "1200", "250", "250"] in found
    assert ["hops", "2", "600", "125", "125"] in found
    assert ["dataset", "world", "1200", "250", "250"] in found
    assert [row[1] for row in found if row[:1] == ["hops"]] == ["2", "3", "4"]


def test_the_json_has_every_count_and_they_add_up(steppo: Any, server_url: str) -> None:
    here = steppo("data", "stats", QA, KEYDOOR, "--json", "--limit", 300)
    there = steppo("data", "stats", QA, KEYDOOR, "--json", "--limit", 300, "--server", server_url)
    document = here.json["environments"]

    assert here.json == there.json
    assert list(document) == [QA, KEYDOOR]
    for env in document.values():
        for split in env["splits"].values():
            assert split["num_counted"] == min(split["num_tasks"], 300)
            for label, counts in split["labels"].items():
                assert sum(counts.values()) + split["num_without"][label] == split["num_counted"]


def test_a_sample_is_said_to_be_one_and_a_label_of_many_values_is_one_line(steppo: Any) -> None:
    done = steppo("data", "stats", KEYDOOR, "--limit", 2000)

    assert ["tasks", "100000", "512", "512"] in rows(done.out)
    (line,) = [row for row in rows(done.out) if row[:1] == ["distance"]]
    assert line[2:3] + line[-3:] == ["values", "2000", "512", "512"]
    note = "train: labels of the first 2,000 of 100,000 tasks; --limit reads more"
    assert done.out.splitlines()[-1] == note


def test_options_and_variants_decide_what_is_counted(steppo: Any, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "corpus.jsonl").write_text('{"id": "p", "title": "Lune", "text": "A river."}\n')
    question = {"split": "dev", "question": "Which?", "answer": "Lune"}
    found = [{**question, "id": "a", "level": "easy"}, {**question, "id": "b"}]
    (pack / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    config = tmp_path / "variants.toml"
    config.write_text(f'[environments.mine]\nenv_id = "{QA}"\noptions = {{data = "pack"}}\n')
    by_option = steppo("data", "stats", QA, "--set", f"data={pack}")
    by_name = steppo("data", "stats", "mine", "--config", config)

    for done in (by_option, by_name):
        assert ["tasks", "2"] in rows(done.out)
        assert ["level", "easy", "1"] in rows(done.out)
        assert ["level", "(none)", "1"] in rows(done.out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "there is no environment 'nope'"),
        ([QA, QA], "an environment is named twice"),
        ([QA, "--set", "size=1"], "size"),
        ([QA, "--set", "data=/no/such/pack"], "is not a folder"),
    ],
)
def test_bad_input_is_an_error_of_one_line(steppo: Any, arguments: list[str], message: str) -> None:
    assert message in steppo("data", "stats", *arguments).error
