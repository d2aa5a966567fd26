"""How well a ranking finds what it was to find."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from steppo_env.errors import InvalidInput

__all__ = ["RetrievalScore", "retrieval_score"]


@dataclass(frozen=True, slots=True)
class RetrievalScore:
    """Precision, recall and their harmonic mean, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


def retrieval_score(
    ranked: Sequence[str], gold: Collection[str], k: int | None = None
) -> RetrievalScore:
    """Score the first `k` of a ranking (all of it for None) against a gold set.

    A repeated id counts once, at its first place. Nothing found scores precision 0.

    Raises:
        InvalidInput: `gold` is empty, so that recall is not defined, or `k` is below 1.

    >>> retrieval_score(["a", "b", "c", "d"], {"a", "d"}, k=2)
    RetrievalScore(precision=0.5, recall=0.5, f1=0.5)
    """
    wanted = set(gold)
    if not wanted:
        raise InvalidInput("recall needs at least one gold id; got an empty set")
    if k is not None and k < 1:
        raise InvalidInput(f"k is at least 1, or None for the whole ranking; got {k}")
    found = list(dict.fromkeys(ranked))[:k]
    hits = len(wanted.intersection(found))
    precision = hits / len(found) if found else 0.0
    recall = hits / len(wanted)
    f1 = 2 * hits / (len(found) + len(wanted))
    return RetrievalScore(precision, recall, f1)
