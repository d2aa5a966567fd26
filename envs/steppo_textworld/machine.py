"""A compiled game in its Z-machine: what it prints, read, and its state as JSON."""

import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from steppo_env.errors import EnvError
from steppo_textworld.engine import interpreter
from steppo_textworld.run import Reply

__all__ = ["Machine", "Told"]

MOST_RAM = 65_536
"""Bytes of a Z-machine's memory that can change: a two-byte address says where they end."""

_TRACE = re.compile(r"\[[^\]]+\]\n?")
"""What the game prints about its own actions once they are traced, such as `[looking]`."""
_SUCCEEDED = re.compile(r"\[([^\]()]+) - succeeded\]")
"""A whole action that took place. Those with a number in parentheses are parts of another."""
_COUNTERS = re.compile(r"<score>\s*(-?\d+)\s*</score><moves>\s*\d+\s*</moves>\n?")
_CENTRED = re.compile(r"^ +(\*\*\* .* \*\*\*)$", re.MULTILINE)
_STATUS_LINE = re.compile(r"\n> +-= .* =--?\d+/-?\d+\s*$")
"""The prompt and the terminal's status line: room, score and turns."""
_QUESTION = "\n\nWould you like to RESTART"
_ROOM = re.compile(r"^-= .* =-$", re.MULTILINE)
_WON = "*** The End ***"
_LOST = "*** You lost! ***"


@dataclass(frozen=True, slots=True)
class Told:
    """What a game printed.

    Attributes:
        reply: What the player reads of it, and how it ended.
        events: The whole actions that took place, in Inform's words.
        score: Points so far, or None when it did not say.
    """

    reply: Reply
    events: tuple[str, ...]
    score: int | None


class Machine:
    """A running interpreter, about 2 MB; it is freed when it is deleted."""

    def __init__(self, story_file: Path) -> None:
        self._interpreter = interpreter(story_file)
        self._name = story_file.name
        # The story file begins with the memory as it is before the first turn.
        self._first_ram = np.fromfile(story_file, dtype=np.uint8, count=MOST_RAM)

    def begin(self) -> str:
        """Start the game and return its first room, without banner and objective.

        Raises:
            EnvError: The game does not report its score, as TextWorld's games do.
        """
        banner, _ = self._interpreter.reset()
        # The only report of which action a command turned out to be.
        self._interpreter.step("tw-trace-actions")
        reported, _, _, _ = self._interpreter.step("tw-extra-infos score")
        if not _COUNTERS.search(reported):
            raise EnvError(f"{self._name} does not report its score: TextWorld did not make it")
        return _room(_clean(banner))

    def send(self, command: str) -> Told:
        """Play one command: printable ASCII, at most 198 characters."""
        printed, _, _, _ = self._interpreter.step(command)
        events = tuple(_SUCCEEDED.findall(printed))
        counters = _COUNTERS.findall(printed)
        won, lost = _WON in printed, _LOST in printed
        reply = Reply(_clean(printed), bool(events), won=won, lost=lost)
        return Told(reply, events, int(counters[-1]) if counters else None)

    def save(self) -> dict[str, JsonValue]:
        """Return the machine's memory and registers as JSON values."""
        ram, stack, *registers, random, narrative = self._interpreter.get_state()
        return {
            # As in Quetzal, the format in which Z-machines save: few bytes differ from the story's.
            "ram": _pack((ram ^ self._first_ram[: len(ram)]).tobytes()),
            "stack": _pack(stack.tobytes()),
            "registers": [int(register) for register in registers],
            "random": [int(number) for number in random],
            "narrative": _pack(narrative),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become the machine that `save` wrote."""
        ram, stack = (
            np.frombuffer(_unpack(saved[name]), dtype=np.uint8).copy() for name in ("ram", "stack")
        )
        narrative = _unpack(saved["narrative"])
        ram ^= self._first_ram[: len(ram)]
        state = (ram, stack, *saved["registers"], tuple(saved["random"]), narrative)
        self._interpreter.set_state(state)


def _clean(printed: str) -> str:
    """Return what the player should read of what the game printed."""
    text = _COUNTERS.sub("", _TRACE.sub("", printed)).split(_QUESTION)[0]
    text = _CENTRED.sub(r"\1", _STATUS_LINE.sub("", text))
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _room(opening: str) -> str:
    """Return the opening without banner and objective."""
    heading = _ROOM.search(opening)
    return opening[heading.start() :] if heading else opening


def _pack(data: bytes) -> str:
    return b64encode(zlib.compress(data, level=1)).decode()


def _unpack(text: str) -> bytes:
    return zlib.decompress(b64decode(text))
