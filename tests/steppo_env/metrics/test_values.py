"""Explained variance, by hand and by its definition in fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from steppo_env.errors import InvalidInput
from steppo_env.metrics import explained_variance, explained_variance_by_step

PAIRS = st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=12)


def variance(values: list[int]) -> Fraction:
    mean = Fraction(sum(values), len(values))
    return sum(((value - mean) ** 2 for value in values), Fraction()) / len(values)


def by_definition(pairs: list[tuple[int, int]]) -> float | None:
    """Return 1 - Var(return - value) / Var(return) of (value, return) pairs."""
    returns = variance([return_ for _, return_ in pairs])
    if not returns:
        return None
    return float(1 - variance([return_ - value for value, return_ in pairs]) / returns)


def assert_close(found: float | None, expected: float | None) -> None:
    if found is None or expected is None:
        assert found is expected
    else:
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "return_", "expected"),
    [
        # Errors 1, -1, 1, -1 with variance 1, of 5.
        ([-1, 3, 3, 7], [0, 2, 4, 6], 0.8),
        ([0, 2, 4, 6], [0, 2, 4, 6], 1.0),
        ([10, 12, 14, 16], [0, 2, 4, 6], 1.0),  # an offset does not show
        ([3, 3, 3, 3], [0, 2, 4, 6], 0.0),
        # Errors -6, -2, 2, 6 with variance 20, of 5.
        ([6, 4, 2, 0], [0, 2, 4, 6], -3.0),
        ([1, 2], [5, 5], None),
        ([1], [5], None),
        ([0.3, 0.9], [0.1 + 0.2, 0.3], None),  # these returns differ by rounding only
    ],
)
def test_explained_variance(
    value: list[float], return_: list[float], expected: float | None
) -> None:
    assert_close(explained_variance(value, return_), expected)


@given(PAIRS)
def test_it_is_its_definition_at_any_scale(pairs: list[tuple[int, int]]) -> None:
    values, returns = np.array(pairs, dtype=float).T
    expected = by_definition(pairs)
    for scale in (1.0, 1e-200, 1e90):
        assert_close(explained_variance(scale * values, scale * returns), expected)


@given(
    st.lists(st.tuples(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100)), min_size=1, max_size=8)
)
def test_it_is_at_most_1_and_never_nan(pairs: list[tuple[float, float]]) -> None:
    found = explained_variance([v for v, _ in pairs], [r for _, r in pairs])
    assert found is None or found <= 1.0


@given(PAIRS, st.data())
def test_each_step_index_is_explained_by_its_own_steps(
    pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    steps = data.draw(
        st.lists(st.sampled_from([0, 1, 7]), min_size=len(pairs), max_size=len(pairs))
    )
    found = explained_variance_by_step([v for v, _ in pairs], [r for _, r in pairs], steps)

    assert list(found) == sorted(set(steps))
    for index, (num_steps, explained) in found.items():
        own = [pair for pair, step in zip(pairs, steps) if step == index]
        assert num_steps == len(own)
        assert_close(explained, by_definition(own))


def test_a_critic_that_only_knows_the_step_index_explains_nothing_at_any() -> None:
    step = [0, 0, 1, 1, 2, 2]
    return_ = [0, 2, 10, 12, 20, 22]
    value = [1, 1, 11, 11, 21, 21]
    # Over all steps the variance is 200 / 3 + 1, of which 1 is left.
    assert explained_variance(value, return_) == pytest.approx(1 - 3 / 203)
    assert explained_variance_by_step(value, return_, step) == dict.fromkeys(range(3), (2, 0.0))


def test_keys_and_numbers_are_pythons_own_so_that_they_go_into_json() -> None:
    found = explained_variance_by_step(
        np.array([0.0, 1.0]), np.array([0.0, 2.0]), np.array([3, 3], np.int32)
    )
    assert found == {3: (2, 0.75)}
    ((key, (num_steps, explained)),) = found.items()
    assert (type(key), type(num_steps), type(explained)) == (int, int, float)


@pytest.mark.parametrize(
    ("value", "return_", "message"),
    [
        ([], [], "values are at least one number"),
        ([1.0], [], "returns are at least one number"),
        ([1.0], [1.0, 2.0], "one for each step; got 1 and 2"),
        ([math.nan], [1.0], "values are finite"),
        ([1.0], [math.inf], "returns are finite"),
        ([[1.0]], [1.0], "values are numbers in one dimension"),
    ],
)
def test_what_has_no_variance_to_explain_is_refused(
    value: ArrayLike, return_: ArrayLike, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        explained_variance(value, return_)
    with pytest.raises(InvalidInput, match=message):
        explained_variance_by_step(value, return_, [0])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ([0], "one index for each value; got shape"),
        ([[0, 1]], "one index for each value; got shape"),
        ([0, -1], "integers of at least 0"),
        ([0.0, 1.0], "integers of at least 0"),
        ([True, False], "integers of at least 0"),
    ],
)
def test_what_is_no_step_index_is_refused(step: ArrayLike, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        explained_variance_by_step([1.0, 2.0], [1.0, 2.0], step)
