"""Whether one policy is better than another on the same tasks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from steppo_env.errors import InvalidInput
from steppo_env.metrics.intervals import bootstrap_interval
from steppo_env.metrics.samples import checked_values

__all__ = ["PairedComparison", "compare_paired"]

_MAX_ENUMERATED = 14
"""Most differing tasks whose 2^n sign flips are all tried."""
_MAX_SIGNS = 1 << 20
"""Random signs made at a time, so that memory does not grow with resamples times tasks."""
_ROUNDING = 1e-10
"""Numbers that differ by less than this, relative to what they were made of, are equal."""


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """What tasks that two policies share say about the difference between them.

    Attributes:
        num_tasks: Tasks that both have.
        num_unpaired: Tasks that only one has; they are left out.
        mean_difference: Mean over tasks of our mean minus theirs.
        interval: Bootstrap interval of it, over tasks.
        confidence: Of the interval.
        p_value: Of the two-sided test that neither is better on any task.
        wins: Tasks on which our mean is higher.
        losses: Tasks on which theirs is.
        ties: Tasks on which they are equal.
    """

    num_tasks: int
    num_unpaired: int
    mean_difference: float
    interval: tuple[float, float]
    confidence: float
    p_value: float
    wins: int
    losses: int
    ties: int


def compare_paired(
    ours: Mapping[str, Sequence[float]],
    theirs: Mapping[str, Sequence[float]],
    *,
    allow_partial: bool = False,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> PairedComparison:
    """Compare two policies by the scores of their samples on the same tasks.

    Every task counts once, by the difference d_i of the two means of its samples. The interval is
    `bootstrap_interval` of the d_i. The p-value is that of the sign-flip permutation test: the share
    of all sign vectors s with |sum s_i d_i| >= |sum d_i| (Fisher 1935, section 21). Up to 14 tasks
    that are no ties, all 2^n are tried; beyond, `num_resamples` random ones, of which h are as
    extreme, give (h + 1) / (num_resamples + 1) (Phipson and Smyth 2010).

    Args:
        ours: Scores of our samples by task id; at least one each.
        theirs: Those of the other policy; numbers of samples may differ.
        allow_partial: Compare the tasks that both have and count the others, rather than refuse.
        confidence: Of the interval, between 0 and 1.
        num_resamples: Of the bootstrap, and of the test where it is random.
        seed: Of both; equal scores and seeds give equal results, whatever the order of the tasks.

    Raises:
        InvalidInput: The tasks differ and `allow_partial` is false, fewer than 2 are shared, a task
            has no scores or one that is not finite, or an argument is not as above.

    The tasks' differences are 0.5, 0.5, 1 and 0, with a sum of 2. Of the 2^3 sign vectors of those
    that differ, +++ and --- reach 2 or -2:

    >>> result = compare_paired(
    ...     {"a": [1, 1], "b": [1, 0], "c": [1], "d": [0]},
    ...     {"a": [0, 1], "b": [0, 0], "c": [0], "d": [0]},
    ... )
    >>> result.mean_difference, result.interval, result.p_value
    (0.5, (0.125, 0.875), 0.25)
    >>> result.wins, result.losses, result.ties
    (3, 0, 1)
    """
    shared = ours.keys() & theirs.keys()
    only_ours, only_theirs = sorted(ours.keys() - shared), sorted(theirs.keys() - shared)
    if (only_ours or only_theirs) and not allow_partial:
        raise InvalidInput(
            f"a paired comparison needs the same tasks; only ours: {_examples(only_ours)}; only "
            f"theirs: {_examples(only_theirs)}; allow_partial=True compares those that both have"
        )
    if len(shared) < 2:
        raise InvalidInput(
            f"a paired comparison needs at least 2 tasks that both have; got {len(shared)}"
        )
    differences = [_difference(ours, theirs, task_id) for task_id in shared]
    interval = bootstrap_interval(
        differences, confidence=confidence, num_resamples=num_resamples, seed=seed
    )
    return PairedComparison(
        num_tasks=len(shared),
        num_unpaired=len(only_ours) + len(only_theirs),
        mean_difference=fmean(differences),
        interval=interval,
        confidence=confidence,
        p_value=_sign_flip_p_value(differences, num_resamples, seed),
        wins=sum(difference > 0 for difference in differences),
        losses=sum(difference < 0 for difference in differences),
        ties=sum(difference == 0 for difference in differences),
    )


def _examples(task_ids: Sequence[str]) -> str:
    if not task_ids:
        return "none"
    shown = ", ".join(map(repr, task_ids[:3]))
    return f"{len(task_ids)} ({shown}{', ...' if len(task_ids) > 3 else ''})"


def _difference(
    ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], task_id: str
) -> float:
    our_scores = checked_values(ours[task_id], f"our scores of task {task_id!r}").tolist()
    their_scores = checked_values(theirs[task_id], f"their scores of task {task_id!r}").tolist()
    difference = fmean(our_scores) - fmean(their_scores)
    # The mean of three times 0.1 is not quite 0.1, and yet a tie.
    largest = max(map(abs, our_scores + their_scores))
    return 0.0 if abs(difference) <= _ROUNDING * largest else difference


def _sign_flip_p_value(differences: Sequence[float], num_resamples: int, seed: int) -> float:
    # Flipping takes each sign with equal chance, so that only sizes matter; a tie has no sign.
    sizes = np.array(sorted(abs(value) for value in differences if value))
    reached = abs(math.fsum(differences)) - _ROUNDING * float(sizes.sum())
    if len(sizes) <= _MAX_ENUMERATED:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums + size, sums - size])
        return float(np.mean(np.abs(sums) >= reached))
    rng = np.random.default_rng(seed)
    num_rows = max(1, _MAX_SIGNS // len(sizes))
    num_extreme = 0
    for start in range(0, num_resamples, num_rows):
        shape = (min(num_rows, num_resamples - start), len(sizes))
        sums = (2 * rng.integers(2, size=shape) - 1) @ sizes
        num_extreme += int(np.count_nonzero(np.abs(sums) >= reached))
    return (num_extreme + 1) / (num_resamples + 1)
