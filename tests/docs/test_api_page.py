"""Each call of docs/api.md is made as it stands there, and answered as it says."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from steppo_env.stream_wire import StreamRequest
from steppo_server.auth import DIGEST_PREFIX, digest_of
from steppo_server.documented import PROBLEMS
from steppo_server.operations import OPERATIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
URL = "http://127.0.0.1:8765"
KEY = "a key of the tests"
CLOCK = "lease_expires_at"

Serve = Callable[..., str]


def section(title: str) -> str:
    """Return the text of a section of the page."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def calls(text: str) -> list[tuple[str, Any]]:
    """Return the curl lines, each with the reply that its section shows after it, or None."""
    found: list[tuple[str, Any]] = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE):
        is_reply = False
        for language, code in BLOCK.findall(part):
            lines = [line for line in code.splitlines() if line.startswith("curl ")]
            if language == "sh":
                found += [(line, None) for line in lines]
            elif language == "json" and is_reply:
                found[-1] = (found[-1][0], json.loads(code))
            is_reply = language == "sh" and bool(lines)
    return found


def call(line: str, server: str) -> httpx.Response:
    """Do what the curl line does."""
    words = shlex.split(line.replace("$KEY", KEY))[1:]
    data = words[words.index("-d") + 1] if "-d" in words else None
    method = words[words.index("-X") + 1] if "-X" in words else ("POST" if data else "GET")
    name, _, value = (words[words.index("-H") + 1] if "-H" in words else "").partition(": ")
    (url,) = [word for word in words if word.startswith(URL)]
    headers = {name: value} if name else {}
    return httpx.request(
        method, url.replace(URL, server), content=data, headers=headers, timeout=30
    )


def check(shown: Any, given: Any, where: str) -> None:
    """Check a shortened reply against the real one."""
    if isinstance(shown, dict):
        assert isinstance(given, dict), where
        for name, value in shown.items():
            assert name in given, f"{where}.{name}"
            if name == CLOCK:
                assert isinstance(given[name], float), f"{where}.{name}"
            else:
                check(value, given[name], f"{where}.{name}")
    elif isinstance(shown, list):
        is_whole = shown[-1:] != ["..."]
        items = shown if is_whole else shown[:-1]
        assert len(given) == len(items) if is_whole else len(given) > len(items), where
        for place, (item, value) in enumerate(zip(items, given, strict=False)):
            check(item, value, f"{where}[{place}]")
    elif isinstance(shown, str) and shown.endswith("..."):
        assert given.startswith(shown.removesuffix("...")), where
    else:
        assert shown == given, where


def replies(text: str, server: str) -> dict[str, list[httpx.Response]]:
    """Make the calls in order, check each, and return the replies by call."""
    made: dict[str, list[httpx.Response]] = {}
    for line, shown in calls(text):
        response = call(line, server)
        made.setdefault(line, []).append(response)
        if isinstance(shown, dict) and "type" in shown:
            assert response.status_code == shown["status"], f"{line}\n{response.text}"
        else:
            assert response.is_success, f"{line}\n{response.text}"
        if shown is not None:
            check(shown, response.json(), line)
    return made


def test_every_call_is_answered_as_the_page_says(serve: Serve) -> None:
    server = serve("--journal", "sqlite://")
    text = PAGE.replace(section("Keys"), "")
    made = replies(text, server)
    (repeated,) = [given for given in made.values() if len(given) > 1]
    assert len({response.content for response in repeated}) == 1
    document = httpx.get(f"{server}/openapi.json").json()
    asked = {
        (reply.request.method, reply.request.url.path) for given in made.values() for reply in given
    }
    for path, item in document["paths"].items():
        pattern = re.compile(path.replace("{env_id}", ".+").replace("{session_id}", "[^/]+"))
        for method in item:
            assert any(
                verb == method.upper() and pattern.fullmatch(place) for verb, place in asked
            ), f"{method} {path}"


def test_calls_with_a_key_are_answered_as_the_page_says(serve: Serve, tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    digest = DIGEST_PREFIX + digest_of(KEY).hex()
    config.write_text(f'[keys.reader]\ndigest = "{digest}"\nscopes = ["act"]\n')
    server = serve("--journal", "sqlite://", "--config", str(config))
    assert len(replies(section("Keys"), server)) == 3


def test_the_example_of_the_stream_runs(serve: Serve, tmp_path: Path) -> None:
    (code,) = [code for language, code in BLOCK.findall(PAGE) if language == "py"]
    server = serve("--journal", "sqlite://").removeprefix("http")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace(URL.removeprefix("http"), server)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["1 200 0.0", "204"]


def test_every_operation_of_the_stream_stands_in_its_table() -> None:
    text = section("The stream")
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = [name for row in rows[1:] for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(OPERATIONS)
    (frame,) = [code for language, code in BLOCK.findall(text) if language == "json"]
    assert StreamRequest.model_validate_json(frame).root.op == "step"


def test_every_problem_type_stands_in_the_table_with_its_status() -> None:
    rows = re.findall(r"^\| (`.*?) \| (\d+) \|", section("Problems"), re.MULTILINE)
    table = {slug: int(status) for slugs, status in rows for slug in re.findall(r"`(.+?)`", slugs)}
    assert table == {error.slug: error.status for error in PROBLEMS}


@pytest.mark.parametrize(
    ("shown", "given"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {}),
        ([1], [1, 2]),
        ([1, "..."], [1]),
        ("b...", "abc"),
        ({CLOCK: 1.0}, {CLOCK: None}),
        (None, 0),
    ],
)
def test_a_reply_that_the_page_does_not_show_is_noticed(shown: Any, given: Any) -> None:
    with pytest.raises(AssertionError):
        check(shown, given, "reply")
