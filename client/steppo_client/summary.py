"""What a run says: success, return and length by environment, weighted by trajectory."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from pydantic import JsonValue

from steppo_env.errors import InvalidInput
from steppo_env.mdp import Trajectory
from steppo_env.metrics import bootstrap_interval, pass_at_k, pass_hat_k, wilson_interval
from steppo_env.store import digest_of, fingerprint

__all__ = [
    "EnvSummaryReport",
    "LabelReport",
    "LabelReports",
    "Result",
    "label_order",
    "labels_to_json",
    "result_of",
    "summarize_labels",
    "summarize_results",
]

NOT_METRICS = frozenset({"bootstrap_value", "step_index", "step_limit", "success"})
"""Entries of info that are book-keeping; every other number of the last step is a metric."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a summary needs of one trajectory.

    Attributes:
        error: What failed, where something did.
        fingerprint: Digest of everything that environment and policy determined.
    """

    env_id: str
    group_id: str
    labels: Mapping[str, str | int]
    success: bool
    return_: float
    num_steps: int
    terminated: bool
    truncated: bool
    failure: str | None
    error: str | None
    metrics: Mapping[str, float]
    fingerprint: bytes


def result_of(trajectory: Trajectory) -> Result:
    """Return what a summary needs of a trajectory, so that the rest need not stay in memory."""
    info = trajectory.steps[-1].info if trajectory.steps else {}
    metrics = {
        name: float(value)
        for name, value in info.items()
        if isinstance(value, int | float) and name not in NOT_METRICS
    }
    return Result(
        env_id=trajectory.env_id,
        group_id=trajectory.group_id,
        labels=trajectory.labels,
        success=trajectory.success is True,
        return_=trajectory.return_,
        num_steps=len(trajectory.steps),
        terminated=trajectory.terminated,
        truncated=trajectory.truncated,
        failure=None if trajectory.trainable else trajectory.stop_reason.value,
        error=trajectory.error,
        metrics=metrics,
        fingerprint=fingerprint(trajectory),
    )


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What the episodes with one value of a label gave; at least one, none a failure.

    Attributes:
        success_ci95: Wilson's interval, which takes episodes to be independent.
        metrics: Means over the episodes that have the metric.
        metrics_missing: In how many episodes a metric of the others is missing.
    """

    episodes: int
    success_rate: float
    success_ci95: tuple[float, float]
    mean_return: float
    metrics: Mapping[str, float]
    metrics_missing: Mapping[str, int]

    def to_json(self) -> dict[str, JsonValue]:
        """Return the report as a JSON object."""
        return {**asdict(self), "success_ci95": list(self.success_ci95)}


LabelReports = Mapping[str, Mapping[str, LabelReport]]


@dataclass(frozen=True, slots=True)
class EnvSummaryReport:
    """One environment's part of a run.

    Rates and means are over the episodes that infrastructure did not end: a failure is not a reward
    of 0. `digest` is equal exactly when two runs gave the same trajectories, in any order.

    Attributes:
        success_ci95: Wilson's interval, which takes episodes to be independent.
        mean_return_ci95: Bootstrap interval over tasks, whose samples are not; None with fewer than
            two tasks, which do not say how tasks differ.
        pass_at_k: Chance that one of k samples of a task succeeds, for k = 1, 2, 4, ...
        pass_hat_k: Chance that all of them do.
        metrics: Means over the episodes that have the metric.
        metrics_missing: In how many episodes a metric is missing, for those missing in any.
        by_label: For each label, a report for each of its values, in their order.
    """

    episodes: int
    steps: int
    success_rate: float | None
    success_ci95: tuple[float, float]
    mean_return: float | None
    mean_return_ci95: tuple[float, float] | None
    mean_steps: float | None
    terminated: int
    truncated: int
    failed: int
    failures: Mapping[str, int]
    metrics: Mapping[str, float]
    pass_at_k: Mapping[str, float]
    pass_hat_k: Mapping[str, float]
    metrics_missing: Mapping[str, int]
    by_label: "LabelReports"
    digest: str

    def to_json(self) -> dict[str, JsonValue]:
        """Return the report as a JSON object."""
        interval = self.mean_return_ci95
        return {
            "episodes": self.episodes,
            "steps": self.steps,
            "success_rate": self.success_rate,
            "success_ci95": list(self.success_ci95),
            "mean_return": self.mean_return,
            "mean_return_ci95": None if interval is None else list(interval),
            "mean_steps": self.mean_steps,
            "terminated": self.terminated,
            "truncated": self.truncated,
            "failed": self.failed,
            "failures": dict(self.failures),
            "metrics": dict(self.metrics),
            "pass_at_k": dict(self.pass_at_k),
            "pass_hat_k": dict(self.pass_hat_k),
            "metrics_missing": dict(self.metrics_missing),
            "by_label": labels_to_json(self.by_label),
            "digest": self.digest,
        }


def summarize_results(
    results: Iterable[Result], by: Sequence[str] | None = None
) -> dict[str, EnvSummaryReport]:
    """Return a report for each environment, in the order in which they first appear.

    Args:
        by: Labels to report by; see `summarize_labels`.
    """
    by_env: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_env[result.env_id].append(result)
    return {env_id: _report(found, by) for env_id, found in by_env.items()}


