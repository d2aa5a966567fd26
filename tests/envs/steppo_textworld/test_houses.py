"""ALFWorld's games: a house made here, small enough to know everything about it."""

import gzip
import json
import sys
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from steppo_env.env import AnyEnv
from steppo_env.errors import EnvError, InvalidOptions, MissingData, MissingDependency
from steppo_env.registry import make
from steppo_env.testing import EnvContract, expert_action, play, random_action
from steppo_textworld.pddl import PddlRun, read_game
from steppo_textworld.pddl.names import spoken_names
from steppo_textworld.pddl.words import Scene, read_words

pytest.importorskip("fast_downward", reason="needs the extra alfworld")

ENV_ID = "steppo/TextWorld-v0"
MEMBER = "json_2.1.1/train/pick_clean_then_place_in_recep-Cup-None-Shelf-7/trial_1/game.tw-pddl"
TASK_ID = "train/pick_clean_then_place_in_recep-Cup-None-Shelf-7/trial_1"

DOMAIN = """
(define (domain flat)
 (:requirements :adl :typing)
 (:types place thing)
 (:predicates (at ?p - place) (on ?t - thing ?p - place) (held ?t - thing) (full)
              (wet ?p - place) (clean ?t - thing) (seen ?p - place) (shelf ?p - place))
 (:action look :parameters (?p - place) :precondition (at ?p) :effect (seen ?p))
 (:action walk :parameters (?from - place ?to - place)
  :precondition (and (at ?from) (not (= ?from ?to)))
  :effect (and (not (at ?from)) (at ?to)))
 (:action take :parameters (?t - thing ?p - place)
  :precondition (and (at ?p) (on ?t ?p) (not (full)))
  :effect (and (not (on ?t ?p)) (held ?t) (full)))
 (:action put :parameters (?t - thing ?p - place)
  :precondition (and (at ?p) (held ?t))
  :effect (and (on ?t ?p) (not (held ?t)) (not (full))
               (when (wet ?p) (clean ?t)))))
"""
PROBLEM = """
(define (problem small) (:domain flat)
 (:objects bed_bar_1 desk_bar_2 sink_bar_3_bar_sinkbasin shelf_bar_4 - place
           cup_bar_5 cup_bar_6 - thing)
 (:init (at bed_bar_1) (on cup_bar_5 desk_bar_2) (on cup_bar_6 desk_bar_2)
        (wet sink_bar_3_bar_sinkbasin) (shelf shelf_bar_4))
 (:goal (exists (?t - thing) (exists (?p - place)
        (and (shelf ?p) (clean ?t) (on ?t ?p))))))
"""
RULES = {
    "intro": [{"rhs": "-= Hello =-\n\nYou see [{#one(p)# | on(t:thing, p:place)}].\n\n#task#"}],
    "one(p)": [{"rhs": "{p.indefinite} {p.name or p.id}"}],
    "task": [{"rhs": "Your task is to: put a clean cup on the shelf."}],
    "things": [
        {"condition": "on(t:thing, to:place)", "rhs": "[{'a ' + t.name | on(t:thing, to:place)}]"},
        {"rhs": "nothing at all"},
    ],
    "missed": [
        {
            "condition": "not_on(t:thing, p:place)",
            "rhs": "Gone from here: [{t.name | not_on(t:thing, p:place)}].",
        },
        {"rhs": "Nothing is gone."},
    ],
    "list_empty": [{"rhs": "nothing"}],
    "list_separator": [{"rhs": ", "}],
    "list_last_separator": [{"rhs": ", and "}],
}
GRAMMAR = f'''
grammar :: """
{json.dumps(RULES)}
""";
action look {{ template :: "look"; feedback :: "You look around. #missed#"; }}
action walk {{ template :: "go to {{to}}"; feedback :: "At {{to.name}} there is #things#."; }}
action take {{ template :: "take {{t}} from {{p}}"; feedback :: "You take {{t.name}}."; }}
action put {{
    template :: "move {{t}} to {{p}}";
    feedback :: "#put.told#";
    grammar :: """
        {{ "put.told": [ {{ "rhs": "You put {{t.name}} down." }} ] }}
    """;
}}
'''
WALKTHROUGH = [
    "go to desk 1",
    "take cup 2 from desk 1",
    "go to sinkbasin 1",
    "move cup 2 to sinkbasin 1",
    "take cup 2 from sinkbasin 1",
    "go to shelf 1",
    "move cup 2 to shelf 1",
]


