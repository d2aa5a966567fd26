"""Retrieval as the environment has it: shared, one call a step, and failures that are no results."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steppo_env.catalogue import Catalogue, EnvSpec
from steppo_env.errors import EnvError, InvalidOptions, MissingData
from steppo_env.testing import expert_action, play
from steppo_multihop_qa import MultihopOptions, MultihopQA
from steppo_multihop_qa.retrieval import Corpus, build_index
from steppo_multihop_qa.retrieval.shared import close_shared, shared_retriever
from steppo_multihop_qa.tasks import load_passages
from tests.envs.steppo_multihop_qa.retrieval.conftest import Answer, Service, embed

Serve = Callable[[Answer], Service]
PASSAGES = (
    {"id": "p1", "title": "Ada Byrne", "text": "Ada Byrne was born in Oxmoor."},
    {"id": "p2", "title": "Oxmoor", "text": "Oxmoor lies on the river Lune."},
    {"id": "p3", "title": "Lune", "text": "The Lune is 53 miles long."},
)
QUESTION = {
    "id": "q1",
    "split": "dev",
    "question": "On which river does the birthplace of Ada Byrne lie?",
    "answer": "the Lune",
    "supporting_ids": ["p1", "p2"],
}


@pytest.fixture(autouse=True)
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the indexes of each test apart, and close what it shares."""
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "home"))
    yield
    close_shared()


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Return the folder of three passages and a question."""
    folder = tmp_path / "pack"
    folder.mkdir()
    lines = "".join(f"{json.dumps(row)}\n" for row in PASSAGES)
    (folder / "corpus.jsonl").write_text(lines)
    (folder / "questions.jsonl").write_text(f"{json.dumps(QUESTION)}\n")
    return folder


def search(*queries: str) -> str:
    calls = ({"name": "search", "arguments": {"query": query}} for query in queries)
    return "".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)


def first_passages(path: str, body: Any) -> tuple[int, Any]:
    """Answer each query with as many passages as it has words."""
    return 200, {
        "result": [
            [{"document": row, "score": 1.0} for row in PASSAGES[: len(query.split())]]
            for query in body["queries"]
        ]
    }


def dense(service: Service, pack: Path) -> dict[str, Any]:
    options: dict[str, Any] = {
        "data": pack,
        "retriever": "dense",
        "embeddings_url": f"{service.url}/v1",
        "embeddings_model": "hash",
        "top_k": 1,
    }
    corpus = Corpus(load_passages(pack).values())
    build_index(MultihopOptions.model_validate(options), corpus)
    return options


def test_the_searches_of_a_step_are_one_request(pack: Path, serve: Serve) -> None:
    service = serve(first_passages)
    env = MultihopQA(data=pack, retriever="remote", search_url=service.url)
    env.start("q1", 0)
    outcome = env.advance(search("one", "now two", "one", "ONE"))
    assert [body["queries"] for _, _, body in service.requests] == [["one", "now two", "ONE"]]
    assert outcome.info["num_searches"] == 2
    assert outcome.info["num_repeated_searches"] == 2
    assert outcome.info["num_passages"] == 2


def test_a_search_that_failed_ends_the_episode_as_an_error_and_not_as_an_empty_result(
    pack: Path, serve: Serve, once: None
) -> None:
    service = serve(first_passages)
    env = MultihopQA(data=pack, retriever="remote", search_url=service.url)
    env.start("q1", 0)
    service.answer = lambda path, body: (500, "down")
    with pytest.raises(EnvError, match=r"act raised TransportError.*500"):
        env.advance(search("one"))
    assert env.has_ended
    # The same with the search that is forced before the first step.
    forced = MultihopQA(
        data=pack, retriever="remote", search_url=service.url, forced_first_search=True
    )
    with pytest.raises(Exception, match="500"):
        forced.start("q1", 0)


def test_the_expert_solves_a_task_through_dense_retrieval(pack: Path, serve: Serve) -> None:
    env = MultihopQA(**dense(serve(embed), pack))
    outcomes, _ = play(env, "q1", 0, expert_action)
    assert outcomes[-1].info["em"] == 1.0
    assert outcomes[-1].info["supporting_recall"] == 1.0


def test_a_state_speaks_of_meaning_where_words_are_not_compared(pack: Path, serve: Serve) -> None:
    service = serve(lambda path, body: (200, {"result": [[] for _ in body["queries"]]}))
    env = MultihopQA(data=pack, retriever="remote", search_url=service.url)
    first = env.start("q1", 0)
    assert "matches meaning" in first.messages[0].content
    assert "matches words" not in first.messages[0].content
    assert "words of the query" not in first.tools[0].description
    text = env.advance(search("zyx")).observation.text
    assert 'nothing was found for "zyx"' in text
    assert "any word" not in text


def test_an_index_that_was_not_built_is_told_when_the_environment_is_made(
    pack: Path, serve: Serve
) -> None:
    with pytest.raises(MissingData, match="steppo data index"):
        MultihopQA(
            data=pack,
            retriever="dense",
            embeddings_url=f"{serve(embed).url}/v1",
            embeddings_model="hash",
        )


def test_the_data_version_names_the_index(pack: Path, serve: Serve) -> None:
    service = serve(first_passages)
    remote = {"retriever": "remote", "search_url": service.url}
    kinds: list[dict[str, Any]] = [{"retriever": "rank_bm25"}, {"retriever": "bm25s"}, remote]
    versions = [MultihopQA(data=pack, **kind).tasks.version for kind in kinds]
    assert len(set(versions)) == 3
    assert versions == [MultihopQA(data=pack, top_k=2, **kind).tasks.version for kind in kinds]
    assert MultihopQA(data=pack).tasks.version == versions[0]


def test_episodes_share_one_retriever_for_equal_settings(pack: Path) -> None:
    corpus = Corpus(load_passages(pack).values())
    first = shared_retriever(MultihopOptions(), corpus)
    assert shared_retriever(MultihopOptions(top_k=2, malformed_penalty=0.5), corpus) is first
    changed = MultihopOptions.model_validate({"retriever": "bm25s"})
    assert shared_retriever(changed, corpus) is not first


@pytest.mark.parametrize(
    "option",
    ["embeddings_url", "embeddings_model", "search_url", "api_key_env", "query_prefix"],
)
def test_a_client_of_a_server_cannot_name_a_service(option: str) -> None:
    spec = EnvSpec("steppo/MultihopQA-v0", "steppo/MultihopQA-v0")
    with pytest.raises(InvalidOptions, match=option):
        spec.make({option: "http://127.0.0.1:1"})


def test_a_variant_of_a_server_names_its_service_and_its_data(
    pack: Path, serve: Serve, tmp_path: Path
) -> None:
    service = serve(first_passages)
    (tmp_path / "serve.toml").write_text(
        "[environments.wiki]\n"
        'env_id = "steppo/MultihopQA-v0"\n'
        f'options = {{data = "pack", retriever = "remote", search_url = "{service.url}"}}\n'
    )
    env = Catalogue.from_toml(tmp_path / "serve.toml").get("wiki").make()
    env.start("q1", 0)
    assert env.advance(search("one")).info["num_passages"] == 1
