"""The published contract, on every family."""

from collections.abc import Mapping
from typing import ClassVar

from steppo_env.testing import EnvContract


class TestTreasureHunter(EnvContract):
    env_id = "steppo/TextWorld-v0"
    # Gymnasium's checker draws many training tasks, and making a game takes about a second.
    options: ClassVar[Mapping[str, object]] = {"num_train": 1}
    num_tasks = 2


class TestCoinCollector(EnvContract):
    env_id = "steppo/TextWorld-v0"
    options: ClassVar[Mapping[str, object]] = {"family": "coin_collector", "num_train": 1}
    num_tasks = 1


class TestSimple(EnvContract):
    env_id = "steppo/TextWorld-v0"
    options: ClassVar[Mapping[str, object]] = {
        "family": "simple",
        "reward": "score",
        "num_train": 1,
    }
    num_tasks = 1


class TestCooking(EnvContract):
    env_id = "steppo/TextWorld-v0"
    options: ClassVar[Mapping[str, object]] = {
        "family": "cooking",
        "show_admissible": False,
        "num_train": 1,
    }
    num_tasks = 1


class TestCustom(EnvContract):
    env_id = "steppo/TextWorld-v0"
    options: ClassVar[Mapping[str, object]] = {"family": "custom", "num_train": 1}
    num_tasks = 1
