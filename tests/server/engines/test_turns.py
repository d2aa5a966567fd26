import anyio
import anyio.lowlevel
import pytest

from steppo_env.errors import CapacityExceeded
from steppo_server.engines.turns import Turns

pytestmark = pytest.mark.anyio


async def test_turns_come_in_the_order_asked_and_the_waits_are_known() -> None:
    turns = Turns(20)
    order: list[int] = []
    before = 0.0

    async def take(number: int) -> None:
        async with turns.turn():
            order.append(number)

    async with anyio.create_task_group() as group, turns.turn():
        for number in range(3):
            group.start_soon(take, number)
            await anyio.lowlevel.checkpoint()
        assert turns.num_waiting == 3
        before = turns.oldest_wait_s
        await anyio.lowlevel.checkpoint()
        assert turns.oldest_wait_s >= before > 0
    assert order == [0, 1, 2]
    assert (turns.num_waiting, turns.oldest_wait_s) == (0, 0.0)
    assert len(turns.delays_s) == 4
    assert turns.delays_s[1] >= before  # the first of those that waited


async def test_a_turn_that_does_not_come_in_time_is_refused_and_the_next_one_comes() -> None:
    turns = Turns(0.01)
    refused: list[CapacityExceeded] = []

    async def ask() -> None:
        with pytest.raises(CapacityExceeded) as caught:
            async with turns.turn():
                raise AssertionError
        refused.append(caught.value)

    async with turns.turn(), anyio.create_task_group() as group:
        group.start_soon(ask)
    assert [error.members for error in refused] == [{"retry_after_s": 5}]
    assert turns.num_waiting == 0
    async with turns.turn():
        pass


async def take(turns: Turns, num_turns: int) -> None:
    for _ in range(num_turns):
        async with turns.turn():
            await anyio.sleep(0.002)


async def test_who_must_expect_to_wait_too_long_is_refused_at_once_but_not_what_makes_room() -> (
    None
):
    turns = Turns(20, max_expected_wait_s=0.001)
    async with turns.turn():
        assert turns.expected_wait_s == 0  # too little is known
    await take(turns, 5)
    async with anyio.create_task_group() as group, turns.turn():
        assert turns.expected_wait_s >= 0.002
        with pytest.raises(CapacityExceeded, match="1 calls to do first") as refused:
            async with turns.turn():
                raise AssertionError
        assert refused.value.members == {"retry_after_s": 1}

        async def close() -> None:
            async with turns.turn(is_urgent=True):
                pass

        group.start_soon(close)
        await anyio.lowlevel.checkpoint()
        assert turns.num_waiting == 1
    assert turns.num_turns == 8  # nobody that was refused
    async with turns.turn():  # free: no wait to expect
        pass


async def test_one_long_call_among_short_ones_turns_nobody_away() -> None:
    turns = Turns(20, max_expected_wait_s=0.04)
    async with turns.turn():
        await anyio.sleep(0.05)
    await take(turns, 4)
    async with anyio.create_task_group() as group, turns.turn():
        group.start_soon(take, turns, 1)
        await anyio.lowlevel.checkpoint()
        assert 0 < turns.expected_wait_s < 0.04


async def test_all_waits_are_added_up() -> None:
    turns = Turns(20)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(take, turns, 1)
    assert turns.num_turns == 3
    assert turns.total_wait_s == pytest.approx(sum(turns.delays_s))
    assert turns.total_wait_s >= 0.002 + 0.004 - 0.001
