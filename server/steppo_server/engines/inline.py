"""Runs environment code where it stands: for environments whose steps take microseconds."""

from dataclasses import replace
from typing import Any

import anyio.to_thread

from steppo_env.catalogue import Catalogue
from steppo_env.keys import canonical_json
from steppo_env.mdp import Action
from steppo_env.wire import ActionModel, read_action
from steppo_server.engines.protocol import EngineKind, Worker, WorkerLoad, perform
from steppo_server.episode import StepTaken
from steppo_server.host import EnvHost

__all__ = ["INLINE_ACTION_CHARS", "InlineWorker"]

INLINE_ACTION_CHARS = 8_000
"""Longer actions are parsed off the event loop: the worst megabyte takes seconds."""


class InlineWorker(Worker):
    """A host on the event loop. Its calls cannot be interrupted, so no deadline applies to them."""

    kind = EngineKind.INLINE

    def __init__(self, name: str, catalogue: Catalogue) -> None:
        super().__init__(name)
        self._host = EnvHost(catalogue)

    @property
    def load(self) -> WorkerLoad:
        return WorkerLoad(self.name, self.kind, self.num_sessions, self.generation, 0, 0.0, ())

    async def close(self) -> None:
        self._is_closed = True
        self._host.close_all()
        self._held.clear()

    def step_now(self, key: str, step_index: int, action: ActionModel) -> StepTaken:
        """Do what `call` does with "step", without being awaited, for an action that is not long.

        Raises:
            CapacityExceeded, WorkerDied, SteppoError: As `call` says.
        """
        self._check_open()
        taken: StepTaken = perform(self._host, "step", (key, step_index, action))
        return taken

    async def _run(self, method: str, args: tuple[Any, ...], deadline_s: float) -> Any:
        if method == "step":
            session_id, step_index, action = args
            args = (session_id, step_index, await _parsed(action))
        elif method == "begin" and args[0].actions:
            actions = [await _parsed(action) for action in args[0].actions]
            args = (replace(args[0], actions=tuple(actions)),)
        return perform(self._host, method, args)


async def _parsed(action: ActionModel | Action) -> ActionModel | Action:
    """Parse an action off the event loop when it is long."""
    if isinstance(action, Action):
        return action
    num_chars = len(action) if isinstance(action, str) else len(canonical_json(action))
    if num_chars <= INLINE_ACTION_CHARS:
        return action
    return await anyio.to_thread.run_sync(read_action, action)
