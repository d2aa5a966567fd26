"""Making games, in a process of its own.

TextWorld draws from global generators, iterates over sets and prints; a maker process has a fixed
hash seed and its own standard output, so that the same spec gives the same bytes everywhere. It
serves many requests (starting one costs 2 s, a game 0.6 to 2 s) and ends when it has been idle or
when whoever started it is gone.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from steppo_env.errors import EnvError, boundary
from steppo_env.keys import seed_words
from steppo_textworld.engine import challenges, textworld
from steppo_textworld.levels import (
    Family,
    GameSpec,
    Instructions,
    challenge_settings,
    quest_length,
)
from steppo_textworld.story import Game, Story

__all__ = ["make_elsewhere", "make_here", "serve"]

IDLE_S = 60.0
"""Seconds without a request after which a maker process ends."""
NUM_ATTEMPTS = 50
"""Draws of a game before its spec is given up; some maps do not admit the quest asked for."""


def make_elsewhere(spec: GameSpec, folder: Path) -> None:
    """Write `game.json` and `game.z8` into an empty folder, by way of the maker process.

    Raises:
        EnvError: The maker failed; the message has its reason.
    """
    _maker.make(spec, folder)


class _Maker:
    """The maker process of this process, started at need."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._inherited: list[subprocess.Popen[str]] = []

    def make(self, spec: GameSpec, folder: Path) -> None:
        request = json.dumps({"spec": asdict(spec), "folder": str(folder.resolve())})
        with self._lock:
            # A maker may have ended for idleness just now: ask a new one, once.
            reply = self._ask(request) or self._ask(request)
        if reply is None:
            raise EnvError(f"the process that makes games died while making {spec}")
        if "error" in reply:
            raise EnvError(f"TextWorld could not make {spec}: {reply['error']}")

    def _ask(self, request: str) -> dict[str, str] | None:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.stop()
            return None
        reply: dict[str, str] = json.loads(line)
        return reply

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is not None and self._owner != os.getpid():
            # After a fork the pipes belong to the parent. Keep the object: deleting it would warn.
            self._inherited.append(self._process)
            self._process = None
        if self._process is None:
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "steppo_textworld.maker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"},
            )
        return self._process

    def stop(self) -> None:
        """End the maker process, if it is this process's own."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.communicate()


_maker = _Maker()
atexit.register(_maker.stop)


def make_here(spec: GameSpec, folder: Path) -> None:
    """Make a game in this process, and play its walkthrough to see that it wins.

    Raises:
        EnvError: No draw gave a game that can be won and is as long as its level promises.
    """
    reasons: list[str] = []
    for attempt in range(NUM_ATTEMPTS):
        try:
            model = _draw(spec, attempt, folder)
        except (textworld.generator.QuestGenerationError, ValueError) as error:
            reasons.append(str(error))
            continue
        game = Game(folder)
        walkthrough = _tidied(game)
        if walkthrough is None:
            reasons.append("its walkthrough does not win")
        elif len(walkthrough) * 2 < quest_length(spec.family, spec.level):
            reasons.append(f"{len(walkthrough)} commands win it")
        else:
            model.metadata["walkthrough"] = walkthrough
            model.save(str(folder / "game.json"))
            return
    raise EnvError(f"no game in {NUM_ATTEMPTS} draws; the last one: {reasons[-1]}")


def _draw(spec: GameSpec, attempt: int, folder: Path) -> Any:
    """Write a game and return TextWorld's model of it."""
    words = seed_words(
        "textworld", spec.family, spec.level, spec.instructions, spec.split, spec.index, attempt
    )
    textworld.g_rng.set_seed(words[0])
    options: Any = textworld.GameOptions()
    options.seeds = dict(zip(("map", "objects", "quest", "grammar"), words))
    options.grammar.only_last_action = spec.instructions is Instructions.GOAL
    options.path = str(folder / "game.z8")
    options.force_recompile = True
    _, make, _ = challenges.CHALLENGES[f"tw-{spec.family}"]
    model = make(challenge_settings(spec), options)
    model.metadata["walkthrough"] = list(model.walkthrough)
    textworld.generator.compile_game(model, options)
    (folder / "game.ni").unlink(missing_ok=True)
    return model


def _tidied(game: Game) -> list[str] | None:
    """Return the walkthrough without idle commands, or None when it does not win.

    That of the cooking game opens what is open, and puts down the knife after every cut.
    """
    kept = _played(game, game.walkthrough)
    if kept is None:
        return None
    for command in [name for name in kept if name.startswith("drop ")]:
        if command in kept:
            place = kept.index(command)
            kept = _played(game, [*kept[:place], *kept[place + 1 :]]) or kept
    return kept


def _played(game: Game, commands: Iterable[str]) -> list[str] | None:
    """Return the commands that took effect, or None when together they do not win."""
    story = Story.begin(game)
    kept: list[str] = []
    for command in commands:
        reply = story.send(command)
        kept += [command] if reply.is_done else []
        if reply.has_ended:
            return kept if reply.won else None
    return None


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer requests, one line of JSON each, until they end or none comes for `IDLE_S`."""
    while select.select([requests], [], [], IDLE_S)[0]:
        line = requests.readline()
        if not line:
            return
        request = json.loads(line)
        try:
            with boundary(EnvError, "the maker"):
                make_here(_read_spec(**request["spec"]), Path(request["folder"]))
            reply = {"made": request["folder"]}
        except EnvError as error:
            reply = {"error": str(error)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _read_spec(family: str, level: int, instructions: str, split: str, index: int) -> GameSpec:
    return GameSpec(Family(family), level, Instructions(instructions), split, index)


def _main() -> None:
    # What TextWorld prints must not mix with the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin, replies)


if __name__ == "__main__":
    _main()
