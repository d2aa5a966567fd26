"""What calls, answers and mistakes do, on five papers that can be checked by hand.

The papers: a "Solar sails" 2000, b "Drag on solar sails" 2005 cites a, c "Lunar dust" 2010 cites a
and b, d "Comet tails" 2015 cites c, e "Solar sails revisited" 2020 cites c and a.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from steppo_env.env import AnyEnv
from steppo_env.mdp import Action, Outcome, ToolCall
from steppo_env.registry import make
from steppo_env.testing import play


def start(pack: Path, task_id: str = "q-sails", **options: object) -> AnyEnv:
    env = make("steppo/PaperSearch-v0", data=pack, queries="all", **options)
    env.start(task_id, 0)
    return env


def search(query: object) -> str:
    return _call("search", query=query)


def expand(paper_id: object) -> str:
    return _call("expand", paper_id=paper_id)


def _call(name: str, **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def listed(env: AnyEnv) -> list[str]:
    state: Any = json.loads(env.save_state() or b"")
    return list(state["listed"])


def shown(outcome: Outcome) -> str:
    return "\n".join(message.content for message in outcome.observation.messages)


def test_a_search_lists_what_shares_a_word(pack: Path) -> None:
    env = start(pack)
    outcome = env.advance(search("dust"))
    assert listed(env) == ["b", "c"] or listed(env) == ["c", "b"]
    assert outcome.reward == pytest.approx(2 / 3)
    assert outcome.info["recall"] == pytest.approx(2 / 3)
    assert outcome.info["precision"] == 1.0
    assert outcome.info["num_searches"] == 1
    assert outcome.info["success"] is False


def test_an_expansion_lists_references_and_citations(pack: Path) -> None:
    env = start(pack, "q-open")
    env.advance(search("lunar"))
    env.advance(expand("c"))
    # References in the paper's order, then who cites it: neither is cited, so by id.
    assert listed(env) == ["c", "a", "b", "d", "e"]


def test_papers_younger_than_the_request_are_not_found(pack: Path) -> None:
    env = start(pack, "q-late")
    env.advance(search("lunar comet revisited"))
    env.advance(expand("c"))
    assert listed(env) == ["c", "a", "b"]
    free = start(pack, "q-late", date_cutoff=False)
    free.advance(search("lunar"))
    free.advance(expand("c"))
    assert listed(free) == ["c", "a", "b", "d", "e"]


def test_the_paper_whose_references_are_asked_for_is_never_listed(pack: Path) -> None:
    env = start(pack, "q-own", search_top_k=1)
    env.advance(search("lunar dust"))
    assert listed(env) == ["b"]
    env.advance(expand("b"))
    assert listed(env) == ["b", "a"]


def test_calls_are_executed_in_order_each_on_the_list_before_it(pack: Path) -> None:
    env = start(pack)
    outcome = env.advance(search("lunar") + expand("c"))
    assert outcome.rejected == ()
    assert sorted(listed(env)) == ["a", "b", "c", "d"]
    assert outcome.reward == pytest.approx(1.0)
    assert outcome.info["success"] is True
    assert not outcome.terminated


def test_an_expansion_of_an_unlisted_paper_is_refused(pack: Path) -> None:
    env = start(pack)
    for paper_id in ("c", "nowhere", "a\nb"):
        outcome = env.advance(expand(paper_id))
        assert len(outcome.rejected) == 1
        assert "is not listed" in outcome.rejected[0]
        assert outcome.rejected[0] in shown(outcome)
        assert outcome.rejected[0] in outcome.observation.text
    assert outcome.info["num_expansions"] == 0
    assert listed(env) == []


def test_brackets_around_an_id_are_forgiven(pack: Path) -> None:
    env = start(pack)
    outcome = env.advance(search("lunar") + expand("[c]") + expand("c"))
    assert outcome.rejected == ()
    assert (outcome.info["num_expansions"], outcome.info["num_repeats"]) == (1, 1)


def test_the_second_of_two_equal_queries_in_one_step_is_a_repeat(pack: Path) -> None:
    env = start(pack, repeat_penalty=0.5)
    outcome = env.advance(search("lunar") + search(" Lunar! "))
    assert (outcome.info["num_searches"], outcome.info["num_repeats"]) == (1, 1)
    assert outcome.reward_terms == {"recall_gain": pytest.approx(1 / 3), "repeat": -0.5}
    note = 'you searched for "Lunar!" in step 1'
    assert note in shown(outcome)
    assert note in outcome.observation.text
    assert outcome.rejected == ()


def test_a_repeated_expansion_is_a_repeat(pack: Path) -> None:
    env = start(pack)
    env.advance(search("lunar") + expand("c"))
    outcome = env.advance(expand("c"))
    assert outcome.info["num_repeats"] == 1
    assert "you expanded c in step 1" in shown(outcome)
    assert outcome.reward == 0.0


def test_a_repeat_costs_its_penalty_and_no_call_cost(pack: Path) -> None:
    env = start(pack, search_cost=0.1, expand_cost=0.3, repeat_penalty=0.05)
    first = env.advance(search("lunar") + search("lunar") + expand("c"))
    assert first.reward_terms == {
        "recall_gain": pytest.approx(1.0),
        "cost": pytest.approx(-0.4),
        "repeat": pytest.approx(-0.05),
    }
    second = env.advance(expand("c"))
    assert second.reward_terms == {"recall_gain": 0.0, "cost": 0.0, "repeat": -0.05}


def test_the_sixth_call_is_refused(pack: Path) -> None:
    env = start(pack)
    calls = [search(word) for word in ("mirrors", "probe", "push", "thin", "drag", "lunar", "ices")]
    outcome = env.advance("".join(calls))
    assert outcome.info["num_searches"] == 5
    assert listed(env) == ["a", "b"]
    (reason,) = outcome.rejected
    assert "the last 2 of your 7 were not executed" in reason
    assert reason in shown(outcome)


def test_bad_arguments_and_unknown_tools_are_refused_beside_good_calls(pack: Path) -> None:
    env = start(pack)
    outcome = env.advance(
        search(7) + _call("find", query="x") + search("!?") + search("") + search("lunar")
    )
    assert listed(env) == ["c"]
    assert len(outcome.rejected) == 4
    assert all(reason in shown(outcome) for reason in outcome.rejected)
    assert all(reason in outcome.observation.text for reason in outcome.rejected)


@pytest.mark.parametrize("text", ["", "I am done.", "<think>stop</think>", "<act>stop</act>"])
def test_text_without_call_or_answer_does_not_end_the_episode(pack: Path, text: str) -> None:
    env = start(pack)
    outcome = env.advance(text)
    assert not outcome.terminated
    assert outcome.rejected
    assert outcome.reward == 0.0


def test_a_call_inside_the_reasoning_is_explained(pack: Path) -> None:
    outcome = start(pack).advance(f"<think>{search('lunar')}</think>")
    assert "inside <think> was not executed" in shown(outcome)


def test_done_answers_with_the_whole_list(pack: Path) -> None:
    env = start(pack)
    env.advance(search("comet lunar"))
    outcome = env.advance("<answer> Done. </answer>")
    assert outcome.terminated
    assert outcome.info["answer_precision"] == 0.5
    assert outcome.info["answer_recall"] == pytest.approx(1 / 3)
    assert outcome.observation.tools == ()
    assert "Your result holds 2 papers." in outcome.observation.text


def test_an_answer_may_name_papers(pack: Path) -> None:
    env = start(pack, answer_f1_weight=2.0)
    env.advance(search("comet lunar"))
    outcome = env.advance("<answer>[c], 'c'\n</answer>")
    assert outcome.terminated
    assert outcome.info["answer_precision"] == 1.0
    # One of three gold papers, nothing wrong: F1 is 2 * 1 / (1 + 3).
    assert outcome.reward_terms == {"recall_gain": 0.0, "answer": pytest.approx(2.0 * 0.5)}
    assert outcome.info["success"] is False


@pytest.mark.parametrize("answer", ["a", "c, e", "c and d", "all of them", "done c", "[]", "..."])
def test_an_answer_that_is_no_list_of_listed_papers_is_refused(pack: Path, answer: str) -> None:
    env = start(pack)
    env.advance(search("lunar"))
    outcome = env.advance(f"<answer>{answer}</answer>")
    assert not outcome.terminated
    (reason,) = outcome.rejected
    assert "the answer was not taken" in reason
    assert reason in shown(outcome)
    assert env.advance("<answer>done</answer>").terminated


def test_calls_beside_an_answer_are_executed_first(pack: Path) -> None:
    env = start(pack)
    outcome = env.advance("<answer>c</answer>" + search("lunar"))
    assert outcome.terminated
    assert outcome.reward == pytest.approx(1 / 3)
    assert outcome.info["answer_precision"] == 1.0


def test_success_is_reaching_the_recall_asked_for(pack: Path) -> None:
    env = start(pack, success_recall=0.6)
    assert env.advance(search("lunar")).info["success"] is False
    assert env.advance(search("drag")).info["success"] is True


def test_metrics_are_cut_at_the_shown_rank(pack: Path) -> None:
    env = start(pack)
    env.advance(search("lunar comet"))
    outcome = env.advance(expand("c"))
    # a and b match the request, c and d (no gold) do not.
    assert outcome.info["precision"] == 0.75
    assert outcome.info["precision@25"] == 0.75
    assert outcome.info["recall@25"] == 1.0
    assert outcome.info["f1"] == pytest.approx(6 / 7)


def test_top3_is_the_sum_of_the_three_best_new_papers_of_each_call(pack: Path) -> None:
    env = start(pack, reward="top3", selector="gold", date_cutoff=False)
    outcome = env.advance(search("lunar") + expand("c"))
    # The search brings c; the expansion brings a and b, and d and e, which are no gold.
    assert outcome.reward_terms == {"top3": 3.0, "repeat": 0.0}
    assert env.advance(search("lunar comet tails")).reward == 0.0


def test_top3_leaves_out_what_a_call_brings_beyond_three(pack: Path) -> None:
    env = start(pack, reward="top3", selector="lexical", date_cutoff=False, show_scores=True)
    outcome = env.advance(search("solar mirrors grains ices"))
    assert len(listed(env)) == 5
    # For "solar sails" a scores 1, b and e about as much, c and d nothing; a second call adds none.
    third = start(pack, reward="top3", selector="lexical", date_cutoff=False)
    parts = [third.advance(search(word)).reward for word in ("push", "drag", "revisited")]
    assert outcome.reward == pytest.approx(sum(parts))
    assert max(parts) == 1.0
    four = start(pack, "q-four", reward="top3")
    assert four.advance(search("solar dust")).reward == 3.0
    assert four.advance(search("solar dust comet")).reward == 0.0


def test_the_state_shows_half_expanded_half_not_and_says_what_it_leaves_out(pack: Path) -> None:
    env = start(pack, "q-open", list_size=2, abstract_words=2)
    env.advance(search("lunar"))
    outcome = env.advance(expand("c") + expand("a"))
    text = outcome.observation.messages[1].content
    assert "Papers not expanded, best first (1 of 3 shown)" in text
    assert "Papers expanded, best first (1 of 2 shown)" in text
    assert "[a] Solar sails (2000, new)\n  Thin mirrors ..." in text
    assert "Step 2: [Expand] c -> 4 papers, 4 new" in text


def test_only_the_papers_of_the_last_step_are_marked_new(pack: Path) -> None:
    env = start(pack)
    first = env.advance(search("lunar")).observation.messages[1].content
    second = env.advance(search("drag")).observation.messages[1].content
    assert "[c] Lunar dust (2010, new)" in first
    assert "[c] Lunar dust (2010)" in second
    assert "[b] Drag on solar sails (2005, new)" in second


def test_scores_are_shown_only_when_asked_for(pack: Path) -> None:
    assert "score" not in shown(start(pack).advance(search("lunar")))
    leaking = start(pack, show_scores=True).advance(search("lunar comet"))
    assert "[c] Lunar dust (2010, new, score 1.00)" in shown(leaking)
    assert "[d] Comet tails (2015, new, score 0.00)" in shown(leaking)


def test_what_is_not_known_of_a_paper_is_said(pack: Path) -> None:
    outcome = start(pack, "q-open").advance(search("revisited"))
    assert "[e] Solar sails revisited (2020, new)\n  No abstract." in shown(outcome)
    bare = start(pack, "q-open", abstract_words=0).advance(search("revisited"))
    assert "No abstract." not in shown(bare)


def test_a_search_that_finds_nothing_says_so(pack: Path) -> None:
    outcome = start(pack).advance(search("zeppelin"))
    assert 'no paper was found for "zeppelin"' in shown(outcome)
    assert outcome.rejected == ()


def test_states_with_the_same_papers_share_a_key_in_whatever_order_they_were_found(
    pack: Path,
) -> None:
    one, other = start(pack), start(pack)
    one.advance(search("lunar"))
    other.advance(search("comet"))
    assert one.observation.state_key != other.observation.state_key
    one.advance(search("comet") + search("comet"))
    other.advance(search("lunar"))
    assert one.observation.state_key == other.observation.state_key


def test_a_state_stays_within_its_budget() -> None:
    env = make("steppo/PaperSearch-v0", state_chars=3000, list_size=100, abstract_words=1000)
    task = env.tasks.at("train", 0)

    def choose(env: AnyEnv) -> str:
        words = env.observation.messages[1].content.split()
        return "".join(search(" ".join(words[n : n + 9])) for n in range(5, 95, 18))

    outcomes, _ = play(env, task.task_id, 0, choose)
    assert all(len(item.observation.messages[1].content) <= 3000 for item in outcomes)
    assert all(len(item.observation.text) <= 3000 for item in outcomes)
    assert "left out)" in outcomes[-1].observation.messages[1].content


def test_native_calls_do_what_written_calls_do(pack: Path) -> None:
    env, native = start(pack), start(pack)
    written = env.advance(search("lunar"))
    called = native.advance(
        Action("", tool_calls=(ToolCall("search", {"query": "lunar"}, call_id="x"),))
    )
    assert called == written


def test_a_snapshot_of_an_ended_or_busy_episode_restores_it(pack: Path) -> None:
    env = start(pack, rendering="accumulated")
    for text in (search("lunar") + expand("z"), search("lunar"), "<answer>c</answer>"):
        env.advance(text)
        saved = env.snapshot()
        assert saved is not None
        fork = make(env.env_id, data=pack, queries="all", rendering="accumulated")
        assert fork.restore(saved) == env.observation
        assert fork.snapshot() == saved


def test_an_episode_is_small() -> None:
    env = make("steppo/PaperSearch-v0")
    env.start(env.tasks.at("train", 0), 0)
    for step in range(9):
        env.advance("".join(search(f"{word} study {step}") for word in ("flows", "sieves", "ice")))
    assert len(env.save_state() or b"") < 20_000
