"""What counts as numbers, and how they are gathered."""

import math

import numpy as np
import pytest
from numpy.typing import ArrayLike

from steppo_env.errors import InvalidInput
from steppo_env.metrics.samples import LARGEST, checked_values, values_by_id


def test_lists_arrays_and_truth_values_become_float64_vectors() -> None:
    for given in ([1, 0], [True, False], (1.0, 0.0), np.array([1, 0], np.int8)):
        vector = checked_values(given, "x")
        assert vector.dtype == np.float64
        assert vector.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "rewards are at least one number; got none"),
        ([[1.0], [2.0]], "got 2 dimensions"),
        (3.0, "got 0 dimensions"),
        (["x"], "rewards are numbers in one dimension"),
        ([[1.0], [1.0, 2.0]], "rewards are numbers in one dimension"),
        ([10**400], "rewards are numbers in one dimension"),
        ([0.0, math.nan], "got nan at index 1"),
        ([-math.inf], "got -inf at index 0"),
        ([0.0, 0.0, -1e101], "index 2"),
    ],
)
def test_what_is_no_vector_of_finite_numbers_is_refused(bad: ArrayLike, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        checked_values(bad, "rewards")


def test_the_largest_value_is_allowed() -> None:
    assert checked_values([LARGEST, -LARGEST], "x").tolist() == [1e100, -1e100]


def test_values_go_to_their_ids_wherever_these_stand() -> None:
    assert values_by_id(np.array([1.0, 2, 3, 4]), ("b", 7, "b", 7), "ids") == {
        "b": [1.0, 3.0],
        7: [2.0, 4.0],
    }
    for ids in ([], ["a"], ["a"] * 3):
        with pytest.raises(InvalidInput, match=rf"ids are one for each value; got {len(ids)} for"):
            values_by_id(np.array([1.0, 2.0]), ids, "ids")
