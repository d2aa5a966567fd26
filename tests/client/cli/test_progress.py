import io

import pytest
from rich.console import Console

from steppo_client.cli import progress as module
from steppo_client.cli.progress import progress, report_table
from steppo_client.summary import Result, summarize_results


def result(failure: str | None = None) -> Result:
    return Result(
        env_id="[env]",
        group_id="g",
        labels={},
        success=failure is None,
        return_=0.5,
        num_steps=2,
        terminated=failure is None,
        truncated=False,
        failure=failure,
        error=failure,
        metrics={},
        fingerprint=b"x",
    )


def test_the_bar_counts_what_is_solved_and_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(module, "screen", Console(file=file, force_terminal=True, width=100))
    with progress(3) as notice:
        notice(result())
        notice(result("deadline"))

    assert "2/3" in file.getvalue()
    assert "1 solved  1 failed" in file.getvalue()


def test_nothing_is_drawn_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(module, "screen", Console(file=file))
    with progress(1) as notice:
        notice(result())

    assert file.getvalue() == ""


def test_the_table_leaves_failures_out_of_its_rates(capsys: pytest.CaptureFixture[str]) -> None:
    report_table(summarize_results([result(), result("deadline")]), title="who")
    row = next(line for line in capsys.readouterr().out.splitlines() if "[env]" in line)

    assert row.split() == ["[env]", "2", "1.00", "(0.21-1.00)", "0.50", "2.00", "0", "1"]


def test_a_table_of_failures_has_no_rates(capsys: pytest.CaptureFixture[str]) -> None:
    report_table(summarize_results([result("deadline")]))
    row = next(line for line in capsys.readouterr().out.splitlines() if "[env]" in line)

    assert row.split() == ["[env]", "1", "-", "(0.00-1.00)", "-", "-", "0", "1"]
