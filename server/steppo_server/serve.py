"""The `steppo serve` command and the `steppo-server` script."""

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from steppo_env.catalogue import Catalogue
from steppo_env.errors import InvalidInput, SteppoError
from steppo_server.app import create_app
from steppo_server.auth import NO_KEYS, Keyring
from steppo_server.hosts import LocalOnly
from steppo_server.logs import LogFormat, log_config
from steppo_server.memory import collect_rarely
from steppo_server.sessions import SessionManager
from steppo_server.settings import ServerSettings, read_settings

__all__ = ["LogLevel", "main", "serve"]

EXIT_BAD_INPUT = 2
KEEP_ALIVE_S = 75  # longer than a generation's usual pause between two steps
PING_EVERY_S = 20.0  # proxies close what is silent for a minute
PING_TIMEOUT_S = 180.0  # a sampler that generates in its own process may not answer for minutes


class LogLevel(StrEnum):
    """How much goes to stderr."""

    DEBUG = "debug"
    """Everything."""
    INFO = "info"
    """Start and stop, and what follows."""
    WARNING = "warning"
    """Refusals for want of room, and what follows."""
    ERROR = "error"
    """Failures only."""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one [8765].")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with [server], [keys.NAME] and [environments.NAME]."),
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen beyond loopback without keys.")
    ] = False,
    journal: Annotated[
        str | None,
        typer.Option(help="Database URL of the journal [a file under STEPPO_HOME]."),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = LogLevel.INFO,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How each line of the log looks [text].")
    ] = None,
) -> None:
    """Serve environments over HTTP until interrupted."""
    flags = {
        "host": host,
        "port": port,
        "allow_remote": allow_remote or None,
        "journal": journal,
        "log_format": log_format,
    }
    keyring = Keyring.from_toml(config) if config is not None else NO_KEYS
    settings = read_settings(config, flags, has_keys=bool(keyring))
    catalogue = Catalogue.from_toml(config) if config is not None else Catalogue()
    app = create_app(catalogue, settings, keyring)
    collect_rarely()
    with _listen(settings) as listener:
        server = _Server(_uvicorn_config(app, settings, keyring, log_level), app, settings.drain_s)
        with _handled_signals(server.handle_exit):
            address, bound_port = listener.getsockname()[:2]
            shown = f"[{address}]" if ":" in address else address
            # The one line on stdout: whoever gave port 0 reads the address from it.
            sys.stdout.write(f"serving http://{shown}:{bound_port}\n")
            sys.stdout.flush()
            server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says on /readyz that it stops before it stops.

    Args:
        drain_s: For how long, in seconds; a second signal ends the wait.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s
        self._drained_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        manager: SessionManager | None = getattr(self._app.state, "manager", None)
        if manager is None or self._drained_at is not None or not self._drain_s:
            super().handle_exit(sig, frame)
        else:
            self._drained_at = time.monotonic() + self._drain_s
        if manager is not None:
            manager.drain()

    async def on_tick(self, counter: int) -> bool:
        is_drained = self._drained_at is not None and time.monotonic() >= self._drained_at
        return await super().on_tick(counter) or is_drained


def _uvicorn_config(
    app: FastAPI, settings: ServerSettings, keyring: Keyring, log_level: LogLevel
) -> uvicorn.Config:
    guarded: ASGIApp = app
    if settings.is_loopback and not keyring:
        guarded = LocalOnly(app, settings.allowed_hosts)
    return uvicorn.Config(
        guarded,
        lifespan="on",
        log_config=log_config(log_level, settings.log_format),
        log_level=log_level,
        access_log=False,  # the app's own has the request's id
        timeout_graceful_shutdown=settings.shutdown_s,
        timeout_keep_alive=KEEP_ALIVE_S,
        ws_max_size=settings.max_body_bytes,
        ws_ping_interval=PING_EVERY_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        ws_per_message_deflate=False,  # it would cost more than most steps
    )


def _listen(settings: ServerSettings) -> socket.socket:
    """Bind before the application starts, so that a port in use is found at once."""
    where = f"{settings.host}:{settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except (socket.gaierror, UnicodeError):
        listener.close()
        raise InvalidInput(
            f"cannot listen on {where}: {settings.host!r} is no address or name that this machine "
            "knows; choose another --host"
        ) from None
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"cannot listen on {where}: {error.strerror or error}; choose another --host or --port, "
            "--port 0 takes a free one"
        ) from error
    return listener


@contextmanager
def _handled_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM ask the server to stop, also before and after it runs.

    After an orderly stop uvicorn raises the signal again, which without a handler would end the
    process as if it had been killed.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, restored in previous.items():
            signal.signal(number, restored)


def main() -> None:
    """Run `steppo-server`: the same as `steppo serve`, without the client."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    try:
        app()
    except SteppoError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_BAD_INPUT) from None
