"""The expert and the distance it measures."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_env.env import AnyEnv
from steppo_env.mdp import Action, ToolCall
from steppo_env.registry import make
from steppo_env.testing import expert_action, play

ENV = make("steppo/PaperSearch-v0", search_top_k=2, expand_top_k=3, step_limit=100)
WORDS = ("flows", "sieves", "cascades", "benchmark", "study", "prediction", "mapping", "noise")


def _play_out(env: AnyEnv) -> int:
    num_steps = 0
    while not env.has_ended:
        expected = env.distance()
        env.advance(expert_action(env))
        num_steps += 1
        assert env.distance() == (expected or 0) - 1
    return num_steps


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 119),
    st.lists(
        st.one_of(
            st.tuples(st.just("search"), st.lists(st.sampled_from(WORDS), min_size=1, max_size=3)),
            st.tuples(st.just("expand"), st.integers(0, 9)),
        ),
        max_size=8,
    ),
)
def test_distance_is_exact_from_wherever_the_expert_takes_over(
    index: int, wander: list[tuple[str, list[str] | int]]
) -> None:
    ENV.start(ENV.tasks.at("dev", index), 0)
    seen: list[str] = []
    for name, argument in wander:
        if isinstance(argument, list):
            arguments = {"query": " ".join(argument)}
        else:
            arguments = {"paper_id": seen[argument % len(seen)] if seen else "P0"}
        outcome = ENV.advance(Action("", tool_calls=(ToolCall(name, arguments),)))
        lines = outcome.observation.text.splitlines()
        seen += [line[1:].split("]")[0] for line in lines if line.startswith("[P")]
    expected = ENV.distance()
    assert _play_out(ENV) == expected
    assert ENV.distance() == 0


def test_every_built_in_task_is_solved_within_the_step_limit_and_answered_exactly() -> None:
    env = make("steppo/PaperSearch-v0")
    for split, count in env.tasks.splits.items():
        for index in range(count):
            outcomes, _ = play(env, env.tasks.at(split, index).task_id, 0, expert_action)
            last = outcomes[-1]
            assert last.terminated
            assert last.info["success"] is True
            assert last.info["answer_f1"] == 1.0
            assert last.info["num_repeats"] == last.info["num_rejected"] == 0
            assert sum(outcome.reward for outcome in outcomes) == pytest.approx(1.0)


def test_an_expert_that_can_find_nothing_more_stops(tmp_path: Path) -> None:
    # Twins of one text: a search that brings one paper never brings the second of them.
    twins = [{"id": name, "title": "Solar sails", "abstract": "Mirrors."} for name in "ab"]
    request = {"id": "q", "split": "test", "query": "sails", "gold_ids": ["b"]}
    (tmp_path / "papers.jsonl").write_text("\n".join(map(json.dumps, twins)), encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text(json.dumps(request), encoding="utf-8")
    env = make("steppo/PaperSearch-v0", data=tmp_path, search_top_k=1)
    env.start("q", 0)
    assert env.distance() == 1
    outcome = env.advance(expert_action(env))
    assert outcome.terminated
    assert outcome.info["success"] is False