def document(**changed: object) -> str:
    game: dict[str, object] = {
        "pddl_domain": DOMAIN,
        "pddl_problem": PROBLEM,
        "grammar": GRAMMAR,
        "solvable": True,
        "walkthrough": WALKTHROUGH,
    }
    return json.dumps(game | changed)


def write_house(folder: Path, member: str = MEMBER, **changed: object) -> Path:
    path = folder / member
    path.parent.mkdir(parents=True)
    path.write_text(document(**changed))
    return path


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("houses")
    write_house(folder)
    return folder


def started(folder: Path, **options: object) -> AnyEnv:
    env = make(ENV_ID, data=folder, **options)
    env.start(TASK_ID, 0)
    return env


def act(command: str) -> str:
    return f"<act>{command}</act>"


class TestHouse(EnvContract):
    env_id = ENV_ID
    split = "train"
    options: ClassVar[Mapping[str, object]] = {}

    @pytest.fixture(autouse=True)
    def _with_houses(self, houses: Path) -> Iterator[None]:
        type(self).options = {"data": str(houses)}
        yield
        type(self).options = {}


def test_a_house_lists_its_places_its_goal_and_what_can_be_done(houses: Path) -> None:
    env = started(houses)
    assert dict(env.tasks.splits) == {"train": 1}
    assert env.task.labels == {
        "type": "pick_clean_then_place_in_recep",
        "floor_plan": "FloorPlan7",
    }
    assert env.observation.text == (
        "Your task is to: put a clean cup on the shelf.\n\nYou see a desk 1, and a desk 1."
    )
    assert env.observation.admissible_actions == (
        "go to desk 1",
        "go to shelf 1",
        "go to sinkbasin 1",
        "look",
    )
    shown = env.observation.messages[-1].content
    assert "Turns left: 50." in shown
    assert shown.count("You see a desk 1") == 1


def test_the_walkthrough_wins_with_a_reward_of_one(houses: Path) -> None:
    env = started(houses)
    outcomes = [env.advance(act(command)) for command in WALKTHROUGH]
    assert [outcome.reward for outcome in outcomes] == [0.0] * 6 + [1.0]
    assert [outcome.terminated for outcome in outcomes] == [False] * 6 + [True]
    assert outcomes[0].observation.text == "At desk 1 there is a cup 2, and a cup 1."
    assert outcomes[2].observation.text == "At sinkbasin 1 there is nothing at all."
    assert outcomes[-1].info["num_refused"] == 0


def test_what_cannot_be_done_is_refused_and_counted(houses: Path) -> None:
    env = started(houses)
    before = env.observation.state_key
    outcome = env.advance(act("take cup 1 from desk 1"))
    assert outcome.observation.text == "Nothing happens."
    assert outcome.info["is_refused"] is True
    assert outcome.info["num_refused"] == 1
    assert env.observation.state_key == before


def test_looking_changes_no_key_and_there_and_back_returns_to_it(houses: Path) -> None:
    env = started(houses)
    before = env.observation.state_key
    env.advance(act("look"))
    assert env.observation.state_key == before
    assert env.distance() == 7
    env.advance(act("go to desk 1"))
    at_desk = env.observation.state_key
    env.advance(act("take cup 1 from desk 1"))
    env.advance(act("move cup 1 to desk 1"))
    assert env.observation.state_key == at_desk != before


