import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from steppo_client.cli.common import paper
from steppo_client.cli.rollout import explain_failures
from steppo_client.summary import EnvSummaryReport
from steppo_env.errors import EnvError, StoreError
from steppo_env.mdp import StopReason
from steppo_env.store import TrajectoryFilter, open_store
from steppo_keydoor import KeyDoor

KEYDOOR = "steppo/KeyDoor-v0"
START_S = 30.0
STOP_S = 15.0


def test_the_json_is_one_document_with_the_numbers_of_each_environment(steppo: Any) -> None:
    done = steppo("rollout", KEYDOOR, "--tasks", 4, "--group-size", 2, "--json", "--run-id", "r1")

    assert (done.code, done.err) == (0, "")
    assert done.json.keys() == {"run_id", "environments"}
    assert done.json["run_id"] == "r1"
    (report,) = done.json["environments"].values()
    assert report.keys() == set(EnvSummaryReport.__dataclass_fields__)
    assert (report["episodes"], report["success_rate"], report["mean_return"]) == (8, 1.0, 1.0)
    assert report["steps"] == 8 * report["mean_steps"]
    assert (report["terminated"], report["truncated"], report["failed"]) == (8, 0, 0)


def test_the_same_seed_gives_the_same_digest_here_and_on_a_server(
    steppo: Any, server_url: str
) -> None:
    def digest(*more: object) -> str:
        done = steppo("rollout", KEYDOOR, "--policy", "random", "--tasks", 3, "--json", *more)
        text = done.json["environments"][KEYDOOR]["digest"]
        assert isinstance(text, str)
        return text

    here = digest("--seed", 1, "--concurrency", 1)
    assert here == digest("--seed", 1, "--server", server_url)
    assert here != digest("--seed", 2)


def test_the_table_fits_into_80_columns(steppo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "width", 80)
    done = steppo("rollout", KEYDOOR, "--tasks", 2)

    assert done.code == 0
    assert KEYDOOR in done.out
    assert "1.00 (0.34-1.00)" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_trajectories_go_into_the_store(steppo: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'run.db'}"
    steppo("rollout", KEYDOOR, "--tasks", 3, "--store", url, "--run-id", "r1", "--set", "size=3")
    with open_store(url, create=False) as store:
        assert store.count(TrajectoryFilter(run_id="r1", policy="expert")) == 3
        assert store.get_run("r1").outcome == "finished"
        assert all(item.options == {"size": 3} for item in store.iterate())


def test_failed_episodes_are_exit_code_1_and_explained(
    steppo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = KeyDoor.act

    def jammed(self: KeyDoor, action: Any) -> Any:
        if self.task.task_id == "dev/1":
            raise EnvError("the [door] jammed")
        return act(self, action)

    monkeypatch.setattr(KeyDoor, "act", jammed)
    done = steppo("rollout", KEYDOOR, "--tasks", 3, "--json")

    assert done.code == 1
    assert done.json["environments"][KEYDOOR]["failures"] == {"env_error": 1}
    assert done.err == f"1 of {KEYDOOR} ended by env_error, such as: the [door] jammed\n"
    assert explain_failures([]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["steppo/KeyDor-v0"], "Did you mean steppo/KeyDoor-v0?"),
        ([KEYDOOR, "--split", "nope"], "there is no split 'nope'; the splits are: train"),
        ([KEYDOOR, "--tasks", "513"], "513 tasks are asked for, but split dev"),
        ([KEYDOOR, "--set", "size"], "--set takes key=value, not 'size'"),
        ([KEYDOOR, "--set", "sise=3"], "the options are: step_limit"),
        ([KEYDOOR, "--set", "size=1"], "size: Input should be greater than or equal to 2"),
        (["steppo/MultihopQA-v0", "--set", "data=/nowhere"], "/nowhere"),
        ([KEYDOOR, "--server", "nope"], "a server has a URL such as http://"),
        ([KEYDOOR, "--server", "http://a", "--config", "b"], "--config names variants"),
        ([KEYDOOR, "--config", "/nowhere.toml"], "cannot read /nowhere.toml"),
        ([KEYDOOR, "--store", "nope"], "a store URL looks like sqlite:///"),
        ([KEYDOOR, "--store", "sqlite:////nowhere/x.db"], "there is no folder /nowhere"),
    ],
)
def test_bad_input_is_an_error_of_one_line(steppo: Any, arguments: list[str], message: str) -> None:
    assert message in steppo("rollout", *arguments).error


def test_a_server_that_is_not_there_is_an_error_of_one_line_soon(steppo: Any) -> None:
    began = time.monotonic()
    error = steppo("rollout", KEYDOOR, "--server", "http://127.0.0.1:9").error

    assert "http://127.0.0.1:9/v1/envs" in error
    assert "is the server running?" in error
    assert time.monotonic() - began < 15


def test_an_option_of_the_operator_is_refused_by_a_server(steppo: Any, server_url: str) -> None:
    error = steppo(
        "rollout", "steppo/MultihopQA-v0", "--server", server_url, "--set", "data=/etc"
    ).error

    assert "data: set by whoever runs" in error


def test_a_run_id_used_before_is_refused(steppo: Any, tmp_path: Path) -> None:
    arguments = ("rollout", KEYDOOR, "--tasks", 1, "--run-id", "r1")
    store = f"sqlite:///{tmp_path / 'run.db'}"
    assert steppo(*arguments, "--store", store).code == 0
    assert "run 'r1' is stored" in steppo(*arguments, "--store", store).error


def test_ctrl_c_is_quick_and_keeps_what_is_finished(
    tmp_path: Path, interruptible: list[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'run.db'}"
    command = [*interruptible, "rollout", KEYDOOR, "--store", url]
    with subprocess.Popen(
        [*command, "--tasks", "512", "--group-size", "1000", "--run-id", "r1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _wait_for_trajectories(url, tmp_path / "run.db")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=STOP_S)
        finally:
            process.kill()

    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    with open_store(url, create=False) as store:
        assert store.get_run("r1").outcome == "cancelled"
        assert store.count(TrajectoryFilter(stop_reason=StopReason.TERMINATED)) > 0
        assert store.count(TrajectoryFilter(stop_reason=StopReason.CANCELLED)) <= 16
        assert store.count(TrajectoryFilter(trainable=False)) <= 16


def _wait_for_trajectories(url: str, path: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        # Until the other process has made its tables there is a file, but no store in it.
        if path.exists():
            with suppress(StoreError), open_store(url, create=False) as store:
                if store.count() > 0:
                    return
        time.sleep(0.05)
    raise AssertionError("nothing was stored")
