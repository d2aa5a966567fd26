import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from steppo_client.cli import demo as module
from steppo_env.registry import registered_ids
from steppo_env.store import TrajectoryFilter, open_store


def test_it_plays_every_environment_with_both_policies_and_stops_its_server(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "steppo_client", "demo", "--out", str(tmp_path), "--tasks", "2"],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    with open_store(f"sqlite:///{tmp_path / 'demo.db'}", create=False) as store:
        for env_id in registered_ids():
            assert env_id in done.stdout
            for policy in ("expert", "random"):
                assert store.count(TrajectoryFilter(env_id=env_id, policy=policy)) == 2
        assert store.count(TrajectoryFilter(policy="expert", success=True)) == 2 * len(
            registered_ids()
        )
    assert "step 0" in done.stdout
    address = re.search(r"http://127\.0\.0\.1:\d+", done.stderr)
    assert address is not None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address[0]}/healthz")


def test_a_server_that_does_not_start_is_an_error_with_the_end_of_its_log(
    steppo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_SERVER_HOST", "0.0.0.0")  # not without --allow-remote
    error = steppo("demo", "--out", tmp_path).error

    assert "the server did not start" in error
    assert str(tmp_path / "server.log") in error
    assert "--allow-remote" in error


def test_a_server_that_says_nothing_is_given_up_and_ended(
    steppo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def silent(command: list[str], **options: Any) -> "subprocess.Popen[str]":
        started.append(popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", silent)
    monkeypatch.setattr(module, "START_S", 0.2)
    assert "the server did not start" in steppo("demo", "--out", tmp_path).error
    assert started[0].returncode is not None
    assert started[0].stdin is not None
    started[0].stdin.close()


def test_a_folder_that_is_a_file_is_an_error_of_one_line(steppo: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert "cannot make the folder" in steppo("demo", "--out", tmp_path / "file").error
