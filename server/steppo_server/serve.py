"""The `steppo serve` command and the `steppo-server` script."""

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
import uvicorn
from uvicorn.config import LOGGING_CONFIG

from steppo_env.catalogue import Catalogue
from steppo_env.errors import InvalidInput, SteppoError
from steppo_server.app import create_app
from steppo_server.settings import ServerSettings, read_settings

__all__ = ["LogLevel", "main", "serve"]

EXIT_BAD_INPUT = 2
KEEP_ALIVE_S = 75  # longer than a generation's usual pause between two steps


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
        Path | None, typer.Option(help="TOML file with [server] and [environments.NAME].")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen beyond loopback without keys.")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = LogLevel.INFO,
) -> None:
    """Serve environments over HTTP until interrupted."""
    flags = {"host": host, "port": port, "allow_remote": allow_remote or None}
    settings = read_settings(config, flags)
    catalogue = Catalogue.from_toml(config) if config is not None else Catalogue()
    with _listen(settings) as listener:
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(catalogue, settings),
                lifespan="on",
                log_config=_log_config(log_level),
                log_level=log_level,
                access_log=False,
                timeout_graceful_shutdown=settings.shutdown_s,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        with _handled_signals(server.handle_exit):
            address, bound_port = listener.getsockname()[:2]
            shown = f"[{address}]" if ":" in address else address
            # The one line on stdout: whoever gave port 0 reads the address from it.
            sys.stdout.write(f"serving http://{shown}:{bound_port}\n")
            sys.stdout.flush()
            server.run(sockets=[listener])


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


def _log_config(level: LogLevel) -> dict[str, Any]:
    """Return uvicorn's logging, with this server's own messages in it. All goes to stderr."""
    own = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    return {**LOGGING_CONFIG, "loggers": {**LOGGING_CONFIG["loggers"], "steppo": own}}


def main() -> None:
    """Run `steppo-server`: the same as `steppo serve`, without the client."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    try:
        app()
    except SteppoError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_BAD_INPUT) from None
