"""Checks of what an estimator is told."""

import math

from steppo_env.errors import InvalidInput

__all__ = ["check_discount", "check_setting"]


def check_discount(name: str, value: float) -> None:
    """Check that a discount or a lambda is a number in [0, 1].

    Raises:
        InvalidInput: It is not.
    """
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise InvalidInput(f"{name} is a number in [0, 1], not {value!r}")


def check_setting(name: str, value: float, least: float = -math.inf) -> None:
    """Check that a setting is a finite number, and not below `least`.

    Raises:
        InvalidInput: It is not.
    """
    if not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        bound = "" if least == -math.inf else f" of at least {least:g}"
        raise InvalidInput(f"{name} is a finite number{bound}, not {value!r}")
