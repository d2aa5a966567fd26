"""The command line of the converters."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from steppo_env.errors import InvalidInput
from steppo_multihop_qa import load_pack
from steppo_multihop_qa.commands import convert

ROW = {
    "_id": "a",
    "question": "Which river?",
    "answer": "Lune",
    "supporting_facts": [["Lune", 0]],
    "context": [["Lune", ["A river."]], ["Ouse", ["Another."]]],
}


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(convert)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text(json.dumps([ROW, {**ROW, "_id": "b", "answer": None}, {**ROW, "_id": 3}]))
    return path


def test_the_summary_says_what_was_written_and_what_was_not(
    published: Path, tmp_path: Path
) -> None:
    done = run("hotpotqa", published, "--out", tmp_path / "pack", "--skip-bad", "--split", "dev")

    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["pack", str(tmp_path / "pack")],
        ["questions", "1", "(dev", "1)"],
        ["no", "gold", "0", "of", "them", "name", "no", "supporting", "passage"],
        ["passages", "2", "(0", "duplicates", "merged)"],
        ["skipped", "1"],
        ["1", "no", "answer", "given"],
        ["bad", "1"],
    ]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"bad record: {published}, record 3: _id: Input should be a valid str")
    assert load_pack(tmp_path / "pack").tasks.splits == {"dev": 1}


def test_the_json_has_the_same_numbers(published: Path, tmp_path: Path) -> None:
    done = run("hotpotqa", published, "--out", tmp_path / "pack", "--skip-bad", "--json")

    assert json.loads(done.stdout) == {
        "pack": str(tmp_path / "pack"),
        "questions": {"train": 1, "dev": 0, "test": 0},
        "num_without_gold": 0,
        "num_passages": 2,
        "num_merged": 0,
        "skipped": {"no answer given": 1},
        "num_bad": 1,
    }


def test_a_bad_record_stops_the_conversion_unless_it_may_be_left_out(
    published: Path, tmp_path: Path
) -> None:
    done = run("hotpotqa", published, "--out", tmp_path / "pack")

    assert isinstance(done.exception, InvalidInput)
    assert "1 of 3 records are not what hotpotqa asks for" in str(done.exception)
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize("arguments", [["hotpot"], ["hotpotqa"], ["hotpotqa", "a.json"]])
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
