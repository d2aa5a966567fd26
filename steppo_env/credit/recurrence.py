"""The one recurrence of credit assignment: y_j = x_j + c y_{j+1}, backwards within each segment.

A segment is a trajectory: its steps, or its tokens. Nothing flows from one segment into another.
"""

from functools import lru_cache

import numpy as np
from scipy.linalg import get_lapack_funcs

from steppo_env.credit.segments import ROW, Floats, Segments
from steppo_env.errors import SteppoError

__all__ = ["discounted_sums", "varying_sums"]

SHORT = 32
"""Longest segment that is one row of its own."""
CHUNK_WORK = 1 << 18
"""Multiplications of one matrix product: below the size from which BLAS starts its threads."""
VECTOR_WORK = 1 << 13
"""The same for a product with a vector."""


def discounted_sums(
    x: Floats,
    coefficient: float,
    segments: Segments,
    out: Floats | None = None,
    *,
    is_scratch: bool = False,
) -> Floats:
    """Return y with y_j = x_j + coefficient * y_{j+1}, and y = 0 after each segment's end.

    A row of elements is one product with the matrix T[i, j] = coefficient^(i - j) for i >= j. Short
    segments have a row each. Long ones are cut into rows of sixteen; what flows from row to row is the
    same recurrence over the first elements of the rows, sixteen times shorter. So the cost is linear,
    and there is no Python loop over elements.

    Args:
        x: Shape (total,).
        out: Where to put the result; None makes a new array.
        is_scratch: True when `x` may be written over, which saves a copy.

    >>> discounted_sums(np.array([1.0, 2.0, 4.0, 8.0]), 0.5, Segments(np.array([3, 1])))
    array([3., 4., 4., 8.])
    """
    y = np.empty_like(x) if out is None else out
    if segments.longest <= SHORT:
        _short_sums(x, coefficient, segments, y)
        return y
    for piece in segments.pieces:
        own = x[piece.elements] if is_scratch else x[piece.elements].copy()
        _long_sums(own, coefficient, piece.segments, y[piece.elements])
    return y


def _short_sums(x: Floats, coefficient: float, segments: Segments, y: Floats) -> None:
    """Fill y: one row a segment, padded with zeros at its end, from where the recurrence comes."""
    places, width = segments.padded_places, segments.longest
    rows = np.zeros(len(segments.lengths) * width)
    rows[places] = x
    product = np.empty_like(rows)
    matrix = _matrix(coefficient, width)
    _times(rows.reshape(-1, width), matrix, product.reshape(-1, width))
    product.take(places, out=y, mode="clip")


def _long_sums(x: Floats, coefficient: float, segments: Segments, y: Floats) -> None:
    """Fill y: rows of sixteen, those that hold parts of several segments by a product of their own.

    What flows into a row from the next one is added to the row's last element, so x is written over.
    """
    rows, matrix = segments.rows, _matrix(coefficient, ROW)
    full = x[: rows.num_full * ROW].reshape(-1, ROW)
    mixed = x[rows.mixed_places] * rows.is_there
    mixed_matrix = rows.is_together * matrix

    first = np.zeros(rows.num_rows)
    _times(full, matrix[:, :1], first[: rows.num_full, None])
    first[rows.mixed] = np.einsum("mi,mi->m", mixed, mixed_matrix[:, :, 0])
    first = discounted_sums(first, coefficient**ROW, rows.runs, is_scratch=True)
    carried = np.zeros(rows.num_rows)
    np.multiply(first[1:], rows.goes_on[:-1], out=carried[:-1])
    carried *= coefficient

    full[:, -1] += carried[: rows.num_full]
    mixed[:, -1] += carried[rows.mixed]
    _times(full, matrix, y[: rows.num_full * ROW].reshape(-1, ROW))
    mixed_product = np.einsum("mi,mij->mj", mixed, mixed_matrix)
    y[rows.own_places] = mixed_product.reshape(-1)[rows.own]


@lru_cache(maxsize=64)
def _matrix(coefficient: float, width: int) -> Floats:
    """Return T[i, j] = coefficient^(i - j) for i >= j, else 0; shape (width, width)."""
    powers = coefficient ** np.arange(width, dtype=np.float64)
    distance = np.arange(width)[:, None] - np.arange(width)[None, :]
    matrix = np.where(distance >= 0, powers[np.abs(distance)], 0.0)
    matrix.flags.writeable = False
    return matrix


def _times(rows: Floats, matrix: Floats, product: Floats) -> None:
    """Fill the product of rows and matrix.

    In chunks that stay in the cache and are too small for BLAS to start its threads: these cost more
    than they bring here, and a result must not depend on how many there are.
    """
    num_rows = (CHUNK_WORK if matrix.shape[1] > 1 else VECTOR_WORK) // matrix.size
    for start in range(0, len(rows), num_rows):
        chunk = slice(start, start + num_rows)
        np.matmul(rows[chunk], matrix, out=product[chunk])


def varying_sums(x: Floats, coefficients: Floats, segments: Segments) -> Floats:
    """Return y with y_j = x_j + coefficients_j * y_{j+1}, and y = 0 after each segment's end.

    This is the solution of a bidiagonal system, which LAPACK's tridiagonal solver finds by the very
    recurrence: its lower diagonal is zero, so nothing is pivoted.

    >>> varying_sums(np.array([1.0, 2.0, 4.0]), np.array([0.5, 1.0, 9.0]), Segments(np.array([3])))
    array([4., 6., 4.])
    """
    if len(x) == 1:
        return x.copy()
    upper = -coefficients[:-1].copy()
    upper[segments.last[:-1]] = 0.0
    lower, diagonal = np.zeros(len(x) - 1), np.ones(len(x))
    (solve,) = get_lapack_funcs(("gtsv",), (x,))
    *_, solution, info = solve(lower, diagonal, upper, x[:, None], 1, 1, 1)
    if info != 0:
        raise SteppoError(f"LAPACK's dgtsv failed with info {info}")
    solved: Floats = solution[:, 0]
    return solved