def test_the_expert_wins_after_a_detour_and_its_distance_is_what_it_takes(houses: Path) -> None:
    env = make(ENV_ID, data=houses, step_limit=200)
    for seed in range(10):
        env.start(TASK_ID, 0)
        rng = np.random.default_rng(seed)
        for _ in range(12):
            if not env.has_ended:
                env.advance(random_action(env, rng))
        left = env.distance()
        num_steps = env.num_steps
        while not env.has_ended:
            assert env.distance() == (left or 0) - (env.num_steps - num_steps)
            env.advance(expert_action(env))
        assert env.has_terminated


def test_a_snapshot_after_a_detour_goes_on_like_its_origin(houses: Path) -> None:
    env = started(houses)
    for command in ("go to desk 1", "take cup 1 from desk 1", "go to bed 1", "look"):
        env.advance(act(command))
    assert env.distance() == 5
    snapshot = env.snapshot()
    assert snapshot is not None
    fork = make(ENV_ID, data=houses)
    assert fork.restore(snapshot) == env.observation
    while not env.has_ended:
        text = expert_action(env)
        assert expert_action(fork) == text
        assert fork.advance(text) == env.advance(text)
    assert env.has_terminated


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="TextWorld's grammar fails from 3.13 on")
def test_every_word_is_the_one_textworld_says(houses: Path) -> None:
    import textworld
    from textworld.envs.pddl.pddl import PddlEnv

    game = read_game(houses / MEMBER)
    theirs: Any = PddlEnv(textworld.EnvInfos(admissible_commands=True))
    arguments = sys.argv
    theirs.load(json.loads(document()))
    for entity in theirs._entity_infos.values():
        entity.name = game.names[entity.id]
    try:
        for seed in range(3):
            rng = np.random.default_rng(seed)
            state = theirs.reset()
            ours = PddlRun(game)
            assert ours.intro in state.feedback
            for _ in range(20):
                assert tuple(state["admissible_commands"]) == ours.admissible
                command = str(rng.choice([*ours.admissible, "sing"]))
                state, score, _ = theirs.step(command)
                reply = ours.send(command)
                assert (reply.text, reply.won) == (state.feedback.strip(), bool(score))
                if reply.won:
                    break
    finally:
        sys.argv = arguments


def test_a_game_without_walkthrough_is_planned(tmp_path: Path) -> None:
    write_house(tmp_path, walkthrough=None)
    env = started(tmp_path)
    outcomes, _ = play(env, TASK_ID, 0, expert_action)
    assert len(outcomes) == 7
    assert outcomes[-1].reward == 1.0


def test_where_nothing_leads_to_the_goal_there_is_no_expert(tmp_path: Path) -> None:
    dry = PROBLEM.replace("(wet sink_bar_3_bar_sinkbasin)", "")
    write_house(tmp_path, pddl_problem=dry, walkthrough=[])
    env = started(tmp_path)
    assert env.expert() is None
    assert env.distance() is None


def test_unsolvable_and_unknown_games_are_not_listed(tmp_path: Path) -> None:
    write_house(tmp_path)
    write_house(tmp_path, MEMBER.replace("trial_1", "trial_2"), solvable=False)
    write_house(tmp_path, MEMBER.replace("pick_clean_then", "pick_other_then"))
    write_house(tmp_path, MEMBER.replace("Cup", "CupSliced"))
    assert dict(make(ENV_ID, data=tmp_path).tasks.splits) == {"train": 1}


def write_pack(folder: Path) -> None:
    row = {
        "path": MEMBER,
        "human_annotations": [{"task_desc": "Rinse a cup."}, {"task_desc": "Shelve a  clean cup"}],
    }
    (folder / "tasks.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode(), mtime=0))
    path = write_house(folder)
    with tarfile.open(folder / "games.tar.xz", "w:xz") as archive:
        archive.add(path, MEMBER)
    path.unlink()


def test_a_pack_is_unpacked_once_also_by_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "home"))
    (tmp_path / "pack").mkdir()
    write_pack(tmp_path / "pack")
    envs = [make(ENV_ID, data=tmp_path / "pack") for _ in range(4)]
    assert not (tmp_path / "home").exists(), "listing must not unpack"
    with ThreadPoolExecutor(4) as pool:
        first = set(pool.map(lambda env: env.start(TASK_ID, 0).state_key, envs))
    assert len(first) == 1
    unpacked = list((tmp_path / "home/textworld/packs").iterdir())
    assert [folder.name.startswith(".") for folder in unpacked] == [False]


