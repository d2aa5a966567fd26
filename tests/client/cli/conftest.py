"""Runs the command line in this process."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from steppo_client.cli import main
from steppo_client.cli.common import paper, screen

_INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from steppo_client.cli import main
main()
"""


@pytest.fixture
def interruptible() -> list[str]:
    """Return the command line that Ctrl-C ends, as in a terminal.

    A test run that a script put into the background has SIGINT ignored, and so have its children.
    """
    return [sys.executable, "-u", "-c", _INTERRUPTIBLE]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that a refused command says."""
        assert self.code == 2, self
        assert self.out == ""
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


@pytest.fixture
def steppo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run `steppo` with arguments."""
    for console in (paper, screen):
        monkeypatch.setattr(console, "width", 200)

    def run(*arguments: object, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["steppo", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        code = caught.value.code
        assert code is None or isinstance(code, int)
        return Done(code or 0, captured.out, captured.err)

    return run
