"""TextWorld: win a text adventure, one command for each step."""

import json
import zlib
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from steppo_env.env import StepEnv
from steppo_env.errors import EpisodeNotStarted
from steppo_env.mdp import Action, Message, Observation, Outcome
from steppo_env.parsing import parse_text
from steppo_env.rendering import Rendering
from steppo_env.tasks import TaskSet
from steppo_textworld.answers import read_command
from steppo_textworld.levels import Family, Instructions
from steppo_textworld.opening import begin_run, load_run
from steppo_textworld.packs import Goal, read_pack
from steppo_textworld.progress import progress
from steppo_textworld.prompts import (
    Turn,
    admissible_text,
    is_room,
    rejection_text,
    render_state,
    system_text,
)
from steppo_textworld.run import Reply, Run
from steppo_textworld.tasks import (
    RewardKind,
    TextWorldOptions,
    TextWorldTask,
    TextWorldTasks,
    pack_tasks,
)
from steppo_textworld.thoughts import thought_before

__all__ = ["TextWorld"]


@cache
def _tasks(
    family: Family, level: int, instructions: Instructions, num_train: int
) -> TextWorldTasks:
    return TextWorldTasks(family, level, instructions, num_train)


@lru_cache(maxsize=8)
def _ready_made(folder: Path, goal: Goal) -> TaskSet[TextWorldTask]:
    return pack_tasks(read_pack(folder, goal))


class TextWorld(StepEnv[TextWorldTask, TextWorldOptions]):
    """Text adventures made and told by TextWorld, and packs of ready-made ones, ALFWorld's too.

    Winning and losing terminate. A command that the game refuses or does not understand is answered
    in the game's own words and counted in `num_refused`; an answer without exactly one command
    is rejected, and the game does not move. A rebuilt state shows the turns left, so what follows the
    last of them is worth 0: the last step's info says so as `bootstrap_value`.
    """

    env_id = "steppo/TextWorld-v0"
    options_type = TextWorldOptions
    is_blocking = True
    is_cpu_bound = True

    _run: Run | None = None

    @classmethod
    def load_tasks(cls, options: TextWorldOptions) -> TaskSet[TextWorldTask]:
        if options.data is not None:
            return _ready_made(options.data.expanduser().resolve(), options.goal)
        return _tasks(options.family, options.level, options.instructions, options.num_train)

    def begin(self, task: TextWorldTask, rng: np.random.Generator) -> Observation:
        # The old interpreter goes first, so that an environment never holds two.
        self.close()
        self._run = begin_run(task.spec, rng)
        self._earlier: list[Turn] = []
        self._latest = Turn(None, self._run.intro)
        self._room = self._run.intro
        self._num_steps = 0
        self._num_refused = 0
        self._num_planned = self._policy_length(self._run) or 1
        self._has_ended = False
        self._was_played = True
        return self._observe(task, "")

    def act(self, action: Action) -> Outcome:
        run = self._open_run()
        self._num_steps += 1
        command, rejected = read_command(action)
        feedback = rejection_text((*action.rejections, *rejected), was_played=command is not None)
        before, length = run.score, self._policy_length(run)
        reply = None if command is None else self._play(run, command)
        self._was_played = reply is not None
        won = reply is not None and reply.won
        info: dict[str, JsonValue] = {
            "success": won,
            "lost": reply is not None and reply.lost,
            "score": run.score,
            "max_score": run.max_score,
            "command": command,
            "is_refused": reply is not None and not reply.is_done,
            "num_refused": self._num_refused,
        }
        if self._turns_left == 0 and not self._has_ended and self._shows_turns:
            info["bootstrap_value"] = 0.0
        return Outcome(
            self._observe(self.task, feedback),
            reward_terms=self._reward(run, reply, run.score - before, length),
            terminated=self._has_ended,
            rejected=rejected,
            info=info,
        )

    def expert(self) -> Action | None:
        commands = None if self._has_ended else self._open_run().solution()
        if not commands:
            return None
        return parse_text(f"<think>{thought_before(commands[0])}</think>\n<act>{commands[0]}</act>")

    def distance(self) -> int | None:
        if self._has_ended:
            return None
        commands = self._open_run().solution()
        return None if commands is None else len(commands)

    def close(self) -> None:
        """Free the interpreter (about 2 MB). The environment can be reset afterwards."""
        self._run = None

    def save_state(self) -> bytes:
        state = {
            "run": dict(self._open_run().save()),
            "earlier": [[turn.command, turn.feedback] for turn in self._earlier],
            "latest": [self._latest.command, self._latest.feedback],
            "feedback": self._feedback,
            "room": self._room,
            "num_steps": self._num_steps,
            "num_refused": self._num_refused,
            "num_planned": self._num_planned,
            "has_ended": self._has_ended,
            "was_played": self._was_played,
        }
        return zlib.compress(json.dumps(state).encode(), level=1)

    def load_state(self, task: TextWorldTask, state: bytes) -> Observation:
        saved = json.loads(zlib.decompress(state))
        spare, self._run = self._run, None
        self._run = load_run(task.spec, saved["run"], spare)
        self._earlier = [Turn(command, feedback) for command, feedback in saved["earlier"]]
        self._latest = Turn(*saved["latest"])
        self._room = saved["room"]
        self._num_steps = saved["num_steps"]
        self._num_refused = saved["num_refused"]
        self._num_planned = saved["num_planned"]
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

    def _open_run(self) -> Run:
        if self._run is None:
            raise EpisodeNotStarted(f"{self.env_id} was closed; reset it before the next step")
        return self._run

    def _play(self, run: Run, command: str) -> Reply:
        reply = run.send(command)
        self._num_refused += not reply.is_done
        self._has_ended = reply.has_ended
        self._earlier.append(self._latest)
        self._latest = Turn(command, reply.text)
        if is_room(reply.text):
            self._room = reply.text
        return reply

    def _reward(
        self, run: Run, reply: Reply | None, points: int, length: int | None
    ) -> dict[str, float]:
        if self.options.reward is RewardKind.SCORE:
            return {"score": points / run.max_score}
        terms = {"win": float(reply is not None and reply.won)}
        if self.options.reward is RewardKind.INTERMEDIATE:
            made = progress(length, self._policy_length(run), reply)
            terms["progress"] = made / self._num_planned
        return terms

    def _policy_length(self, run: Run) -> int | None:
        """Return the length of TextWorld's policy, where the reward needs it: it costs time."""
        is_needed = self.options.reward is RewardKind.INTERMEDIATE
        return run.policy_length() if is_needed else None

    def _observe(self, task: TextWorldTask, feedback: str) -> Observation:
        run = self._open_run()
        self._feedback = feedback
        admissible = () if self._has_ended else run.admissible
        shown = (
            tuple(admissible) if admissible is not None and self.options.show_admissible else None
        )
        user = render_state(
            objective=run.objective,
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
            text=self._text(run, shown),
            state={"facts": run.world, "score": run.score, "ended": self._has_ended},
            admissible_actions=shown,
            task=task,
        )

    def _text(self, run: Run, shown: tuple[str, ...] | None) -> str:
        """Return the bare observation; where it is the whole reply, with the commands."""
        parts = [run.objective] if self._num_steps == 0 else []
        parts += [self._feedback] if self._feedback else []
        parts += [self._latest.feedback] if self._was_played else []
        if self.options.rendering is Rendering.ACCUMULATED and shown:
            parts.append(admissible_text(shown))
        return "\n\n".join(parts)
