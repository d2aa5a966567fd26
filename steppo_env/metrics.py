"""Scores of answers and rankings, and what a sample of episodes says about a success rate."""

import math
import re
import string
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

__all__ = [
    "RetrievalScore",
    "exact_match",
    "normalize_answer",
    "pass_at_k",
    "retrieval_score",
    "token_f1",
    "wilson_interval",
]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CLOSED = (["yes"], ["no"], ["noanswer"])
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Return an answer in SQuAD's normal form: lower case, no punctuation, articles or extra space.

    Source: the evaluation of SQuAD v1.1 (Rajpurkar et al. 2016, arXiv 1606.05250).

    >>> normalize_answer("The  Battle of Guam!")
    'battle of guam'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Iterable[str]) -> bool:
    """Return whether an answer equals any gold answer after normalisation.

    An answer that normalises to nothing matches nothing.
    """
    normal = normalize_answer(answer)
    return bool(normal) and any(normal == normalize_answer(gold) for gold in golds)


def token_f1(answer: str, golds: Iterable[str]) -> float:
    """Return the best F1 in [0, 1] between the answer's words and those of a gold answer.

    >>> token_f1("in northern France", ["France"])
    0.5
    """
    return max((_f1_of_words(answer, gold) for gold in golds), default=0.0)


def _f1_of_words(answer: str, gold: str) -> float:
    ours, theirs = normalize_answer(answer).split(), normalize_answer(gold).split()
    if ours in _CLOSED or theirs in _CLOSED:
        # HotpotQA's rule: a closed answer is right as a whole or not at all. Only a whole answer is
        # closed: "No Country for Old Men" is not.
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


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
        ValueError: `gold` is empty, so that recall is not defined, or `k` is below 1.

    >>> retrieval_score(["a", "b", "c", "d"], {"a", "d"}, k=2)
    RetrievalScore(precision=0.5, recall=0.5, f1=0.5)
    """
    wanted = set(gold)
    if not wanted:
        raise ValueError("recall needs at least one gold id; got an empty set")
    if k is not None and k < 1:
        raise ValueError(f"k is at least 1, or None for the whole ranking; got {k}")
    found = list(dict.fromkeys(ranked))[:k]
    hits = len(wanted.intersection(found))
    precision = hits / len(found) if found else 0.0
    recall = hits / len(wanted)
    f1 = 2 * hits / (len(found) + len(wanted))
    return RetrievalScore(precision, recall, f1)


def pass_at_k(num_samples: int, num_successes: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of `k` samples succeeds.

    1 - C(n - c, k) / C(n, k), from n samples with c successes (Chen et al. 2021, arXiv 2107.03374,
    equation 1).

    Raises:
        ValueError: Not 0 <= num_successes <= num_samples, or not 1 <= k <= num_samples.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 0 <= num_successes <= num_samples or not 1 <= k <= num_samples:
        raise ValueError(
            "pass@k needs 0 <= num_successes <= num_samples and 1 <= k <= num_samples; got "
            f"num_samples={num_samples}, num_successes={num_successes}, k={k}"
        )
    return 1.0 - math.comb(num_samples - num_successes, k) / math.comb(num_samples, k)


def wilson_interval(
    num_successes: int, num_trials: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return Wilson's score interval of a success rate (Wilson 1927); (0, 1) without trials.

    Raises:
        ValueError: Not 0 <= num_successes <= num_trials, or not 0 < confidence < 1.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    if not 0 <= num_successes <= num_trials or not 0.0 < confidence < 1.0:
        raise ValueError(
            "needs 0 <= num_successes <= num_trials and 0 < confidence < 1; got "
            f"{num_successes} of {num_trials} at {confidence}"
        )
    if num_trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = num_successes / num_trials
    scale = 1 + z * z / num_trials
    centre = (rate + z * z / (2 * num_trials)) / scale
    spread = z / scale * math.sqrt(rate * (1 - rate) / num_trials + (z / (2 * num_trials)) ** 2)
    # At 0 or all successes the bound is exact; keep rounding from crossing it.
    low = 0.0 if num_successes == 0 else max(0.0, centre - spread)
    high = 1.0 if num_successes == num_trials else min(1.0, centre + spread)
    return low, high
