"""The `steppo serve` command and the `steppo-server` script."""

import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from steppo_env.errors import InvalidInput, SteppoError
from steppo_env.registry import Catalogue
from steppo_server.app import create_app
from steppo_server.settings import ServerSettings, read_settings

__all__ = ["main", "serve"]


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
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve environments over HTTP until interrupted."""
    flags = {"host": host, "port": port, "allow_remote": allow_remote or None}
    settings = read_settings(config, flags)
    catalogue = Catalogue.from_toml(config) if config is not None else Catalogue()
    with _listen(settings) as listener:
        address, bound_port = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        # The one line on stdout: whoever started the server with port 0 reads the address from it.
        sys.stdout.write(f"serving http://{shown}:{bound_port}\n")
        sys.stdout.flush()
        uvicorn.Server(
            uvicorn.Config(
                create_app(catalogue, settings),
                log_level=log_level,
                access_log=False,
                timeout_graceful_shutdown=settings.shutdown_s,
                timeout_keep_alive=75,  # longer than a generation's pause between two steps
            )
        ).run(sockets=[listener])


def _listen(settings: ServerSettings) -> socket.socket:
    """Bind before the application starts, so that a port in use is found at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; choose "
            "another --port, or 0 for a free one"
        ) from error
    return listener


def main() -> None:
    """Run `steppo-server`: the same as `steppo serve`, without the client."""
    app = typer.Typer(add_completion=False)
    app.command()(serve)
    try:
        app(standalone_mode=False)
    except SteppoError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
    except typer.Exit as leave:
        raise SystemExit(leave.exit_code) from None
