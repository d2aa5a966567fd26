"""The application: puts settings, sessions, routes and error handling together."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
from fastapi import FastAPI

from steppo_env.catalogue import Catalogue
from steppo_server.auth import NO_KEYS, Authenticate, Keyring
from steppo_server.body import BodyLimit
from steppo_server.documented import any_problem
from steppo_server.journal import open_journal
from steppo_server.problems import install_handlers
from steppo_server.routes import batch, environments, health, leases, sessions
from steppo_server.sessions import SessionManager
from steppo_server.settings import ServerSettings, journal_url, read_settings

__all__ = ["create_app"]

SWEEP_EVERY_S = 5.0

logger = logging.getLogger("steppo.server")


def create_app(
    catalogue: Catalogue | None = None,
    settings: ServerSettings | None = None,
    keyring: Keyring = NO_KEYS,
) -> FastAPI:
    """Return the ASGI application.

    Args:
        catalogue: What is served; None serves every registered environment.
        settings: None takes the defaults and the STEPPO_SERVER_* variables.
        keyring: Who may call; where it is empty, everybody who can reach the server.

    Raises:
        InvalidInput: A STEPPO_SERVER_* variable is out of bounds.
    """
    settings = settings or read_settings(None, {})
    offered = catalogue or Catalogue()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_journal(journal_url(settings), sync=settings.journal_sync) as journal:
            manager = app.state.manager = SessionManager(offered, settings, journal)
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(_sweep, manager)
                    yield
                    group.cancel_scope.cancel()
            finally:
                await manager.close()

    app = FastAPI(
        title="steppo-env",
        version=version("steppo-env"),
        summary="Step-level MDP environments over HTTP",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from other machines
        redoc_url=None,
        redirect_slashes=False,  # a redirect leaves the proxy, and a POST after it is often refused
        responses=any_problem(),
    )
    app.add_middleware(Authenticate, keyring=keyring)
    app.add_middleware(BodyLimit, max_body_bytes=settings.max_body_bytes)
    install_handlers(app)
    for module in (environments, sessions, leases, batch, health):
        app.include_router(module.router)
    return app


async def _sweep(manager: SessionManager) -> None:
    while True:
        await anyio.sleep(SWEEP_EVERY_S)
        try:
            await manager.sweep()
        except Exception:
            # An error here would cancel the whole application; the next sweep may do better.
            logger.exception("expired sessions could not be freed")
