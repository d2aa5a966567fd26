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