def test_the_goal_of_a_person_is_drawn_by_the_seed(tmp_path: Path) -> None:
    write_pack(tmp_path)
    env = make(ENV_ID, data=tmp_path, goal="human")
    told: dict[str, str] = {}
    for seed in range(8):
        first = env.start(TASK_ID, seed)
        assert env.start(TASK_ID, seed) == first
        told[first.text.split("\n")[0]] = first.state_key
    assert set(told) == {"Your task is to: Rinse a cup.", "Your task is to: Shelve a clean cup"}
    assert len(set(told.values())) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"family": "simple"}, "family"),
        ({"level": 3}, "level"),
        ({"num_train": 5}, "num_train"),
        ({"reward": "intermediate"}, "intermediate"),
    ],
)
def test_options_of_generated_games_are_refused_beside_data(
    houses: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidOptions, match=words):
        make(ENV_ID, data=houses, **options)


def test_the_goal_needs_a_pack() -> None:
    with pytest.raises(InvalidOptions, match="needs data"):
        make(ENV_ID, goal="human")


def test_a_folder_without_games_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="has no games"):
        make(ENV_ID, data=tmp_path)
    with pytest.raises(MissingData, match="is none"):
        make(ENV_ID, data=tmp_path / "absent")


@pytest.mark.parametrize("member", ["/etc/passwd", "../x/y/z/game.tw-pddl"])
def test_a_listed_file_must_lie_in_the_pack(tmp_path: Path, member: str) -> None:
    (tmp_path / "tasks.jsonl").write_text(json.dumps({"path": member}))
    with pytest.raises(MissingData, match="leaves the pack"):
        make(ENV_ID, data=tmp_path)


def test_a_problem_that_cannot_be_translated_says_why(tmp_path: Path) -> None:
    write_house(tmp_path, pddl_problem="(define")
    with pytest.raises(EnvError, match="could not translate"):
        started(tmp_path)


def test_without_the_translator_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_house(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"steppo-env\[alfworld\]"):
        started(tmp_path)


def test_a_damaged_translation_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "home"))
    write_house(tmp_path / "one")
    first = started(tmp_path / "one").observation
    (kept,) = (tmp_path / "home/textworld/pddl").rglob("*.json.gz")
    good = kept.read_bytes()
    kept.write_bytes(good[:100])
    write_house(tmp_path / "two")
    assert started(tmp_path / "two").observation == first
    assert kept.read_bytes() == good


def test_things_are_numbered_from_the_last_to_the_first() -> None:
    names = spoken_names(["cup_bar_1", "cup_bar_2", "sink_bar_1", "sink_bar_1_bar_sinkbasin", "me"])
    assert names == {
        "cup_bar_1": "cup 2",
        "cup_bar_2": "cup 1",
        "me": "me",
        "sink_bar_1": "sink 1",
        "sink_bar_1_bar_sinkbasin": "sinkbasin 1",
    }


@pytest.mark.parametrize("text", ["{__import__('os').getcwd()}", "{x.__class__}", "{nobody.name}"])
def test_a_grammar_cannot_run_code(text: str) -> None:
    scene = Scene({}, {}, {}, {"thing": "a thing"})
    with pytest.raises(EnvError, match="grammar of the game"):
        read_words("").say(text, scene, {"x": "thing"})


def test_a_grammar_that_calls_itself_ends() -> None:
    words = read_words('grammar :: """{"a": [{"rhs": "#a#"}]}""";')
    with pytest.raises(EnvError, match="nests deeper"):
        words.say("#a#", Scene({}, {}, {}, {}), {})
