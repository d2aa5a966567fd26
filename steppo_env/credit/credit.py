"""What an estimator returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from steppo_env.credit.segments import Floats

__all__ = ["Credit"]


@dataclass(frozen=True, eq=False)
class Credit:
    """Raw advantages and returns: nothing is whitened here, `normalize` is a step of its own.

    Attributes:
        advantages: Shape (N,) for level "step", in the order of the input rows; shape (K,) for level
            "token", concatenated over the input rows.
        returns: Targets of a critic, the same shape.
        level: What one element stands for.
        diagnostics: Arrays of the same shape, such as `delta` and `next_value`.
        counts: What a reader of the numbers should know, such as `num_singleton_groups`.
    """

    advantages: Floats
    returns: Floats
    level: Literal["step", "token"] = "step"
    diagnostics: Mapping[str, Floats] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
