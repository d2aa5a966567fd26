"""The conformance suite, over the built-in world and over every real pack that is here."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from steppo_env.testing import EnvContract, expert_action, play
from steppo_multihop_qa import MultihopQA

PACKS = {"hotpotqa": 1581, "2wikimultihopqa": 865, "musique": 998, "bamboogle": 82}
"""Number of questions of each."""


def find_pack(name: str) -> Path | None:
    for folder in Path(__file__).resolve().parents:
        pack = folder / "shared" / "data" / "multihop_qa" / name
        if pack.is_dir():
            return pack
    return None


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_pack(name) is None, reason=f"the {name} pack is not here")


class TestBuiltInWorld(EnvContract):
    env_id = "steppo/MultihopQA-v0"
    num_tasks = 5


class TestBuiltInWorldWithF1AndForcedSearch(EnvContract):
    env_id = "steppo/MultihopQA-v0"
    options: ClassVar[Mapping[str, object]] = {
        "reward": "f1",
        "forced_first_search": True,
        "retriever": "bm25s",
        "top_k": 1,
    }
    split = "test"


@needs("hotpotqa")
class TestHotpotQA(EnvContract):
    env_id = "steppo/MultihopQA-v0"
    options: ClassVar[Mapping[str, object]] = {"data": str(find_pack("hotpotqa"))}


@needs("2wikimultihopqa")
class Test2Wiki(EnvContract):
    env_id = "steppo/MultihopQA-v0"
    options: ClassVar[Mapping[str, object]] = {"data": str(find_pack("2wikimultihopqa"))}


@needs("musique")
class TestMuSiQue(EnvContract):
    env_id = "steppo/MultihopQA-v0"
    options: ClassVar[Mapping[str, object]] = {"data": str(find_pack("musique"))}


@needs("bamboogle")
class TestBamboogle(EnvContract):
    env_id = "steppo/MultihopQA-v0"
    options: ClassVar[Mapping[str, object]] = {"data": str(find_pack("bamboogle"))}
    split = "test"


@pytest.mark.parametrize("name", PACKS)
def test_the_expert_solves_the_tasks_of_each_pack_within_five_steps(name: str) -> None:
    pack = find_pack(name)
    if pack is None:
        pytest.skip(f"the {name} pack is not here")
    env = MultihopQA(data=pack)
    assert sum(env.tasks.splits.values()) == PACKS[name]
    for split, count in env.tasks.splits.items():
        for index in range(0, count, 9):
            task_id = env.tasks.at(split, index).task_id
            outcomes, _ = play(env, task_id, 0, expert_action)
            assert outcomes[-1].info["em"] == 1.0, task_id
            assert outcomes[-1].info["supporting_recall"] in (1.0, None), task_id
            assert len(outcomes) <= 5, task_id
