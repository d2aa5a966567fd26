from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from steppo_client.coalescing import MAX_BYTES, Coalescer
from steppo_env.errors import EnvError, StoreError, TransportError

Send = Callable[[Sequence[bytes]], Awaitable[Sequence[bytes | Exception]]]


class Echo:
    """Answers each item with itself in capitals; keeps what was sent together."""

    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []

    async def send(self, items: Sequence[bytes]) -> list[bytes | Exception]:
        self.sent.append(list(items))
        await anyio.lowlevel.checkpoint()
        return [EnvError(item.decode()) if item == b"bad" else item.upper() for item in items]


@asynccontextmanager
async def coalescing(send: Send, max_items: int = 64) -> AsyncIterator[Coalescer[bytes]]:
    async with anyio.create_task_group() as group:
        yield Coalescer(group, send, max_items)


async def test_calls_of_one_turn_become_one_request_and_get_their_own_results() -> None:
    echo = Echo()
    results: dict[bytes, bytes] = {}
    async with coalescing(echo.send) as joined, anyio.create_task_group() as group:

        async def call(item: bytes) -> None:
            results[item] = await joined.submit("lane", item)

        for number in range(30):
            group.start_soon(call, b"x%d" % number)

    assert [len(items) for items in echo.sent] == [30]
    assert results == {b"x%d" % number: b"X%d" % number for number in range(30)}


async def test_a_lone_call_goes_out_alone_and_other_lanes_are_not_joined() -> None:
    echo = Echo()
    async with coalescing(echo.send) as joined:
        assert await joined.submit("a", b"x") == b"X"
        async with anyio.create_task_group() as group:
            group.start_soon(joined.submit, "a", b"y")
            group.start_soon(joined.submit, "b", b"z")

    assert sorted(echo.sent) == [[b"x"], [b"y"], [b"z"]]


@pytest.mark.parametrize(
    ("items", "lengths"),
    [
        ([b"x"] * 10, [4, 4, 2]),
        ([b"x" * (MAX_BYTES // 2)] * 4, [2, 2]),
        ([b"x" * (2 * MAX_BYTES), b"y"], [1, 1]),
    ],
    ids=["items", "bytes", "one long"],
)
async def test_a_request_is_no_longer_than_allowed(items: list[bytes], lengths: list[int]) -> None:
    echo = Echo()
    async with coalescing(echo.send, max_items=4) as joined, anyio.create_task_group() as group:
        for item in items:
            group.start_soon(joined.submit, "a", item)

    assert [len(sent) for sent in echo.sent] == lengths


async def test_an_items_own_error_is_its_callers_only() -> None:
    async with coalescing(Echo().send) as joined, anyio.create_task_group() as group:

        async def bad() -> None:
            with pytest.raises(EnvError, match="bad"):
                await joined.submit("a", b"bad")

        async def good() -> None:
            assert await joined.submit("a", b"good") == b"GOOD"

        group.start_soon(bad)
        group.start_soon(good)


async def test_a_request_that_fails_fails_each_of_its_callers_with_an_error_of_its_own() -> None:
    caught: list[StoreError] = []

    async def send(items: Sequence[bytes]) -> Sequence[bytes | Exception]:
        raise StoreError("no", why=1)

    async def call(joined: Coalescer[bytes]) -> None:
        with pytest.raises(StoreError, match="no") as info:
            await joined.submit("a", b"x")
        caught.append(info.value)

    async with coalescing(send) as joined, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call, joined)

    assert [error.members for error in caught] == [{"why": 1}] * 3
    assert len({id(error) for error in caught}) == 3


async def test_a_call_that_is_cancelled_before_it_went_out_is_not_sent() -> None:
    echo = Echo()
    async with coalescing(echo.send) as joined:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await joined.submit("a", b"x")
        assert await joined.submit("a", b"y") == b"Y"

    assert echo.sent == [[b"y"]]


async def test_calls_that_wait_when_the_owner_ends_are_told() -> None:
    told: list[str] = []
    has_begun = anyio.Event()

    async def send(items: Sequence[bytes]) -> Sequence[bytes | Exception]:
        has_begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def call(joined: Coalescer[bytes]) -> None:
        with pytest.raises(TransportError) as caught:
            await joined.submit("a", b"x")
        told.append(caught.value.detail)

    async with anyio.create_task_group() as callers, anyio.create_task_group() as owner:
        joined: Coalescer[bytes] = Coalescer(owner, send, 64)
        callers.start_soon(call, joined)
        await has_begun.wait()
        callers.start_soon(call, joined)
        await anyio.lowlevel.checkpoint()
        owner.cancel_scope.cancel()

    assert told == ["the client was closed"] * 2
