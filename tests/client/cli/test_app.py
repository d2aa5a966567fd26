import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from steppo_client.cli import app

VERBS = ["data", "demo", "envs", "eval", "keygen", "play", "rollout", "serve", "store"]


def run_python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_lists_every_verb(steppo: Any) -> None:
    done = steppo("--help")

    assert done.code == 0
    assert done.err == ""
    for verb in VERBS:
        assert f" {verb} " in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(steppo: Any, verb: str) -> None:
    done = steppo(verb, "--help")

    assert done.code == 0
    assert "Usage: steppo" in done.out


def test_the_command_alone_shows_help_and_has_done_nothing(steppo: Any) -> None:
    done = steppo()

    assert done.code == 2
    assert "rollout" in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rolout"], "No such command 'rolout'"),
        (["rollout"], "Missing argument"),
        (["rollout", "x", "--nope"], "No such option"),
        (["rollout", "x", "--policy", "human"], "'human' is not one of"),
        (["rollout", "x", "--tasks", "0"], "Invalid value for '--tasks'"),
        (["rollout", "x", "--tasks", "many"], "Invalid value for '--tasks'"),
        (["rollout", "x", "--seed", "-1"], "Invalid value for '--seed'"),
        (["play", "x", "--index", "-1"], "Invalid value for '--index'"),
        (["store", "nope"], "No such command 'nope'"),
        (["data", "nope"], "No such command 'nope'"),
        (["data", "stats"], "Missing argument"),
        (["store", "ls"], "Missing option '--store'"),
        (["eval", "x"], "Missing option '--out'"),
    ],
)
def test_a_wrong_command_line_is_explained(steppo: Any, arguments: list[str], message: str) -> None:
    done = steppo(*arguments)

    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert "Traceback" not in done.err


def test_it_runs_as_a_module_and_its_error_is_one_line() -> None:
    done = run_python("-m", "steppo_client", "rollout", "steppo/KeyDor-v0")

    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: there is no environment 'steppo/KeyDor-v0'")
    assert line.endswith("Did you mean steppo/KeyDoor-v0?")


def test_a_light_verb_imports_nothing_heavy() -> None:
    program = (
        "import sys; from steppo_client.cli import main; sys.argv = ['steppo', 'store', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'openai', 'fastapi', 'uvicorn', 'textworld', 'torch'} & set(sys.modules)))"
    )
    done = run_python("-c", program)

    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_verb_whose_package_lacks_something_says_what_to_install(
    steppo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("serve", "no_such_module:serve", app.COMMAND_GROUP)
    monkeypatch.setattr(app, "entry_points", lambda group: [point])

    assert "Not installed here: No module named 'no_such_module'" in " ".join(
        steppo("--help").out.replace("│", " ").split()
    )
    error = steppo("serve", "--port", "0", "more").error
    assert "No module named 'no_such_module'" in error
    assert 'pip install "steppo-env[server]"' in error


def bring(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """Let other packages bring these commands to `steppo data`."""
    found = [EntryPoint(name, value, app.DATA_GROUP) for name, value in points.items()]
    monkeypatch.setattr(app, "entry_points", lambda group: found if group == app.DATA_GROUP else [])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:convert", "No module named 'no_such_module'"),
        ("json:no_such_command", "module 'json' has no attribute 'no_such_command'"),
    ],
)
def test_a_data_command_that_cannot_be_imported_says_so(
    steppo: Any, monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    bring(monkeypatch, convert="steppo_multihop_qa.commands:convert", broken=value)

    shown = " ".join(steppo("data", "--help").out.replace("│", " ").split())
    assert f"broken Not installed here: {reason}" in shown
    assert "convert Convert a published multi-hop question set" in shown
    assert "stats Count the tasks" in shown
    error = steppo("data", "broken", "--any", "thing").error
    assert error.startswith(f"steppo data broken needs more than is installed here ({reason})")
    assert steppo("data", "convert", "--help").code == 0


def test_data_commands_are_imported_only_when_they_are_called_or_listed(
    steppo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    class Watched(EntryPoint):
        def load(self) -> Any:
            loaded.append(self.name)
            return lambda: None

    points = [Watched(name, "json:loads", app.DATA_GROUP) for name in ("one", "two")]
    monkeypatch.setattr(
        app, "entry_points", lambda group: points if group == app.DATA_GROUP else []
    )
    for arguments in (["--help"], ["envs", "--help"], ["data", "stats", "--help"]):
        assert steppo(*arguments).code == 0
    assert loaded == []
    assert steppo("data", "two").code == 0
    assert loaded == ["two"]
    steppo("data", "--help")
    assert loaded == ["two", "one", "two"]
