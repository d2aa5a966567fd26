"""What every test runs in."""

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

STOP_S = 15.0


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make games in a folder of the test session: nothing depends on what lies in a cache.

    The workers of pytest-xdist share it, so that each game is made once.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPPO_HOME", str(shared / "steppo-home"))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in captured logs: pytest-xdist cannot carry them and would crash."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


class Serve(Protocol):
    """Starts a server with these arguments of `steppo serve`, and returns its URL."""

    def __call__(self, *arguments: str) -> str: ...


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Return what starts a real server on a free port; each is stopped by its own handle."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(
            _server(tmp_path_factory.mktemp("server") / "log", arguments)
        )


@contextmanager
def _server(log: Path, arguments: tuple[str, ...]) -> Iterator[str]:
    command = [sys.executable, "-m", "steppo_client", "serve", "--port", "0", *arguments]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("serving "), log.read_text()
        yield line.removeprefix("serving ").strip()
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
