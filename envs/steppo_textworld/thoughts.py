"""What the expert says it thinks before a command."""

import re

__all__ = ["thought_before"]

_THOUGHTS = (
    (re.compile(r"go to (.+)"), "What I need is at the {0}, or goes there."),
    (re.compile(r"move (.+) to (.+)"), "The {0} belongs at the {1}."),
    (re.compile(r"(heat|cool|clean) (.+) with (.+)"), "The task wants me to {0} the {1}."),
    (re.compile(r"use (.+)"), "I need the {0} to be on."),
    (re.compile(r"go (\w+)"), "The way to what I need leads {0}."),
    (re.compile(r"take (.+?)(?: from .+)?"), "I need the {0}, and it is here."),
    (re.compile(r"open (.+)"), "The {0} is closed, and I need it open."),
    (re.compile(r"unlock (.+) with (.+)"), "The {1} fits the {0}."),
    (re.compile(r"examine cookbook"), "The cookbook tells what the meal needs."),
    (re.compile(r"inventory"), "First I check what I already have."),
    (re.compile(r"cook (.+) with (.+)"), "The recipe wants the {0} cooked, and the {1} does it."),
    (re.compile(r"(chop|slice|dice) (.+) with .+"), "The recipe says to {0} the {1}."),
    (re.compile(r"drop (.+)"), "I do not need the {0} any more."),
    (re.compile(r"prepare meal"), "Every ingredient is ready, so the meal can be made."),
    (re.compile(r"eat meal"), "The meal is ready to be eaten."),
    (re.compile(r"put (.+) on (.+)"), "The {0} belongs on the {1}."),
    (re.compile(r"insert (.+) into (.+)"), "The {0} belongs in the {1}."),
)


def thought_before(command: str) -> str:
    """Return a short reason to play a command."""
    for pattern, thought in _THOUGHTS:
        matched = pattern.fullmatch(command)
        if matched:
            return thought.format(*matched.groups())
    return "This brings me closer to the objective."
