"""Packs of compiled games: one game of this package's own, with and without its world model."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from steppo_env.env import AnyEnv
from steppo_env.errors import MissingData
from steppo_env.registry import make
from steppo_env.testing import EnvContract, expert_action, play
from steppo_textworld import Family, GameSpec, Instructions
from steppo_textworld.games import game_folder, open_game

ENV_ID = "steppo/TextWorld-v0"
SPEC = GameSpec(Family.COOKING, 3, Instructions.GOAL, "dev", 0)


def write_pack(folder: Path, **changed: object) -> tuple[str, ...]:
    """Write a pack of two games, of which one has its world model; return the walkthrough."""
    game = open_game(SPEC)
    for name in ("blind", "seen"):
        shutil.copy(game_folder(SPEC) / "game.z8", folder / f"{name}.z8")
    shutil.copy(game_folder(SPEC) / "game.json", folder / "seen.json")
    rows = [
        {
            "game": f"{name}.z8",
            "family": "cooking_nips2018",
            "difficulty": "easy",
            "split": "test" if name == "seen" else None,
            "max_score": game.max_score,
            "objective": game.objective,
            "walkthrough": [command.upper() for command in game.walkthrough],
        }
        | changed
        for name in ("blind", "seen")
    ]
    (folder / "games.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return game.walkthrough


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    write_pack(folder)
    return folder


def started(pack: Path, task_id: str, **options: object) -> AnyEnv:
    env = make(ENV_ID, data=pack, **options)
    env.start(task_id, 0)
    return env


def act(command: str) -> str:
    return f"<act>{command}</act>"


class _OnPack(EnvContract):
    env_id = ENV_ID
    options: ClassVar[Mapping[str, object]] = {}

    @pytest.fixture(autouse=True)
    def _with_pack(self, pack: Path) -> Iterator[None]:
        type(self).options = {"data": str(pack)}
        yield
        type(self).options = {}


class TestWithWorldModel(_OnPack):
    split = "test"


class TestWithoutWorldModel(_OnPack):
    split = "unsplit"


del _OnPack  # a base class only


def test_labels_and_splits_are_those_of_the_list(pack: Path) -> None:
    env = make(ENV_ID, data=pack)
    assert dict(env.tasks.splits) == {"unsplit": 1, "test": 1}
    assert env.tasks.get("seen").labels == {"family": "cooking_nips2018", "difficulty": "easy"}


@pytest.mark.parametrize("task_id", ["blind", "seen"])
def test_the_walkthrough_wins_all_points(pack: Path, task_id: str) -> None:
    env = make(ENV_ID, data=pack, reward="score")
    outcomes, _ = play(env, task_id, 0, expert_action)
    assert sum(outcome.reward for outcome in outcomes) == pytest.approx(1.0)
    assert outcomes[-1].info["score"] == outcomes[-1].info["max_score"]


def test_without_a_world_model_nobody_lists_commands_or_knows_the_way_back(pack: Path) -> None:
    env = started(pack, "blind")
    assert env.observation.admissible_actions is None
    before = env.observation.state_key
    distance = env.distance()
    for idle in ("look", "inventory", "dance", "examine cookbook"):
        env.advance(act(idle))
        assert env.observation.state_key == before
    # Both are the walkthrough's own first steps, and made on the way.
    assert walkthrough(pack)[:2] == ["inventory", "examine cookbook"]
    assert env.distance() == (distance or 0) - 2
    env.advance(act("open fridge"))
    assert env.observation.state_key != before


def test_after_a_detour_the_expert_of_a_blind_game_is_silent(pack: Path) -> None:
    env = started(pack, "blind")
    env.advance(act("dance"))
    assert env.expert() is not None
    assert env.advance(act("take cookbook")).info["is_refused"] is False
    assert env.expert() is None
    assert env.distance() is None


def walkthrough(pack: Path) -> list[str]:
    row = json.loads((pack / "games.jsonl").read_text().splitlines()[0])
    return [command.lower() for command in row["walkthrough"]]


@pytest.mark.parametrize(
    "changed", [{"walkthrough": None}, {"max_score": 0}, {"game": None}, {"game": "../x.z8"}]
)
def test_a_list_that_lacks_something_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    write_pack(tmp_path, **changed)
    with pytest.raises(MissingData):
        make(ENV_ID, data=tmp_path)


def test_a_listed_game_that_is_not_there_is_missing_data(tmp_path: Path) -> None:
    write_pack(tmp_path)
    (tmp_path / "blind.z8").unlink()
    with pytest.raises(MissingData, match=r"has no file blind\.z8"):
        started(tmp_path, "blind")


def test_progress_pays_one_on_the_straight_way_and_takes_back_a_step_aside() -> None:
    env = make(ENV_ID, reward="intermediate")
    task_id = env.tasks.at("dev", 0).task_id
    outcomes, _ = play(env, task_id, 0, expert_action)
    progress = [outcome.reward_terms["progress"] for outcome in outcomes]
    assert progress == [pytest.approx(1 / len(outcomes))] * len(outcomes)
    assert outcomes[-1].reward_terms["win"] == 1.0
    env.start(task_id, 0)
    assert env.advance(act("look")).reward_terms == {"win": 0.0, "progress": 0.0}
    env.advance(expert_action(env))
    snapshot = env.snapshot()
    assert snapshot is not None
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    way = str(outcomes[0].info["command"]).removeprefix("go ")
    back = act(f"go {opposite[way]}")
    fork = make(ENV_ID, reward="intermediate")
    fork.restore(snapshot)
    outcome = env.advance(back)
    assert outcome.reward_terms["progress"] == pytest.approx(-1 / len(outcomes))
    assert fork.advance(back) == outcome
