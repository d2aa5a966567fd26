"""Scores by hand and by brute force."""

import math
from itertools import combinations, permutations
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.metrics import (
    RetrievalScore,
    exact_match,
    normalize_answer,
    pass_at_k,
    retrieval_score,
    token_f1,
    wilson_interval,
)

ANSWERS = st.text(st.sampled_from(list("ab The.yesno ,'é")), max_size=12)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Battle of Guam (1944)", "battle of guam 1944"),
        ("  a\tAn the  ", ""),
        ("U.S.A.", "usa"),
        # Punctuation goes first, so that what it hid from the articles is seen.
        ("the-end, a.", "theend"),
        ("theatre annals a-b", "theatre annals ab"),
        ("Élan, ÉTÉ", "élan été"),
        ("1,000 km²", "1000 km²"),
        ("The The", ""),
    ],
)
def test_normal_form_is_squads(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@given(st.text())
def test_normal_form_is_stable_under_case_space_and_punctuation(text: str) -> None:
    normal = normalize_answer(text)
    assert normalize_answer(f"  {text} !? ") == normal
    assert normal == " ".join(normal.split())


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [
        ("the Lune.", ["Thames", "lune"], True),
        ("Lune river", ["Lune"], False),
        ("Lune", [], False),
        ("the", ["a"], False),
        ("", [""], False),
        ("Yes", ["yes"], True),
    ],
)
def test_exact_match(answer: str, golds: list[str], expected: bool) -> None:
    assert exact_match(answer, golds) is expected


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [
        ("in northern France", ["France"], 2 * 1 / (3 + 1)),
        ("a b c", ["b c d e"], 2 * 2 / (2 + 4)),  # the article goes
        ("x x y", ["x y y"], 2 * 2 / (3 + 3)),  # words count as often as in both
        ("x", ["y", "x z"], 2 * 1 / (1 + 2)),  # the best gold counts
        ("", ["x"], 0.0),
        ("x", [], 0.0),
        ("the", ["an"], 0.0),
        ("yes it is", ["yes"], 0.0),
        ("yes", ["yes it is"], 0.0),
        ("Yes!", ["yes"], 1.0),
        ("no answer", ["noanswer"], 0.0),
        # "no" inside a longer answer is a word like another: 2 * 5 / (6 + 5)
        ("No Country for Old Men film", ["No Country for Old Men"], 10 / 11),
        ("Dr. No", ["No. Dr."], 1.0),
    ],
)
def test_token_f1(answer: str, golds: list[str], expected: float) -> None:
    assert token_f1(answer, golds) == pytest.approx(expected)


@given(ANSWERS, ANSWERS)
def test_f1_is_symmetric_bounded_and_1_on_a_match(answer: str, gold: str) -> None:
    score = token_f1(answer, [gold])
    assert 0.0 <= score <= 1.0
    assert score == token_f1(gold, [answer])
    if exact_match(answer, [gold]):
        assert score == 1.0


@given(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=4))
def test_another_gold_never_lowers_a_score(answer: str, golds: list[str]) -> None:
    assert token_f1(answer, golds) >= token_f1(answer, golds[:1])
    assert exact_match(answer, golds) >= exact_match(answer, golds[:1])


@pytest.mark.parametrize(
    ("ranked", "k", "precision", "recall", "f1"),
    [
        (["a", "x", "b", "y"], None, 0.5, 2 / 3, 4 / 7),
        (["a", "x", "b", "y"], 1, 1.0, 1 / 3, 0.5),
        (["a", "a", "x", "b"], 2, 0.5, 1 / 3, 0.4),  # the repeat takes no place
        (["a"], 10, 1.0, 1 / 3, 0.5),
        (["x"], None, 0.0, 0.0, 0.0),
        ([], None, 0.0, 0.0, 0.0),
        (["c", "b", "a"], 3, 1.0, 1.0, 1.0),
    ],
)
def test_retrieval_score(
    ranked: list[str], k: int | None, precision: float, recall: float, f1: float
) -> None:
    score = retrieval_score(ranked, {"a", "b", "c"}, k)
    assert score.precision == pytest.approx(precision)
    assert score.recall == pytest.approx(recall)
    assert score.f1 == pytest.approx(f1)


def test_a_repeated_gold_id_counts_once() -> None:
    assert retrieval_score(["a"], ["a", "a"]) == RetrievalScore(1.0, 1.0, 1.0)


def test_recall_without_gold_and_cuts_below_1_are_refused() -> None:
    with pytest.raises(ValueError, match="empty set"):
        retrieval_score(["a"], [])
    for k in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            retrieval_score(["a", "b"], ["a"], k)


