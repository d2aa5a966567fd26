"""The application: puts settings, sessions, routes and error handling together."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import anyio
from fastapi import FastAPI

from steppo_env.catalogue import Catalogue
from steppo_env.errors import SteppoError
from steppo_server.auth import NO_KEYS, Authenticate, Keyring
from steppo_server.body import BodyLimit
from steppo_server.chores import chores
from steppo_server.direct import Direct
from steppo_server.documented import any_problem
from steppo_server.journal import Journal, open_journal
from steppo_server.metrics import Metrics
from steppo_server.observed import Observed
from steppo_server.openenv import mount_openenv
from steppo_server.problems import install_handlers
from steppo_server.readiness import Readiness
from steppo_server.routes import batch, environments, health, leases, sessions, stream
from steppo_server.sessions import SessionManager
from steppo_server.settings import ServerSettings, journal_url, read_settings

if TYPE_CHECKING:  # only with the extra [otel]
    from steppo_server.tracing import Tracing

__all__ = ["create_app"]

JOURNAL_CLOSE_S = 1.5

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
        MissingDependency: The settings ask for traces, and OpenTelemetry is not installed.
    """
    settings = settings or read_settings(None, {}, has_keys=bool(keyring))
    offered = catalogue or Catalogue()
    metrics = Metrics()
    tracing = _tracing(settings)
    if tracing is not None:
        metrics.tell_steps(tracing.stepped)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        url, sync = journal_url(settings), settings.journal_sync
        journal = open_journal(url, sync=sync, on_commit=metrics.committed)
        try:
            manager = app.state.manager = SessionManager(offered, settings, journal, metrics)
            app.state.readiness = Readiness(manager)
            metrics.watch(manager)
            try:
                async with chores(manager):
                    yield
            finally:
                await _put_down(manager)
        finally:
            await _close(journal, tracing)

    app = FastAPI(
        title="steppo-env",
        version=version("steppo-env"),
        summary="Step-level MDP environments over HTTP",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from other machines
        redoc_url=None,
        redirect_slashes=False,  # a redirect leaves the proxy, and a POST after it is often refused
        responses=any_problem(),
        telemetry={"tracing": False, "metrics": False, "logs": False},  # we have our own
    )
    app.add_middleware(Direct, endpoints={**sessions.DIRECT, **batch.DIRECT})
    app.add_middleware(Authenticate, keyring=keyring)
    app.add_middleware(BodyLimit, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(Observed, metrics, tracing, is_logged=settings.access_log)
    app.state.metrics = metrics
    install_handlers(app)
    for module in (environments, sessions, leases, batch, stream, health):
        app.include_router(module.router)
    mount_openenv(app)
    return app


def _tracing(settings: ServerSettings) -> "Tracing | None":
    if not settings.otel:
        return None
    # Here, because few have it installed.
    from steppo_server.tracing import open_tracing

    return open_tracing()


async def _put_down(manager: SessionManager) -> None:
    try:
        await manager.close()
    except SteppoError:
        logger.exception("the sessions could not be put down in order")


async def _close(journal: Journal, tracing: "Tracing | None") -> None:
    """Close the journal; when its database hangs, the process ends all the same."""
    with anyio.move_on_after(JOURNAL_CLOSE_S, shield=True) as waiting:
        await journal.close()
    if waiting.cancelled_caught:
        logger.error("the journal did not close within %g s", JOURNAL_CLOSE_S)
    if tracing is not None:
        await tracing.close()
