"""Ragged batches as plain Python lists, from which the tests compute by loops."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from steppo_env.credit import StepBatch

Floats = Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Rows:
    """The arguments of `StepBatch.from_arrays`: one entry a row, or one a trajectory."""

    trajectory: list[str]
    step: list[int]
    reward: list[float]
    value: list[float]
    anchor: list[str]
    response_length: list[int]
    token_value: list[list[float]]
    token_reward: list[list[float]]
    terminated: dict[str, bool]
    bootstrap_value: dict[str, float]
    group: dict[str, str]
    forks: dict[tuple[str, int], list[list[float]]] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return len(self.step)

    @property
    def magnitude(self) -> float:
        """A bound on every sum of rewards and values."""
        lists = (*self.token_reward, *self.token_value, *chain(*self.forks.values()))
        numbers = chain(self.reward, self.value, self.bootstrap_value.values(), *lists)
        return 1.0 + sum(map(abs, numbers))

    def batch(self, *without: str) -> StepBatch:
        """Return the batch, leaving the arguments `without` out."""
        names = [each.name for each in fields(self) if each.name not in without]
        return StepBatch.from_arrays(**{name: getattr(self, name) for name in names})

    def episodes(self) -> dict[str, list[int]]:
        """Return the rows of each trajectory, in step order."""
        found: dict[str, list[int]] = {}
        for row in sorted(range(self.num_rows), key=lambda row: self.step[row]):
            found.setdefault(self.trajectory[row], []).append(row)
        return found

    def step_reward(self, row: int) -> float:
        return self.reward[row] + sum(self.token_reward[row])

    def value_after(self, name: str) -> float:
        """Return the value of what follows a trajectory's last step."""
        return 0.0 if self.terminated[name] else self.bootstrap_value[name]

    def return_of(self, name: str) -> float:
        """Return R: the rewards of a trajectory and, when truncated, what it bootstraps from."""
        rows = self.episodes()[name]
        return sum(self.step_reward(row) for row in rows) + self.value_after(name)

    def to_go(self, gamma: float) -> list[float]:
        """Return G of each row: the discounted sum of what is still to come."""
        found = [0.0] * self.num_rows
        for name, rows in self.episodes().items():
            carry = self.value_after(name)
            for row in reversed(rows):
                found[row] = carry = self.step_reward(row) + gamma * carry
        return found

    def tokens(self) -> list[tuple[int, int]]:
        """Return (row, position) of each token, over the rows as they stand."""
        return [
            (row, at) for row in range(self.num_rows) for at in range(self.response_length[row])
        ]

    def permuted(self, order: Sequence[int]) -> "Rows":
        """Return the same batch with its rows in another order."""
        per_row = ("trajectory", "step", "reward", "value", "anchor", "response_length")
        names = (*per_row, "token_value", "token_reward")
        moved: dict[str, Any] = {n: [getattr(self, n)[row] for row in order] for n in names}
        return replace(self, **moved)

    def doubled(self) -> "Rows":
        """Return the batch twice, the second time under new ids and groups."""
        return Rows(
            [*self.trajectory, *(f"{name}'" for name in self.trajectory)],
            self.step * 2,
            self.reward * 2,
            self.value * 2,
            self.anchor * 2,
            self.response_length * 2,
            self.token_value * 2,
            self.token_reward * 2,
            self.terminated | {f"{name}'": each for name, each in self.terminated.items()},
            self.bootstrap_value | {f"{n}'": each for n, each in self.bootstrap_value.items()},
            self.group | {f"{name}'": f"{each}'" for name, each in self.group.items()},
            self.forks | {(f"{name}'", at): each for (name, at), each in self.forks.items()},
        )


@st.composite
def ragged(draw: st.DrawFn, max_tokens: int = 4) -> Rows:
    """Draw a batch: up to 6 trajectories of up to 6 steps, rows shuffled, few anchors and groups.

    The shape is hypothesis's own, so that a failure shrinks; the numbers come from a drawn seed.
    """
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    truncated = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1.0, 1e-3, 1e4]))

    def number() -> float:
        # Zeros and ties are the common case of real rewards.
        return scale * rng.choice([0.0, 1.0, rng.gauss(0.0, 1.0), rng.gauss(0.0, 1.0)])

    names = [f"t{index}" for index in range(len(lengths))]
    cells = [(name, at) for name, length in zip(names, lengths) for at in range(length)]
    rng.shuffle(cells)
    num_tokens = [rng.randint(1, max_tokens) for _ in cells]
    token_value = [[number() for _ in range(count)] for count in num_tokens]
    return Rows(
        [name for name, _ in cells],
        [at for _, at in cells],
        [number() for _ in cells],
        [values[0] for values in token_value],
        [rng.choice(["hall", "attic", "cellar"]) for _ in cells],
        num_tokens,
        token_value,
        [[number() for _ in range(count)] for count in num_tokens],
        {name: not cut for name, cut in zip(names, truncated)},
        {name: number() for name in names},
        {name: rng.choice(["g0", "g1", "g2"]) for name in names},
        {
            cell: [[number() for _ in range(rng.randint(1, 4))] for _ in range(rng.randint(1, 3))]
            for cell in cells
        },
    )


ANY_SPEED = settings(deadline=None)
"""A busy machine is no failure."""

UNIT = st.one_of(st.sampled_from([0.0, 0.5, 0.95, 1.0]), st.floats(0.0, 1.0))
"""Discounts, the borders among them."""


def assert_close(got: Floats, expected: Floats, magnitude: float = 1.0) -> None:
    """Assert equality to 1e-12 of the magnitude of what was summed."""
    assert np.shape(got) == np.shape(expected)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * magnitude, equal_nan=False)
