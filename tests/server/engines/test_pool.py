import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from steppo_env.catalogue import Catalogue, EnvSpec
from steppo_env.errors import InvalidInput, InvalidOptions, UnknownEnvironment
from steppo_server.engines import EngineKind, Pool
from steppo_server.settings import ServerSettings
from tests.server.engines.conftest import ENV_IDS, start_of, step, text_of

pytestmark = pytest.mark.anyio

ODD, BUSY, LIGHT, MOODY = (ENV_IDS[name] for name in ("Odd", "Busy", "Light", "Moody"))

MakePool = Callable[..., AbstractAsyncContextManager[Pool]]


@pytest.fixture
def pool_of(catalogue: Catalogue) -> MakePool:
    @asynccontextmanager
    async def make(specs: dict[str, EnvSpec] | None = None, **settings: Any) -> AsyncIterator[Pool]:
        pool = Pool(Catalogue(specs), ServerSettings(**settings))
        try:
            yield pool
        finally:
            await pool.close()

    return make


async def test_each_environment_gets_the_engine_that_fits_it(pool_of: MakePool) -> None:
    specs = {"variant": EnvSpec("variant", ODD, {"step_limit": 3})}
    async with pool_of(specs, processes={BUSY: 0}) as pool:
        kinds = [(await pool.worker_for(name)).kind for name in (ODD, BUSY, LIGHT)]
        assert kinds == [EngineKind.THREAD, EngineKind.THREAD, EngineKind.INLINE]
        assert await pool.worker_for("variant") is await pool.worker_for(ODD)
        assert await pool.worker_for(ODD) is not await pool.worker_for(BUSY)
        assert await pool.worker_for(LIGHT) is await pool.worker_for(MOODY)
        with pytest.raises(UnknownEnvironment):
            await pool.worker_for("test/None-v0")


async def test_options_can_make_an_environment_block_and_are_refused_before_it_is_chosen(
    pool_of: MakePool,
) -> None:
    async with pool_of() as pool:
        for _ in range(2):
            assert (await pool.worker_for(MOODY)).kind is EngineKind.INLINE
            slow = await pool.worker_for(MOODY, {"step_limit": 101})
            assert slow.kind is EngineKind.THREAD
        with pytest.raises(InvalidOptions, match="speed"):
            await pool.worker_for(MOODY, {"speed": 1})
        with pytest.raises(InvalidOptions, match="JSON"):
            await pool.worker_for(MOODY, {"malformed_penalty": float("nan")})


async def test_lists_are_read_off_the_event_loop_where_the_data_is(pool_of: MakePool) -> None:
    async with pool_of() as pool:
        assert await pool.loader_for(ODD) is await pool.worker_for(ODD)
        light = await pool.loader_for(LIGHT)
        assert light.kind is EngineKind.THREAD
        assert (await light.call("list_tasks", LIGHT, "train", 1, deadline_s=20)).num_tasks == 3
        assert (await pool.loader_for()).kind is EngineKind.THREAD


async def test_an_environment_that_computes_gets_two_processes_and_the_emptier_takes_the_next(
    pool_of: MakePool,
) -> None:
    async with pool_of() as pool:
        workers = []
        for number in range(3):
            workers.append(await pool.worker_for(BUSY))
            await workers[-1].call("begin", start_of(f"s{number}", BUSY), deadline_s=20)
        assert {worker.kind for worker in workers} == {EngineKind.PROCESS}
        processes = [load for load in pool.loads if load.kind is EngineKind.PROCESS]
        assert [(load.name, load.num_sessions) for load in processes] == [
            (f"{BUSY} 0", 2),
            (f"{BUSY} 1", 1),
        ]
        first, second, third = workers
        assert first is third is not second
        assert await pool.worker_for(BUSY) is second
        pids = [
            text_of(await step(first, 0, "pid", "s0")),
            text_of(await step(second, 0, "pid", "s1")),
        ]
        assert len(set(pids)) == 2
        assert (await pool.loader_for(BUSY)).kind is EngineKind.PROCESS


async def test_any_environment_can_be_given_processes(pool_of: MakePool) -> None:
    async with pool_of(processes={LIGHT: 1}) as pool:
        assert (await pool.worker_for(LIGHT)).kind is EngineKind.PROCESS
        assert len(pool.loads) == 2


async def test_processes_for_an_environment_that_is_not_installed_are_a_mistake(
    catalogue: Catalogue,
) -> None:
    with pytest.raises(InvalidInput, match=r"test/None-v0: no environment has this id.*KeyDoor"):
        Pool(catalogue, ServerSettings(processes={"test/None-v0": 1}))


def test_a_catalogue_can_be_sent_to_another_process(catalogue: Catalogue) -> None:
    sent = Catalogue({"variant": EnvSpec("variant", ODD, {"step_limit": 3})})
    received = pickle.loads(pickle.dumps(sent))
    assert received.names == sent.names
    assert all(received.get(name) == sent.get(name) for name in sent.names)
