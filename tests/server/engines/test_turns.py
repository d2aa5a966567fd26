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
