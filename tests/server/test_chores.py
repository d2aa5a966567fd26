"""What the server does by itself."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from steppo_server import chores as chores_module
from steppo_server.chores import chores

if TYPE_CHECKING:
    from tests.server.conftest import Managers

pytestmark = pytest.mark.anyio


async def test_the_journal_is_purged_of_what_nobody_can_revive_also_after_a_failure(
    managers: Managers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manager = managers(revival_s=1000)
    asked: list[float] = []
    done = anyio.Event()

    async def purge(before: float) -> int:
        asked.append(before)
        if len(asked) == 1:
            raise KeyError("purge broke")
        done.set()
        return 0

    monkeypatch.setattr(chores_module, "PURGE_EVERY_S", 0.001)
    monkeypatch.setattr(manager.journal, "purge", purge)
    with caplog.at_level(logging.ERROR, "steppo.server"), anyio.fail_after(10):
        async with chores(manager):
            await done.wait()
    assert all(abs(before - (time.time() - 1000)) < 10 for before in asked)
    assert "purge broke" in caplog.text


async def test_how_late_the_event_loop_is_gets_measured(
    managers: Managers, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers()
    monkeypatch.setattr(chores_module, "LAG_EVERY_S", 0.001)
    lags: list[float] = []
    measured = anyio.Event()

    def lagged(lag_s: float) -> None:
        lags.append(lag_s)
        measured.set()

    monkeypatch.setattr(manager.metrics, "lagged", lagged)
    with anyio.fail_after(10):
        async with chores(manager):
            await measured.wait()
            measured = anyio.Event()
            time.sleep(0.05)  # noqa: ASYNC251 - what a step that computes does to everybody
            await measured.wait()
    assert max(lags) >= 0.04


async def test_a_chore_that_hangs_does_not_keep_the_server_from_stopping(
    managers: Managers, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers()
    begun = anyio.Event()

    async def sweep() -> int:
        with anyio.CancelScope(shield=True):  # as a call of a worker that hangs
            begun.set()
            await anyio.sleep(30)
        return 0

    monkeypatch.setattr(chores_module, "SWEEP_EVERY_S", 0.001)
    monkeypatch.setattr(manager, "sweep", sweep)
    with anyio.fail_after(10):
        async with chores(manager):
            await begun.wait()
