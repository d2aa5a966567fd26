"""The published contract, over the built-in library and over the real data packs."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from steppo_env.testing import EnvContract

PACKS = next(
    (
        folder
        for parent in Path(__file__).resolve().parents
        if (folder := parent / "shared/data/paper_search").is_dir()
    ),
    Path("absent"),
)
has_packs = pytest.mark.skipif(
    not PACKS.is_dir(), reason="the data packs are not beside the repository"
)


class TestBuiltInLibrary(EnvContract):
    env_id = "steppo/PaperSearch-v0"


class TestPaperReward(EnvContract):
    env_id = "steppo/PaperSearch-v0"
    expert_return = None  # scores of papers, less the cost of the calls
    options: ClassVar[Mapping[str, object]] = {
        "reward": "top3",
        "selector": "lexical",
        "show_scores": True,
    }
    num_tasks = 1


class TestSmallPack(EnvContract):
    env_id = "steppo/PaperSearch-v0"
    options: ClassVar[Mapping[str, object]] = {"queries": "all"}

    @pytest.fixture(autouse=True)
    def _point_at_it(self, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self), "options", {**self.options, "data": str(pack)})


class RealPackContract(EnvContract):
    def test_trace_is_the_same_in_other_processes_and_under_other_hash_seeds(self) -> None:
        pytest.skip("the small pack claims it: two more processes would load this one for long")


@has_packs
@pytest.mark.timeout(180)  # the first test reads the pack, which takes long on a busy machine
class TestPhysicsPack(RealPackContract):
    env_id = "steppo/PaperSearch-v0"
    options: ClassVar[Mapping[str, object]] = {"data": str(PACKS / "physics_citation_graph")}
    split = "test"


@has_packs
@pytest.mark.timeout(180)  # the first test reads the pack, which takes long on a busy machine
class TestScholarPack(RealPackContract):
    env_id = "steppo/PaperSearch-v0"
    options: ClassVar[Mapping[str, object]] = {"data": str(PACKS / "scholar")}
