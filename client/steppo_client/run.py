"""One run: an environment, a policy, a sampler, and a store that keeps what comes of it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version

import anyio.to_thread
from pydantic import JsonValue

from steppo_client.env_client import EnvClient
from steppo_client.policy import Policy
from steppo_client.sampler import Sampler, SamplerConfig
from steppo_client.summary import Result, result_of
from steppo_client.task_refs import list_task_refs
from steppo_env.errors import InvalidInput
from steppo_env.mdp import Trajectory
from steppo_env.store import Run, TrajectoryStore

__all__ = ["RunPlan", "execute"]

Notice = Callable[[Result], None]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to play.

    Attributes:
        kind: "rollout" or "eval"; stands in the store's table of runs.
        num_tasks: Taken from the start of the split.
    """

    kind: str
    env_ids: Sequence[str]
    split: str
    num_tasks: int
    sampler: SamplerConfig
    options: Mapping[str, JsonValue] = field(default_factory=dict)


async def execute(
    plan: RunPlan,
    client: EnvClient,
    policy: Policy,
    store: TrajectoryStore | None = None,
    notice: Notice | None = None,
) -> list[Result]:
    """Play the plan, one environment after the other, and return a result for each trajectory.

    Args:
        store: Gets every trajectory, durably, before `notice` hears of it.
        notice: Called once for each trajectory, such as by a progress display.

    Raises:
        InvalidInput, NotFound, MissingDependency: The plan cannot be played. Nothing was, unless only
            the first episode could show it.
    """
    if len(set(plan.env_ids)) < len(plan.env_ids):
        raise InvalidInput(f"an environment is named twice: {', '.join(plan.env_ids)}")
    tasks = [
        await list_task_refs(client, env_id, plan.split, plan.num_tasks, plan.options)
        for env_id in plan.env_ids
    ]
    results: list[Result] = []

    async def emit(trajectory: Trajectory) -> None:
        if store is not None:
            await anyio.to_thread.run_sync(store.append, trajectory)
        result = result_of(trajectory)
        results.append(result)
        if notice is not None:
            notice(result)

    if store is not None:
        details = [await client.describe(env_id, plan.options) for env_id in plan.env_ids]
        versions = {detail.env_id: detail.data_version for detail in details}
        store.start_run(_run(plan, policy, versions))
    outcome = "failed"
    try:
        for refs in tasks:
            await Sampler(client, policy, plan.sampler).run(refs, emit)
        outcome = "finished"
    except anyio.get_cancelled_exc_class():
        outcome = "cancelled"
        raise
    finally:
        if store is not None:
            store.finish_run(plan.sampler.run_id, outcome, time.time())
    return results


def _run(plan: RunPlan, policy: Policy, versions: Mapping[str, str]) -> Run:
    config: dict[str, JsonValue] = {
        "env_ids": list(plan.env_ids),
        "policy": policy.name,
        "split": plan.split,
        "num_tasks": plan.num_tasks,
        "options": dict(plan.options),
        "sampler": asdict(plan.sampler),
    }
    return Run(
        run_id=plan.sampler.run_id,
        kind=plan.kind,
        config=config,
        seed=plan.sampler.seed,
        code_version=version("steppo-env"),
        env_versions=dict(versions),
        started_at=time.time(),
    )
