"""What an evaluation leaves behind: report.json for machines, report.md for people."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from steppo_client.run import RunPlan
from steppo_client.summary import EnvSummaryReport, LabelReport, LabelReports, labels_to_json

__all__ = ["write_report"]


def write_report(
    folder: Path,
    plan: RunPlan,
    policy: str,
    reports: Mapping[str, EnvSummaryReport],
    together: LabelReports | None = None,
) -> None:
    """Write report.json and report.md into a folder.

    Args:
        reports: By environment.
        together: By label over all environments, where several are to be read side by side.
    """
    together = together or {}
    document = {
        "run_id": plan.sampler.run_id,
        "policy": policy,
        "split": plan.split,
        "num_tasks": plan.num_tasks,
        "num_samples": plan.sampler.group_size,
        "seed": plan.sampler.seed,
        "options": dict(plan.options),
        "environments": {name: report.to_json() for name, report in reports.items()},
        "by_label": labels_to_json(together),
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(_markdown(plan, policy, reports, together), encoding="utf-8")


def _markdown(
    plan: RunPlan,
    policy: str,
    reports: Mapping[str, EnvSummaryReport],
    together: LabelReports,
) -> str:
    lines = [
        f"# {policy}: {plan.split}",
        "",
        f"{plan.num_tasks} tasks x {plan.sampler.group_size} samples, seed {plan.sampler.seed}.",
        f"Run `{plan.sampler.run_id}`. Rates leave out episodes that infrastructure ended.",
        "",
        "| environment | episodes | success | 95% CI | return | 95% CI | steps | truncated | failed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        cells = [
            name,
            str(report.episodes),
            _number(report.success_rate),
            _range(report.success_ci95),
            _number(report.mean_return),
            _range(report.mean_return_ci95),
            _number(report.mean_steps),
            str(report.truncated),
            str(report.failed),
        ]
        lines.append(_row(cells))
    if together:
        lines += ["", "## All environments", *_label_tables(together)]
    for name, report in reports.items():
        lines += ["", f"## {name}", "", *_details(report)]
    return "\n".join(lines) + "\n"


def _details(report: EnvSummaryReport) -> list[str]:
    counted = report.episodes - report.failed
    lines = []
    for name, value in report.metrics.items():
        missing = report.metrics_missing.get(name, 0)
        note = f" (missing in {missing} of {counted} episodes)" if missing else ""
        lines.append(f"- {name}: {value:.4f}{note}")
    lines += [f"- pass@{k}: {value:.4f}" for k, value in report.pass_at_k.items()]
    lines += [f"- pass^{k}: {value:.4f}" for k, value in report.pass_hat_k.items()]
    lines += [f"- ended by {reason}: {count}" for reason, count in report.failures.items()]
    lines.append(f"- digest of all trajectories: `{report.digest}`")
    return lines + _label_tables(report.by_label)


def _label_tables(reports: LabelReports) -> list[str]:
    lines: list[str] = []
    for label, rows in reports.items():
        names = _metric_names(rows.values())
        headings = (label, "episodes", "success", "95% CI", "return", *names)
        lines += ["", _row(headings), "|" + "---|" * len(headings)]
        lines += [_row((value, *_label_cells(row, names))) for value, row in rows.items()]
    return lines


def _metric_names(reports: Iterable[LabelReport]) -> list[str]:
    """Return the metrics that any of the reports has, in their order."""
    return sorted({name for report in reports for name in report.metrics})


def _label_cells(report: LabelReport, names: Sequence[str]) -> list[str]:
    """Return what a table shows of one value of a label: four numbers, then the metrics named."""
    cells = [
        str(report.episodes),
        _number(report.success_rate),
        _range(report.success_ci95),
        _number(report.mean_return),
    ]
    for name in names:
        missing = report.metrics_missing.get(name, 0)
        note = f" ({missing} missing)" if 0 < missing < report.episodes else ""
        cells.append(_number(report.metrics.get(name)) + note)
    return cells


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
