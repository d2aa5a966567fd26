"""How a flat array is divided into segments: trajectories into steps, or into tokens."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["ROW", "Floats", "Integers", "Piece", "Rows", "Segments"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

ROW = 16
"""Elements of a row."""
PIECE = 1 << 18
"""Elements of a piece: what is made of one on the way stays in the cache."""


@dataclass(frozen=True)
class Segments:
    """How a flat array is divided into consecutive segments.

    Attributes:
        lengths: Number of elements of each, shape (S,), at least 1.
    """

    lengths: Integers

    @cached_property
    def offsets(self) -> Integers:
        """Where each segment begins, and where the last one ends; shape (S + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    @cached_property
    def first(self) -> Integers:
        """Index of each segment's first element, shape (S,)."""
        return self.offsets[:-1]

    @cached_property
    def last(self) -> Integers:
        """Index of each segment's last element, shape (S,)."""
        return self.offsets[1:] - 1

    @cached_property
    def total(self) -> int:
        """Number of elements of all segments."""
        return int(self.offsets[-1])

    @cached_property
    def owner(self) -> Integers:
        """Which segment each element is of, shape (total,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def longest(self) -> int:
        """Number of elements of the longest segment."""
        return int(self.lengths.max())

    @cached_property
    def padded_places(self) -> Integers:
        """Place of each element when every segment has a row of `longest` elements, shape (total,)."""
        shift = np.arange(len(self.lengths)) * self.longest - self.first
        return np.arange(self.total) + shift[self.owner]

    @cached_property
    def rows(self) -> "Rows":
        """The flat array cut into rows, whatever segments they hold."""
        return Rows(self)

    @cached_property
    def pieces(self) -> "list[Piece]":
        """Runs of whole segments, of about `PIECE` elements each, with their place."""
        number = self.offsets[1:] // PIECE
        starts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(self.lengths)]
        return [
            Piece(
                slice(int(self.offsets[start]), int(self.offsets[end])),
                slice(start, end),
                Segments(self.lengths[start:end]),
            )
            for start, end in pairwise(starts)
        ]

    def sums(self, x: Floats) -> Floats:
        """Return the sum of each segment, shape (S,)."""
        summed: Floats = np.add.reduceat(x, self.first)
        return summed

    def shifted(self, x: Floats, factor: float, after: Floats, out: Floats) -> Floats:
        """Return factor * x_{j+1} for each element, and `after` for the last of each, put into `out`."""
        following = out[: self.total]
        np.multiply(x[1:], factor, out=following[:-1])
        following[self.last] = after
        return following

    def next_of(self, x: Floats, after: Floats) -> Floats:
        """Return x_{j+1} for each element; `after` follows the last one of each segment."""
        following = np.empty_like(x)
        following[:-1] = x[1:]
        following[self.last] = after
        return following


@dataclass(frozen=True)
class Piece:
    """A run of whole segments.

    Attributes:
        elements: Which elements of the flat array they hold.
        members: Which segments they are.
        segments: How the elements of this piece divide into them.
    """

    elements: slice
    members: slice
    segments: Segments


class Rows:
    """A flat array cut into rows of `ROW` elements; the last one may be short.

    Attributes:
        num_rows: With the short one.
        num_full: Without it.
        runs: How the rows divide into runs: nothing flows into a row's first element from a row
            beyond its run, because a segment ends in the run's last row.
        goes_on: 1 where a row's last element and the next row's first are of one segment, else 0.
        mixed: The rows that are not 16 elements of one segment, shape (M,).
        mixed_places: Index of each of their elements, shape (M, ROW); beyond the end it is 0.
        own, own_places: Place in a flat (M * ROW,) and index of those that are elements at all.
        is_there: 1 where those are elements at all, else 0, shape (M, ROW).
        is_together: 1 where two elements of a mixed row are of one segment, shape (M, ROW, ROW).
    """

    def __init__(self, segments: Segments) -> None:
        total, ends = segments.total, segments.offsets[1:]
        self.num_rows = -(-total // ROW)
        self.num_full = total // ROW
        end_rows = np.unique((ends - 1) // ROW)
        self.runs = Segments(np.diff(end_rows, prepend=-1))
        self.goes_on = np.ones(self.num_rows)
        self.goes_on[ends[ends % ROW == 0] // ROW - 1] = 0.0
        self.goes_on[-1] = 0.0
        self.mixed = np.unique(ends[ends % ROW != 0] // ROW)
        places = self.mixed[:, None] * ROW + np.arange(ROW)[None, :]
        within = places < total
        self.is_there = within.astype(np.float64)
        self.mixed_places = np.where(within, places, 0)
        self.own_places = places[within]
        self.own = np.flatnonzero(within)
        owner = np.where(within, segments.owner[self.mixed_places], -1)
        self.is_together = (owner[:, :, None] == owner[:, None, :]).astype(np.float64)
