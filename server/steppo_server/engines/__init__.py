"""Where environment code runs: on the event loop, on a thread, or in processes."""

from steppo_server.engines.inline import INLINE_ACTION_CHARS, InlineWorker
from steppo_server.engines.pool import Pool
from steppo_server.engines.processes import ProcessWorker
from steppo_server.engines.protocol import EngineKind, Worker, WorkerLoad
from steppo_server.engines.threads import ThreadWorker

__all__ = [
    "INLINE_ACTION_CHARS",
    "EngineKind",
    "InlineWorker",
    "Pool",
    "ProcessWorker",
    "ThreadWorker",
    "Worker",
    "WorkerLoad",
]
