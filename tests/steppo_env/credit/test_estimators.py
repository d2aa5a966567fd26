"""The registry, and what holds for every estimator in it."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_env import credit
from steppo_env.credit import ESTIMATORS, Credit, StepBatch, estimate, names, normalize
from steppo_env.errors import InvalidInput
from tests.steppo_env.credit.conftest import ANY_SPEED, Rows, assert_close, ragged

SETTINGS: dict[str, dict[str, Any]] = {
    "step_gae": {"gamma": 0.9, "lam": 0.8},
    "token_gae": {"gamma": 0.9, "lam": 0.8},
    "token_gae_step_discount": {"gamma": 0.9, "lam": 0.8},
    "broadcast": {},
    "grpo": {"eps": 1e-3},
    "dr_grpo": {},
    "rloo": {},
    "reinforce_pp": {"gamma": 0.9},
    "reinforce_pp_baseline": {},
    "gigpo": {"gamma": 0.9, "step_weight": 0.5, "normalize_std": False, "similarity": None},
    "monte_carlo": {"gamma": 0.9},
}
TOKEN_LEVEL = {"token_gae", "token_gae_step_discount"}


def estimated(name: str, rows: Rows) -> Credit:
    return estimate(name, rows.batch(), **SETTINGS[name])


def test_the_registry_has_these_estimators() -> None:
    assert sorted(names()) == sorted(SETTINGS)
    assert names() == tuple(ESTIMATORS)


@pytest.mark.parametrize("name", SETTINGS)
@given(rows=ragged())
@settings(ANY_SPEED, max_examples=10)
def test_estimate_calls_the_function_of_this_name(name: str, rows: Rows) -> None:
    direct = getattr(credit, name)(rows.batch(), **SETTINGS[name])
    by_name = estimated(name, rows)
    assert by_name.level == direct.level == ("token" if name in TOKEN_LEVEL else "step")
    assert np.array_equal(by_name.advantages, direct.advantages)
    assert np.array_equal(by_name.returns, direct.returns)


@pytest.mark.parametrize("name", SETTINGS)
@given(rows=ragged())
@settings(ANY_SPEED, max_examples=20)
def test_every_result_is_finite_and_has_one_number_a_row(name: str, rows: Rows) -> None:
    result = estimated(name, rows)
    size = sum(rows.response_length) if name in TOKEN_LEVEL else rows.num_rows
    for each in (result.advantages, result.returns):
        assert each.dtype == np.float64
        assert each.shape == (size,)
        assert np.all(np.isfinite(each))
    assert all(count >= 0 for count in result.counts.values())


@pytest.mark.parametrize("name", SETTINGS)
@given(rows=ragged(), seed=st.integers(0, 2**16))
@settings(ANY_SPEED, max_examples=30)
def test_the_order_of_the_rows_changes_nothing(name: str, rows: Rows, seed: int) -> None:
    order = random.Random(seed).sample(range(rows.num_rows), rows.num_rows)
    before, after = estimated(name, rows), estimated(name, rows.permuted(order))
    place = np.array(order)
    if name in TOKEN_LEVEL:
        starts = np.concatenate([[0], np.cumsum(rows.response_length)])
        place = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in order])
    assert np.array_equal(after.advantages, before.advantages[place])
    assert np.array_equal(after.returns, before.returns[place])
    assert after.counts == before.counts
    assert after.diagnostics.keys() == before.diagnostics.keys()
    for key, values in before.diagnostics.items():
        assert np.array_equal(after.diagnostics[key], values[place])


@pytest.mark.parametrize("name", SETTINGS)
@given(rows=ragged())
@settings(ANY_SPEED, max_examples=30)
def test_duplicating_the_batch_under_new_ids_changes_nothing(name: str, rows: Rows) -> None:
    once, twice = estimated(name, rows), estimated(name, rows.doubled())
    # The magnitude allows for grpo's division by a deviation of at least its eps.
    magnitude = 1e3 * rows.magnitude
    assert_close(twice.advantages, [*once.advantages, *once.advantages], magnitude)
    assert_close(twice.returns, [*once.returns, *once.returns], magnitude)
    whitened = normalize(once.advantages, rows.batch())
    again = normalize(twice.advantages, rows.doubled().batch())
    assert list(again) == pytest.approx([*whitened, *whitened], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
@given(rows=ragged())
@settings(ANY_SPEED, max_examples=20)
def test_advantages_returns_and_batch_share_no_memory(name: str, rows: Rows) -> None:
    batch = rows.batch()
    first = estimate(name, batch, **SETTINGS[name])
    kept = first.advantages.copy()
    returns = first.returns.copy()
    first.advantages[:] = 1e9
    assert np.array_equal(first.returns, returns)
    first.returns[:] = 1e9
    assert np.array_equal(estimate(name, batch, **SETTINGS[name]).advantages, kept)


STEP = StepBatch.from_arrays(
    trajectory=["a"],
    step=[0],
    reward=[1.0],
    response_length=[1],
    group={"a": "g"},
    anchor=["x"],
    forks={("a", 0): [[1.0]]},
)


@pytest.mark.parametrize("name", ["", "gae", "GRPO", "step-gae"])
def test_an_unknown_name_is_answered_with_all_names(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        estimate(name, STEP)
    assert all(known in str(caught.value) for known in names())
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_unknown_setting_is_answered_with_the_settings_there_are(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        estimate(name, STEP, **SETTINGS[name], lambda_=0.5)
    message = str(caught.value)
    assert name in message
    assert "lambda_" in message
    assert all(setting in message for setting in SETTINGS[name])


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        (name, setting)
        for name in (
            "step_gae",
            "token_gae",
            "token_gae_step_discount",
            "reinforce_pp",
            "monte_carlo",
        )
        for setting in SETTINGS[name]
    ],
)
def test_a_missing_setting_is_named(name: str, missing: str) -> None:
    some = {key: value for key, value in SETTINGS[name].items() if key != missing}
    with pytest.raises(InvalidInput) as caught:
        estimate(name, STEP, **some)
    assert name in str(caught.value)
    assert missing in str(caught.value)


@pytest.mark.parametrize("value", [-0.01, 1.01, 100.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "setting"),
    [(name, key) for name, each in SETTINGS.items() for key in each if key in ("gamma", "lam")],
)
def test_discounts_are_in_the_unit_interval(name: str, setting: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=setting):
        estimate(name, STEP, **{**SETTINGS[name], setting: value})
    with pytest.raises(InvalidInput, match=setting):
        getattr(credit, name)(STEP, **{**SETTINGS[name], setting: value})


@pytest.mark.parametrize("name", SETTINGS)
def test_the_borders_of_the_unit_interval_are_allowed(name: str) -> None:
    for border in (0, 1, 0.0, 1.0):
        chosen = {k: border if k in ("gamma", "lam") else v for k, v in SETTINGS[name].items()}
        assert np.all(np.isfinite(estimate(name, STEP, **chosen).advantages))


def test_the_package_exports_what_it_says() -> None:
    assert len(set(credit.__all__)) == len(credit.__all__)
    assert all(hasattr(credit, name) for name in credit.__all__)
    assert set(SETTINGS) | {"Credit", "StepBatch", "estimate", "normalize", "spread"} <= {
        *credit.__all__
    }


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("grpo", {"eps": -1.0}, "eps is a finite number of at least 0, not -1.0"),
        ("grpo", {"eps": float("nan")}, "eps is a finite number of at least 0, not nan"),
        ("gigpo", {"step_weight": float("inf")}, "step_weight is a finite number, not inf"),
        ("reinforce_pp", {"gamma": "0.9"}, "gamma is a number in"),
    ],
)
def test_a_setting_that_is_no_number_in_its_bounds_is_refused(
    name: str, settings: dict[str, Any], message: str
) -> None:
    batch = credit.StepBatch.from_arrays(
        trajectory=["a", "b"],
        step=[0, 0],
        reward=[1.0, 0.0],
        group={"a": 1, "b": 1},
        anchor=["s", "s"],
    )
    with pytest.raises(InvalidInput, match=message):
        credit.estimate(name, batch, **settings)
