"""How well a text answers a question whose gold answers are known."""

import re
import string
from collections import Counter
from collections.abc import Iterable

__all__ = ["exact_match", "normalize_answer", "token_f1"]

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

    >>> exact_match("the Lune.", ["Thames", "lune"])
    True
    """
    normal = normalize_answer(answer)
    return bool(normal) and any(normal == normalize_answer(gold) for gold in golds)


def token_f1(answer: str, golds: Iterable[str]) -> float:
    """Return the best F1 in [0, 1] between the answer's words and those of a gold answer.

    2 c / (m + n), for c words in common of m and n words. Source: the evaluations of SQuAD v1.1
    (arXiv 1606.05250) and, for yes, no and noanswer, HotpotQA (Yang et al. 2018, arXiv 1809.09600).

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
