"""Clusters texts that are nearly the same, without comparing each with each.

Candidates come from min-hash signatures in bands (Broder 1997; Leskovec, Rajaraman and Ullman, Mining
of Massive Datasets, section 3.4); each is then verified by the exact similarity, so that a hash can
miss a pair that is just similar enough, but never joins a pair that is not.
"""

import zlib
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from steppo_env.credit.segments import Integers
from steppo_env.errors import InvalidInput

__all__ = ["cluster_similar", "jaccard", "shingles"]

SHINGLE = 5
"""Characters of a shingle."""
NUM_HASHES = 128
NUM_CANDIDATES = 32
"""Most cluster leaders that a text is compared with, so that the cost stays linear."""
PRIME = (1 << 31) - 1

Shingles = frozenset[int]


def shingles(text: str) -> Shingles:
    """Return the checksums of a text's character 5-grams; a shorter text is one shingle."""
    pieces = {text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1))}
    # zlib.crc32 and not hash(): that one differs from process to process.
    return frozenset(zlib.crc32(piece.encode("utf-8", "surrogatepass")) for piece in pieces)


def jaccard(a: Shingles, b: Shingles) -> float:
    """Return the share of common shingles among all, in [0, 1].

    >>> jaccard(shingles("abcdef"), shingles("abcdeX"))
    0.3333333333333333
    """
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def cluster_similar(
    texts: Sequence[str], owners: Sequence[Hashable], similarity: float
) -> Integers:
    """Return the number of each text's cluster, shape (N,).

    In the order given, a text joins the first cluster of its owner whose first member is similar
    enough, else it begins a cluster.

    Args:
        owners: Texts of different owners never share a cluster.
        similarity: Least Jaccard similarity of character 5-grams, in (0, 1].

    Raises:
        InvalidInput: The similarity is out of bounds.
    """
    if not 0.0 < similarity <= 1.0:
        raise InvalidInput(f"similarity is in (0, 1], not {similarity!r}")
    num_rows = _rows_per_band(similarity)
    distinct: dict[tuple[Hashable, str], int] = {}
    leaders: list[Shingles] = []
    buckets: dict[tuple[Hashable, int, bytes], list[int]] = defaultdict(list)
    found = np.empty(len(texts), dtype=np.int64)
    for place, key in enumerate(zip(owners, texts)):
        cluster = distinct.get(key)
        if cluster is None:
            own = shingles(key[1])
            bands = [(key[0], *band) for band in _bands(own, num_rows)]
            cluster = _similar_leader(own, bands, buckets, leaders, similarity)
            if cluster is None:
                cluster = len(leaders)
                leaders.append(own)
                for band in bands:
                    buckets[band].append(cluster)
            distinct[key] = cluster
        found[place] = cluster
    return found


def _similar_leader(
    own: Shingles,
    bands: Sequence[tuple[Hashable, int, bytes]],
    buckets: dict[tuple[Hashable, int, bytes], list[int]],
    leaders: Sequence[Shingles],
    similarity: float,
) -> int | None:
    candidates: dict[int, int] = {}
    for band in bands:
        for leader in buckets.get(band, ())[:NUM_CANDIDATES]:
            candidates[leader] = candidates.get(leader, 0) + 1
    # Those that share most bands are the likeliest; among equals the earliest.
    likely = sorted(candidates, key=lambda leader: (-candidates[leader], leader))
    similar = [
        leader for leader in likely[:NUM_CANDIDATES] if jaccard(own, leaders[leader]) >= similarity
    ]
    return min(similar, default=None)


def _rows_per_band(similarity: float) -> int:
    """Return the widest band with which a pair at the threshold is missed at most once in 1,000.

    A pair of similarity s shares a band of r rows with probability s^r; with b = 128 / r bands it is
    missed with probability (1 - s^r)^b.
    """
    for num_rows in (16, 8, 4, 2):
        if (1.0 - similarity**num_rows) ** (NUM_HASHES // num_rows) <= 1e-3:
            return num_rows
    return 1


_RNG = np.random.default_rng(2604_18401)
_FACTORS = _RNG.integers(1, PRIME, size=(NUM_HASHES, 1), dtype=np.uint64)
_OFFSETS = _RNG.integers(0, PRIME, size=(NUM_HASHES, 1), dtype=np.uint64)


def _bands(own: Shingles, num_rows: int) -> list[tuple[int, bytes]]:
    """Return the min-hash signature in bands of `num_rows` hashes."""
    values = np.fromiter(own, dtype=np.uint64, count=len(own)) % np.uint64(PRIME)
    # Factors and values are below 2^31, so that products stay below 2^62.
    hashed = (_FACTORS * values[None, :] + _OFFSETS) % np.uint64(PRIME)
    signature = hashed.min(axis=1).astype(np.uint32).reshape(-1, num_rows)
    return [(band, row.tobytes()) for band, row in enumerate(signature)]
