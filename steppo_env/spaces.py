"""The gymnasium space of model text."""

from typing import Any

import gymnasium
import numpy as np

__all__ = ["TextSpace"]

_ALPHABET = "abcdefghijklmnopqrstuvwxyz "


class TextSpace(gymnasium.Space[str]):
    """Every string of at most `max_length` characters.

    gymnasium.spaces.Text wants its character set enumerated, and a model may write any of Unicode's.
    """

    def __init__(self, max_length: int, seed: int | np.random.Generator | None = None) -> None:
        if max_length < 1:
            raise ValueError(f"max_length is at least 1, not {max_length}")
        self.max_length = max_length
        super().__init__(dtype=str, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: text has no fixed-size vector form."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Return a few random lower-case words; neither mask nor probability applies to text."""
        if mask is not None or probability is not None:
            raise ValueError("TextSpace.sample takes neither mask nor probability")
        length = int(self.np_random.integers(1, min(self.max_length, 32) + 1))
        return "".join(self.np_random.choice(list(_ALPHABET), size=length))

    def contains(self, x: Any) -> bool:
        """Return True for a string that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSpace) and other.max_length == self.max_length

    def __repr__(self) -> str:
        return f"TextSpace(max_length={self.max_length})"
