"""What an evaluation leaves behind: report.json for machines, report.md for people."""

import json
from collections.abc import Mapping
from pathlib import Path

from steppo_client.run import RunPlan
from steppo_client.summary import EnvSummaryReport

__all__ = ["write_report"]


def write_report(
    folder: Path, plan: RunPlan, policy: str, reports: Mapping[str, EnvSummaryReport]
) -> None:
    """Write report.json and report.md into a folder."""
    document = {
        "run_id": plan.sampler.run_id,
        "policy": policy,
        "split": plan.split,
        "num_tasks": plan.num_tasks,
        "num_samples": plan.sampler.group_size,
        "seed": plan.sampler.seed,
        "options": dict(plan.options),
        "environments": {name: report.to_json() for name, report in reports.items()},
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(_markdown(plan, policy, reports), encoding="utf-8")


def _markdown(plan: RunPlan, policy: str, reports: Mapping[str, EnvSummaryReport]) -> str:
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
        lines.append(f"| {' | '.join(cells)} |")
    for name, report in reports.items():
        lines += ["", f"## {name}", "", *_details(report)]
    return "\n".join(lines) + "\n"


def _details(report: EnvSummaryReport) -> list[str]:
    lines = [f"- {name}: {value:.4f}" for name, value in report.metrics.items()]
    lines += [f"- pass@{k}: {value:.4f}" for k, value in report.pass_at_k.items()]
    lines += [f"- pass^{k}: {value:.4f}" for k, value in report.pass_hat_k.items()]
    lines += [f"- ended by {reason}: {count}" for reason, count in report.failures.items()]
    lines.append(f"- digest of all trajectories: `{report.digest}`")
    for label, rows in report.by_label.items():
        lines += ["", f"| {_cell(label)} | episodes | success | return |", "|---|---|---|---|"]
        lines += [
            f"| {_cell(value)} | {row['episodes']} | {row['success_rate']:.3f} | {row['mean_return']:.3f} |"
            for value, row in rows.items()
        ]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
