"""The words around a game: instructions, and the state as the model reads it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steppo_env.rendering import Section, Shrink, render_sections
from steppo_textworld.levels import Family

__all__ = ["Turn", "admissible_text", "is_room", "rejection_text", "render_state", "system_text"]

_ROOM = re.compile(r"^-= .* =-$", re.MULTILINE)

_COMMANDS: Mapping[str, str] = {
    Family.COIN_COLLECTOR: "look, inventory, go north, examine coin, take coin",
    Family.TREASURE_HUNTER: (
        "look, inventory, go north, examine chest, open chest, unlock door with key, "
        "take coin, take coin from chest, insert coin into chest, put coin on table, drop coin"
    ),
    Family.SIMPLE: (
        "look, inventory, go north, examine note, open trunk, unlock door with key, "
        "take key from trunk, put milk on table, drop key, eat milk"
    ),
    Family.COOKING: (
        "look, inventory, go north, examine cookbook, open fridge, take carrot from fridge, "
        "drop carrot, chop carrot with knife, slice carrot with knife, dice carrot with knife, "
        "cook carrot with oven, prepare meal, eat meal"
    ),
    Family.CUSTOM: (
        "look, inventory, go north, examine chest, open chest, close chest, "
        "unlock door with key, lock door with key, take key, take key from chest, "
        "insert coin into chest, put coin on table, drop coin, eat apple"
    ),
    "alfworld": (
        "look, inventory, go to desk 1, open drawer 1, close drawer 1, examine desk 1, "
        "take mug 1 from desk 1, move mug 1 to shelf 1, heat mug 1 with microwave 1, "
        "cool mug 1 with fridge 1, clean mug 1 with sinkbasin 1, slice bread 1 with knife 1, "
        "use desklamp 1"
    ),
    "cooking_nips2018": (
        "look, inventory, go north, examine cookbook, open fridge, take carrot from fridge, "
        "drop carrot, chop carrot with knife, slice carrot with knife, dice carrot with knife, "
        "cook carrot with oven, prepare meal, eat meal"
    ),
    "twc": (
        "look, inventory, go north, examine table, open wardrobe, take sock, take sock from table, "
        "insert sock into wardrobe, put cup on table, drop cup"
    ),
}

_ANY_COMMANDS = (
    "look, inventory, go north, examine chest, open chest, unlock door with key, take key, "
    "take key from chest, insert coin into chest, put coin on table, drop coin"
)
"""For the games of packs that are of no known family."""

_HINTS: Mapping[str, str] = {
    Family.COIN_COLLECTOR: "There is one coin, in a room you have to find.",
    Family.TREASURE_HUNTER: (
        "Take only the object that the objective names: taking the wrong one loses the game."
    ),
    Family.SIMPLE: "Do not eat what the dinner needs: that loses the game.",
    Family.COOKING: (
        "Follow the recipe in the cookbook exactly. Frying is done on a stove, roasting in an oven, "
        "grilling on a barbecue. Food that is already cut or cooked as the recipe asks needs nothing "
        "more; cooking it twice, cutting or cooking it in another way, or eating it loses the game. "
        "When everything is ready, prepare the meal in the kitchen and eat it."
    ),
    Family.CUSTOM: (
        "The objective may ask for several things; every one of them has to be done. Food that the "
        "objective needs is gone once it is eaten."
    ),
    "alfworld": (
        "You are in a house, and everything you can go to is named at the start; things lie on it or "
        "in it, and what is closed has to be opened first. You can carry one thing at a time. Where "
        "the task asks for something hot, cool or clean, take it, go to the microwave, the fridge or "
        "the sink, and do it there before you put it in its place. To look at something under a lamp, "
        "carry it and use the lamp."
    ),
    "twc": "Things lie where they do not belong; each scores when it is where one would expect it.",
}


_KIN = {"cooking_nips2018": "cooking"}
"""Families of packs with the rules of one that is generated here."""

_EXAMPLE = "<think>I have not been north yet, so I look there first.</think>\n<act>go north</act>"
_EXAMPLES = {
    "alfworld": (
        "<think>A mug may be on the desk, so I look there first.</think>\n<act>go to desk 1</act>"
    )
}


@dataclass(frozen=True, slots=True)
class Turn:
    """A command and the game's answer; the opening of the game has no command."""

    command: str | None
    feedback: str

    def shown(self, told_below: str | None = None) -> str:
        """Return the turn as a terminal would show it; `told_below` is not said twice."""
        feedback = "(described below)" if self.feedback == told_below else self.feedback
        return feedback if self.command is None else f"> {self.command}\n{feedback}"


def system_text(family: str) -> str:
    """Return the instructions: what this is, how to answer, what a command looks like.

    Args:
        family: A `Family`, or what a pack calls its games; those nobody knows get no hint.
    """
    hint = _HINTS.get(_KIN.get(family, family))
    example = _EXAMPLES.get(family, _EXAMPLE)
    opening = (
        "You are playing a text adventure. Each turn you read what the game says and answer with "
        "the one command to play next. Reach the objective before the turns run out."
    )
    closing = (
        "Answer in this form, with a short thought and exactly one command:\n"
        f"{example}\n"
        "\n"
        f"Commands are short phrases such as: {_COMMANDS.get(family, _ANY_COMMANDS)}. Use the names "
        "of things as the game writes them."
    )
    return "\n".join([opening, *([hint] if hint else []), "", closing])


def render_state(
    *,
    objective: str,
    earlier: Sequence[Turn],
    num_shown: int,
    room: str,
    latest: Turn,
    feedback: str,
    admissible: Sequence[str] | None,
    turns_left: int | None,
    budget_chars: int,
) -> str:
    """Return the user message of a state.

    Args:
        objective: What the game asks for.
        earlier: The turns before the latest, oldest first; the first ones go when space is short.
        num_shown: How many of them are shown at most.
        room: The last description of the room.
        latest: The latest turn that was played.
        feedback: What was not played of the last answer, or nothing.
        admissible: Commands that would do something, or None when they are not shown.
        turns_left: Answers left before the episode is cut short, or None when the game is over.
        budget_chars: Most characters of the text.
    """
    shown = earlier[-num_shown:] if num_shown else ()
    hidden = len(earlier) - len(shown)
    heading = f"# Earlier turns ({hidden} before these)" if hidden else "# Earlier turns"
    is_in_room = latest.feedback == room
    told_below = None if is_in_room else room
    closing = "The game is over." if turns_left is None else f"Turns left: {turns_left}."
    sections = [
        Section("# Objective", (objective,)),
        Section(heading, tuple(turn.shown(told_below) for turn in shown), Shrink.OLDEST),
        Section("# Room, as last described", () if is_in_room else (room,)),
        Section("# Now", (latest.shown(),)),
        Section("# Your last answer", (feedback,) if feedback else ()),
        Section("", (admissible_text(admissible),) if admissible else ()),
        Section("", (closing,)),
    ]
    return render_sections(sections, budget_chars)


def is_room(text: str) -> bool:
    """Return whether what the game said describes a room."""
    return _ROOM.search(text) is not None


def admissible_text(admissible: Sequence[str]) -> str:
    """Return the admissible commands as a list under a heading."""
    return "\n".join(["# Commands that do something here", *(f"- {name}" for name in admissible)])


def rejection_text(reasons: Sequence[str], was_played: bool) -> str:
    """Return the feedback on parts that were not played, or nothing when there are none."""
    if not reasons:
        return ""
    opening = "Only the command was played:" if was_played else "Nothing was played:"
    return "\n".join([opening, *(f"- {reason}" for reason in reasons)])
