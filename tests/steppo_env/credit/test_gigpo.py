"""GiGPO: episode credit plus credit among visits of one state, by key and by likeness of text."""

import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_env.credit import StepBatch, dr_grpo, gigpo, grpo
from steppo_env.errors import InvalidInput
from tests.steppo_env.credit.conftest import ANY_SPEED, UNIT, Rows, assert_close, ragged


def step_term(rows: Rows, gamma: float, normalize_std: bool) -> tuple[list[float], float]:
    """Return A_step of each row by loops, and the least that anything was divided by."""
    to_go, clusters = rows.to_go(gamma), defaultdict(list)
    for row in range(rows.num_rows):
        clusters[rows.group[rows.trajectory[row]], rows.anchor[row]].append(row)
    found, least = [0.0] * rows.num_rows, 1.0
    for members in clusters.values():
        if len(members) == 1:
            continue
        values = [to_go[row] for row in members]
        divisor = statistics.stdev(values) + 1e-6 if normalize_std else 1.0
        least = min(least, divisor)
        for row in members:
            found[row] = (to_go[row] - statistics.fmean(values)) / divisor
    return found, least


@pytest.mark.parametrize("normalize_std", [True, False])
@ANY_SPEED
@given(rows=ragged(), gamma=UNIT, step_weight=st.floats(0.0, 2.0))
def test_it_is_episode_credit_plus_weighted_credit_among_visits_of_a_state(
    normalize_std: bool, rows: Rows, gamma: float, step_weight: float
) -> None:
    batch = rows.batch()
    episode = (grpo if normalize_std else dr_grpo)(batch)
    step, least = step_term(rows, gamma, normalize_std)
    expected = [e + step_weight * s for e, s in zip(episode.advantages, step)]
    credit = gigpo(batch, gamma, step_weight, normalize_std)
    assert credit.level == "step"
    assert_close(credit.advantages, expected, rows.magnitude / least)
    assert_close(credit.returns, rows.to_go(gamma), rows.magnitude)


def test_by_hand() -> None:
    # One group. a: hall, hall; b: hall, attic. With gamma 0.5, G = 0.5, 1 and 2, 4.
    batch = StepBatch.from_arrays(
        trajectory=["a", "a", "b", "b"],
        step=[0, 1, 0, 1],
        reward=[0.0, 1.0, 0.0, 4.0],
        group={"a": "g", "b": "g"},
        anchor=["hall", "hall", "hall", "attic"],
    )
    credit = gigpo(batch, gamma=0.5, step_weight=6.0, normalize_std=False)
    # Episode: 1 and 4 around 2.5. Hall: 0.5, 1, 2 around 7/6. The attic was visited once.
    assert credit.advantages.tolist() == pytest.approx([-1.5 - 4, -1.5 - 1, 1.5 + 5, 1.5])
    assert credit.counts["num_singleton_anchors"] == 1


def test_the_defaults_are_gamma_095_weight_1_with_deviation() -> None:
    rows = Rows(
        ["a", "a", "b", "b"],
        [0, 1, 0, 1],
        [0.0, 1.0, 0.0, 3.0],
        [0.0] * 4,
        ["x", "y", "x", "y"],
        [1] * 4,
        [[0.0]] * 4,
        [[0.0]] * 4,
        {"a": True, "b": True},
        {"a": 0.0, "b": 0.0},
        {"a": "g", "b": "g"},
    )
    step, _ = step_term(rows, 0.95, True)
    expected = [e + s for e, s in zip(grpo(rows.batch()).advantages, step)]
    assert_close(gigpo(rows.batch()).advantages, expected)


def test_states_are_compared_within_a_group_only() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["a", "b"],
        step=[0, 0],
        reward=[0.0, 1.0],
        group={"a": "g", "b": "h"},
        anchor=["hall", "hall"],
    )
    credit = gigpo(batch)
    assert credit.advantages.tolist() == [0.0, 0.0]
    assert credit.counts["num_singleton_anchors"] == 2
    assert credit.counts["num_singleton_groups"] == 2


