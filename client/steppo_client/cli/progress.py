"""What a person sees of a run: a bar while it goes on, a table at its end."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from steppo_client.cli.common import paper, screen
from steppo_client.summary import EnvSummaryReport, Result

__all__ = ["progress", "report_table", "summary_table"]


@contextmanager
def progress(total: int) -> Iterator[Callable[[Result], None]]:
    """Show a bar on stderr and yield what is to be called for each finished episode."""
    columns = (
        TextColumn("episodes"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    num_successes, num_failed, num_steps = 0, 0, 0
    with Progress(*columns, console=screen, transient=True) as bar:
        shown = bar.add_task("episodes", total=total, note="")

        def notice(result: Result) -> None:
            nonlocal num_successes, num_failed, num_steps
            num_successes += result.success
            num_failed += result.failure is not None
            num_steps += result.num_steps
            elapsed_s = bar.tasks[0].elapsed or 0.0
            rate = f"{num_steps / elapsed_s:.0f} steps/s" if elapsed_s else ""
            note = f"{num_successes} solved  {num_failed} failed  {rate}"
            bar.update(shown, advance=1, note=note)

        yield notice


def report_table(reports: Mapping[str, EnvSummaryReport]) -> None:
    """Print one line for each environment."""
    paper.print(summary_table([("", name, report) for name, report in reports.items()]))


def summary_table(rows: list[tuple[str, str, EnvSummaryReport]]) -> Table:
    """Return a table of (policy, environment, report) rows."""
    with_policy = any(policy for policy, _, _ in rows)
    headings = ["environment", "episodes", "success", "95% CI", "return", "steps"]
    headings += ["terminated", "truncated", "failed"]
    table = Table(*(["policy", *headings] if with_policy else headings))
    for policy, name, report in rows:
        low, high = report.success_ci95
        cells = [
            name,
            str(report.episodes),
            _number(report.success_rate),
            f"{low:.2f} to {high:.2f}",
            _number(report.mean_return),
            _number(report.mean_steps),
            str(report.terminated),
            str(report.truncated),
            str(report.failed),
        ]
        table.add_row(*([policy, *cells] if with_policy else cells))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
