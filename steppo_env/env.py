"""StepEnv: authors write begin() and act(); the book-keeping of an episode is done here, once."""

import base64
import json
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar, cast, final

import gymnasium
import numpy as np
from pydantic import JsonValue

from steppo_env.episode import Episode
from steppo_env.errors import (
    EnvError,
    EpisodeEnded,
    EpisodeNotStarted,
    InvalidInput,
    boundary,
)
from steppo_env.keys import canonical_json, first_trace_key, seed_words, state_key
from steppo_env.mdp import Action, Message, Observation, Outcome, Task, ToolSpec
from steppo_env.options import EnvOptions, OptionsT, read_options
from steppo_env.parsing import parse_text
from steppo_env.rendering import Rendering, Transcript
from steppo_env.spaces import TextSpace
from steppo_env.tasks import TaskSet

__all__ = ["AnyEnv", "StepEnv"]

TaskT = TypeVar("TaskT", bound=Task)

MAX_SEED = 2**63 - 1
MAX_TEXT = 1_000_000
"""Longest response and longest observation text, in characters."""


class StepEnv(gymnasium.Env[str, str], ABC, Generic[TaskT, OptionsT]):
    """A step-level MDP: one action is one whole model response.

    Authors set `env_id` and `options_type` and write `load_tasks`, `begin` and `act`; `expert`,
    `distance`, `save_state` and `load_state` where they can. Everything else is final, and a subclass
    that defines it anew is refused.

    Attributes:
        env_id: `namespace/Name-vN`. A change of behaviour is a new N.
        options_type: The model of the options that the constructor takes.
        is_blocking: True when begin or act may take more than about a millisecond, or is not
            thread-safe; the server then runs all its episodes on one thread of their own. An
            environment with a step reward that blocks is blocking too.
        is_cpu_bound: True when its steps compute for milliseconds, so that threads give no speed-up;
            the server then runs its episodes in processes of their own.
    """

    env_id: ClassVar[str]
    options_type: ClassVar[type[EnvOptions]] = EnvOptions
    is_blocking: bool = False
    is_cpu_bound: ClassVar[bool] = False
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}  # type: ignore[misc]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        taken = sorted(_FINAL & vars(cls).keys())
        if taken:
            raise TypeError(
                f"{cls.__name__} redefines {', '.join(taken)}, which StepEnv keeps final"
            )

    def __init__(self, /, render_mode: str | None = None, **options: object) -> None:
        if render_mode not in (None, "ansi"):
            raise InvalidInput(f"render_mode is None or 'ansi', not {render_mode!r}")
        self.render_mode = render_mode
        self.options = cast(OptionsT, read_options(self.options_type, options))
        if any(reward.is_blocking for reward in self.options.step_rewards):
            self.is_blocking = True
        with boundary(EnvError, f"{self.env_id}.load_tasks"):
            self.tasks = self.load_tasks(self.options)
        self.observation_space: gymnasium.Space[str] = TextSpace(MAX_TEXT)
        self.action_space: gymnasium.Space[str] = TextSpace(MAX_TEXT)
        self.__episode: Episode[TaskT] | None = None

    # What authors write.

    @classmethod
    @abstractmethod
    def load_tasks(cls, options: OptionsT) -> TaskSet[TaskT]:
        """Return the tasks that the options select; cache whatever is costly to load."""

    @abstractmethod
    def begin(self, task: TaskT, rng: np.random.Generator) -> Observation:
        """Start an episode and return its first state.

        Args:
            task: What the episode asks for.
            rng: The only source of randomness, derived from environment, task and seed.
        """

    @abstractmethod
    def act(self, action: Action) -> Outcome:
        """Execute one whole response.

        A malformed action never ends the episode: name what was wrong in `Outcome.rejected` and show
        it in the next state. `action.rejections` holds what the parser refused. The step limit and
        the penalty for malformed actions are not the author's business.
        """

    def expert(self) -> Action | None:
        """Return the next action of a policy that solves the task, or None when there is none."""
        return None

    def distance(self) -> int | None:
        """Return how many expert steps the goal is away, or None when that is not known."""
        return None

    def save_state(self) -> bytes | None:
        """Return the environment's own state, or None when replaying the actions is as cheap."""
        return None

    def load_state(self, task: TaskT, state: bytes) -> Observation:
        """Become the state that `save_state` returned, and return its observation."""
        raise EnvError(f"{self.env_id} saves no state; replay the actions instead")

    # What authors call.

    def observe(
        self,
        messages: tuple[Message, ...],
        *,
        text: str,
        state: JsonValue,
        tools: tuple[ToolSpec, ...] = (),
        admissible_actions: tuple[str, ...] | None = None,
        task: TaskT | None = None,
    ) -> Observation:
        """Make an observation; `state` is the canonical state that its key is made of.

        Args:
            task: Needed in `begin` and `load_state` only, before the episode is known here.
        """
        if task is None and self.__episode is None:
            raise EnvError(f"{self.env_id}: begin and load_state must call observe with task=task")
        task_id = (task if task is not None else self.task).task_id
        key = state_key(self.env_id, task_id, state)
        return Observation(messages, text, key, tools, admissible_actions)

    @property
    def task(self) -> TaskT:
        """The task of the running episode."""
        return self.__running().task

    # The book-keeping.

    @property
    @final
    def trace_key(self) -> str:
        """Key chained over task, seed, actions, observations and rewards so far."""
        return self.__running().trace_key

    @property
    @final
    def observation(self) -> Observation:
        """The current state."""
        return self.__running().observation

    @property
    @final
    def num_steps(self) -> int:
        """Number of steps taken; also the index of the next one."""
        return self.__running().num_steps

    @property
    @final
    def has_terminated(self) -> bool:
        """True when the MDP itself has ended."""
        return self.__running().terminated

    @property
    @final
    def has_truncated(self) -> bool:
        """True when a limit has cut the episode short."""
        return self.__running().truncated

    @property
    @final
    def has_ended(self) -> bool:
        """True when the episode takes no further step."""
        return self.__running().ended

    @final
    def start(self, task: TaskT | str, seed: int) -> Observation:
        """Begin an episode of a task (or task id) and return its first state.

        Raises:
            UnknownTask: There is no task under this id.
            InvalidInput: The seed is not in [0, 2**63).
            InvalidOptions: A step reward cannot be given for this task.
            EnvError: Environment code raised, or that of a step reward.
        """
        seed = _read_seed(seed)
        found = self.tasks.get(task) if isinstance(task, str) else task
        rng = np.random.default_rng(seed_words(self.env_id, found.task_id, seed))
        self.__episode = None
        with boundary(EnvError, f"{self.env_id}.begin"):
            observation = self.begin(found, rng)
            trace_key = first_trace_key(self.env_id, found.task_id, seed, observation)
        self.__episode = Episode(self.env_id, found, seed, observation, trace_key)
        if self.options.rendering is Rendering.ACCUMULATED:
            self.__episode.transcript = Transcript(observation.messages)
        try:
            self.__episode.measure(self, self.options)
        except BaseException:
            self.__episode = None
            raise
        return observation

    @final
    def advance(self, action: Action | str) -> Outcome:
        """Take one step.

        Raises:
            EpisodeNotStarted: `start` or `reset` was not called.
            EpisodeEnded: The episode is over.
            EnvError: Environment code raised; the episode is over.
        """
        episode = self.__running()
        if episode.ended:
            raise EpisodeEnded(
                f"the episode of task {episode.task.task_id} ended after {episode.num_steps} steps; "
                "reset before the next step",
                num_steps=episode.num_steps,
            )
        parsed = parse_text(action) if isinstance(action, str) else action
        try:
            with boundary(EnvError, f"{self.env_id}.act", passes=EnvError):
                return episode.take(parsed, self.act(parsed), self.options, self)
        except BaseException:
            episode.failed = True
            raise

    @final
    def snapshot(self) -> bytes | None:
        """Return the episode as bytes, or None: then fork and recover by replaying the actions.

        Raises:
            EpisodeEnded: The episode failed; what state it is in nobody knows.
            EnvError: Environment code raised.
        """
        episode = self.__running()
        if episode.failed:
            raise EpisodeEnded(f"the episode of task {episode.task.task_id} failed; reset first")
        with boundary(EnvError, f"{self.env_id}.save_state"):
            state = self.save_state()
        if state is None:
            return None
        transcript = episode.transcript
        return canonical_json(
            {
                "env_id": self.env_id,
                "options": self.options.model_dump(mode="json"),
                "task_id": episode.task.task_id,
                "seed": episode.seed,
                "trace_key": episode.trace_key,
                "state_key": episode.observation.state_key,
                "num_steps": episode.num_steps,
                "num_rejected": episode.num_rejected,
                "terminated": episode.terminated,
                "truncated": episode.truncated,
                "state": base64.b64encode(state).decode(),
                "transcript": None if transcript is None else transcript.to_json(),
                "measures": list(episode.measures),
            }
        )

    @final
    def restore(self, snapshot: bytes) -> Observation:
        """Become the episode that `snapshot` returned, and return its current state.

        Only for snapshots of one's own making: they are trusted.

        Raises:
            InvalidInput: The snapshot is of another environment, or of other options.
            EnvError: Environment code raised, or came back in another state.
        """
        saved = json.loads(snapshot)
        if saved["env_id"] != self.env_id:
            raise InvalidInput(f"the snapshot is of {saved['env_id']}, this is {self.env_id}")
        options = self.options.model_dump(mode="json")
        if saved["options"] != options:
            raise InvalidInput(f"the snapshot has the options {saved['options']}, not {options}")
        task = self.tasks.get(saved["task_id"])
        self.__episode = None
        with boundary(EnvError, f"{self.env_id}.load_state"):
            observation = self.load_state(task, base64.b64decode(saved["state"]))
        if observation.state_key != saved["state_key"]:
            raise EnvError(f"{self.env_id}.load_state did not bring the saved state back")
        episode = Episode(self.env_id, task, saved["seed"], observation, saved["trace_key"])
        episode.num_steps = saved["num_steps"]
        episode.num_rejected = saved["num_rejected"]
        episode.terminated, episode.truncated = saved["terminated"], saved["truncated"]
        # Not measured anew: that may cost a request, and its answer might differ.
        episode.measures = tuple(saved["measures"])
        if saved["transcript"] is not None:
            episode.transcript = Transcript.from_json(saved["transcript"])
            episode.observation = replace(observation, messages=episode.transcript.messages)
        self.__episode = episode
        return episode.observation

    # Gymnasium's interface.

    @final
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode, gymnasium's way.

        Args:
            seed: Seeds `np_random` and the episode. None draws the episode's seed from `np_random`.
            options: `{"task_id": ...}` or `{"split": ..., "index": ...}`. Without an index a task of
                the split is drawn from `np_random`; without a split it is train, where there is one,
                else the first.

        Returns:
            The bare text of the first state, and info with the full `observation`.

        Raises:
            InvalidInput: The seed or the options are not of this form.
            UnknownTask: There is no such task.
            EnvError: Environment code raised.
        """
        if seed is not None:
            seed = _read_seed(seed)
        super().reset(seed=seed)
        task = self.__choose(dict(options or {}))
        episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        observation = self.start(task, episode_seed)
        return observation.text, self.__info({}, {})

    @final
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one step, gymnasium's way.

        Returns:
            observation: The bare text of the next state.
            reward: The sum of `info["reward_terms"]`.
            terminated: The MDP itself ended; the value of the next state is 0.
            truncated: A limit cut the episode short; the next state still has a value.
            info: The full `observation`, `reward_terms`, keys, and what the environment adds.
        """
        outcome = self.advance(action)
        info = self.__info(outcome.info, outcome.reward_terms)
        text = outcome.observation.text
        return text, outcome.reward, outcome.terminated, outcome.truncated, info

    @final
    def render(self) -> str:
        """Return the messages of the current state as text (render mode "ansi")."""
        messages = self.__running().observation.messages
        return "\n\n".join(map(_shown, messages))

    def __running(self) -> Episode[TaskT]:
        if self.__episode is None:
            raise EpisodeNotStarted(f"{self.env_id} has no episode; call reset or start first")
        return self.__episode

    def __choose(self, options: dict[str, Any]) -> TaskT:
        task_id, split, index = (options.pop(name, None) for name in ("task_id", "split", "index"))
        if options:
            raise InvalidInput(
                "reset takes the options task_id, split and index, "
                f"not {', '.join(map(str, options))}"
            )
        if task_id is not None:
            if not isinstance(task_id, str) or (split, index) != (None, None):
                raise InvalidInput("name the task by task_id, a string, or by split and index")
            return self.tasks.get(task_id)
        splits = self.tasks.splits
        if split is None:
            split = next((name for name in ("train", *splits) if name in splits), "train")
        if index is None:
            # An empty or unknown split has no index at all: `at` says so.
            index = self.np_random.integers(splits[split]) if splits.get(split) else 0
        if not isinstance(split, str) or not isinstance(index, int | np.integer):
            raise InvalidInput(
                f"a split is a name and an index an integer, not {split!r}, {index!r}"
            )
        return self.tasks.at(split, int(index))

    def __info(
        self, info: Mapping[str, JsonValue], reward_terms: Mapping[str, float]
    ) -> dict[str, Any]:
        episode = self.__running()
        return {
            **info,
            "observation": episode.observation,
            "reward_terms": dict(reward_terms),
            "task_id": episode.task.task_id,
            "state_key": episode.observation.state_key,
            "trace_key": episode.trace_key,
        }


def _read_seed(seed: int) -> int:
    try:
        value = int(operator.index(seed))  # a numpy integer is welcome, a float is a mistake
    except TypeError:
        value = -1
    if not 0 <= value <= MAX_SEED:
        raise InvalidInput(f"a seed is an integer in [0, 2**63), not {seed!r}")
    return value


def _shown(message: Message) -> str:
    calls = [f"{call.name}({json.dumps(dict(call.arguments))})" for call in message.tool_calls]
    return "\n".join([f"[{message.role}]", *([message.content] if message.content else []), *calls])


_FINAL = frozenset(
    name
    for name, value in vars(StepEnv).items()
    if getattr(value.fget if isinstance(value, property) else value, "__final__", False)
)

AnyEnv = StepEnv[Any, Any]
"""An environment of which only the contract is known."""
