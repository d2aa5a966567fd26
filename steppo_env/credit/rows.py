"""Reads raw arrays in any row order, and names the trajectory in which something is wrong."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steppo_env.credit.segments import Floats, Integers, Segments
from steppo_env.errors import InvalidInput

__all__ = ["ForkReturns", "Forks", "Rows"]

Ids = npt.NDArray[np.generic]
Forks = Mapping[tuple[str | int, int], Sequence[Sequence[float]]]
"""Rewards of the continuations sampled from the state of a step, by (trajectory, step).

For a truncated continuation the value of the state it stopped in stands at the end.
"""


@dataclass(frozen=True, eq=False)
class ForkReturns:
    """Continuations sampled from states of a batch, F of them.

    Attributes:
        owner: The step, among those of the batch, from whose state each was sampled, shape (F,).
        reward: Their rewards, one continuation after the other.
        segments: How the rewards divide into continuations.
    """

    owner: Integers
    reward: Floats
    segments: Segments


class Rows:
    """N rows, sorted into (trajectory, step) order.

    Attributes:
        ids: The trajectories' ids, sorted, shape (n,).
        step: Index of each step in its trajectory, shape (N,).
        order: Input row of each step, shape (N,).
        segments: How the N steps divide into trajectories.
    """

    def __init__(self, trajectory: object, step: object) -> None:
        self.ids, codes = _ids(trajectory)
        self.num_rows = len(codes)
        if self.num_rows == 0:
            raise InvalidInput("a batch has at least one step; got none")
        index = self._integers("step", step)
        self.order: Integers = np.lexsort((index, codes))
        self.step: Integers = index[self.order]
        self.segments = Segments(np.bincount(codes))
        self._check_dense()

    def per_step(self, name: str, values: npt.ArrayLike) -> Floats:
        """Return one finite float for each step."""
        found = _floats(name, values)
        self._check_shape(name, found.shape)
        found = found[self.order]
        self._check_finite(name, found, self.segments.owner)
        return found

    def texts(self, name: str, values: Sequence[str]) -> "npt.NDArray[np.object_]":
        """Return one string for each step."""
        self._check_shape(name, (len(values),))
        wrong = next((value for value in values if not isinstance(value, str)), None)
        if wrong is not None:
            raise InvalidInput(f"{name} holds strings, not {wrong!r}")
        return np.array(list(values), dtype=object)[self.order]

    def response_lengths(self, values: object) -> Integers:
        """Return the number of tokens of each step's response, at least 1."""
        lengths = self._integers("response_length", values)[self.order]
        (empty,) = np.nonzero(lengths < 1)
        if len(empty):
            raise InvalidInput(
                f"{self._where(int(empty[0]))}: a response has at least one token, not "
                f"{lengths[empty[0]]}; its reward would have no place"
            )
        return lengths

    def per_token(self, name: str, rows: Sequence[npt.ArrayLike], lengths: Integers) -> Floats:
        """Return one finite float for each response token, flat."""
        self._check_shape(name, (len(rows),))
        pieces = [_floats(name, rows[row]) for row in self.order.tolist()]
        for place, (piece, length) in enumerate(zip(pieces, lengths.tolist())):
            if piece.shape != (length,):
                raise InvalidInput(
                    f"{self._where(place)}: {name} has shape {piece.shape}, the response has "
                    f"{length} tokens"
                )
        flat = np.concatenate(pieces)
        self._check_finite(name, flat, np.repeat(self.segments.owner, lengths))
        return flat

    def flags(
        self, name: str, values: Mapping[str, bool] | Mapping[int, bool] | None
    ) -> "npt.NDArray[np.bool_]":
        """Return one flag for each trajectory, True without a mapping."""
        if values is None:
            return np.ones(len(self.ids), dtype=bool)
        found = self.by_id(name, values)
        for trajectory, flag in zip(self.ids, found):
            if not isinstance(flag, bool | np.bool_):
                raise InvalidInput(
                    f"trajectory {trajectory}: {name} is True or False, not {flag!r}"
                )
        return np.array(found, dtype=bool)

    def values_of(
        self, name: str, values: Mapping[str, float] | Mapping[int, float] | None
    ) -> Floats:
        """Return one float for each trajectory, NaN where the mapping says nothing."""
        known: dict[str | int, float] = {} if values is None else dict(values.items())
        self._check_known(name, known)
        found = np.full(len(self.ids), np.nan)
        for place, trajectory in enumerate(self.ids.tolist()):
            if trajectory in known:
                value = _floats(name, known[trajectory])
                if value.shape != () or not np.isfinite(value):
                    raise InvalidInput(
                        f"trajectory {trajectory}: {name} is a finite number, not "
                        f"{known[trajectory]!r}"
                    )
                found[place] = value
        return found

    def groups(
        self, values: Mapping[str, Hashable] | Mapping[int, Hashable] | None
    ) -> Integers | None:
        """Return the number of each trajectory's group."""
        if values is None:
            return None
        numbers: dict[Hashable, int] = {}
        found = [numbers.setdefault(group, len(numbers)) for group in self.by_id("group", values)]
        return np.array(found, dtype=np.int64)

    def by_id(
        self, name: str, values: Mapping[str, Hashable] | Mapping[int, Hashable]
    ) -> list[Hashable]:
        """Return what a mapping says of each trajectory, in the order of the ids."""
        known: dict[str | int, Hashable] = dict(values.items())
        self._check_known(name, known)
        missing = [trajectory for trajectory in self.ids.tolist() if trajectory not in known]
        if missing:
            raise InvalidInput(f"{name} says nothing of trajectory {missing[0]}")
        return [known[trajectory] for trajectory in self.ids.tolist()]

    def forks(self, values: Forks | None) -> "ForkReturns | None":
        """Return the continuations, each checked to be of a step of the batch."""
        if values is None:
            return None
        places = {trajectory: place for place, trajectory in enumerate(self.ids.tolist())}
        owners: list[int] = []
        rewards: list[Floats] = []
        for (trajectory, step), continuations in values.items():
            place = places.get(trajectory)
            is_index = isinstance(step, int | np.integer) and not isinstance(step, bool)
            if place is None or not is_index or not 0 <= step < self.segments.lengths[place]:
                raise InvalidInput(f"forks names trajectory {trajectory!r}, step {step!r}: no such")
            for continuation in continuations:
                found = _floats("forks", continuation)
                if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
                    raise InvalidInput(
                        f"trajectory {trajectory}, step {step}: the rewards of a continuation are "
                        f"finite numbers, at least one, not {list(continuation)}"
                    )
                owners.append(int(self.segments.first[place]) + step)
                rewards.append(found)
        if not rewards:
            return None
        lengths = np.array([len(found) for found in rewards], dtype=np.int64)
        return ForkReturns(np.array(owners), np.concatenate(rewards), Segments(lengths))

    def _where(self, place: int) -> str:
        trajectory = self.ids[self.segments.owner[place]]
        return f"trajectory {trajectory}, step {self.step[place]}"

    def _integers(self, name: str, values: object) -> Integers:
        found = np.asarray(values)
        self._check_shape(name, found.shape)
        if found.dtype.kind not in "iu":
            raise InvalidInput(f"{name} holds integers, not values of type {found.dtype}")
        return found.astype(np.int64)

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if shape != (self.num_rows,):
            raise InvalidInput(
                f"{name} has shape {shape}; the {len(self.ids)} trajectories, from "
                f"{self.ids[0]} on, have {self.num_rows} rows"
            )

    def _check_dense(self) -> None:
        expected = np.arange(self.num_rows) - self.segments.first[self.segments.owner]
        (wrong,) = np.nonzero(self.step != expected)
        if not len(wrong):
            return
        place = int(wrong[0])
        trajectory = self.ids[self.segments.owner[place]]
        is_twice = place > 0 and expected[place] > 0 and self.step[place] == self.step[place - 1]
        fault = (
            f"step {self.step[place]} stands twice"
            if is_twice
            else f"there is no step {expected[place]}, but a step {self.step[place]}"
        )
        raise InvalidInput(
            f"trajectory {trajectory}: {fault}; its steps are 0, 1, 2, ... once each"
        )

    def _check_finite(self, name: str, values: Floats, owner: Integers) -> None:
        (wrong,) = np.nonzero(~np.isfinite(values))
        if len(wrong):
            trajectory = self.ids[owner[wrong[0]]]
            raise InvalidInput(f"trajectory {trajectory}: {name} holds {values[wrong[0]]}")

    def _check_known(self, name: str, keys: Iterable[str | int]) -> None:
        known = set(self.ids.tolist())
        unknown = [key for key in keys if key not in known]
        if unknown:
            raise InvalidInput(f"{name} names trajectory {unknown[0]!r}, which the batch lacks")


def _ids(trajectory: object) -> tuple[Ids, Integers]:
    found = np.asarray(trajectory)
    if isinstance(trajectory, Sequence):
        kinds = {type(item) for item in trajectory}
        if len(kinds) > 1:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise InvalidInput(f"trajectory ids are all strings or all integers, not {names}")
    if found.ndim != 1 or (len(found) and found.dtype.kind not in "iuU"):
        raise InvalidInput(
            f"trajectory is a flat list of strings or integers, not of shape {found.shape} and type "
            f"{found.dtype}"
        )
    ids, codes = np.unique(found, return_inverse=True)
    return ids, codes


def _floats(name: str, values: npt.ArrayLike) -> Floats:
    try:
        found = np.asarray(values)
        if found.dtype.kind not in "iuf":
            raise ValueError(f"values of type {found.dtype}")
        return found.astype(np.float64)
    except ValueError as error:
        raise InvalidInput(f"{name} holds numbers: {error}") from None