def _report(results: Sequence[Result], by: Sequence[str] | None) -> EnvSummaryReport:
    counted = [result for result in results if result.failure is None]
    num_successes = sum(result.success for result in counted)
    metrics, missing = _metrics(counted, _metric_names(counted))
    return EnvSummaryReport(
        episodes=len(results),
        steps=sum(result.num_steps for result in results),
        success_rate=num_successes / len(counted) if counted else None,
        success_ci95=wilson_interval(num_successes, len(counted)),
        mean_return=fmean(result.return_ for result in counted) if counted else None,
        mean_return_ci95=_mean_return_ci95(counted),
        mean_steps=fmean(result.num_steps for result in counted) if counted else None,
        terminated=sum(result.terminated for result in results),
        truncated=sum(result.truncated for result in results),
        failed=len(results) - len(counted),
        failures=dict(Counter(r.failure for r in results if r.failure is not None)),
        metrics=metrics,
        pass_at_k=_by_num_samples(counted, pass_at_k),
        pass_hat_k=_by_num_samples(counted, pass_hat_k),
        metrics_missing=missing,
        by_label=summarize_labels(results, by),
        digest=digest_of(result.fingerprint for result in results),
    )


def _mean_return_ci95(results: Sequence[Result]) -> tuple[float, float] | None:
    tasks = [result.group_id for result in results]
    try:
        return bootstrap_interval([result.return_ for result in results], clusters=tasks)
    except InvalidInput:
        # Fewer than two tasks, or a return too large to compute with: a run still has its report.
        return None


def _by_num_samples(
    results: Sequence[Result], estimate: Callable[[int, int, int], float]
) -> dict[str, float]:
    """Average an estimate over the tasks with at least k samples, for k = 1, 2, 4, ..."""
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        outcomes[result.group_id].append(result.success)
    largest = max(map(len, outcomes.values()), default=0)
    estimates: dict[str, float] = {}
    k = 1
    while k <= largest:
        groups = [group for group in outcomes.values() if len(group) >= k]
        estimates[str(k)] = fmean(estimate(len(group), sum(group), k) for group in groups)
        k *= 2
    return estimates


def _metric_names(results: Sequence[Result]) -> list[str]:
    return sorted({name for result in results for name in result.metrics})


def _metrics(
    results: Sequence[Result], names: Sequence[str]
) -> tuple[dict[str, float], dict[str, int]]:
    """Return each metric's mean over the episodes that have it, and in how many it is missing."""
    found = {name: [r.metrics[name] for r in results if name in r.metrics] for name in names}
    means = {name: fmean(values) for name, values in found.items() if values}
    missing = {name: len(results) - len(values) for name, values in found.items()}
    return means, {name: count for name, count in missing.items() if count}


MAX_LABEL_VALUES = 12
"""A label with more values than this is left out unless it is asked for: it may name single tasks."""


def summarize_labels(
    results: Iterable[Result], by: Sequence[str] | None = None
) -> dict[str, dict[str, LabelReport]]:
    """Return a report for each value of labels, over the episodes that have the label.

    Args:
        by: Labels; `a+b` stands for the pairs of values of both. None takes every label with at most
            `MAX_LABEL_VALUES` values.
    """
    counted = [result for result in results if result.failure is None]
    if by is None:
        wanted = sorted({label for result in counted for label in result.labels})
    else:
        wanted = list(dict.fromkeys(by))
    names = _metric_names(counted)
    reports: dict[str, dict[str, LabelReport]] = {}
    for label in wanted:
        groups: dict[tuple[str | int, ...], list[Result]] = defaultdict(list)
        parts = label.split("+")
        for result in counted:
            if all(part in result.labels for part in parts):
                groups[tuple(result.labels[part] for part in parts)].append(result)
        if groups and (by is not None or len(groups) <= MAX_LABEL_VALUES):
            reports[label] = {
                ", ".join(map(str, values)): _label_report(groups[values], names)
                for values in sorted(groups, key=lambda values: [*map(label_order, values)])
            }
    return reports


def _label_report(results: Sequence[Result], names: Sequence[str]) -> LabelReport:
    num_successes = sum(result.success for result in results)
    metrics, missing = _metrics(results, names)
    return LabelReport(
        episodes=len(results),
        success_rate=num_successes / len(results),
        success_ci95=wilson_interval(num_successes, len(results)),
        mean_return=fmean(result.return_ for result in results),
        metrics=metrics,
        metrics_missing=missing,
    )


def labels_to_json(reports: LabelReports) -> dict[str, JsonValue]:
    """Return reports by label as a JSON object."""
    return {
        label: {value: report.to_json() for value, report in rows.items()}
        for label, rows in reports.items()
    }


def label_order(value: str | int) -> tuple[bool, int, str]:
    """Return what sorts values of a label: numbers first and in their own order, 9 before 10."""
    return (False, value, "") if isinstance(value, int) else (True, 0, value)
