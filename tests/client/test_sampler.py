import gc
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_client import (
    ExpertPolicy,
    HttpEnvClient,
    LocalEnvClient,
    Policy,
    RandomPolicy,
    Sample,
    Sampler,
    SamplerConfig,
    SessionStart,
    SessionState,
    StepTaken,
    TaskRef,
    Turn,
)
from steppo_env.errors import (
    DeadlineExceeded,
    EnvError,
    InvalidInput,
    InvalidOptions,
    MissingDependency,
    PolicyError,
    SessionExpired,
    SteppoError,
    TransportError,
    UnknownSession,
    UnknownTask,
)
from steppo_env.mdp import StopReason, Trajectory
from steppo_env.store import open_store, transcript
from steppo_env.wire import ActionModel
from steppo_keydoor import KeyDoor
from steppo_server.app import create_app
from steppo_server.settings import ServerSettings

KEYDOOR = "steppo/KeyDoor-v0"
LIMIT_S = 20.0


def refs(num_tasks: int) -> list[TaskRef]:
    return [TaskRef(KEYDOOR, f"dev/{index}", "dev") for index in range(num_tasks)]


class Watched(LocalEnvClient):
    """Plays here, raises what it is told to, and knows which sessions are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: set[str] = set()
        self.most_open = 0
        self.starts: list[SessionStart] = []
        self.on_create: Callable[[SessionStart], Awaitable[None]] = nothing
        self.on_step: Callable[[int], Awaitable[None]] = nothing
        self.on_delete: Callable[[str], Awaitable[None]] = nothing

    async def create(self, start: SessionStart) -> SessionState:
        self.starts.append(start)
        await self.on_create(start)
        state = await super().create(start)
        self.open.add(start.session_id)
        self.most_open = max(self.most_open, len(self.open))
        return state

    async def step(self, session_id: str, step_index: int, action: ActionModel) -> StepTaken:
        await self.on_step(step_index)
        return await super().step(session_id, step_index, action)

    async def delete(self, session_id: str) -> None:
        await self.on_delete(session_id)
        await super().delete(session_id)
        self.open.discard(session_id)


class Scripted(Policy):
    """The expert, but for what `before` does first."""

    name = "scripted"

    def __init__(self, before: Callable[[Turn], Awaitable[None]]) -> None:
        self._before = before

    async def act(self, turn: Turn) -> Sample:
        await self._before(turn)
        return await ExpertPolicy().act(turn)


async def nothing(_: object) -> None:
    return


def raising(error: Exception, at_step: int = 0) -> Callable[[int], Awaitable[None]]:
    async def on_step(step_index: int) -> None:
        if step_index == at_step:
            raise error

    return on_step


async def sample(
    client: LocalEnvClient | HttpEnvClient,
    tasks: list[TaskRef],
    policy: Policy | None = None,
    config: SamplerConfig | None = None,
) -> list[Trajectory]:
    found: list[Trajectory] = []

    async def emit(trajectory: Trajectory) -> None:
        found.append(trajectory)

    with anyio.fail_after(LIMIT_S):
        sampler = Sampler(client, policy or ExpertPolicy(), config or SamplerConfig("run"))
        await sampler.run(tasks, emit)
    return found


@given(
    num_tasks=st.integers(0, 4),
    group_size=st.integers(1, 3),
    concurrency=st.integers(1, 8),
    faults=st.lists(st.sampled_from(["", "act", "step", "create", "delete"]), min_size=12),
)
@settings(max_examples=40, deadline=None)
def test_each_trajectory_is_emitted_once_whatever_fails(
    num_tasks: int, group_size: int, concurrency: int, faults: list[str]
) -> None:
    async def run() -> None:
        client = Watched()
        fault_of: dict[str, str] = {}
        numbers = itertools.count()

        async def on_create(start: SessionStart) -> None:
            fault_of[start.session_id] = faults[next(numbers) % len(faults)]
            if fault_of[start.session_id] == "create":
                raise TransportError("create")

        async def on_delete(session_id: str) -> None:
            if fault_of.get(session_id) == "delete":
                raise RuntimeError("delete")

        async def before(turn: Turn) -> None:
            fault = fault_of[turn.session_id]
            if fault == "act":
                raise PolicyError("act")
            if fault == "step":
                raise EnvError("step")

        client.on_create, client.on_delete = on_create, on_delete
        config = SamplerConfig("run", group_size=group_size, concurrency=concurrency)
        found = await sample(client, refs(num_tasks), Scripted(before), config)

        expected = Counter(f"dev/{index}" for index in range(num_tasks) for _ in range(group_size))
        assert Counter(item.task_id for item in found) == expected
        assert len({item.trajectory_id for item in found}) == num_tasks * group_size
        reasons = {"act": "policy_error", "step": "env_error", "create": "server_error"}
        for item in found:
            fault = fault_of[item.trajectory_id]
            assert item.stop_reason.value == reasons.get(fault, "terminated")
            assert item.error == (fault if fault in reasons else None)

    anyio.run(run)


async def test_a_hung_response_costs_its_own_trajectory_only() -> None:
    async def before(turn: Turn) -> None:
        if "dev/1" in hung and turn.session_id == hung["dev/1"]:
            await anyio.sleep_forever()

    hung: dict[str, str] = {}
    client = Watched()

    async def on_create(start: SessionStart) -> None:
        assert start.task_id is not None
        hung[start.task_id] = start.session_id

    client.on_create = on_create
    config = SamplerConfig("run", concurrency=2, step_deadline_s=0.3)
    found = await sample(client, refs(5), Scripted(before), config)

    late = {item.task_id: item for item in found if item.stop_reason is not StopReason.TERMINATED}
    assert late.keys() == {"dev/1"}
    assert late["dev/1"].stop_reason is StopReason.DEADLINE
    assert late["dev/1"].error == "the response took longer than 0.3 s"
    assert len(found) == 5
    assert client.open == set()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EnvError("door jammed"), StopReason.ENV_ERROR),
        (TransportError("gone"), StopReason.SERVER_ERROR),
        (UnknownSession("gone"), StopReason.SERVER_ERROR),
        (SessionExpired("gone"), StopReason.SERVER_ERROR),
        (SteppoError("a bug"), StopReason.SERVER_ERROR),
        (RuntimeError("a bug"), StopReason.SERVER_ERROR),
        (DeadlineExceeded("slow"), StopReason.DEADLINE),
    ],
)
async def test_a_failed_step_keeps_those_before_it_and_says_whose_fault_it_was(
    error: Exception, reason: StopReason
) -> None:
    client = Watched()
    client.on_step = raising(error, at_step=2)
    (found,) = await sample(client, refs(1))

    assert found.stop_reason is reason
    assert not found.trainable
    assert [step.step_index for step in found.steps] == [0, 1]
    assert found.success is None
    assert found.final_messages is None
    assert str(error) in (found.error or "")
    with open_store("sqlite://") as store:
        assert store.append(found)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PolicyError("no"), StopReason.POLICY_ERROR),
        (KeyError("no"), StopReason.POLICY_ERROR),
        (TimeoutError("no"), StopReason.DEADLINE),
        (TransportError("no"), StopReason.SERVER_ERROR),
    ],
)
async def test_a_failed_response_says_whose_fault_it_was(
    error: Exception, reason: StopReason
) -> None:
    async def before(turn: Turn) -> None:
        raise error

    (found,) = await sample(Watched(), refs(1), Scripted(before))

    assert (found.stop_reason, found.steps) == (reason, ())
    assert "no" in (found.error or "")


async def test_an_error_that_cannot_be_stored_is_made_storable() -> None:
    client = Watched()
    client.on_step = raising(EnvError("\ud800" + "x" * 10_000))
    (found,) = await sample(client, refs(1))

    with open_store("sqlite://") as store:
        assert store.append(found)
    assert found.error is not None
    assert len(found.error) == 2000


async def test_an_episode_has_a_deadline_of_its_own() -> None:
    async def before(turn: Turn) -> None:
        if "turns left 22" in turn.observation.text:
            await anyio.sleep_forever()

    config = SamplerConfig("run", trajectory_deadline_s=0.5)
    found = await sample(Watched(), [TaskRef(KEYDOOR, "dev/1", "dev")], Scripted(before), config)

    assert found[0].stop_reason is StopReason.DEADLINE
    assert found[0].error == "the episode took longer than 0.5 s"
    assert len(found[0].steps) == 2


async def test_beginning_has_a_deadline_too() -> None:
    async def on_create(start: SessionStart) -> None:
        await anyio.sleep_forever()

    client = Watched()
    client.on_create = on_create
    (found,) = await sample(client, refs(1), config=SamplerConfig("run", step_deadline_s=0.1))

    assert found.stop_reason is StopReason.DEADLINE
    assert found.error == "beginning the episode took longer than 0.1 s"
    assert (found.steps, found.tools) == ((), ())


@pytest.mark.parametrize("num_finished", [0, 2])
async def test_cancelling_emits_what_is_in_flight_once_and_closes_every_session(
    num_finished: int,
) -> None:
    client = Watched()
    found: list[Trajectory] = []
    waiting = 0
    everybody_waits = anyio.Event()

    async def before(turn: Turn) -> None:
        nonlocal waiting
        if len(client.starts) > num_finished and "turns left 23" in turn.observation.text:
            waiting += 1
            if waiting == 3:
                everybody_waits.set()
            await anyio.sleep_forever()

    async def emit(trajectory: Trajectory) -> None:
        await anyio.lowlevel.checkpoint()
        found.append(trajectory)

    concurrency = 3
    if num_finished:
        first = Sampler(client, ExpertPolicy(), SamplerConfig("first"))
        await first.run(refs(num_finished), emit)
    sampler = Sampler(client, Scripted(before), SamplerConfig("run", concurrency=concurrency))
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(sampler.run, refs(10), emit)
            await everybody_waits.wait()
            group.cancel_scope.cancel()

    cancelled = [item for item in found if item.run_id == "run"]
    assert Counter(item.task_id for item in cancelled) == {"dev/0": 1, "dev/1": 1, "dev/2": 1}
    assert {item.stop_reason for item in cancelled} == {StopReason.CANCELLED}
    assert all(len(item.steps) == 1 and not item.trainable for item in cancelled)
    assert client.open == set()
    assert len(client.starts) == num_finished + concurrency


async def test_a_finished_trajectory_is_not_lost_to_a_cancellation_while_it_is_kept() -> None:
    found: list[Trajectory] = []
    entered = anyio.Event()
    scope = anyio.CancelScope()

    async def emit(trajectory: Trajectory) -> None:
        entered.set()
        scope.cancel()
        await anyio.lowlevel.checkpoint()
        found.append(trajectory)

    with scope:
        await Sampler(Watched(), ExpertPolicy(), SamplerConfig("r", concurrency=1)).run(
            refs(3), emit
        )

    assert [item.stop_reason for item in found] == [StopReason.TERMINATED]


async def test_an_emit_that_raises_stops_the_run_with_its_error() -> None:
    client = Watched()
    calls = 0

    async def emit(trajectory: Trajectory) -> None:
        nonlocal calls
        calls += 1
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await Sampler(client, ExpertPolicy(), SamplerConfig("run")).run(refs(20), emit)

    assert calls == 1
    assert client.open == set()


@pytest.mark.parametrize(
    "error", [InvalidOptions("no"), UnknownTask("no"), MissingDependency("no")]
)
async def test_an_episode_that_cannot_begin_as_asked_for_ends_the_run(error: Exception) -> None:
    client = Watched()

    async def on_create(start: SessionStart) -> None:
        if start.task_id == "dev/2":
            raise error

    client.on_create = on_create
    with pytest.raises(type(error), match="no"):
        await sample(client, refs(20), config=SamplerConfig("run", concurrency=1))

    assert len(client.starts) == 3
    assert client.open == set()


async def test_bad_options_end_the_run_with_their_own_error() -> None:
    with pytest.raises(InvalidOptions, match="size"):
        await sample(Watched(), [TaskRef(KEYDOOR, "dev/0", "dev", options={"size": 1})])


async def test_a_group_shares_seed_and_first_state_and_differs_in_its_policy() -> None:
    config = SamplerConfig("run", group_size=4)
    found = await sample(Watched(), refs(3), RandomPolicy(), config)

    groups: dict[str, list[Trajectory]] = {}
    for item in found:
        groups.setdefault(item.group_id, []).append(item)
    assert sorted(len(group) for group in groups.values()) == [4, 4, 4]
    for group in groups.values():
        assert len({item.task_id for item in group}) == 1
        assert len({item.seed for item in group}) == 1
        assert len({item.steps[0].messages for item in group}) == 1
        assert len({item.steps[-1].trace_key for item in group}) == 4
    assert len({item.seed for item in found}) == 3


async def test_ids_are_those_of_run_environment_task_options_and_sample() -> None:
    async def ids(
        run_id: str = "run", seed: int = 0, num_tasks: int = 2, **options: int
    ) -> set[str]:
        tasks = [TaskRef(KEYDOOR, f"dev/{n}", "dev", options=options) for n in range(num_tasks)]
        config = SamplerConfig(run_id, seed=seed, group_size=2)
        return {item.trajectory_id for item in await sample(Watched(), tasks, config=config)}

    base = await ids()
    assert len(base) == 4
    assert await ids(seed=9) == base
    assert await ids(num_tasks=3) > base
    assert not await ids("other") & base
    assert not await ids(size=5) & base


async def test_the_concurrency_is_reached_and_never_exceeded() -> None:
    client = Watched()
    in_flight, most, seen = 0, 0, 0

    async def before(turn: Turn) -> None:
        nonlocal in_flight, most, seen
        in_flight += 1
        most = max(most, in_flight)
        seen += 1
        while most < 5 and seen < 50:  # until everybody who may come is here
            await anyio.lowlevel.checkpoint()
        in_flight -= 1

    config = SamplerConfig("run", concurrency=5)
    await sample(client, refs(12), Scripted(before), config)

    assert client.most_open == 5
    assert most == 5


async def draws(config: SamplerConfig, num_tasks: int) -> dict[tuple[str, int], int]:
    """Return the first number of each turn's generator."""
    found: dict[tuple[str, int], int] = {}

    async def before(turn: Turn) -> None:
        left = int(turn.observation.text.split("turns left ")[1].split()[0])
        found[turn.session_id, 24 - left] = int(turn.rng.integers(2**62))

    await sample(Watched(), refs(num_tasks), Scripted(before), config)
    return found