@pytest.mark.parametrize("normalize_std", [True, False])
def test_equal_outcomes_in_a_state_have_exactly_no_advantage(normalize_std: bool) -> None:
    names = range(7)
    batch = StepBatch.from_arrays(
        trajectory=list(names),
        step=[0] * 7,
        reward=[0.1] * 7,
        group=dict.fromkeys(names, "g"),
        anchor=["hall"] * 7,
    )
    assert gigpo(batch, normalize_std=normalize_std).advantages.tolist() == [0.0] * 7


@pytest.mark.parametrize("missing", ["group", "anchor"])
def test_group_and_anchor_are_needed(missing: str) -> None:
    given_ = {"group": {"a": "g"}, "anchor": ["hall"]}
    del given_[missing]
    batch = StepBatch.from_arrays(trajectory=["a"], step=[0], reward=[0.0], **given_)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=missing):
        gigpo(batch)


@pytest.mark.parametrize("similarity", [0.0, -0.5, 1.5, float("nan")])
def test_a_similarity_is_above_0_and_at_most_1(similarity: float) -> None:
    batch = visits(["some text"] * 2)
    with pytest.raises(InvalidInput, match="similarity"):
        gigpo(batch, similarity=similarity)


# Likeness of texts. One trajectory visits the texts in turn, with gamma 0, so that G is the reward;
# alone in its group it has no episode credit, and what remains is the reward minus the cluster's
# mean. Rewards are drawn at random, so two rows share a mean exactly when they share a cluster.


def visits(texts: list[str], group: str = "g") -> StepBatch:
    rng = random.Random(11)
    return StepBatch.from_arrays(
        trajectory=["a"] * len(texts),
        step=range(len(texts)),
        reward=[rng.uniform(-1.0, 1.0) for _ in texts],
        group={"a": group},
        anchor=texts,
    )


def clusters_of(texts: list[str], similarity: float | None) -> list[list[int]]:
    """Return the clusters as lists of positions, each in order, ordered by their first member."""
    batch = visits(texts)
    credit = gigpo(batch, gamma=0.0, normalize_std=False, similarity=similarity)
    clusters: dict[float, list[int]] = defaultdict(list)
    for at, advantage in enumerate(credit.advantages):
        lone = advantage == 0.0
        mean = batch.reward[at] - advantage
        clusters[at + 10.0 if lone else round(float(mean), 9)].append(at)
    return sorted(clusters.values())


def grams(text: str) -> set[str]:
    return {text[at : at + 5] for at in range(len(text) - 4)}


def jaccard(a: str, b: str) -> float:
    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def sentence(rng: random.Random, num_words: int) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(num_words)]


def with_one_word_changed(rng: random.Random, words: list[str]) -> str:
    changed = list(words)
    changed[rng.randrange(len(words))] = "".join(rng.choices("0123456789", k=6))
    return " ".join(changed)


def test_identical_texts_cluster_and_unrelated_ones_do_not() -> None:
    rng = random.Random(0)
    texts = [" ".join(sentence(rng, 30)) for _ in range(4)]
    shown = [texts[at] for at in (0, 1, 2, 0, 1, 0, 3)]
    for similarity in (None, 0.3, 0.8, 1.0):
        assert clusters_of(shown, similarity) == [[0, 3, 5], [1, 4], [2], [6]]


@pytest.mark.parametrize("text", ["", "a", "hall", "key 1"])
def test_texts_shorter_than_a_gram_are_compared_as_they_are(text: str) -> None:
    assert clusters_of([text, "door", text, "something else"], 0.5) == [[0, 2], [1], [3]]


@pytest.mark.parametrize("seed", range(10))
def test_texts_that_differ_in_one_word_cluster_at_08(seed: int) -> None:
    rng = random.Random(seed)
    pages = [sentence(rng, 100) for _ in range(5)]
    texts = [with_one_word_changed(rng, pages[at % 5]) for at in range(20)]
    assert min(jaccard(texts[0], texts[at]) for at in (5, 10, 15)) > 0.9
    assert max(jaccard(texts[0], texts[at]) for at in (1, 2, 3, 4)) < 0.1
    assert clusters_of(texts, 0.8) == [[at, at + 5, at + 10, at + 15] for at in range(5)]
    # By key, all of them differ.
    assert clusters_of(texts, None) == [[at] for at in range(20)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95])
