"""What every test runs in."""

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

STOP_S = 15.0
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


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


class Postgres:
    """A PostgreSQL server of the test session's own, reached through a socket in its folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._numbers = itertools.count()

    def new_database(self) -> str:
        """Return the URL of a database with nothing in it."""
        name = f"test{next(self._numbers)}"
        self._run("createdb", "-h", str(self._folder), "-U", "postgres", name)
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def begin(self) -> None:
        """Make the server and start it."""
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "postgres", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop the server; it breaks its connections off."""
        self._call(self.stopping)

    @property
    def stopping(self) -> list[str]:
        """The command that stops the server."""
        return self._command("pg_ctl", "-D", str(self._data), "-w", "-m", "fast", "stop")

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._programs / program), *arguments]
        # The server refuses to be root.
        return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command

    def _run(self, program: str, *arguments: str) -> None:
        self._call(self._command(program, *arguments))

    def _call(self, command: list[str]) -> None:
        # The server inherits the output, so that a pipe would never come to its end.
        with (self._folder / "output").open("a+") as output:
            code = subprocess.call(
                command, cwd=self._folder, stdout=output, stderr=output, timeout=STOP_S
            )
            output.seek(0)
            assert code == 0, output.read()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a running PostgreSQL server; each test takes a new database of it."""
    pytest.importorskip("psycopg", reason="needs the driver psycopg")
    found = shutil.which("initdb")
    programs = [Path(found).resolve().parent] if found else sorted(DEBIAN_POSTGRES.glob("*/bin"))
    if not programs:
        pytest.skip("needs the programs of a PostgreSQL server")
    folder = Path(tempfile.mkdtemp(prefix="steppo-postgres-"))
    server = Postgres(programs[-1], folder)
    # A test that exceeds its time ends the process without any clean-up: what waits for the end of
    # this pipe stops the server then as well.
    sweeper = subprocess.Popen(
        ["sh", "-c", f'cat; {shlex.join(server.stopping)}; rm -rf "$0"', str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the tests
    )
    assert sweeper.stdin is not None
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        server.begin()
        yield server
    finally:
        sweeper.stdin.close()
        sweeper.wait(STOP_S)