@given(
    st.lists(st.sampled_from("abcdef"), max_size=8),
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.integers(1, 9),
)
def test_recall_grows_with_k_and_f1_is_the_harmonic_mean(
    ranked: list[str], gold: set[str], k: int
) -> None:
    score, longer = retrieval_score(ranked, gold, k), retrieval_score(ranked, gold, k + 1)
    assert score.recall <= longer.recall
    total = score.precision + score.recall
    mean = 2 * score.precision * score.recall / total if total else 0.0
    assert score.f1 == pytest.approx(mean)


def test_pass_at_k_is_the_share_of_draws_with_a_success() -> None:
    for num_samples in range(1, 8):
        for num_successes in range(num_samples + 1):
            outcomes = [1] * num_successes + [0] * (num_samples - num_successes)
            for k in range(1, num_samples + 1):
                draws = list(combinations(outcomes, k))
                expected = sum(any(draw) for draw in draws) / len(draws)
                assert pass_at_k(num_samples, num_successes, k) == pytest.approx(expected)


def test_pass_at_k_is_unbiased() -> None:
    """Its mean over all samples of 4 from {success 1/2} is the true 1 - (1/2)^2 for k = 2."""
    chances = {count: math.comb(4, count) / 16 for count in range(5)}
    mean = sum(chance * pass_at_k(4, count, 2) for count, chance in chances.items())
    assert mean == pytest.approx(0.75)


@given(st.integers(1, 300), st.data())
def test_pass_at_k_grows_with_k_and_with_successes(num_samples: int, data: st.DataObject) -> None:
    num_successes = data.draw(st.integers(0, num_samples))
    k = data.draw(st.integers(1, num_samples))
    value = pass_at_k(num_samples, num_successes, k)
    assert 0.0 <= value <= 1.0
    assert pass_at_k(num_samples, num_successes, 1) == pytest.approx(num_successes / num_samples)
    assert pass_at_k(num_samples, num_successes, num_samples) == (num_successes > 0)
    if k < num_samples:
        assert pass_at_k(num_samples, num_successes, k + 1) >= value
    if num_successes < num_samples:
        assert pass_at_k(num_samples, num_successes + 1, k) >= value


def test_pass_at_k_of_large_samples_does_not_overflow() -> None:
    # 1 - C(9000, 2) / C(10000, 2) = 1 - (9000 * 8999) / (10000 * 9999)
    assert pass_at_k(10_000, 1_000, 2) == pytest.approx(1 - 80_991_000 / 99_990_000)
    assert pass_at_k(10_000, 1_000, 5_000) == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5), (0, 0, 1)])
def test_pass_at_k_refuses_what_is_no_sample(bad: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(*bad)


@pytest.mark.parametrize(
    ("num_successes", "num_trials", "low", "high"),
    [
        # z = 1.959964, z^2 = 3.841459
        (8, 10, 0.490162, 0.943318),
        (0, 10, 0.0, 3.841459 / 13.841459),
        (10, 10, 10 / 13.841459, 1.0),
        (1, 2, 0.094531, 0.905469),
        (50, 100, 0.403832, 0.596168),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(num_successes: int, num_trials: int, low: float, high: float) -> None:
    assert wilson_interval(num_successes, num_trials) == pytest.approx((low, high), abs=1e-6)


@given(st.integers(1, 10_000), st.data(), st.floats(0.01, 0.999))
def test_the_bounds_solve_wilsons_equation(
    num_trials: int, data: st.DataObject, confidence: float
) -> None:
    """A bound p is where the rate is z standard errors away: (rate - p)^2 = z^2 p (1 - p) / n."""
    num_successes = data.draw(st.integers(0, num_trials))
    low, high = wilson_interval(num_successes, num_trials, confidence)
    rate = num_successes / num_trials
    assert 0.0 <= low <= rate <= high <= 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for bound in (low, high):
        assert (rate - bound) ** 2 == pytest.approx(
            z * z * bound * (1 - bound) / num_trials, rel=1e-6, abs=1e-12
        )
    mirrored = wilson_interval(num_trials - num_successes, num_trials, confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("bad", [(3, 2, 0.9), (-1, 2, 0.9), (1, 2, 0.0), (1, 2, 1.0)])
def test_wilson_interval_refuses_what_is_no_rate(bad: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="needs 0 <= num_successes"):
        wilson_interval(*bad)


def test_order_of_golds_does_not_matter() -> None:
    golds = ["river Lune", "Lune", "a river"]
    assert len({token_f1("the Lune river", list(order)) for order in permutations(golds)}) == 1
