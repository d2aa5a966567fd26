"""The published contract, over the built-in library and over a real data pack."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from steppo_env.testing import EnvContract

PHYSICS = next(
    (
        folder
        for parent in Path(__file__).resolve().parents
        if (folder := parent / "shared/data/paper_search/physics_citation_graph").is_dir()
    ),
    None,
)


class TestBuiltInLibrary(EnvContract):
    env_id = "steppo/PaperSearch-v0"


class TestPaperReward(EnvContract):
    env_id = "steppo/PaperSearch-v0"
    options: ClassVar[Mapping[str, object]] = {
        "reward": "top3",
        "selector": "lexical",
        "show_scores": True,
    }
    num_tasks = 1


@pytest.mark.skipif(PHYSICS is None, reason="the physics data pack is not beside the repository")
class TestPhysicsPack(EnvContract):
    env_id = "steppo/PaperSearch-v0"
    options: ClassVar[Mapping[str, object]] = {"data": str(PHYSICS)}
    split = "test"
