"""What a server does by itself, again and again: frees what expired, and looks at its own pulse."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from steppo_server.metrics import Metrics
from steppo_server.sessions import SessionManager

__all__ = ["chores"]

SWEEP_EVERY_S = 5.0
PURGE_EVERY_S = 60.0
LAG_EVERY_S = 0.5

logger = logging.getLogger("steppo.server")


@asynccontextmanager
async def chores(manager: SessionManager) -> AsyncIterator[None]:
    """Do the chores of a server while the block runs."""

    async def sweep() -> None:
        await manager.sweep()

    async def purge() -> None:
        await manager.journal.purge(time.time() - manager.settings.revival_s)

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_again(SWEEP_EVERY_S, sweep, "expired sessions could not be freed")),
            group.create_task(_again(PURGE_EVERY_S, purge, "the journal could not be purged")),
            group.create_task(_watch_lag(manager.metrics)),
        ]
        yield
        for task in tasks:
            # asyncio's own cancelling: a call of a worker that hangs is shielded from anyio's.
            task.cancel()


async def _again(every_s: float, chore: Callable[[], Awaitable[None]], failure: str) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await chore()
        except Exception:
            # An error here would end the whole application; the next time may do better.
            logger.exception("%s", failure)


async def _watch_lag(metrics: Metrics) -> None:
    """Measure by how much the event loop is late: what every request waits on top of its own time."""
    while True:
        due = time.monotonic() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        metrics.lagged(max(0.0, time.monotonic() - due))
