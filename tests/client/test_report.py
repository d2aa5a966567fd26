import json
from dataclasses import replace
from pathlib import Path

from steppo_client import SamplerConfig
from steppo_client.report import write_report
from steppo_client.run import RunPlan
from steppo_client.summary import Result, summarize_labels, summarize_results

PLAN = RunPlan("eval", ["e"], "dev", 2, SamplerConfig("run-1", seed=3, group_size=2), {"size": 5})


def result(
    success: bool, failure: str | None = None, kind: str = "a|b\nc", task: str = "g"
) -> Result:
    return Result(
        env_id="e",
        group_id=task,
        labels={"kind": kind},
        success=success,
        return_=float(success),
        num_steps=2,
        terminated=failure is None,
        truncated=False,
        failure=failure,
        error=failure,
        metrics={"f1": 0.25},
        fingerprint=b"x",
    )


def test_the_json_holds_what_was_run_and_what_came_of_it(tmp_path: Path) -> None:
    reports = summarize_results([result(True), result(False), result(False, "deadline")])
    write_report(tmp_path, PLAN, "chat:modèle", reports)
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))

    assert document["environments"] == {"e": reports["e"].to_json()}
    assert document["environments"]["e"]["by_label"]["kind"]["a|b\nc"]["episodes"] == 2
    del document["environments"]
    assert document == {
        "run_id": "run-1",
        "policy": "chat:modèle",
        "split": "dev",
        "num_tasks": 2,
        "num_samples": 2,
        "seed": 3,
        "options": {"size": 5},
        "by_label": {},
    }


def test_the_markdown_says_the_same_and_its_tables_hold(tmp_path: Path) -> None:
    reports = summarize_results([result(True), result(False), result(False, "deadline")])
    write_report(tmp_path, PLAN, "p", reports)
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()

    assert "| e | 3 | 0.500 | 0.095 to 0.905 | 0.500 | - | 2.000 | 0 | 1 |" in lines
    assert "- f1: 0.2500" in lines
    assert "- pass@2: 1.0000" in lines
    assert "- pass^1: 0.5000" in lines
    assert "- pass^2: 0.0000" in lines
    assert "- ended by deadline: 1" in lines
    place = lines.index("| kind | episodes | success | 95% CI | return | f1 |")
    assert lines[place + 1 : place + 3] == [
        "|---|---|---|---|---|---|",
        "| a\\|b c | 2 | 0.500 | 0.095 to 0.905 | 0.500 | 0.250 |",
    ]
    assert f"- digest of all trajectories: `{reports['e'].digest}`" in lines
    heading, rule, row = (line.count("|") for line in lines[5:8])
    assert heading == rule == row


def test_the_markdown_says_how_sure_the_mean_return_is(tmp_path: Path) -> None:
    reports = summarize_results([result(True, task="g"), result(False, task="h")])
    write_report(tmp_path, PLAN, "p", reports)

    # Of 2 draws from 2 tasks both are the same one with chance 1/4 each.
    row = "| e | 2 | 0.500 | 0.095 to 0.905 | 0.500 | 0.000 to 1.000 | 2.000 | 0 | 0 |"
    assert row in (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()


def test_nothing_but_failures_makes_a_report_without_rates(tmp_path: Path) -> None:
    write_report(tmp_path, PLAN, "p", summarize_results([result(False, "env_error")]))

    assert (
        "| e | 1 | - | 0.000 to 1.000 | - | - | - | 0 | 1 |" in (tmp_path / "report.md").read_text()
    )


def test_the_markdown_says_what_is_missing_and_puts_environments_together(tmp_path: Path) -> None:
    results = [
        result(True),
        replace(result(False), env_id="d", metrics={}),
        replace(result(False), metrics={}),
        replace(result(False, kind="other"), metrics={}),
    ]
    together = summarize_labels(results, ["kind"])
    write_report(tmp_path, PLAN, "p", summarize_results(results, ["kind"]), together)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))

    assert "- f1: 0.2500 (missing in 2 of 3 episodes)" in text
    (both,) = (part for part in text.split("\n## ") if part.startswith("All environments"))
    assert "| a\\|b c | 3 | 0.333 | 0.061 to 0.792 | 0.333 | 0.250 (2 missing) |" in both
    assert "| other | 1 | 0.000 | 0.000 to 0.793 | 0.000 | - |" in both
    assert document["by_label"]["kind"]["a|b\nc"]["metrics_missing"] == {"f1": 2}
