"""The history: numbering, repeats, and its bytes."""

from hypothesis import given
from hypothesis import strategies as st

from steppo_multihop_qa.history import History, Reply

QUERIES = st.lists(st.sampled_from(["ada", "Ada!", "oxmoor lune", "лун", "лес", "", "x y"]))


def test_queries_are_the_same_when_retrieval_sees_the_same_words() -> None:
    history = History()
    assert history.add("The Tin-Drum", ["p1"]) == 0
    assert history.number_of("the  tin drum?") == 0
    assert history.number_of("drum tin the") is None


def test_queries_in_other_scripts_are_not_taken_for_one() -> None:
    history = History()
    history.add("река", [])
    assert history.number_of("РЕКА") == 0
    assert history.number_of("город") is None


def test_a_passage_belongs_to_the_search_that_found_it_first() -> None:
    history = History()
    history.add("a", ["p2", "p1"])
    history.add("b", ["p1", "p3"])
    assert history.passage_numbers == {"p2": 0, "p1": 1, "p3": 2}
    assert history.finders == [0, 0, 1]
    assert history.new_in(1) == ("p3",)


@given(QUERIES, st.integers(0, 3), st.booleans())
def test_it_is_the_same_after_a_round_trip(queries: list[str], count: int, first: bool) -> None:
    history = History(num_repeated=count, answer="x" if first else None)
    for number, query in enumerate(queries):
        if history.number_of(query) is None:
            history.add(query, [f"p{number}", "p0"])
    history.reply = Reply((0,), (1, 2), ("why",), first)
    assert History.from_json(history.to_json()) == history
