"""One environment that keeps the contract, and one for each way to break it.

`conftest.py` installs this module as a plugin, for the test's process and for those it starts.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import JsonValue

from steppo_env import Action, EnvOptions, ListedTasks, OperatorOnly, StepEnv, Task, parse_text
from steppo_env.errors import Conflict
from steppo_env.mdp import Message, Observation, Outcome

WORDS = ("amber", "birch", "cedar", "damson", "elder")
OptionsT = TypeVar("OptionsT", bound=EnvOptions)


def _impose(cls: type, name: str, value: object) -> None:
    """Give a class what StepEnv keeps final and would refuse in the class's body."""
    setattr(cls, name, value)


@dataclass(frozen=True, slots=True)
class BoxTask(Task):
    """A box and the word that opens it."""

    word: str = ""


def box_tasks(**labels: str) -> ListedTasks[BoxTask]:
    """Return one task for each word, in two splits; a label may have {word} in it."""
    return ListedTasks(
        [
            BoxTask(
                f"{split}-{place}",
                split,
                {name: label.format(word=word) for name, label in labels.items()},
                word,
            )
            for split in ("train", "dev")
            for place, word in enumerate(WORDS)
        ],
        "1",
    )


class Box(StepEnv[BoxTask, OptionsT]):
    """Open the box: the word stands under it.

    The second paragraph is not the summary.
    """

    tasks_of_all: ClassVar[ListedTasks[BoxTask]] = box_tasks(kind="box")

    @classmethod
    def load_tasks(cls, options: OptionsT) -> ListedTasks[BoxTask]:
        return cls.tasks_of_all

    def begin(self, task: BoxTask, rng: np.random.Generator) -> Observation:
        self.has_looked = False
        self.feedback = ""
        self.drawn = int(rng.integers(2**32))
        return self.see(task)

    def act(self, action: Action) -> Outcome:
        rejected: tuple[str, ...] = ()
        info: dict[str, JsonValue] = {}
        if action.answer is not None:
            info["success"] = action.answer == self.task.word
        elif action.commands == ("look",):
            self.has_looked = True
        else:
            rejected = ("write <act> look </act> or <answer> a word </answer>",)
        self.feedback = " ".join((*action.rejections, *rejected))
        terms = {"opened": float(info.get("success") is True)}
        return Outcome(self.see(self.task), terms, bool(info), False, rejected, info)

    def expert(self) -> Action | None:
        word = self.task.word
        text = f"<answer>{word}</answer>" if self.has_looked else "<act> look </act>"
        return parse_text(text)

    def save_state(self) -> bytes:
        return json.dumps([self.has_looked, self.feedback]).encode()

    def load_state(self, task: BoxTask, state: bytes) -> Observation:
        self.has_looked, self.feedback = json.loads(state)
        return self.see(task)

    def text(self, task: BoxTask) -> str:
        """Return the state as text."""
        seen = f"Under the box it says {task.word}." if self.has_looked else "Here is a box."
        return f"{self.feedback}\n{seen}" if self.feedback else seen

    def state(self) -> JsonValue:
        """Return the canonical state."""
        return self.has_looked

    def see(self, task: BoxTask) -> Observation:
        """Return the current observation."""
        text = self.text(task)
        return self.observe((Message("user", text),), text=text, state=self.state(), task=task)


class Good(Box[EnvOptions]):
    """Open the box: the word stands under it.

    The second paragraph is not the summary.
    """

    env_id = "stub/Good-v0"


class DataOptions(EnvOptions):
    """Options with a path in them."""

    data: Annotated[Path | None, OperatorOnly()] = None
    colour: str = "red"


class WithData(Box[DataOptions]):
    """Has an option that only the operator may set."""

    env_id = "stub/WithData-v0"
    options_type = DataOptions


class WithoutExpert(Good):
    """Has no expert; the suite is told what to do."""

    env_id = "stub/WithoutExpert-v0"

    def expert(self) -> Action | None:
        return None


# Each of these breaks one claim.


class RandomStart(Good):
    """Starts anew each time, whatever the seed."""

    env_id = "stub/RandomStart-v0"

    def text(self, task: BoxTask) -> str:
        return f"{super().text(task)} {os.urandom(8).hex()}"


class OwnStep(Good):
    """Keeps its own books."""

    env_id = "stub/OwnStep-v0"


def _own_advance(env: OwnStep, action: Action | str) -> Outcome:
    return StepEnv.advance(env, action)


_impose(OwnStep, "advance", _own_advance)


class MislabelledTasks(Good):
    """Says that its tasks are of another split."""

    env_id = "stub/MislabelledTasks-v0"

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[BoxTask]:
        class Wrong(ListedTasks[BoxTask]):
            def at(self, split: str, index: int) -> BoxTask:
                return replace(super().at(split, index), split="test")

        return Wrong([box_tasks().at("dev", 0)], "1")


class ShiftingTasks(Good):
    """Has other tasks each time that it is made."""

    env_id = "stub/ShiftingTasks-v0"

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[BoxTask]:
        return ListedTasks([BoxTask(os.urandom(8).hex(), "dev", {}, "amber")], "1")


class LostExpert(Good):
    """Has an expert who does not look."""

    env_id = "stub/LostExpert-v0"

    def expert(self) -> Action | None:
        return parse_text("<answer>guess</answer>")


class HalfReward(Good):
    """Opens the box for half of the reward."""

    env_id = "stub/HalfReward-v0"

    def act(self, action: Action) -> Outcome:
        outcome = super().act(action)
        return replace(outcome, reward_terms={"opened": outcome.reward / 2})


