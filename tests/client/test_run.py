import anyio
import pytest

from steppo_client import ExpertPolicy, LocalEnvClient, RandomPolicy, SamplerConfig, Turn
from steppo_client.policy import Policy, Sample
from steppo_client.run import RunPlan, execute
from steppo_client.summary import Result, result_of, summarize_results
from steppo_env.catalogue import Catalogue, EnvSpec
from steppo_env.errors import InvalidInput, PolicyError, StoreError, UnknownTask
from steppo_env.mdp import Trajectory
from steppo_env.store import TrajectoryFilter, open_store

KEYDOOR = "steppo/KeyDoor-v0"


def plan(*env_ids: str, num_tasks: int = 3, split: str = "dev", **options: int) -> RunPlan:
    config = SamplerConfig("run-1", seed=2, group_size=2, concurrency=4)
    return RunPlan("rollout", env_ids or [KEYDOOR], split, num_tasks, config, options)


def client() -> LocalEnvClient:
    return LocalEnvClient(Catalogue({"small": EnvSpec("small", KEYDOOR, {"size": 3})}))


async def test_every_trajectory_is_stored_before_it_is_noticed() -> None:
    counts: list[int] = []
    with open_store("sqlite://") as store:
        results = await execute(
            plan(KEYDOOR, "small"),
            client(),
            ExpertPolicy(),
            store,
            lambda _: counts.append(store.count()),
        )
        assert counts == list(range(1, 13))
        stored = sorted(result_of(item).fingerprint for item in store.iterate())

    assert sorted(result.fingerprint for result in results) == stored
    assert {name: it.episodes for name, it in summarize_results(results).items()} == {
        KEYDOOR: 6,
        "small": 6,
    }


async def test_the_run_is_recorded_from_start_to_end() -> None:
    with open_store("sqlite://") as store:
        await execute(plan(size=5), client(), RandomPolicy(), store)
        run = store.get_run("run-1")

    assert (run.kind, run.seed, run.outcome) == ("rollout", 2, "finished")
    assert run.env_versions == {KEYDOOR: "keydoor-5-1"}
    assert run.config["policy"] == "random"
    assert run.config["options"] == {"size": 5}
    assert run.ended_at is not None
    assert run.started_at <= run.ended_at


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (plan(KEYDOOR, KEYDOOR), InvalidInput),
        (plan(KEYDOOR, "small", split="nope"), UnknownTask),
        (plan(num_tasks=513), InvalidInput),
        (plan(size=1), InvalidInput),
    ],
)
async def test_a_plan_that_cannot_be_played_leaves_no_run(
    bad: RunPlan, kind: type[Exception]
) -> None:
    with open_store("sqlite://") as store:
        with pytest.raises(kind):
            await execute(bad, client(), ExpertPolicy(), store)
        assert store.runs() == ()
        assert store.count() == 0


class Stopping(Policy):
    """The expert, until it has made `num_turns` responses; then it does what `stop` does."""

    name = "stopping"

    def __init__(self, scope: anyio.CancelScope, num_turns: int) -> None:
        self.scope = scope
        self.left = num_turns

    async def act(self, turn: Turn) -> Sample:
        self.left -= 1
        if self.left < 0:
            self.scope.cancel()
            await anyio.sleep_forever()
        return await ExpertPolicy().act(turn)


async def test_a_cancelled_run_is_recorded_as_such_with_what_it_has() -> None:
    with open_store("sqlite://") as store:
        with anyio.CancelScope() as scope:
            await execute(plan(num_tasks=20), client(), Stopping(scope, 60), store)
        assert store.get_run("run-1").outcome == "cancelled"
        reasons = [item.stop_reason.value for item in store.iterate()]

    assert 1 <= reasons.count("cancelled") <= 4, "four are in flight, some of them finished"
    assert set(reasons) == {"cancelled", "terminated"}


async def test_a_store_that_fails_stops_the_run_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_store("sqlite://") as store:
        calls = 0

        def append(trajectory: Trajectory) -> bool:
            nonlocal calls
            calls += 1
            raise StoreError("the disk is full")

        monkeypatch.setattr(store, "append", append)
        with pytest.raises(StoreError, match="the disk is full"):
            await execute(plan(), client(), ExpertPolicy(), store)
        assert store.get_run("run-1").outcome == "failed"

    assert calls == 1


async def test_failed_episodes_are_results_and_stored_like_the_others() -> None:
    class Failing(Policy):
        name = "failing"

        async def act(self, turn: Turn) -> Sample:
            raise PolicyError("no key")

    noticed: list[Result] = []
    with open_store("sqlite://") as store:
        results = await execute(plan(), client(), Failing(), store, noticed.append)
        assert store.count(TrajectoryFilter(trainable=False)) == 6

    assert results == noticed
    assert {(result.failure, result.error) for result in results} == {("policy_error", "no key")}


async def test_a_run_needs_no_store() -> None:
    assert len(await execute(plan(), client(), ExpertPolicy())) == 6
