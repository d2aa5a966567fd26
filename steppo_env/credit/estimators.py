"""The estimators by name."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from steppo_env.credit.credit import Credit
from steppo_env.credit.gae import step_gae, token_gae, token_gae_step_discount
from steppo_env.credit.gigpo import gigpo
from steppo_env.credit.group import (
    broadcast,
    dr_grpo,
    grpo,
    reinforce_pp,
    reinforce_pp_baseline,
    rloo,
)
from steppo_env.credit.layout import StepBatch
from steppo_env.credit.monte_carlo import monte_carlo
from steppo_env.errors import InvalidInput

__all__ = ["ESTIMATORS", "Estimator", "estimate", "names"]

Estimator = Callable[..., Credit]

_ALL: tuple[Estimator, ...] = (
    step_gae,
    token_gae,
    token_gae_step_discount,
    broadcast,
    grpo,
    dr_grpo,
    rloo,
    reinforce_pp,
    reinforce_pp_baseline,
    gigpo,
    monte_carlo,
)
ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {getattr(estimator, "__name__"): estimator for estimator in _ALL}  # noqa: B009
)
"""Every estimator under its function's name."""


def names() -> tuple[str, ...]:
    """Return the names that `estimate` takes."""
    return tuple(ESTIMATORS)


def estimate(name: str, batch: StepBatch, **settings: float | bool | None) -> Credit:
    """Run the estimator of this name.

    Raises:
        InvalidInput: There is no such estimator, it does not have one of the settings, or one that it
            needs is missing.

    >>> batch = StepBatch.from_arrays(trajectory=["a"], step=[0], reward=[1.0])
    >>> estimate("step_gae", batch, gamma=0.99, lam=0.95).advantages
    array([1.])
    >>> estimate("broadcast", batch, gamma=0.99)
    Traceback (most recent call last):
        ...
    steppo_env.errors.InvalidInput: broadcast has no setting gamma; it has none
    """
    estimator = ESTIMATORS.get(name)
    if estimator is None:
        close = get_close_matches(name, ESTIMATORS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InvalidInput(
            f"there is no estimator {name!r}; the estimators are {', '.join(ESTIMATORS)}.{hint}"
        )
    _, *parameters = inspect.signature(estimator).parameters.values()
    known = [parameter.name for parameter in parameters]
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise InvalidInput(
            f"{name} has no setting {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
        )
    required = [item.name for item in parameters if item.default is inspect.Parameter.empty]
    missing = [setting for setting in required if setting not in settings]
    if missing:
        raise InvalidInput(f"{name} needs {', '.join(missing)}")
    return estimator(batch, **settings)