class WrongDistance(Good):
    """Is always one step from the goal."""

    env_id = "stub/WrongDistance-v0"

    def distance(self) -> int | None:
        return 1


class MoodyReward(Good):
    """Rewards by chance."""

    env_id = "stub/MoodyReward-v0"

    def act(self, action: Action) -> Outcome:
        mood = int.from_bytes(os.urandom(6), "big") / 2**48
        return replace(super().act(action), reward_terms={"mood": mood})


class HashOrder(Good):
    """Shows what depends on the process's hash seed."""

    env_id = "stub/HashOrder-v0"

    def text(self, task: BoxTask) -> str:
        return f"{super().text(task)} {hash(task.word)}"


class SeedInKey(Good):
    """Puts what it drew into the key of a state that looks the same."""

    env_id = "stub/SeedInKey-v0"

    def state(self) -> JsonValue:
        return [self.has_looked, self.drawn]


class TupleInInfo(Good):
    """Gives info that comes back from JSON as something else."""

    env_id = "stub/TupleInInfo-v0"

    def act(self, action: Action) -> Outcome:
        outcome = super().act(action)
        place: Any = (1, 2)
        return replace(outcome, info={**outcome.info, "place": place})


class Fragile(Good):
    """Ends when it does not understand."""

    env_id = "stub/Fragile-v0"

    def act(self, action: Action) -> Outcome:
        outcome = super().act(action)
        return replace(outcome, terminated=outcome.terminated or bool(outcome.rejected))


class Silent(Good):
    """Does not show why it rejected something."""

    env_id = "stub/Silent-v0"

    def text(self, task: BoxTask) -> str:
        return super().text(task).splitlines()[-1]


class Deaf(Good):
    """Does not say that it rejected something."""

    env_id = "stub/Deaf-v0"

    def act(self, action: Action) -> Outcome:
        return replace(super().act(action), rejected=())


class NoPenalty(Good):
    """Forgets the penalty."""

    env_id = "stub/NoPenalty-v0"


def _lenient_advance(env: NoPenalty, action: Action | str) -> Outcome:
    outcome = StepEnv.advance(env, action)
    terms = {name: term for name, term in outcome.reward_terms.items() if name != "malformed"}
    return replace(outcome, reward_terms=terms)


_impose(NoPenalty, "advance", _lenient_advance)


class OwnLimit(Good):
    """Takes the step limit for an end of the MDP."""

    env_id = "stub/OwnLimit-v0"

    def act(self, action: Action) -> Outcome:
        is_last = self.num_steps + 1 == self.options.step_limit
        outcome = super().act(action)
        return replace(outcome, terminated=outcome.terminated or is_last)


class NoLimit(Good):
    """Goes on after the step limit."""

    env_id = "stub/NoLimit-v0"


def _endless_advance(env: NoLimit, action: Action | str) -> Outcome:
    return replace(StepEnv.advance(env, action), truncated=False)


_impose(NoLimit, "advance", _endless_advance)


class SelfStarting(Good):
    """Begins by itself when it has no episode or has had one."""

    env_id = "stub/SelfStarting-v0"


def _starting_advance(env: SelfStarting, action: Action | str) -> Outcome:
    try:
        return StepEnv.advance(env, action)
    except Conflict:
        env.start("dev-0", 0)
        return StepEnv.advance(env, action)


_impose(SelfStarting, "advance", _starting_advance)


class ShortMemory(Good):
    """Saves its state without the feedback."""

    env_id = "stub/ShortMemory-v0"

    def save_state(self) -> bytes:
        return json.dumps([self.has_looked, ""]).encode()


class Rewriting(Good):
    """Changes an accumulated prompt afterwards."""

    env_id = "stub/Rewriting-v0"


def _rewritten(env: Rewriting) -> Observation:
    current: Observation = StepEnv.observation.fget(env)  # type: ignore[attr-defined]
    return replace(current, messages=current.messages[env.num_steps :])


_impose(Rewriting, "observation", property(_rewritten))


class Sprawling(Good):
    """Fills twice the room that it is given."""

    env_id = "stub/Sprawling-v0"

    def see(self, task: BoxTask) -> Observation:
        text = self.text(task).ljust(2 * self.options.state_chars, "!")
        return self.observe((Message("user", text),), text=text, state=self.state(), task=task)


class CutInstructions(Good):
    """Makes room by leaving out what it says first."""

    env_id = "stub/CutInstructions-v0"

    def see(self, task: BoxTask) -> Observation:
        text, told = self.text(task), "Open the box." if self.options.state_chars > 2_000 else ""
        messages = (Message("system", told), Message("user", text))
        return self.observe(messages, text=text, state=self.state(), task=task)


class Shaped(Good):
    """Tells the policy that its reward is shaped."""

    env_id = "stub/Shaped-v0"

    def text(self, task: BoxTask) -> str:
        return f"{super().text(task)} {len(self.options.step_rewards) or ''}".strip()


class Leaky(Good):
    """Has the solution among its labels."""

    env_id = "stub/Leaky-v0"
    tasks_of_all = box_tasks(kind="box", note="It opens with {word}")


class StructuredLabels(Good):
    """Has a whole structure among its labels."""

    env_id = "stub/StructuredLabels-v0"

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[BoxTask]:
        labels: Any = {"path": ["look", "answer"]}
        return ListedTasks([BoxTask("dev-0", "dev", labels, "amber")], "1")
