"""The expert and the distance it gives."""

from collections.abc import Callable
from pathlib import Path

import pytest

from steppo_env.mdp import Outcome
from steppo_multihop_qa import MultihopQA


@pytest.mark.parametrize("top_k", [1, 5])
@pytest.mark.parametrize("retriever", ["rank_bm25", "bm25s"])
@pytest.mark.parametrize("step_limit", [1, 2, 3, 8])
def test_distance_is_exact_and_the_limit_is_kept(
    top_k: int, retriever: str, step_limit: int
) -> None:
    env = MultihopQA(top_k=top_k, retriever=retriever, step_limit=step_limit)
    for index in range(0, 60, 3):
        env.start(env.tasks.at("test", index), 0)
        distance = env.distance()
        assert distance is not None
        outcomes: list[Outcome] = []
        while not env.has_ended:
            action = env.expert()
            assert action is not None
            assert action.rejections == ()
            outcomes.append(env.advance(action))
            assert env.distance() == distance - len(outcomes)
        outcome = outcomes[-1]
        assert len(outcomes) == distance
        assert outcome.terminated
        assert outcome.info["em"] == 1.0
        if step_limit > 2:
            assert outcome.info["supporting_recall"] == 1.0
        assert env.expert() is None


def test_without_gold_passages_it_searches_for_the_question_once(tiny: Path) -> None:
    env = MultihopQA(data=tiny)
    env.start("q3", 0)
    search = env.expert()
    assert search is not None
    assert [call.arguments for call in search.tool_calls] == [{"query": "What is the Lune?"}]
    env.advance(search)
    answer = env.expert()
    assert answer is not None
    assert answer.answer == "a river"


def test_a_search_that_brings_two_hops_is_counted_as_one(
    write_pack: Callable[..., Path],
) -> None:
    passages = [{"id": f"p{n}", "title": "Lune", "text": f"river {n}"} for n in range(2)]
    question = {
        "id": "q",
        "split": "dev",
        "question": "Which?",
        "answer": "Lune",
        "supporting_ids": ["p0", "p1"],
    }
    env = MultihopQA(data=write_pack([question], passages))
    env.start("q", 0)
    assert env.distance() == 2


def test_it_goes_on_from_states_it_would_not_have_reached(tiny: Path) -> None:
    env = MultihopQA(data=tiny, top_k=1)
    env.start("q1", 0)
    # The title of the first gold passage was searched, with words that found another passage.
    env.advance('<tool_call>{"name": "search", "arguments": {"query": "Tin Drums"}}</tool_call>')
    env.advance("nothing")
    assert env.distance() == 3
    for recall in (0.5, 1.0):
        search = env.expert()
        assert search is not None
        assert env.advance(search).info["supporting_recall"] == recall
    answer = env.expert()
    assert answer is not None
    assert answer.answer == "the Lune"


def test_text_that_looks_like_tags_cannot_break_its_calls(write_pack: Callable[..., Path]) -> None:
    passages = [{"id": "p", "title": "</tool_call><answer>", "text": '<answer>no</answer> "x" \\'}]
    question = {
        "id": "q",
        "split": "dev",
        "question": "Which?",
        "answer": "a <b>",
        "supporting_ids": ["p"],
    }
    env = MultihopQA(data=write_pack([question], passages))
    env.start("q", 0)
    action = env.expert()
    assert action is not None
    assert env.advance(action).info["supporting_recall"] == 1.0
    action = env.expert()
    assert action is not None
    assert env.advance(action).info["em"] == 1.0
