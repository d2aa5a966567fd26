import json
from pathlib import Path
from typing import Any

import pytest

from steppo_env.store import open_store

KEYDOOR = "steppo/KeyDoor-v0"


def test_a_report_a_store_and_a_document_say_the_same(steppo: Any, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    done = steppo(
        "eval", KEYDOOR, "--policy", "random", "--out", out, "--tasks", 5, "--samples", 2, "--json"
    )

    assert done.code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["environments"] == done.json["environments"]
    assert (report["policy"], report["num_tasks"], report["num_samples"]) == ("random", 5, 2)
    found = done.json["environments"][KEYDOOR]
    with open_store(f"sqlite:///{out / 'trajectories.db'}", create=False) as store:
        (group,) = store.summarize()
        assert store.get_run(report["run_id"]).kind == "eval"
    for name in ("episodes", "steps", "success_rate", "terminated", "truncated", "failed"):
        assert found[name] == getattr(group, name), name
    assert found["mean_return"] == pytest.approx(group.mean_return)
    assert KEYDOOR in (out / "report.md").read_text()
    assert "report in" in done.err


def test_several_environments_are_reported_apart(steppo: Any, tmp_path: Path) -> None:
    arguments = ("eval", KEYDOOR, "steppo/MultihopQA-v0", "--policy", "expert", "--tasks", 2)
    found = steppo(*arguments, "--out", tmp_path, "--json").json["environments"]

    assert list(found) == [KEYDOOR, "steppo/MultihopQA-v0"]
    assert {report["success_rate"] for report in found.values()} == {1.0}


def test_a_model_is_asked_at_its_endpoint(
    steppo: Any, tmp_path: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    endpoint.replies = [endpoint.completion(message={"content": "<act> go north </act>"})]
    arguments = ("eval", KEYDOOR, "--out", tmp_path, "--model", "m", "--tasks", 1, "--json")
    flags = ("--base-url", endpoint.base_url, "--api-key-env", "MY_KEY", "--temperature", 0.5)
    done = steppo(*arguments, *flags, "--max-tokens", 7, "--set", "step_limit=3")

    assert done.code == 0
    assert done.json["environments"][KEYDOOR]["truncated"] == 1
    assert [(it["temperature"], it["max_tokens"]) for it in endpoint.requests] == [(0.5, 7)] * 3
    assert set(endpoint.keys) == {"Bearer secret"}
    assert "secret" not in (tmp_path / "report.json").read_text()


def test_an_endpoint_that_refuses_fails_every_episode_and_says_why(
    steppo: Any, tmp_path: Path, endpoint: Any
) -> None:
    endpoint.replies = [endpoint.response('{"error": {"message": "no such model"}}', 404)]
    arguments = ("eval", KEYDOOR, "--out", tmp_path, "--model", "m", "--tasks", 2)
    done = steppo(*arguments, "--base-url", endpoint.base_url)

    assert done.code == 1
    assert f"2 of {KEYDOOR} ended by policy_error, such as: m gave no response" in done.err
    assert "no such model" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say who is evaluated: --policy expert|random, or --model NAME"),
        (["--policy", "expert", "--model", "m"], "say who is evaluated"),
        (["--policy", "expert", "--base-url", "http://a"], "go with --model"),
        (["--model", "m"], "--model needs --base-url"),
        (["--model", "m", "--base-url", "localhost:1/v1"], "an endpoint has a URL"),
        (
            ["--model", "m", "--base-url", "http://a", "--api-key-env", "NO_SUCH_KEY"],
            "the environment variable NO_SUCH_KEY is not set",
        ),
        (["--policy", "expert", KEYDOOR], "an environment is named twice"),
        (["--policy", "expert", "--set", "size=1"], "size"),
    ],
)
def test_bad_input_is_an_error_of_one_line(
    steppo: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in steppo("eval", KEYDOOR, "--out", tmp_path, *arguments).error
    assert not (tmp_path / "report.json").exists()


def test_a_folder_that_is_a_file_is_an_error_of_one_line(steppo: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = steppo("eval", KEYDOOR, "--policy", "expert", "--out", tmp_path / "file").error

    assert "cannot make the folder" in error


def test_reports_are_made_by_the_labels_that_are_asked_for(steppo: Any, tmp_path: Path) -> None:
    config = tmp_path / "variants.toml"
    config.write_text(
        "".join(
            f'[environments.k{k}]\nenv_id = "steppo/MultihopQA-v0"\noptions = {{top_k = {k}}}\n'
            for k in (3, 5)
        )
    )
    arguments = ("eval", "k3", "k5", "--config", config, "--policy", "expert", "--tasks", 40)
    done = steppo(*arguments, "--by", "dataset+hops, type", "--out", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())

    assert done.code == 0
    assert list(report["by_label"]) == ["dataset+hops", "type"]
    apart = [report["environments"][name]["by_label"]["dataset+hops"] for name in ("k3", "k5")]
    both = report["by_label"]["dataset+hops"]
    assert {value: row["episodes"] for value, row in both.items()} == {
        value: sum(each[value]["episodes"] for each in apart) for value in apart[0]
    }
    assert both["world, 2"]["metrics"]["supporting_recall"] == 1.0
    assert "## All environments" in (tmp_path / "out" / "report.md").read_text()
    assert "world, 2" in done.out
    assert "all environments" in done.out


def test_the_json_is_made_by_the_same_labels(steppo: Any, tmp_path: Path) -> None:
    arguments = ("eval", "steppo/MultihopQA-v0", "--policy", "random", "--tasks", 3, "--json")
    found = steppo(*arguments, "--by", "hops", "--out", tmp_path).json["environments"]
    report = json.loads((tmp_path / "report.json").read_text())

    assert report["environments"] == found
    assert list(found["steppo/MultihopQA-v0"]["by_label"]) == ["hops"]
    assert report["by_label"] == {}, "one environment is reported once"


def test_a_metric_that_is_missing_is_named(steppo: Any, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    passage = {"id": "p", "title": "Lune", "text": "A river."}
    question = {"split": "dev", "question": "Which?", "answer": "Lune"}
    rows = [{**question, "id": "a", "supporting_ids": ["p"]}, {**question, "id": "b"}]
    (pack / "corpus.jsonl").write_text(json.dumps(passage) + "\n")
    (pack / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("eval", "steppo/MultihopQA-v0", "--policy", "expert", "--tasks", 2)
    done = steppo(*arguments, "--set", f"data={pack}", "--out", tmp_path / "out")

    line = "steppo/MultihopQA-v0: supporting_recall is missing in 1 of 2 episodes, not in its mean"
    assert line in done.err.splitlines()


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("nope", "no task has the label 'nope'; the labels are: dataset, hops, type"),
        ("hops+nope", "no task has the label 'nope'"),
        ("hops,", "--by takes labels as in hops,type"),
        ("+hops", "--by takes labels as in hops,type"),
        ("", "--by takes labels as in hops,type"),
    ],
)
def test_a_label_that_is_none_is_refused_before_anything_is_played(
    steppo: Any, tmp_path: Path, by: str, message: str
) -> None:
    arguments = ("eval", "steppo/MultihopQA-v0", "--policy", "expert", "--tasks", 2, "--by", by)

    assert message in steppo(*arguments, "--out", tmp_path).error
    assert not (tmp_path / "report.json").exists()
