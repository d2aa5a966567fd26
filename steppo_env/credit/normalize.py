"""What is done to raw advantages before the loss, each as a step of its own with a name."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from steppo_env.credit.layout import StepBatch
from steppo_env.credit.segments import Floats, Integers
from steppo_env.errors import InvalidInput

__all__ = ["Over", "Weights", "normalize", "spread"]

Over = Literal["batch", "group", "none"]
Weights = Literal["steps", "trajectories", "tokens"]

NOISE = 1e-8
"""A spread below this, relative to the largest advantage, is the noise of floats."""


def normalize(
    advantages: npt.ArrayLike,
    batch: StepBatch | None = None,
    *,
    over: Over = "batch",
    weights: Weights = "steps",
) -> Floats:
    """Return (A - mean) / std over a population of real steps.

    The standard deviation is that of the population (n, not n - 1), so that a batch that stands twice
    is normalised as if it stood once. A population of one, or without spread, gives 0, never NaN and
    never noise blown up to unit size.

    Args:
        advantages: In the order of the input rows: one for each step or, with a batch that has
            response lengths, one for each token.
        batch: Needed for groups, for other weights than steps, and for tokens.
        over: The population: the whole batch, each group, or "none" to leave everything as it is.
        weights: What counts once: each step, each trajectory (its steps share its weight), or each
            token.

    Raises:
        InvalidInput: Shapes do not fit, or an advantage is not finite.

    >>> normalize([1.0, 2.0, 3.0])
    array([-1.22474487,  0.        ,  1.22474487])
    >>> normalize([5.0]), normalize([2.0, 2.0])
    (array([0.]), array([0., 0.]))
    """
    if over not in ("batch", "group", "none") or weights not in ("steps", "trajectories", "tokens"):
        raise InvalidInput(
            "normalize is over batch, group or none and weighs steps, trajectories or tokens; got "
            f"over={over!r}, weights={weights!r}"
        )
    values = np.asarray(advantages, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InvalidInput("advantages are a flat array of finite numbers")
    if over == "none" or (batch is None and not len(values)):
        return values.copy()
    population, weight = _population(values, batch, over, weights)
    return _standardized(values, population, weight)


def spread(advantages: npt.ArrayLike, response_lengths: npt.ArrayLike) -> Floats:
    """Return each step's advantage on every token of its response, shape (K,).

    Args:
        advantages: Shape (N,).
        response_lengths: Shape (N,), at least 1 each, in the same order.

    Raises:
        InvalidInput: Shapes differ, or a response is empty.

    >>> spread([0.5, -1.0], [2, 3])
    array([ 0.5,  0.5, -1. , -1. , -1. ])
    """
    values = np.asarray(advantages, dtype=np.float64)
    lengths = np.asarray(response_lengths)
    if values.ndim != 1 or values.shape != lengths.shape:
        raise InvalidInput(
            f"advantages have shape {values.shape}, response_lengths {lengths.shape}; both are (N,)"
        )
    if len(lengths) and (lengths.dtype.kind not in "iu" or lengths.min() < 1):
        raise InvalidInput("response_lengths are integers of at least 1")
    return np.repeat(values, lengths.astype(np.int64))


def _population(
    values: Floats, batch: StepBatch | None, over: Over, weights: Weights
) -> tuple[Integers, Floats]:
    """Return the population and the weight of each element, shapes like the values."""
    if batch is None:
        if over == "group" or weights != "steps":
            raise InvalidInput(f"normalize over {over} with weights {weights} needs the batch")
        return np.zeros(len(values), dtype=np.int64), np.ones(len(values))
    owner = _rows(batch, batch.steps.owner)
    lengths = _values_per_row(batch, len(values), weights)
    weight = np.ones(batch.num_steps) if weights != "tokens" else lengths.astype(np.float64)
    if weights == "trajectories":
        weight = 1.0 / batch.steps.lengths[owner]
    population = np.zeros(batch.num_steps, dtype=np.int64)
    if over == "group":
        if batch.group is None:
            raise InvalidInput("normalize over group needs a batch with groups")
        population = batch.group[owner]
    return np.repeat(population, lengths), np.repeat(weight / lengths, lengths)


def _values_per_row(batch: StepBatch, num_values: int, weights: Weights) -> Integers:
    """Return how many of the values each input row has: one, or one for each of its tokens."""
    if num_values == batch.num_steps and weights != "tokens":
        return np.ones(batch.num_steps, dtype=np.int64)
    if batch.response_length is None:
        raise InvalidInput(
            f"the batch has {batch.num_steps} steps and no response_length; {num_values} advantages "
            f"with weights {weights} do not fit it"
        )
    if num_values != batch.responses.total:
        raise InvalidInput(
            f"the batch has {batch.num_steps} steps and {batch.responses.total} tokens; {num_values} "
            f"advantages with weights {weights} do not fit it"
        )
    return _rows(batch, batch.responses.lengths)


def _rows(batch: StepBatch, x: Integers) -> Integers:
    rows = np.empty_like(x)
    rows[batch.order] = x
    return rows


def _standardized(values: Floats, population: Integers, weight: Floats) -> Floats:
    total = np.bincount(population, weight)
    mean = np.bincount(population, weight * values) / np.where(total > 0, total, 1.0)
    difference = values - mean[population]
    variance = np.bincount(population, weight * difference**2) / np.where(total > 0, total, 1.0)
    std = np.sqrt(variance)
    largest = np.zeros(len(total))
    np.maximum.at(largest, population, np.abs(values))
    is_flat = std <= NOISE * np.maximum(1.0, largest)
    std[is_flat] = 1.0
    difference[is_flat[population]] = 0.0
    return difference / std[population]
