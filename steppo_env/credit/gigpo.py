"""GiGPO: a trajectory against its group, and a step against others from the same state."""

import numpy as np

from steppo_env.credit.anchors import cluster_similar
from steppo_env.credit.credit import Credit
from steppo_env.credit.group import (
    STD_EPS,
    centred,
    group_counts,
    group_of,
    returns_to_go,
    trajectory_returns,
)
from steppo_env.credit.layout import StepBatch
from steppo_env.credit.segments import Integers
from steppo_env.credit.settings import check_setting
from steppo_env.errors import InvalidInput

__all__ = ["gigpo"]


def gigpo(
    batch: StepBatch,
    gamma: float = 0.95,
    step_weight: float = 1.0,
    normalize_std: bool = True,
    similarity: float | None = None,
) -> Credit:
    """Episode term plus anchor-state step term (Feng et al. 2025, arXiv 2505.10978).

    A = A_episode + step_weight * A_step. The episode term is GRPO's (or Dr. GRPO's without the
    standard deviation). The step term compares discounted returns-to-go among the steps that were taken
    in the same anchor state by the same group; a state met once gives 0.

    Args:
        gamma: Discount of the step term's returns. At 1, with a reward at the end only, the step
            term knows no more than the outcome.
        step_weight: The paper's omega.
        normalize_std: Divide both terms by their cluster's unbiased standard deviation plus 1e-6.
        similarity: None takes anchors as keys: equal or not. A number in (0, 1] takes them as texts:
            steps share a state when their character 5-grams have at least this Jaccard similarity.

    Two samples from one state; the first succeeds at once, the second after one more step. With gamma
    0.5 the returns-to-go in the shared state are 1 and 0.5: 0.25 above and below their mean.

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "b", "b"], step=[0, 0, 1], reward=[1.0, 0.0, 1.0],
    ...     group={"a": "q", "b": "q"}, anchor=["start", "start", "later"],
    ... )
    >>> gigpo(batch, gamma=0.5, normalize_std=False).advantages
    array([ 0.25, -0.25,  0.  ])
    """
    check_setting("step_weight", step_weight)
    group = group_of(batch)
    clusters = _clusters(batch, group, similarity)
    returns, counts = trajectory_returns(batch)
    eps = STD_EPS if normalize_std else None
    episode, _ = centred(returns, group, eps=eps)
    to_go, _ = returns_to_go(batch, gamma)
    step, sizes = centred(to_go, clusters, eps=eps)
    advantages = episode[batch.steps.owner] + step_weight * step
    return Credit(
        batch.to_input_order(advantages),
        batch.to_input_order(to_go),
        "step",
        {
            "episode_advantage": batch.to_input_order(episode[batch.steps.owner]),
            "step_advantage": batch.to_input_order(step),
        },
        {
            **counts,
            **group_counts(returns, group),
            "num_singleton_anchors": int((sizes == 1).sum()),
        },
    )


def _clusters(batch: StepBatch, group: Integers, similarity: float | None) -> Integers:
    """Return the number of each step's cluster: same group and same anchor, shape (N,)."""
    if batch.anchor is None:
        raise InvalidInput("gigpo compares steps of the same state; give the batch its anchor")
    owner = group[batch.steps.owner].tolist()
    texts = batch.anchor.tolist()
    if similarity is not None:
        return cluster_similar(texts, owner, similarity)
    numbers: dict[tuple[int, str], int] = {}
    found = [numbers.setdefault(key, len(numbers)) for key in zip(owner, texts)]
    return np.array(found, dtype=np.int64)
