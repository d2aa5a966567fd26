"""Packs of ready-made games: which there are in a folder, told without opening a game."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from steppo_env.errors import MissingData
from steppo_textworld.archives import find_member

__all__ = ["ALFWORLD_TYPES", "CompiledGame", "Goal", "HouseGame", "Listed", "Pack", "read_pack"]

ALFWORLD_TYPES = (
    "look_at_obj_in_light",
    "pick_and_place_simple",
    "pick_clean_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""ALFWorld's task types. Folders of others, such as slicing, have no game that can be played."""

GAME_FILE = "game.tw-pddl"
UNSPLIT = "unsplit"
"""The split of games that come without one."""
TAIL_BYTES = 16_384
"""Where a game file says whether it can be solved, counted from its end."""


class Goal(StrEnum):
    """Whose words tell the goal of an ALFWorld game."""

    TEMPLATE = "template"
    """The game's own: put a clean bowl in cabinet."""
    HUMAN = "human"
    """Those of a person who saw a demonstration; of several, the episode's seed draws one."""


@dataclass(frozen=True, slots=True)
class HouseGame:
    """A TextWorld-PDDL game of ALFWorld.

    Attributes:
        pack: The folder that was given.
        member: The game's file in it, or in one of its archives.
        goals: What people said the goal is; empty when the game's own words are used.
    """

    pack: Path
    member: str
    goals: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """What the instructions are about."""
        return "alfworld"

    def locate(self) -> Path:
        """Return the file of the game.

        Raises:
            MissingData: The pack does not have it.
        """
        return find_member(self.pack, self.member)


@dataclass(frozen=True, slots=True)
class CompiledGame:
    """A compiled game with its walkthrough; its world model may lie beside it as `.json`."""

    pack: Path
    member: str
    family: str
    objective: str
    walkthrough: tuple[str, ...]
    max_score: int

    def locate(self) -> Path:
        """Return the compiled game.

        Raises:
            MissingData: The pack does not have it.
        """
        return find_member(self.pack, self.member)


@dataclass(frozen=True, slots=True)
class Listed:
    """A game as a pack lists it."""

    task_id: str
    split: str
    labels: Mapping[str, str | int]
    game: HouseGame | CompiledGame


@dataclass(frozen=True)
class Pack:
    """The games of a folder.

    Attributes:
        games: All of them, sorted by id.
        version: Changes when the list does.
    """

    games: tuple[Listed, ...]
    version: str

    @cached_property
    def has_houses(self) -> bool:
        """True when these are ALFWorld's games."""
        return any(isinstance(listed.game, HouseGame) for listed in self.games)


