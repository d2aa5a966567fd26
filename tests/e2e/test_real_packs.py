"""The main job on real data: an agent plays over HTTP, and its steps lie in the store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
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


@dataclass(frozen=True)
class Pack:
    """A real data pack, and how much of it is played.

    Attributes:
        folder: Under the folder of the packs.
        num_tasks: Fewer where a game or a corpus takes long to open.
    """

    env_id: str
    folder: str
    split: str
    num_tasks: int


PACKS = {
    "hotpotqa": Pack("steppo/MultihopQA-v0", "multihop_qa/hotpotqa", "dev", 20),
    "2wiki": Pack("steppo/MultihopQA-v0", "multihop_qa/2wikimultihopqa", "dev", 8),
    "musique": Pack("steppo/MultihopQA-v0", "multihop_qa/musique", "dev", 8),
    "bamboogle": Pack("steppo/MultihopQA-v0", "multihop_qa/bamboogle", "test", 8),
    "physics": Pack("steppo/PaperSearch-v0", "paper_search/physics_citation_graph", "test", 8),
    "scholar": Pack("steppo/PaperSearch-v0", "paper_search/scholar", "test", 4),
    "alfworld": Pack("steppo/TextWorld-v0", "textworld/alfworld", "valid_unseen", 4),
    "games": Pack("steppo/TextWorld-v0", "textworld", "test", 4),
}

needs_translator = pytest.mark.skipif(
    find_spec("fast_downward") is None, reason="needs the extra alfworld"
)
NAMES = [
    pytest.param(name, marks=needs_translator) if name == "alfworld" else name for name in PACKS
]

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data packs are not beside this project"),
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a configuration that serves each real pack as a named variant."""
    path = tmp_path_factory.mktemp("config") / "serve.toml"
    tables = [
        f"[environments.{name}]\n"
        f'env_id = "{pack.env_id}"\noptions = {{ data = "{DATA / pack.folder}" }}\n'
        for name, pack in PACKS.items()
    ]
    path.write_text("\n".join(tables), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def server(config: Path, serve: Callable[..., str]) -> str:
    """Serve the variants from a process of its own."""
    return serve("--config", str(config))


async def play(client: EnvClient, name: str, policy: Policy) -> list[Trajectory]:
    """Play the first tasks of a pack; return the trajectories in the order of the tasks."""
    found: list[Trajectory] = []

    async def emit(trajectory: Trajectory) -> None:
        found.append(trajectory)

    async with client:
        tasks = await list_task_refs(client, name, PACKS[name].split, PACKS[name].num_tasks)
        config = SamplerConfig(run_id="e2e", seed=3, concurrency=8)
        await Sampler(client, policy, config).run(tasks, emit)
    order = {task.task_id: place for place, task in enumerate(tasks)}
    return sorted(found, key=lambda trajectory: order[trajectory.task_id])


def transcripts(trajectories: Sequence[Trajectory]) -> list[bytes]:
    """Return everything that environment and policy determined."""
    return [transcript(trajectory) for trajectory in trajectories]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", [ExpertPolicy(), RandomPolicy()], ids=lambda item: item.name)
def test_trajectories_are_identical_in_process_and_over_http(
    name: str, policy: Policy, config: Path, server: str
) -> None:
    local = anyio.run(play, LocalEnvClient(Catalogue.from_toml(config)), name, policy)
    remote = anyio.run(play, HttpEnvClient(server), name, policy)

    assert len(local) == PACKS[name].num_tasks
    assert transcripts(remote) == transcripts(local)
    assert all(trajectory.trainable for trajectory in remote)


@pytest.mark.parametrize("name", NAMES)
def test_expert_solves_real_tasks_over_http_and_every_step_lies_in_the_store(
    name: str, server: str, tmp_path: Path
) -> None:
    played = anyio.run(play, HttpEnvClient(server), name, ExpertPolicy())
    with open_store(f"sqlite:///{tmp_path / 'run.db'}") as store:
        for trajectory in played:
            store.append(trajectory)
    with open_store(f"sqlite:///{tmp_path / 'run.db'}", create=False) as store:
        stored = list(store.iterate(TrajectoryFilter(env_id=name)))

    assert all(trajectory.success for trajectory in stored)
    assert sorted(transcripts(stored)) == sorted(transcripts(played))
    assert [step.step_index for step in stored[0].steps] == list(range(len(stored[0].steps)))