def test_no_row_is_less_like_its_clusters_first_member_than_asked(
    seed: int, similarity: float
) -> None:
    """Buckets may only propose: each pair is compared exactly."""
    rng = random.Random(seed)
    page = sentence(rng, 30)
    texts = [" ".join(page)]
    for _ in range(40):
        words = list(page)
        for _ in range(rng.randint(0, 15)):
            words[rng.randrange(30)] = "".join(rng.choices("0123456789", k=6))
        texts.append(" ".join(words))
    clusters = clusters_of(texts, similarity)
    assert len(clusters) > 1
    for first, *others in clusters:
        for other in others:
            assert jaccard(texts[first], texts[other]) >= similarity


def test_at_similarity_1_the_clusters_are_those_of_equal_gram_sets() -> None:
    texts = ["abcdeabcde" * 2, "abcdeabcde" * 3, "abcdeabcdx" * 2]
    assert grams(texts[0]) == grams(texts[1])
    assert clusters_of(texts, 1.0) == [[0, 1], [2]]


def test_likeness_is_within_a_group_only() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["a", "b"],
        step=[0, 0],
        reward=[0.0, 1.0],
        group={"a": "g", "b": "h"},
        anchor=["the same text", "the same text"],
    )
    assert gigpo(batch, similarity=0.5).advantages.tolist() == [0.0, 0.0]


@settings(ANY_SPEED, max_examples=30)
@given(ragged(), st.integers(0, 2**16), st.sampled_from([None, 0.7]))
def test_the_order_of_the_rows_changes_nothing(
    rows: Rows, seed: int, similarity: float | None
) -> None:
    rng = random.Random(seed)
    page = sentence(rng, 20)
    texts = replace(rows, anchor=[with_one_word_changed(rng, page) for _ in rows.anchor])
    order = rng.sample(range(rows.num_rows), rows.num_rows)
    before = gigpo(texts.batch(), similarity=similarity).advantages
    after = gigpo(texts.permuted(order).batch(), similarity=similarity).advantages
    assert np.array_equal(after, before[order])


# Hardly alike, and asked to be no more than that: min-hash then misses pairs here and there, and
# which ones shows what was hashed with.
PROGRAM = """
import random
from steppo_env.credit import StepBatch, gigpo
rng = random.Random(3)
texts = [
    " ".join([f"room {chr(65 + at % 20)} x", *(str(rng.randrange(10**6)) for _ in range(25))])
    for at in range(200)
]
batch = StepBatch.from_arrays(
    trajectory=["a"] * 200, step=range(200), reward=[rng.random() for _ in texts],
    group={"a": "g"}, anchor=texts,
)
print(gigpo(batch, similarity=0.01).advantages.tolist())
"""


def test_the_hash_seed_of_the_process_changes_nothing() -> None:
    def printed(seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        )
        return done.stdout

    first = printed("1")
    values = [float(each) for each in first.strip("[]\n").split(",")]
    assert sum(value != 0.0 for value in values) > 10
    assert printed("2") == first


def test_twenty_thousand_anchors_are_no_burden() -> None:
    """All pairs would be two hundred million comparisons; the bound is the timeout of a test."""
    rng = random.Random(1)
    pages = [sentence(rng, 40) for _ in range(100)]
    preamble = " ".join(sentence(rng, 6))
    texts = [with_one_word_changed(rng, rng.choice(pages)) for _ in range(4_000)]
    texts += [" ".join(sentence(rng, 8)) for _ in range(8_000)]
    # Half alike: these meet in the buckets and are told apart by comparing.
    texts += [f"{preamble} {' '.join(sentence(rng, 6))}" for _ in range(8_000)]
    rng.shuffle(texts)
    names = range(20_000)
    batch = StepBatch.from_arrays(
        trajectory=list(names),
        step=[0] * 20_000,
        reward=[rng.choice([0.0, 1.0]) for _ in names],
        group=dict.fromkeys(names, "g"),
        anchor=texts,
    )
    credit = gigpo(batch, similarity=0.8)
    assert np.all(np.isfinite(credit.advantages))
    # The unrelated and the half alike are alone; hardly any of the near copies is.
    assert 16_000 <= credit.counts["num_singleton_anchors"] < 16_100
