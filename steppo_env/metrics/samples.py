"""The numbers that a metric is given: checked, and gathered by the id of what they belong to."""

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steppo_env.errors import InvalidInput

__all__ = ["LARGEST", "checked_values", "values_by_id"]

LARGEST = 1e100
"""Largest size of a value: no sum or square of such values overflows."""


def checked_values(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return values as a vector of at least one number.

    Args:
        values: Numbers or truth values, in one dimension.
        name: What messages call them.

    Raises:
        InvalidInput: There are none, not all are numbers, they have more dimensions than one, or
            one is not finite or larger than `LARGEST`.

    >>> checked_values([True, 0.5], "values")
    array([1. , 0.5])
    """
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidInput(f"{name} are numbers in one dimension; got others: {error}") from error
    if vector.ndim != 1:
        raise InvalidInput(f"{name} are numbers in one dimension; got {vector.ndim} dimensions")
    if not vector.size:
        raise InvalidInput(f"{name} are at least one number; got none")
    (bad,) = np.nonzero(~(np.abs(vector) <= LARGEST))
    if bad.size:
        raise InvalidInput(
            f"{name} are finite and at most {LARGEST:g} in size; got {vector[bad[0]]} at index "
            f"{bad[0]}"
        )
    return vector


def values_by_id(
    values: NDArray[np.float64], ids: Iterable[Hashable], name: str
) -> dict[Hashable, list[float]]:
    """Return the values that belong to each id, in the order in which the ids first appear.

    Args:
        values: A vector.
        ids: The id of each value; equal ids need not be neighbours.
        name: What messages call the ids.

    Raises:
        InvalidInput: There are more ids than values, or fewer.

    >>> values_by_id(np.array([1.0, 2.0, 3.0]), ["b", "a", "b"], "clusters")
    {'b': [1.0, 3.0], 'a': [2.0]}
    """
    names = list(ids)
    if len(names) != len(values):
        raise InvalidInput(
            f"{name} are one for each value; got {len(names)} for {len(values)} values"
        )
    found: dict[Hashable, list[float]] = {}
    for key, value in zip(names, values.tolist()):
        found.setdefault(key, []).append(value)
    return found
