"""What of an answer is played: the one command in it."""

import re

from steppo_env.mdp import Action

__all__ = ["MAX_COMMAND", "read_command"]

MAX_COMMAND = 100
"""Longest command, in characters; the interpreter would cut it at 198."""

# They steer the interpreter or print what a player must not see, and would leave the record of the
# world behind: undo takes back an action that was reported, restart all of them.
_META = frozenset(
    {
        "abstract",
        "actions",
        "brief",
        "disable",
        "enable",
        "gonear",
        "long",
        "normal",
        "noscript",
        "notify",
        "o",
        "oops",
        "print_state",
        "purloin",
        "q",
        "quit",
        "relations",
        "restart",
        "restore",
        "restrict",
        "rules",
        "save",
        "scenes",
        "script",
        "short",
        "showheap",
        "showme",
        "showverb",
        "superbrief",
        "test",
        "trace",
        "transcript",
        "undo",
        "unscript",
        "verbose",
        "verify",
        "version",
    }
)
_SEPARATORS = re.compile(r"[.;\n]|\bthen\b")


def read_command(action: Action) -> tuple[str | None, tuple[str, ...]]:
    """Return the command to play, if there is one, and why other parts are not played."""
    reasons: list[str] = []
    if action.tool_calls:
        reasons.append("there are no tools here; write the command as <act>look</act>")
    if action.answer is not None:
        reasons.append("an <answer> does nothing here; write the command as <act>look</act>")
    if len(action.commands) != 1:
        count = len(action.commands)
        reasons.append(f"write exactly one command, such as <act>look</act>; this had {count}")
        return None, tuple(reasons)
    command = " ".join(action.commands[0].split()).lower()
    problem = _problem_with(command)
    if problem is not None:
        return None, (*reasons, problem)
    return command, tuple(reasons)


def _problem_with(command: str) -> str | None:
    """Return why a command is not given to the game, or None when it is."""
    if not command:
        return "the command is empty; write one, such as <act>look</act>"
    if len(command) > MAX_COMMAND:
        return (
            f"a command is a short phrase of at most {MAX_COMMAND} characters, such as "
            f"<act>look</act>; this had {len(command)}"
        )
    if not (command.isascii() and command.isprintable()):
        return f"the game reads plain English letters only; it cannot read {command!a}"
    if _SEPARATORS.search(command):
        return f"write one command only, without full stop, semicolon or 'then'; got {command!r}"
    word = command.split()[0]
    if word in _META or word.startswith("tw-"):
        return f"{word!r} steers the program, not the player; write something the player does"
    return None