async def test_the_policys_randomness_depends_on_seed_task_sample_and_step_only() -> None:
    base = await draws(SamplerConfig("run", seed=1, group_size=2, concurrency=1), 3)
    again = await draws(SamplerConfig("run", seed=1, group_size=2, concurrency=7), 3)
    fewer = await draws(SamplerConfig("run", seed=1, group_size=1), 2)
    other = await draws(SamplerConfig("run", seed=2, group_size=2), 3)

    assert base == again
    assert fewer.items() <= base.items()
    assert len(set(base.values())) == len(base), "two turns share their randomness"
    assert not set(base.values()) & set(other.values())


@pytest.mark.parametrize("policy", [ExpertPolicy(), RandomPolicy()], ids=lambda it: it.name)
async def test_a_run_can_be_repeated_at_any_concurrency(policy: Policy) -> None:
    runs: list[list[bytes]] = []
    for concurrency in (1, 3, 16):
        config = SamplerConfig("run", seed=4, group_size=2, concurrency=concurrency)
        found = await sample(Watched(), refs(4), policy, config)
        runs.append(sorted(transcript(item) for item in found))
    other = await sample(Watched(), refs(4), policy, SamplerConfig("run", seed=5, group_size=2))

    assert runs[0] == runs[1] == runs[2]
    assert runs[0] != sorted(transcript(item) for item in other)


