from pathlib import Path
from typing import Any

import pytest

from steppo_env.registry import registered_ids
from steppo_keydoor import KeyDoor


def test_every_environment_is_listed_with_its_tasks(steppo: Any) -> None:
    done = steppo("envs")

    assert done.code == 0
    for env_id in registered_ids():
        assert env_id in done.out
    assert "dev 512" in done.out


def test_the_json_describes_options_and_splits(steppo: Any, server_url: str) -> None:
    here = steppo("envs", "--json")
    there = steppo("envs", "--json", "--server", server_url)

    assert here.err == there.err == ""
    assert here.json == there.json
    (keydoor,) = [it for it in here.json["environments"] if it["env_id"] == "steppo/KeyDoor-v0"]
    assert keydoor["is_available"] is True
    assert keydoor["splits"] == {"train": 100_000, "dev": 512, "test": 512}
    assert keydoor["options"]["properties"]["size"]["maximum"] == 20
    assert keydoor["step_limit"] == 24


def test_variants_are_listed_too(steppo: Any, tmp_path: Path) -> None:
    config = tmp_path / "variants.toml"
    config.write_text('[environments.small]\nenv_id = "steppo/KeyDoor-v0"\noptions = {size = 3}\n')
    listed = steppo("envs", "--json", "--config", config).json["environments"]

    assert [it["env_id"] for it in listed] == [*registered_ids(), "small"]
    assert listed[-1]["fixed_options"] == ["size"]


def test_one_that_cannot_be_used_is_listed_with_its_reason(
    steppo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeyDoor, "load_tasks", classmethod(lambda *_: 1 / 0))
    done = steppo("envs", "--json")

    assert done.code == 0
    unusable = {it["env_id"] for it in done.json["environments"] if not it["is_available"]}
    assert unusable == {"steppo/KeyDoor-v0"}
    assert "ZeroDivisionError" in done.json["environments"][0]["problem"]
    assert "not usable here" in steppo("envs").out


def test_a_wrong_address_is_an_error_of_one_line(steppo: Any) -> None:
    assert "a server has a URL" in steppo("envs", "--server", "localhost:8765").error
