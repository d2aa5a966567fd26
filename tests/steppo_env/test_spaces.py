"""The space of model text, as gymnasium uses it."""

import numpy as np
import pytest

from steppo_env.spaces import TextSpace


@pytest.mark.parametrize("text", ["", "a", "é\n\x00😀", "x" * 5])
def test_any_short_text_is_in_the_space(text: str) -> None:
    assert text in TextSpace(5)


@pytest.mark.parametrize("value", ["x" * 6, None, 3, b"abc", ["a"]])
def test_long_text_and_other_things_are_not(value: object) -> None:
    assert value not in TextSpace(5)


@pytest.mark.parametrize("max_length", [1, 2, 1_000_000])
def test_samples_are_in_the_space_and_follow_the_seed(max_length: int) -> None:
    space = TextSpace(max_length, seed=3)
    drawn = [space.sample() for _ in range(50)]
    assert all(text in space and 1 <= len(text) <= min(max_length, 32) for text in drawn)
    assert len(set(drawn)) > 1
    space.seed(3)
    assert [space.sample() for _ in range(50)] == drawn


def test_a_mask_or_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="neither mask nor probability"):
        TextSpace(5).sample(mask=np.ones(3))
    with pytest.raises(ValueError, match="neither mask nor probability"):
        TextSpace(5).sample(probability=np.ones(3))


def test_a_space_without_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="max_length is at least 1, not 0"):
        TextSpace(0)


def test_spaces_are_equal_by_their_length() -> None:
    assert TextSpace(5, seed=1) == TextSpace(5, seed=2)
    assert TextSpace(5) != TextSpace(6)
    assert TextSpace(5) != 5
    assert repr(TextSpace(5)) == "TextSpace(max_length=5)"
    assert not TextSpace(5).is_np_flattenable
