"""The main job on real data: an agent plays over HTTP, and its steps lie in the store."""

from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import pytest

from steppo_client import (
    EnvClient,
    ExpertPolicy,
    HttpEnvClient,
    LocalEnvClient,
    Policy,
    RandomPolicy,
    Sampler,
    SamplerConfig,
    list_task_refs,
)
from steppo_env.catalogue import Catalogue
from steppo_env.mdp import Trajectory
from steppo_env.store import TrajectoryFilter, open_store, transcript

DATA = Path(__file__).resolve().parent.parent.parent.parent / "shared" / "data"
PACKS = {
    "hotpotqa": ("steppo/MultihopQA-v0", DATA / "multihop_qa" / "hotpotqa"),
    "physics": ("steppo/PaperSearch-v0", DATA / "paper_search" / "physics_citation_graph"),
}
SPLITS = {"hotpotqa": "dev", "physics": "test"}

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data packs are not beside this project"),
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a configuration that serves each real pack as a named variant."""
    path = tmp_path_factory.mktemp("config") / "serve.toml"
    tables = [
        f'[environments.{name}]\nenv_id = "{env_id}"\noptions = {{ data = "{folder}" }}\n'
        for name, (env_id, folder) in PACKS.items()
    ]
    path.write_text("\n".join(tables), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def server(config: Path, serve: Callable[..., str]) -> str:
    """Serve the variants from a process of its own."""
    return serve("--config", str(config))


async def play(client: EnvClient, name: str, policy: Policy, num_tasks: int) -> list[Trajectory]:
    """Play the first tasks of a variant; return the trajectories in the order of the tasks."""
    found: list[Trajectory] = []

    async def emit(trajectory: Trajectory) -> None:
        found.append(trajectory)

    async with client:
        tasks = await list_task_refs(client, name, SPLITS[name], num_tasks)
        config = SamplerConfig(run_id="e2e", seed=3, concurrency=8)
        await Sampler(client, policy, config).run(tasks, emit)
    order = {task.task_id: place for place, task in enumerate(tasks)}
    return sorted(found, key=lambda trajectory: order[trajectory.task_id])


def transcripts(trajectories: Sequence[Trajectory]) -> list[bytes]:
    """Return everything that environment and policy determined."""
    return [transcript(trajectory) for trajectory in trajectories]


@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("policy", [ExpertPolicy(), RandomPolicy()], ids=lambda item: item.name)
def test_trajectories_are_identical_in_process_and_over_http(
    name: str, policy: Policy, config: Path, server: str
) -> None:
    local = anyio.run(play, LocalEnvClient(Catalogue.from_toml(config)), name, policy, 20)
    remote = anyio.run(play, HttpEnvClient(server), name, policy, 20)

    assert len(local) == 20
    assert transcripts(remote) == transcripts(local)
    assert all(trajectory.trainable for trajectory in remote)


@pytest.mark.parametrize("name", PACKS)
def test_expert_solves_real_tasks_over_http_and_every_step_lies_in_the_store(
    name: str, server: str, tmp_path: Path
) -> None:
    played = anyio.run(play, HttpEnvClient(server), name, ExpertPolicy(), 20)
    with open_store(f"sqlite:///{tmp_path / 'run.db'}") as store:
        for trajectory in played:
            store.append(trajectory)
    with open_store(f"sqlite:///{tmp_path / 'run.db'}", create=False) as store:
        stored = list(store.iterate(TrajectoryFilter(env_id=name)))

    assert all(trajectory.success for trajectory in stored)
    assert sorted(transcripts(stored)) == sorted(transcripts(played))
    assert [step.step_index for step in stored[0].steps] == list(range(len(stored[0].steps)))