async def test_a_truncated_trajectory_keeps_the_state_it_stopped_in() -> None:
    tasks = [TaskRef(KEYDOOR, "dev/0", "dev", options={"step_limit": 2})]
    (found,) = await sample(Watched(), tasks)

    assert found.stop_reason is StopReason.STEP_LIMIT
    assert (found.terminated, found.truncated, found.trainable) == (False, True, True)
    assert found.final_messages is not None
    assert "turns left 0" in found.final_messages[-1].content
    assert found.success is False


async def test_a_terminated_trajectory_has_its_verdict_and_no_state_to_bootstrap_from() -> None:
    (found,) = await sample(Watched(), refs(1))

    assert found.stop_reason is StopReason.TERMINATED
    assert (found.success, found.final_messages, found.return_) == (True, None, 1.0)
    assert found.started_at <= found.ended_at
    assert all(step.timing.environment_s > 0 for step in found.steps)


async def test_an_environment_cut_short_by_itself_is_truncated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    act = KeyDoor.act
    monkeypatch.setattr(
        KeyDoor, "act", lambda self, action: replace(act(self, action), truncated=True)
    )
    (found,) = await sample(Watched(), refs(1))

    assert found.stop_reason is StopReason.TRUNCATED
    assert len(found.steps) == 1


async def test_a_task_listed_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        await sample(Watched(), [*refs(2), *refs(1)])


