"""What a run says: success, return and length by environment, weighted by trajectory."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pydantic import JsonValue

from steppo_env.errors import InvalidInput
from steppo_env.mdp import Trajectory
from steppo_env.metrics import bootstrap_interval, pass_at_k, pass_hat_k, wilson_interval
from steppo_env.store import digest_of, fingerprint

__all__ = ["EnvSummaryReport", "Result", "result_of", "summarize_results"]

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
    by_label: Mapping[str, Mapping[str, Mapping[str, float | int]]]
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
            "by_label": {
                label: {value: dict(row) for value, row in rows.items()}
                for label, rows in self.by_label.items()
            },
            "digest": self.digest,
        }


def summarize_results(results: Iterable[Result]) -> dict[str, EnvSummaryReport]:
    """Return a report for each environment, in the order in which they first appear."""
    by_env: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_env[result.env_id].append(result)
    return {env_id: _report(found) for env_id, found in by_env.items()}


def _report(results: Sequence[Result]) -> EnvSummaryReport:
    counted = [result for result in results if result.failure is None]
    num_successes = sum(result.success for result in counted)
    names = sorted({name for result in counted for name in result.metrics})
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
        metrics={
            name: fmean(r.metrics[name] for r in counted if name in r.metrics) for name in names
        },
        pass_at_k=_by_num_samples(counted, pass_at_k),
        pass_hat_k=_by_num_samples(counted, pass_hat_k),
        by_label=_by_label(counted),
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


MAX_LABEL_VALUES = 20
"""A label with more values than this names single tasks rather than kinds of them."""


def _by_label(results: Sequence[Result]) -> dict[str, dict[str, dict[str, float | int]]]:
    found: dict[str, dict[str | int, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for label, value in result.labels.items():
            found[label][value].append(result)
    return {
        label: {
            str(value): {
                "episodes": len(group),
                "success_rate": fmean(result.success for result in group),
                "mean_return": fmean(result.return_ for result in group),
            }
            for value, group in sorted(groups.items(), key=_place)
        }
        for label, groups in sorted(found.items())
        if len(groups) <= MAX_LABEL_VALUES
    }


def _place(item: tuple[str | int, object]) -> tuple[bool, int, str]:
    """Numbers first and in their own order: 9 hops before 10."""
    value = item[0]
    return (False, value, "") if isinstance(value, int) else (True, 0, value)
