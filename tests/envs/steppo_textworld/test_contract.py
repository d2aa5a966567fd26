"""The published contract, on every family."""

from steppo_env.testing import EnvContract


class TestTreasureHunter(EnvContract):
    env_id = "steppo/TextWorld-v0"