@pytest.mark.parametrize(
    "values",
    [
        {"group_size": 0},
        {"concurrency": 0},
        {"step_deadline_s": 0.0},
        {"trajectory_deadline_s": -1},
    ],
)
def test_settings_that_play_nothing_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(values))):
        SamplerConfig("run", **values)  # type: ignore[arg-type]


async def test_a_session_that_does_not_close_is_logged_and_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Watched()

    async def on_delete(session_id: str) -> None:
        raise RuntimeError("stuck")

    client.on_delete = on_delete
    found = await sample(client, refs(2))

    assert {item.stop_reason for item in found} == {StopReason.TERMINATED}
    assert caplog.text.count("was not closed") == 2


async def test_no_session_is_left_on_the_server_whatever_happened() -> None:
    app = create_app(settings=ServerSettings(journal="sqlite://"))
    async with (
        app.router.lifespan_context(app),
        HttpEnvClient("http://test", transport=httpx.ASGITransport(app)) as client,
    ):

        async def before(turn: Turn) -> None:
            if turn.rng.integers(3) == 0:
                raise PolicyError("now and then")

        found = await sample(client, refs(30), Scripted(before))
        assert (await client.health()).num_sessions == 0

    assert {item.stop_reason for item in found} >= {StopReason.POLICY_ERROR}


async def test_two_thousand_episodes_leave_no_environment_behind() -> None:
    num_emitted = 0

    async def emit(trajectory: Trajectory) -> None:
        nonlocal num_emitted
        num_emitted += 1

    class Quick(Policy):
        name = "quick"

        async def act(self, turn: Turn) -> Sample:
            return Sample("<act> go north </act>")

    async with LocalEnvClient() as client:
        tasks = [
            TaskRef(KEYDOOR, f"train/{n}", "train", options={"step_limit": 1}) for n in range(2000)
        ]
        await Sampler(client, Quick(), SamplerConfig("run")).run(tasks, emit)
        gc.collect()
        living = [item for item in gc.get_objects() if isinstance(item, KeyDoor)]

    assert num_emitted == 2000
    assert len(living) <= 1, "the worker thread may still hold the last one"
