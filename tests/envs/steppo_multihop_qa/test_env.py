"""What a response does, what it is worth, and what the next state says about it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_env.catalogue import EnvSpec
from steppo_env.errors import InvalidOptions, MissingData
from steppo_env.mdp import Action, Observation, Outcome, ToolCall
from steppo_env.testing import expert_action, play
from steppo_multihop_qa import MultihopQA


def call(query: object, name: str = "search") -> str:
    body = json.dumps({"name": name, "arguments": {"query": query}})
    return f"<tool_call>{body}</tool_call>"


def started(task_id: str = "q1", **options: Any) -> MultihopQA:
    env = MultihopQA(**options)
    env.start(task_id, 0)
    return env


def user_text(found: Outcome | Observation) -> str:
    observation = found.observation if isinstance(found, Outcome) else found
    return observation.messages[-1].content


def test_a_search_brings_passages_into_state_and_reply(tiny: Path) -> None:
    env = started(data=tiny, top_k=2)
    outcome = env.advance(call("Ada Byrne"))
    assert outcome.observation.text == (
        'Search "Ada Byrne" (1 passage, 1 new)\n[1] Ada Byrne\nAda Byrne was born in Oxmoor.'
    )
    assert user_text(outcome) == (
        "Question\nOn which river does the birthplace of Ada Byrne lie?\n\n"
        'Searches so far\n1. "Ada Byrne" (1 passage, 1 new)\n\n'
        'Passages found so far\n[1] Ada Byrne (found by "Ada Byrne")\n'
        "Ada Byrne was born in Oxmoor.\n\n"
        "Search for what is still missing, or give the final answer."
    )
    assert outcome.reward_terms == {"answer": 0.0}
    assert (outcome.terminated, outcome.truncated) == (False, False)


def test_the_first_state_is_the_question_and_its_text_too(tiny: Path) -> None:
    env = started(data=tiny)
    assert env.observation.text == "On which river does the birthplace of Ada Byrne lie?"
    assert user_text(env.observation).startswith("Question\nOn which river")
    assert [tool.name for tool in env.observation.tools] == ["search"]


def test_a_passage_found_again_is_named_and_not_repeated(tiny: Path) -> None:
    env = started(data=tiny, top_k=5)
    env.advance(call("Ada"))
    outcome = env.advance(call("born Oxmoor"))
    assert outcome.observation.text.count("Ada Byrne was born") == 0
    assert "Found again: [1] Ada Byrne" in outcome.observation.text
    assert user_text(outcome).count("Ada Byrne was born in Oxmoor.") == 1


@pytest.mark.parametrize(
    ("answer", "em", "f1"),
    [
        ("the Lune", 1.0, 1.0),
        ("Lune!", 1.0, 1.0),
        ("river  lune", 1.0, 1.0),
        # ours {in, oxmoor, lune}, the closest gold {lune}: 2 * 1 / (3 + 1)
        ("in Oxmoor, Lune", 0.0, 0.5),
        ("Thames", 0.0, 0.0),
    ],
)
def test_an_answer_ends_the_episode_and_is_scored(
    tiny: Path, answer: str, em: float, f1: float
) -> None:
    for reward, expected in (("em", em), ("f1", f1)):
        env = started(data=tiny, reward=reward)
        outcome = env.advance(f"<think>known</think><answer>{answer}</answer>")
        assert outcome.terminated
        assert outcome.reward_terms == {"answer": expected}
        assert (outcome.info["em"], outcome.info["f1"]) == (em, f1)
        assert outcome.info["success"] is (em == 1.0)


@pytest.mark.parametrize("weight", [None, 0.0, 0.25, 1.0])
def test_a_mixed_reward_has_a_term_for_each_score_and_sums_to_their_weighted_mean(
    tiny: Path, weight: float | None
) -> None:
    options: dict[str, Any] = {} if weight is None else {"f1_weight": weight}
    share = 0.5 if weight is None else weight
    # As above: "in Oxmoor, Lune" has an F1 of 0.5 and matches nothing exactly.
    for answer, em, f1 in (("the Lune", 1.0, 1.0), ("in Oxmoor, Lune", 0.0, 0.5)):
        env = started(data=tiny, reward="mixed", **options)
        assert env.advance(call("Ada")).reward_terms == {"answer_em": 0.0, "answer_f1": 0.0}
        outcome = env.advance(f"<answer>{answer}</answer>")
        assert outcome.reward_terms == {"answer_em": (1 - share) * em, "answer_f1": share * f1}
        assert outcome.reward == (1 - share) * em + share * f1
        assert outcome.info["success"] is (em == 1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"reward": "mixed", "f1_weight": 1.1},
        {"reward": "mixed", "f1_weight": -0.1},
        {"reward": "f1", "f1_weight": 0.3},
        {"f1_weight": 0.3},
    ],
)
def test_a_weight_that_means_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions, match="f1_weight"):
        MultihopQA(**options)


def test_the_answer_counts_beside_searches_which_are_rejected(tiny: Path) -> None:
    env = started(data=tiny, malformed_penalty=0.5)
    outcome = env.advance(f"{call('Ada')}{call('Lune')}<answer>Lune</answer>")
    assert outcome.terminated
    assert outcome.reward_terms == {"answer": 1.0, "malformed": -0.5}
    assert outcome.info["num_searches"] == 0
    (reason,) = outcome.rejected
    assert reason == (
        "2 tool calls beside the answer not executed: an answer ends the episode; search first and "
        "answer in a later response"
    )
    assert outcome.rejected[0] in user_text(outcome)
    assert outcome.rejected[0] in outcome.observation.text


def test_at_most_four_searches_are_made_and_the_surplus_is_reported(tiny: Path) -> None:
    env = started(data=tiny)
    outcome = env.advance("".join(call(word) for word in ("ada", "lune", "tin", "band", "a", "b")))
    assert outcome.info["num_searches"] == 4
    assert outcome.rejected == (
        "at most 4 searches are made in one response; the last 2 of yours not executed",
    )


def test_good_searches_are_made_beside_bad_ones_which_are_named(tiny: Path) -> None:
    env = started(data=tiny)
    outcome = env.advance(call("Ada") + call("x", name="lookup") + call("  ") + call(7))
    assert outcome.info["num_searches"] == 1
    assert len(outcome.rejected) == 3
    assert outcome.rejected[0] == "there is no tool 'lookup'; the tools are: search"
    assert "blank" in outcome.rejected[1]
    assert "valid string" in outcome.rejected[2]
    for reason in outcome.rejected:
        assert f"- {reason}" in user_text(outcome)
        assert f"- {reason}" in outcome.observation.text


def test_feedback_is_about_the_last_response_only(tiny: Path) -> None:
    env = started(data=tiny)
    reason = env.advance("nothing").rejected[0]
    assert reason in env.observation.messages[-1].content
    assert reason not in user_text(env.advance(call("Ada")))


@pytest.mark.parametrize("text", ["", "thinking aloud", "<answer>  </answer>", "<act>go</act>"])
def test_a_response_without_search_or_answer_is_told_so(tiny: Path, text: str) -> None:
    env = started(data=tiny)
    outcome = env.advance(text)
    assert not outcome.terminated
    assert outcome.rejected
    assert all(reason in outcome.observation.text for reason in outcome.rejected)


def test_a_blank_native_answer_does_not_end_the_episode(tiny: Path) -> None:
    env = started(data=tiny)
    outcome = env.advance(Action(content="", answer="  "))
    assert not outcome.terminated
    assert outcome.rejected


def test_a_repeated_query_is_answered_from_history_and_counted(tiny: Path) -> None:
    env = started(data=tiny)
    before = env.advance(call("Ada Byrne"))
    outcome = env.advance(call("  ADA-byrne?"))
    note = '"Ada Byrne" was searched before: it found [1]; search for something else'
    assert note in outcome.observation.text
    assert note in user_text(outcome)
    assert outcome.info["num_repeated_searches"] == 1
    assert outcome.info["num_searches"] == 1
    assert outcome.rejected == ()
    assert outcome.observation.state_key == before.observation.state_key


def test_one_query_twice_in_a_response_is_searched_once(tiny: Path) -> None:
    env = started(data=tiny)
    outcome = env.advance(call("Lune") + call("lune"))
    assert outcome.info["num_searches"] == 1
    assert outcome.info["num_repeated_searches"] == 1


def test_a_query_without_a_known_word_finds_nothing_and_says_so(tiny: Path) -> None:
    env = started(data=tiny)
    outcome = env.advance(call("zyx") + call("река"))
    assert 'no passage has any word of "zyx"; try other words' in outcome.observation.text
    assert 'no passage has any word of "река"; try other words' in user_text(outcome)
    assert outcome.info["num_searches"] == 2


def test_the_forced_first_search_is_in_the_history_but_is_no_step(tiny: Path) -> None:
    env = started("q3", data=tiny, forced_first_search=True, top_k=1)
    assert '1. "What is the Lune?" (1 passage, 1 new)' in user_text(env.observation)
    assert env.observation.text.startswith("What is the Lune?\n\nSearch ")
    assert env.num_steps == 0
    outcome = env.advance(call("what is the LUNE"))
    assert outcome.info["num_searches"] == 0
    assert outcome.info["num_repeated_searches"] == 1


def test_supporting_recall_counts_hops_and_is_null_without_gold(tiny: Path) -> None:
    env = started("q1", data=tiny)
    assert env.advance(call("Ada")).info["supporting_recall"] == 0.5
    assert env.advance(call("lies river")).info["supporting_recall"] == 1.0
    env.start("q2", 0)
    # Either p1 or p4 supports the only hop; this finds p4.
    assert env.advance(call("band tin drums")).info["supporting_recall"] == 1.0
    env.start("q3", 0)
    assert env.advance(call("Ada")).info["supporting_recall"] is None


def test_state_key_ignores_feedback_and_step_index_but_not_passages(tiny: Path) -> None:
    env = started(data=tiny)
    first = env.observation.state_key
    assert env.advance("nothing").observation.state_key == first
    assert env.advance(call("Ada")).observation.state_key != first


def test_a_long_state_drops_the_oldest_passages_and_keeps_the_question() -> None:
    env = MultihopQA(state_chars=4000, top_k=20)
    env.start("world-dev-0000", 0)
    for query in ("river", "film", "album", "novel"):
        env.advance(call(query))
        system, user = env.observation.messages
        assert len(system.content) + len(user.content) <= 4000
    assert env.task.question in user.content
    assert " left out)" in user.content
    assert '(found by "novel")' in user.content
    assert '(found by "river")' not in user.content


def test_a_passage_is_cut_at_a_word(tiny: Path) -> None:
    env = MultihopQA(passage_chars=100)
    env.start("world-dev-0000", 0)
    shown = env.advance(call("film")).observation.text.split("\n")
    texts = [line for line in shown if line.endswith(" ...")]
    assert texts
    assert all(len(line) <= 104 for line in texts)


def test_native_calls_are_answered_by_tool_messages(tiny: Path) -> None:
    env = MultihopQA(data=tiny, rendering="accumulated")
    env.start("q1", 0)
    calls = (ToolCall("search", {"query": "Ada"}, "c1"), ToolCall("search", {"query": "Tin"}, "c2"))
    outcome = env.advance(Action(content="", tool_calls=calls))
    first, second = outcome.observation.messages[-2:]
    assert (first.role, first.tool_call_id) == ("tool", "c1")
    assert second.tool_call_id == "c2"
    assert "[1] Ada Byrne" in first.content
    assert "[2] Tin Drums" in first.content


def test_a_client_of_a_server_cannot_name_a_folder(tiny: Path) -> None:
    spec = EnvSpec("steppo/MultihopQA-v0", "steppo/MultihopQA-v0")
    with pytest.raises(InvalidOptions, match="data"):
        spec.make({"data": str(tiny)})


@pytest.mark.parametrize(
    "option", [{"top_k": 0}, {"top_k": 21}, {"reward": "bleu"}, {"retriever": "dense"}]
)
def test_options_out_of_bounds_are_refused_by_name(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions, match=next(iter(option))):
        MultihopQA(**option)


def test_a_missing_pack_is_named_when_the_environment_is_made(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="nowhere"):
        MultihopQA(data=tmp_path / "nowhere")


def test_a_fork_continues_like_the_original_also_after_bad_responses(tiny: Path) -> None:
    for rendering in ("rebuilt", "accumulated"):
        env = started(data=tiny, rendering=rendering, forced_first_search=True)
        fork = MultihopQA(data=tiny, rendering=rendering, forced_first_search=True)
        responses = (None, call("Ada"), call("ada") + call("tin"), "bad", "<answer>Lune</answer>")
        for response in responses:
            if response is not None:
                env.advance(response)
            snapshot = env.snapshot()
            assert snapshot is not None
            assert fork.restore(snapshot) == env.observation
            assert fork.snapshot() == snapshot
            assert fork.distance() == env.distance()


def test_many_bad_calls_make_a_bounded_reply(tiny: Path) -> None:
    env = started(data=tiny)
    outcome = env.advance(Action("", tuple(ToolCall("x" * 500, {}) for _ in range(5000))))
    assert outcome.rejected[-1] == "4992 more tool calls could not be executed"
    assert len(outcome.observation.text) < 5_000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=6), st.booleans())
def test_no_query_breaks_an_episode_and_every_state_is_utf8(queries: list[str], ok: bool) -> None:
    env = MultihopQA()
    env.start("world-dev-0001", 0)
    tool = "search" if ok else "find"
    outcome = env.advance(Action("", tuple(ToolCall(tool, {"query": item}) for item in queries)))
    assert not outcome.terminated
    shown = "".join(message.content for message in outcome.observation.messages)
    (shown + outcome.observation.text).encode()
    assert all(reason in shown for reason in outcome.rejected)
    assert len(outcome.observation.text) < 40_000


def test_random_answers_are_not_rewarded() -> None:
    env = MultihopQA()
    num_right = 0
    for index in range(100):
        task = env.tasks.at("dev", index)
        wrong = env.tasks.at("dev", (index + 1) % 250)
        env.start(task, 0)
        num_right += bool(env.advance(f"<answer>{wrong.answers[0]}</answer>").info["success"])
    assert num_right < 10


def test_the_expert_solves_every_dev_task_of_the_world_within_five_steps() -> None:
    env = MultihopQA()
    for index in range(env.tasks.splits["dev"]):
        outcomes, _ = play(env, env.tasks.at("dev", index).task_id, 0, expert_action)
        assert outcomes[-1].info["em"] == 1.0
        assert outcomes[-1].info["supporting_recall"] == 1.0
        assert len(outcomes) <= 5
