"""Environments whose actions say what happens; `conftest.py` installs them for child processes too."""

import os
import re
import subprocess
import sys
import threading
import time
from typing import ClassVar

import numpy as np

from steppo_env.env import StepEnv
from steppo_env.errors import SteppoError
from steppo_env.mdp import Action, Message, Observation, Outcome, Task
from steppo_env.options import EnvOptions
from steppo_env.tasks import ListedTasks


class Odd(StepEnv[Task, EnvOptions]):
    """Does what the action says; anything that it does not know is a step with reward 1.

    `pid` tells the process, `env NAME` a variable, `big N` a text of N characters, `hold ENTERED GATE`
    writes to the first pipe and waits for the second, `hang ENTERED` writes and never returns, `lock
    ENTERED` never returns either and keeps the interpreter's lock, `child` starts a process of its own.
    """

    env_id = "test/Odd-v0"
    is_blocking = True

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[Task]:
        return ListedTasks([Task(f"train-{place}", "train") for place in range(3)], version="1")

    def begin(self, task: Task, rng: np.random.Generator) -> Observation:
        if task.task_id == "train-2":
            raise RuntimeError("begin broke")
        return self.show("begun", task)

    def act(self, action: Action) -> Outcome:
        verb, *arguments = action.content.split(" ")
        doing = getattr(self, f"do_{verb}", None)
        text = action.content if doing is None else doing(*arguments)
        return Outcome(self.show(text), {"goal": 1.0}, terminated=verb == "end")

    def show(self, text: str, task: Task | None = None) -> Observation:
        return self.observe((Message("user", text),), text=text, state=text, task=task)

    def expert(self) -> Action | None:
        return Action("end")

    def do_pid(self) -> str:
        return str(os.getpid())

    def do_env(self, name: str) -> str:
        return os.environ.get(name, "")

    def do_big(self, num_chars: str) -> str:
        return "x" * int(num_chars)

    def do_surrogate(self) -> str:
        return "half a character: \ud800"

    def do_raise(self) -> str:
        raise RuntimeError("act broke")

    def do_leave(self) -> str:
        sys.exit("leaving")

    def do_die(self) -> str:
        os._exit(3)

    def do_say(self, word: str) -> str:
        print(word, flush=True)  # noqa: T201 - what a careless author may do
        return repr(sys.stdin.read())

    def do_hold(self, entered: str, gate: str) -> str:
        _write(entered)
        with open(gate) as stream:
            return stream.read()

    def do_hang(self, entered: str) -> str:
        _write(entered)
        while True:
            time.sleep(60)

    def do_lock(self, entered: str) -> str:
        _write(entered)
        return str(re.match(r"(a|aa)+$", "a" * 60 + "b"))

    def do_child(self) -> str:
        child = subprocess.Popen(["sleep", "60"])
        return str(child.pid)


class Busy(Odd):
    """The same, run in processes."""

    env_id = "test/Busy-v0"
    is_cpu_bound: ClassVar[bool] = True


class Light(Odd):
    """The same, run on the event loop."""

    env_id = "test/OddLight-v0"
    is_blocking = False


class Moody(Light):
    """Blocks when its options say so."""

    env_id = "test/Moody-v0"

    def __init__(self, /, render_mode: str | None = None, **options: object) -> None:
        super().__init__(render_mode, **options)
        self.is_blocking = self.options.step_limit > 100


class Deadly(Odd):
    """Ends the process that loads its tasks."""

    env_id = "test/Deadly-v0"
    is_cpu_bound: ClassVar[bool] = True

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[Task]:
        os._exit(4)


class Unsendable(Odd):
    """Cannot be described: what says why does not pickle."""

    env_id = "test/Unsendable-v0"

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[Task]:
        raise SteppoError("no tasks", lock=threading.Lock())  # type: ignore[arg-type]


def _write(path: str) -> None:
    with open(path, "w") as stream:
        stream.write(str(os.getpid()))
