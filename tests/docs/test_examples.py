"""Every example of the documentation is run as a reader would run it."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "envs").glob("*/README.md")),
]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STEPPO = str(Path(sys.executable).parent / "steppo")


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the code blocks of a language, each with the name of its page."""
    return [
        (page.relative_to(ROOT).as_posix(), code)
        for page in PAGES
        for found, code in FENCE.findall(page.read_text(encoding="utf-8"))
        if found == language
    ]


def shell_lines(prefix: str) -> list[tuple[str, str]]:
    """Return the lines of shell blocks that begin with a command, each with its page."""
    return [
        (page, line.partition(" #")[0].strip())
        for page, code in blocks("sh")
        for line in code.splitlines()
        if line.startswith(prefix)
    ]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "page", sorted({page for page, _ in blocks("python")}), ids=lambda page: str(page)
)
def test_python_examples_of_a_page_run_in_order(page: str, tmp_path: Path) -> None:
    script = "\n\n".join(code for found, code in blocks("python") if found == page)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(120)
def test_shell_examples_of_the_readme_run(tmp_path: Path) -> None:
    lines = [line for page, line in shell_lines("steppo ") if page == "README.md"]
    lines = [line for line in lines if not line.startswith("steppo serve")]
    assert len(lines) >= 4
    for line in lines:
        command = [STEPPO, *shlex.split(line)[1:]]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))


def test_curl_examples_get_what_they_ask_for(serve: Callable[[], str]) -> None:
    server = serve()
    # Those of docs/api.md also have replies: test_api_page.py makes them.
    lines = [line for page, line in shell_lines("curl ") if page != "docs/api.md"]
    assert len(lines) >= 4
    for line in lines:
        words = shlex.split(line)[1:]
        data = words[words.index("-d") + 1] if "-d" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else ("POST" if data else "GET")
        (url,) = [word for word in words if word.startswith("http://")]
        url = url.replace("http://127.0.0.1:8765", server)
        response = httpx.request(method, url, content=data, timeout=30)
        assert response.is_success, f"{line}\n{response.text}"


@pytest.mark.parametrize(("page", "code"), blocks("toml"))
def test_toml_examples_parse(page: str, code: str) -> None:
    assert tomllib.loads(code), page


@pytest.mark.parametrize(("page", "code"), blocks("json"))
def test_json_examples_parse(page: str, code: str) -> None:
    assert json.loads(code), page


def test_every_verb_is_documented() -> None:
    done = subprocess.run(
        [STEPPO, "--help"],
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    verbs = re.findall(r"^│ ([a-z]+) ", done.stdout, re.MULTILINE)
    assert {"envs", "play", "rollout", "eval", "serve", "store", "demo"} <= set(verbs)
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [verb for verb in verbs if f"`steppo {verb}" not in text] == []


def test_every_server_setting_is_documented() -> None:
    from steppo_server.settings import ServerSettings

    text = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    assert [name for name in ServerSettings.model_fields if f"`{name}`" not in text] == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert broken == []
