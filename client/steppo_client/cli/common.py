"""What several verbs share: reading options, opening clients, running async code."""

import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import typer
from pydantic import JsonValue
from rich.console import Console

from steppo_client.env_client import EnvClient
from steppo_client.local_client import LocalEnvClient
from steppo_client.servers import client_of
from steppo_env.catalogue import Catalogue
from steppo_env.errors import InvalidInput
from steppo_env.store import TrajectoryStore, open_store

__all__ = [
    "EXIT_SOME_FAILED",
    "ConfigOption",
    "JsonOption",
    "ServerOption",
    "SetOption",
    "make_folder",
    "open_client",
    "optional_store",
    "paper",
    "print_json",
    "read_settings",
    "run_async",
    "screen",
]

ResultT = TypeVar("ResultT")

EXIT_SOME_FAILED = 1
EXIT_INTERRUPTED = 130

ServerOption = Annotated[
    str | None,
    typer.Option(
        help="URL of a steppo server, http:// or ws://, its key in STEPPO_KEY; "
        "without it environments run here."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="An environment option as key=value; may be repeated."),
]
ConfigOption = Annotated[
    Path | None, typer.Option(help="TOML file with named variants, as for steppo serve.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

KEY_VARIABLE = "STEPPO_KEY"
"""Environment variable with the key that a server asks for: on the command line others could read it."""

screen = Console(stderr=True)
"""What is said to a person on the way."""

FILE_WIDTH = 160
"""Columns of what goes to a file or a pipe, which does not say how wide it is."""
paper = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else FILE_WIDTH)
"""Results for a person, on stdout."""


def print_json(value: JsonValue) -> None:
    """Print a JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_settings(pairs: Sequence[str] | None) -> dict[str, JsonValue]:
    """Return `key=value` settings; a value that is JSON is read as JSON, any other is text.

    Raises:
        InvalidInput: A setting has no `=`, or a key stands twice.

    >>> read_settings(["size=5", "data=../packs/hotpotqa"])
    {'size': 5, 'data': '../packs/hotpotqa'}
    """
    settings: dict[str, JsonValue] = {}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not (equals and key):
            raise InvalidInput(f"--set takes key=value, not {pair!r}")
        if key in settings:
            raise InvalidInput(f"--set {key} is given twice")
        try:
            settings[key] = json.loads(text, parse_constant=_refuse)
        except ValueError:
            settings[key] = text
    return settings


def _refuse(constant: str) -> JsonValue:
    raise ValueError(f"{constant} is no JSON")


def open_client(server: str | None, config: Path | None) -> EnvClient:
    """Return the client that the flags ask for; a server's key is in the variable STEPPO_KEY.

    Raises:
        InvalidInput: Both a server and a file of variants are given, or the URL is none.
    """
    if server is None:
        return LocalEnvClient(Catalogue.from_toml(config) if config is not None else None)
    if config is not None:
        raise InvalidInput("--config names variants of this process; a server has its own")
    return client_of(server, key=os.environ.get(KEY_VARIABLE) or None)


def make_folder(path: Path) -> None:
    """Make a folder for results, unless it is there.

    Raises:
        InvalidInput: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"cannot make the folder {path}: {error.strerror}; name another with --out"
        ) from None


def optional_store(url: str | None) -> AbstractContextManager[TrajectoryStore | None]:
    """Return the store at a URL, or nothing where none is asked for."""
    return nullcontext() if url is None else open_store(url)


def run_async(work: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
    """Run async code from a verb. Ctrl-C cancels it and ends the verb when it has cleaned up.

    Raises:
        SteppoError: What the work raised.
    """
    try:
        return anyio.run(work)
    except KeyboardInterrupt:
        screen.print("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
