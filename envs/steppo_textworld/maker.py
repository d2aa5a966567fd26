"""Making games, in a process of its own.

TextWorld draws from global generators, iterates over sets and prints; a maker process has a fixed
hash seed and its own standard output, so that the same spec gives the same bytes everywhere. It
serves many requests (starting one costs 2 s, a game 0.6 to 2 s) and ends when it has been idle or
when whoever started it is gone.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TextIO, cast

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

__all__ = ["Maker", "game_seeds", "make_here", "serve"]

IDLE_S = 60.0
"""Seconds without a request after which a maker process ends."""
DEADLINE_S = 600.0
"""Seconds that one game may take. Most take 1 to 10, the longest seen took 30."""
NUM_ATTEMPTS = 50
"""Draws of a game before its spec is given up; some maps do not admit the quest asked for."""


class Maker:
    """A maker process, started at need; may be shared by threads, which then wait for each other.

    Args:
        deadline_s: Seconds that one game may take.
    """

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._inherited: list[subprocess.Popen[str]] = []
        self._is_closed = False

    def make(self, spec: GameSpec, folder: Path) -> None:
        """Write `game.json` and `game.z8` into an empty folder.

        Raises:
            EnvError: The maker failed, was closed or took too long; the message says which.
        """
        request = json.dumps({"spec": asdict(spec), "folder": str(folder.resolve())})
        with self._lock:
            # A maker may have ended for idleness just now: ask a new one, once.
            reply = self._ask(request, spec) or self._ask(request, spec)
        if reply is None:
            raise EnvError(f"the process that makes games died while making {spec}")
        if "error" in reply:
            raise EnvError(f"TextWorld could not make {spec}: {reply['error']}")

    def close(self) -> None:
        """End the process for good; a game that another thread is making fails."""
        self._is_closed = True
        # In a forked child there is nothing of its own, and the lock may be held for ever.
        if self._owner == os.getpid():
            _kill(self._process)
            with self._lock:
                self._discard()

    def _ask(self, request: str, spec: GameSpec) -> dict[str, str] | None:
        process = self._started()
        if self._is_closed:
            self._discard()
            raise EnvError(f"the process that makes games was closed while making {spec}")
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
            is_answered = _is_readable(process.stdout, self._deadline_s)
            line = process.stdout.readline() if is_answered else ""
        except BrokenPipeError:
            is_answered, line = True, ""
        if not line:
            self._discard()
        if not is_answered:
            raise EnvError(
                f"making {spec} took more than {self._deadline_s:g} s, its deadline; the process "
                "that made it was ended"
            )
        return cast(dict[str, str], json.loads(line)) if line else None

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
                # Its own process group: its compilers end with it, and Ctrl-C is not for it.
                start_new_session=True,
            )
        return self._process

    def _discard(self) -> None:
        """End the process, if it is this process's own, and free its pipes."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            _kill(process)
            process.communicate()


def _kill(process: "subprocess.Popen[str] | None") -> None:
    """Kill a maker and the compilers that it runs."""
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _is_readable(stream: IO[str], timeout_s: float) -> bool:
    # Not select.select, which fails in a process with more than 1024 open files.
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(timeout_s))


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


def game_seeds(spec: GameSpec, attempt: int = 0) -> dict[str, int]:
    """Return the 32-bit seeds of a draw of a game, for each of TextWorld's generators."""
    words = seed_words(
        "textworld", spec.family, spec.level, spec.instructions, spec.split, spec.index, attempt
    )
    return dict(zip(("map", "objects", "quest", "grammar"), words))


def _draw(spec: GameSpec, attempt: int, folder: Path) -> Any:
    """Write a game and return TextWorld's model of it."""
    seeds = game_seeds(spec, attempt)
    textworld.g_rng.set_seed(seeds["map"])
    options: Any = textworld.GameOptions()
    options.seeds = seeds
    options.grammar.only_last_action = spec.instructions is Instructions.GOAL
    options.path = str(folder / "game.z8")
    options.force_recompile = True
    model = _model(spec, options)
    model.metadata["walkthrough"] = list(model.walkthrough)
    with _temporary_files_in(folder):
        textworld.generator.compile_game(model, options)
    (folder / "game.ni").unlink(missing_ok=True)
    return model


def _model(spec: GameSpec, options: Any) -> Any:
    settings = challenge_settings(spec)
    if spec.family is Family.CUSTOM:
        for name, value in settings.items():
            setattr(options, name, value)
        model = textworld.generator.make_game(options)
        if len(model.quests) > 1 and spec.instructions is Instructions.GOAL:
            # By itself it would tell the last action of the whole solution, and hide other quests.
            model.objective = "\nAND\n".join(quest.desc for quest in model.quests)
        return model
    _, make, _ = challenges.CHALLENGES[f"tw-{spec.family}"]
    return make(settings, options)


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Let the compilers work where whoever asked for the game cleans up, also after a kill."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


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
    while _is_readable(requests, IDLE_S):
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
