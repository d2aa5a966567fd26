import time

import anyio
import anyio.lowlevel
import pytest

from steppo_client.leases import LeaseKeeper
from steppo_env.errors import TransportError
from steppo_env.wire import LeaseRequest, LeaseResult, LeaseResults


class Renewals:
    """Answers requests for renewal, and says when there have been so many."""

    def __init__(self, enough: int, gone: frozenset[str] = frozenset()) -> None:
        self.enough = enough
        self.gone = gone
        self.requests: list[LeaseRequest] = []
        self.times: list[float] = []
        self.are_enough = anyio.Event()

    async def renew(self, request: LeaseRequest) -> LeaseResults:
        self.requests.append(request)
        self.times.append(time.monotonic())
        if len(self.requests) == self.enough:
            self.are_enough.set()
        if "raise" in request.session_ids:
            raise TransportError("away")
        return LeaseResults(
            results=[
                LeaseResult(session_id=name, status=404 if name in self.gone else 200)
                for name in request.session_ids
            ]
        )


async def kept(renewals: Renewals, *leases: tuple[str, float]) -> LeaseKeeper:
    """Keep leases until there were enough renewals."""
    keeper = LeaseKeeper(renewals.renew)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(keeper.run)
            await anyio.lowlevel.checkpoint()
            for session_id, lease_s in leases:
                keeper.keep(session_id, lease_s)
            await renewals.are_enough.wait()
            group.cancel_scope.cancel()
    return keeper


async def test_a_lease_is_renewed_three_times_as_often_as_it_would_run_out() -> None:
    renewals = Renewals(4)
    began = time.monotonic()
    await kept(renewals, ("a", 0.3))

    assert [request.session_ids for request in renewals.requests] == [["a"]] * 4
    assert renewals.times[3] - began + 0.01 >= 0.4
    pauses = [after - before for before, after in zip(renewals.times, renewals.times[1:])]
    assert min(pauses) >= 0.09


async def test_leases_that_are_due_soon_are_renewed_together_also_those_that_ran_out() -> None:
    renewals = Renewals(1)
    await kept(renewals, *((f"s{number}", 0.30 + 0.002 * number) for number in range(50)))

    assert len(renewals.requests[0].session_ids) == 50
    assert renewals.requests[0].revive


async def test_a_short_lease_does_not_wait_for_a_long_one() -> None:
    renewals = Renewals(2)
    await kept(renewals, ("long", 3000.0), ("short", 0.06))

    assert [request.session_ids for request in renewals.requests] == [["short"]] * 2


async def test_a_failed_renewal_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    renewals = Renewals(3)
    await kept(renewals, ("raise", 0.06))

    assert "were not renewed: away" in caplog.text


async def test_a_session_that_is_gone_is_renewed_no_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    renewals = Renewals(3, frozenset({"gone"}))
    await kept(renewals, ("gone", 0.06), ("here", 0.06))

    assert [request.session_ids for request in renewals.requests] == [
        ["gone", "here"],
        ["here"],
        ["here"],
    ]
    assert "session gone is gone from the server" in caplog.text


async def test_a_dropped_session_is_renewed_no_longer() -> None:
    renewals = Renewals(1)
    keeper = LeaseKeeper(renewals.renew)
    keeper.keep("a", 0.03)
    keeper.keep("b", 0.06)
    keeper.drop("a")
    keeper.drop("a")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(keeper.run)
            await renewals.are_enough.wait()
            group.cancel_scope.cancel()

    assert renewals.requests[0].session_ids == ["b"]
