"""TextWorld: win a text adventure, one command for each step."""

import json
import re
import zlib
from functools import cache

import numpy as np
from pydantic import JsonValue

from steppo_env.env import StepEnv
from steppo_env.errors import EpisodeNotStarted
from steppo_env.mdp import Action, Message, Observation, Outcome
from steppo_env.parsing import parse_text
from steppo_env.rendering import Rendering
from steppo_textworld.games import open_game
from steppo_textworld.levels import Family, Instructions
from steppo_textworld.prompts import (
    Turn,
    admissible_text,
    is_room,
    rejection_text,
    render_state,
    system_text,
)
from steppo_textworld.story import Reply, Story
from steppo_textworld.tasks import RewardKind, TextWorldOptions, TextWorldTask, TextWorldTasks

__all__ = ["TextWorld"]

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

_THOUGHTS = (
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


@cache
def _tasks(
    family: Family, level: int, instructions: Instructions, num_train: int
) -> TextWorldTasks:
    return TextWorldTasks(family, level, instructions, num_train)


class TextWorld(StepEnv[TextWorldTask, TextWorldOptions]):
    """Text adventures made and told by TextWorld.

    Winning and losing terminate. A command that the game refuses or does not understand is answered
    in the game's own words and counted in `num_refused`; an answer without exactly one command
    is rejected, and the game does not move. A rebuilt state shows the turns left, so what follows the
    last of them is worth 0: the last step's info says so as `bootstrap_value`.
    """

    env_id = "steppo/TextWorld-v0"
    options_type = TextWorldOptions
    is_blocking = True

    _story: Story | None = None

    @classmethod
    def load_tasks(cls, options: TextWorldOptions) -> TextWorldTasks:
        return _tasks(options.family, options.level, options.instructions, options.num_train)

    def begin(self, task: TextWorldTask, rng: np.random.Generator) -> Observation:
        # The old interpreter goes first, so that an environment never holds two.
        self.close()
        self._story = Story.begin(open_game(task.spec))
        self._earlier: list[Turn] = []
        self._latest = Turn(None, self._story.intro)
        self._room = self._story.intro
        self._num_steps = 0
        self._num_refused = 0
        self._has_ended = False
        self._was_played = True
        return self._observe(task, "")

    def act(self, action: Action) -> Outcome:
        story = self._open_story()
        self._num_steps += 1
        command, rejected = _read(action)
        feedback = rejection_text((*action.rejections, *rejected), was_played=command is not None)
        before = story.score
        reply = None if command is None else self._play(story, command)
        self._was_played = reply is not None
        won = reply is not None and reply.won
        info: dict[str, JsonValue] = {
            "success": won,
            "lost": reply is not None and reply.lost,
            "score": story.score,
            "max_score": story.game.max_score,
            "command": command,
            "is_refused": reply is not None and not reply.is_done,
            "num_refused": self._num_refused,
        }
        if self._turns_left == 0 and not self._has_ended and self._shows_turns:
            info["bootstrap_value"] = 0.0
        return Outcome(
            self._observe(self.task, feedback),
            reward_terms=self._reward(story, won, story.score - before),
            terminated=self._has_ended,
            rejected=rejected,
            info=info,
        )

    def expert(self) -> Action | None:
        commands = None if self._has_ended else self._open_story().solution()
        if not commands:
            return None
        return parse_text(f"<think>{_thought(commands[0])}</think>\n<act>{commands[0]}</act>")

    def distance(self) -> int | None:
        if self._has_ended:
            return None
        commands = self._open_story().solution()
        return None if commands is None else len(commands)

    def close(self) -> None:
        """Free the interpreter (about 2 MB). The environment can be reset afterwards."""
        self._story = None

    def save_state(self) -> bytes:
        state = {
            "story": self._open_story().save(),
            "earlier": [[turn.command, turn.feedback] for turn in self._earlier],
            "latest": [self._latest.command, self._latest.feedback],
            "feedback": self._feedback,
            "room": self._room,
            "num_steps": self._num_steps,
            "num_refused": self._num_refused,
            "has_ended": self._has_ended,
            "was_played": self._was_played,
        }
        return zlib.compress(json.dumps(state).encode())

    def load_state(self, task: TextWorldTask, state: bytes) -> Observation:
        saved = json.loads(zlib.decompress(state))
        self.close()
        self._story = Story.load(open_game(task.spec), saved["story"])
        self._earlier = [Turn(command, feedback) for command, feedback in saved["earlier"]]
        self._latest = Turn(*saved["latest"])
        self._room = saved["room"]
        self._num_steps = saved["num_steps"]
        self._num_refused = saved["num_refused"]
        self._has_ended = saved["has_ended"]
        self._was_played = saved["was_played"]
        return self._observe(task, saved["feedback"])

    @property
    def _turns_left(self) -> int:
        return self.options.step_limit - self._num_steps

    @property
    def _shows_turns(self) -> bool:
        """True when the time limit is in the state, so that nothing can follow its end."""
        return self.options.rendering is Rendering.REBUILT

    def _open_story(self) -> Story:
        if self._story is None:
            raise EpisodeNotStarted(f"{self.env_id} was closed; reset it before the next step")
        return self._story

    def _play(self, story: Story, command: str) -> Reply:
        reply = story.send(command)
        self._num_refused += not reply.is_done
        self._has_ended = reply.has_ended
        self._earlier.append(self._latest)
        self._latest = Turn(command, reply.text)
        if is_room(reply.text):
            self._room = reply.text
        return reply

    def _reward(self, story: Story, won: bool, points: int) -> dict[str, float]:
        if self.options.reward is RewardKind.SCORE:
            return {"score": points / story.game.max_score}
        return {"win": float(won)}

    def _observe(self, task: TextWorldTask, feedback: str) -> Observation:
        story = self._open_story()
        self._feedback = feedback
        admissible = () if self._has_ended else story.admissible
        shown = admissible if self.options.show_admissible else None
        user = render_state(
            objective=story.game.objective,
            earlier=self._earlier,
            num_shown=self.options.history,
            room=self._room,
            latest=self._latest,
            feedback=feedback,
            admissible=shown,
            turns_left=None if self._has_ended else self._turns_left,
            budget_chars=self.options.state_chars,
        )
        return self.observe(
            (Message("system", system_text(task.spec.family)), Message("user", user)),
            text=self._text(story, shown),
            state={"facts": [*story.facts], "score": story.score, "ended": self._has_ended},
            admissible_actions=shown,
            task=task,
        )

    def _text(self, story: Story, shown: tuple[str, ...] | None) -> str:
        """Return the bare observation; where it is the whole reply, with the commands."""
        parts = [story.game.objective] if self._num_steps == 0 else []
        parts += [self._feedback] if self._feedback else []
        parts += [self._latest.feedback] if self._was_played else []
        if self.options.rendering is Rendering.ACCUMULATED and shown:
            parts.append(admissible_text(shown))
        return "\n\n".join(parts)


def _read(action: Action) -> tuple[str | None, tuple[str, ...]]:
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


def _thought(command: str) -> str:
    for pattern, thought in _THOUGHTS:
        matched = pattern.fullmatch(command)
        if matched:
            return thought.format(*matched.groups())
    return "This brings me closer to the objective."
