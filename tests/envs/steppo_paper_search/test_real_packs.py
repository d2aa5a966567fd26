"""The published data packs, where they lie beside the repository."""

import statistics
from pathlib import Path

import pytest

from steppo_env.env import AnyEnv
from steppo_env.mdp import Action, ToolCall
from steppo_env.registry import make
from steppo_env.testing import expert_action, play

SHARED = next(
    (
        folder
        for parent in Path(__file__).resolve().parents
        if (folder := parent / "shared/data/paper_search").is_dir()
    ),
    None,
)

pytestmark = [
    pytest.mark.skipif(SHARED is None, reason="the data packs are not beside the repository"),
    pytest.mark.timeout(180),  # to read a pack takes long on a busy machine
]


def make_env(name: str, **options: object) -> AnyEnv:
    assert SHARED is not None
    return make("steppo/PaperSearch-v0", data=SHARED / name, **options)


def play_all(env: AnyEnv, most: int) -> None:
    for split, count in env.tasks.splits.items():
        for index in range(min(count, most)):
            play_expert(env, env.tasks.at(split, index).task_id)


def play_expert(env: AnyEnv, task_id: str) -> None:
    distances: list[int | None] = []

    def choose(env: AnyEnv) -> str:
        distances.append(env.distance())
        return expert_action(env)

    outcomes, _ = play(env, task_id, 0, choose)
    assert distances == list(range(len(outcomes), 0, -1))
    assert outcomes[-1].terminated, task_id
    assert outcomes[-1].info["success"] is True, task_id


def test_the_expert_solves_every_physics_task() -> None:
    env = make_env("physics_citation_graph")
    assert dict(env.tasks.splits) == {"test": 209}
    play_all(env, 209)


def test_the_expert_solves_every_covered_scholar_task() -> None:
    env = make_env("scholar")
    assert dict(env.tasks.splits) == {"test": 126, "dev": 72}
    play_all(env, 126)


def test_the_other_scholar_requests_are_served_on_demand() -> None:
    env = make_env("scholar", queries="all")
    # Of 1,570 requests three have no gold paper that had appeared by their year.
    assert dict(env.tasks.splits) == {"test": 858, "dev": 709}
    play_all(env, 25)
    # Here a search for one gold paper finds more of the others than their own searches do.
    play_expert(env, "RealScholarQuery_19")


def test_searching_the_request_itself_is_far_from_enough() -> None:
    env = make_env("physics_citation_graph")
    recalls = []
    for index in range(40):
        task = env.tasks.at("test", index)
        env.start(task, 0)
        query = env.observation.text.removeprefix("Request: ")
        outcome = env.advance(Action("", tool_calls=(ToolCall("search", {"query": query}),)))
        recall = outcome.info["recall"]
        assert isinstance(recall, float)
        recalls.append(recall)
    assert 0.1 < statistics.mean(recalls) < 0.4


def test_nothing_is_listed_that_is_younger_than_the_request() -> None:
    env = make_env("physics_citation_graph")
    for index in range(5):
        task = env.tasks.at("test", index)
        env.start(task, 0)
        outcome = env.advance(expert_action(env))
        years = [
            int(line.rsplit("(", 1)[1][:4])
            for line in outcome.observation.text.splitlines()
            if line.startswith("[arxiv:")
        ]
        assert years
        assert max(years) <= task.latest_year
