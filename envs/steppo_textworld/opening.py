"""From the description of a game to a run through it."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from steppo_textworld.games import open_game
from steppo_textworld.levels import GameSpec
from steppo_textworld.packs import CompiledGame, HouseGame
from steppo_textworld.pddl import PddlRun, read_game
from steppo_textworld.run import Run
from steppo_textworld.story import Game, Story
from steppo_textworld.walk import WalkedGame, WalkedRun

__all__ = ["AnyGame", "begin_run", "load_run"]

AnyGame = GameSpec | HouseGame | CompiledGame
"""What a task may ask to be played."""

NUM_LOADED = 64
"""Compiled games of packs whose world model stays in memory."""


def begin_run(game: AnyGame, rng: np.random.Generator) -> Run:
    """Start a game.

    Args:
        rng: Draws one of the goals that people gave; nothing else is left to chance.

    Raises:
        MissingData: The pack does not have the game.
        MissingDependency: What plays it is not installed.
        EnvError: The game cannot be made or loaded.
    """
    match game:
        case GameSpec():
            return Story.begin(open_game(game))
        case HouseGame():
            goals = game.goals
            told = goals[int(rng.integers(len(goals)))] if goals else None
            objective = None if told is None else f"Your task is to: {told}"
            return PddlRun(read_game(game.locate()), objective)
        case CompiledGame():
            found = _compiled(game)
            return Story.begin(found) if isinstance(found, Game) else WalkedRun.begin(found)


def load_run(game: AnyGame, saved: Mapping[str, Any], spare: Run | None = None) -> Run:
    """Return the run that its `save` wrote.

    Args:
        spare: A run that is not needed any more; what it has open may be used again.

    Raises:
        MissingData: The pack does not have the game.
        MissingDependency: What plays it is not installed.
        EnvError: The game cannot be made or loaded.
    """
    match game:
        case GameSpec():
            return Story.load(open_game(game), saved, spare if isinstance(spare, Story) else None)
        case HouseGame():
            return PddlRun.load(read_game(game.locate()), saved)
        case CompiledGame():
            found = _compiled(game)
            if isinstance(found, Game):
                return Story.load(found, saved, spare if isinstance(spare, Story) else None)
            return WalkedRun.load(found, saved)


def _compiled(game: CompiledGame) -> Game | WalkedGame:
    """Return a compiled game, with its world model where that lies beside it."""
    story_file = game.locate()
    if story_file.with_suffix(".json").is_file():
        return _modelled(story_file, game.walkthrough)
    return WalkedGame(story_file, game.objective, game.walkthrough, game.max_score)


@lru_cache(maxsize=NUM_LOADED)
def _modelled(story_file: Path, walkthrough: tuple[str, ...]) -> Game:
    return Game(story_file.parent, story_file.name.removesuffix(".z8"), walkthrough)