def read_pack(folder: Path, goal: Goal) -> Pack:
    """List the games of a folder.

    What kind it is shows in what lies there: `tasks.jsonl[.gz]` (ALFWorld in archives),
    `games.jsonl` (compiled games), or `game.tw-pddl` files in ALFWorld's own tree.

    Raises:
        MissingData: There is no such folder, or nothing in it is a game.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise MissingData(f"the option data names a folder of games; {folder} is none")
    for name, lister in (
        ("tasks.jsonl.gz", _list_houses),
        ("tasks.jsonl", _list_houses),
        ("games.jsonl", _list_compiled),
    ):
        if (folder / name).is_file():
            return _pack(folder / name, lister(folder, folder / name, goal), goal)
    games = sorted(_walk(folder, goal), key=lambda listed: listed.task_id)
    if not games:
        raise MissingData(
            f"{folder} has no games: no tasks.jsonl.gz, no games.jsonl, and no {GAME_FILE} in "
            "folders such as train/pick_and_place_simple-.../trial_.../"
        )
    told = "\n".join(f"{listed.task_id} {listed.game.locate().stat().st_size}" for listed in games)
    return Pack(tuple(games), f"tw-pddl-{goal}-{sha256(told.encode()).hexdigest()[:16]}")


def _pack(path: Path, listed: Iterable[Listed], goal: Goal) -> Pack:
    games = tuple(sorted(listed, key=lambda listed: listed.task_id))
    if not games:
        raise MissingData(f"{path} lists no games")
    return Pack(games, f"{path.stem}-{goal}-{sha256(path.read_bytes()).hexdigest()[:16]}")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines, plain or gzipped."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise MissingData(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise MissingData(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise MissingData(f"{path}, line {number} is not a JSON object")
        yield row


def _list_houses(folder: Path, path: Path, goal: Goal) -> Iterator[Listed]:
    for row in _rows(path):
        member = _member(path, row, "path")
        if not row.get("solvable", True):
            continue
        goals = _goals(row.get("human_annotations")) if goal is Goal.HUMAN else ()
        if goal is Goal.HUMAN and not goals:
            raise MissingData(f"{path}: nobody has put the goal of {member} into words")
        listed = _house(folder, member, goals)
        if listed is None:
            raise MissingData(
                f"{path}: a game's path is .../SPLIT/TYPE-.../TRIAL/{GAME_FILE}, not {member!r}"
            )
        yield listed


def _list_compiled(folder: Path, path: Path, goal: Goal) -> Iterator[Listed]:
    if goal is Goal.HUMAN:
        raise MissingData(f"{path} lists compiled games; only ALFWorld's have goals of people")
    for row in _rows(path):
        member = _member(path, row, "game")
        walkthrough = row.get("walkthrough")
        max_score = row.get("max_score")
        if not isinstance(walkthrough, list) or not isinstance(max_score, int) or max_score < 1:
            raise MissingData(f"{path}: {member} needs a list walkthrough and a max_score above 0")
        family = str(row.get("family") or "game")
        labels: dict[str, str | int] = {"family": family}
        if row.get("difficulty") is not None:
            labels["difficulty"] = str(row["difficulty"])
        game = CompiledGame(
            folder,
            member,
            family,
            str(row.get("objective") or ""),
            tuple(map(str, walkthrough)),
            max_score,
        )
        yield Listed(member.removesuffix(".z8"), str(row.get("split") or UNSPLIT), labels, game)


def _walk(folder: Path, goal: Goal) -> Iterator[Listed]:
    """List ALFWorld's published tree; as there, games known to be unsolvable are left out."""
    for path in folder.rglob(GAME_FILE):
        member = path.relative_to(folder).as_posix()
        listed = _house(folder, member, ())
        if listed is None or "movable" in member or "Sliced" in member or _is_unsolvable(path):
            continue
        if goal is Goal.HUMAN:
            goals = _goals_beside(path)
            listed = Listed(
                listed.task_id, listed.split, listed.labels, HouseGame(folder, member, goals)
            )
        yield listed


def _house(folder: Path, member: str, goals: tuple[str, ...]) -> Listed | None:
    """Read `.../SPLIT/TYPE-...-FLOOR/TRIAL/game.tw-pddl`; None when it is not of this form."""
    parts = member.split("/")
    if len(parts) < 4 or parts[-1] != GAME_FILE:
        return None
    split, kind, trial = parts[-4:-1]
    task_type, _, _ = kind.partition("-")
    if task_type not in ALFWORLD_TYPES:
        return None
    floor = kind.rpartition("-")[2]
    labels: dict[str, str | int] = {"type": task_type, "floor_plan": f"FloorPlan{floor}"}
    game = HouseGame(folder, member, goals)
    return Listed(f"{split}/{kind}/{trial}", split, labels, game)


def _is_unsolvable(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        return b'"solvable": false' in file.read()


def _goals_beside(path: Path) -> tuple[str, ...]:
    """Read what people said from ALFRED's record of the demonstration."""
    record = path.with_name("traj_data.json")
    try:
        goals = _goals(json.loads(record.read_bytes())["turk_annotations"]["anns"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingData(
            f"goal=human needs the goals of people in {record}, which has none: {error!r}"
        ) from error
    if not goals:
        raise MissingData(f"{record} has no goal in anybody's words")
    return goals


def _goals(annotations: object) -> tuple[str, ...]:
    if not isinstance(annotations, list):
        return ()
    told = [str(item.get("task_desc") or "") for item in annotations if isinstance(item, dict)]
    return tuple(filter(None, (" ".join(words.split()) for words in told)))


def _member(path: Path, row: Mapping[str, Any], field: str) -> str:
    member = row.get(field)
    if not isinstance(member, str) or not member:
        raise MissingData(f"{path}: a line has no {field!r}, the game's file")
    if member.startswith("/") or ".." in member.split("/"):
        raise MissingData(f"{path}: the game's file {member!r} leaves the pack")
    return member
