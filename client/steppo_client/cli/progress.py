"""What a person sees of a run: a bar while it goes on, a table at its end."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from steppo_client.cli.common import paper, screen
from steppo_client.summary import EnvSummaryReport, Result

__all__ = ["plain_table", "progress", "report_table"]


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
    is_hidden = not screen.is_terminal
    with Progress(*columns, console=screen, transient=True, disable=is_hidden) as bar:
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


def report_table(reports: Mapping[str, EnvSummaryReport], title: str | None = None) -> None:
    """Print one line for each environment; it fits into 80 columns."""
    headings = ("environment", "n", "success (95% CI)", "return", "steps", "trunc", "fail")
    table = plain_table(*headings, title=title)
    for name, report in reports.items():
        low, high = report.success_ci95
        table.add_row(
            escape(name),
            str(report.episodes),
            f"{_number(report.success_rate)} ({low:.2f}-{high:.2f})",
            _number(report.mean_return),
            _number(report.mean_steps),
            str(report.truncated),
            str(report.failed),
        )
    paper.print(table)


def plain_table(*headings: str, title: str | None = None) -> Table:
    """Return a table whose cells never wrap: in a narrow terminal the last columns are cut."""
    table = Table(*headings, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
