"""Scores of answers, by hand."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.metrics import exact_match, normalize_answer, token_f1

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


def test_order_of_golds_does_not_matter() -> None:
    golds = ["river Lune", "Lune", "a river"]
    assert len({token_f1("the Lune river", list(order)) for order in permutations(golds)}) == 1
