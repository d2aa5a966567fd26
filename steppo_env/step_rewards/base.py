"""What a step reward is, and what it may look at."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from steppo_env.mdp import Action, Observation, Outcome, Task

__all__ = ["RewardedEnv", "StepReward"]


class RewardedEnv(Protocol):
    """What a step reward sees of the environment that it is stacked on: a StepEnv in its episode."""

    env_id: ClassVar[str]

    @property
    def task(self) -> Task:
        """The task of the running episode."""
        ...

    @property
    def observation(self) -> Observation:
        """The current state."""
        ...

    @property
    def num_steps(self) -> int:
        """Number of steps taken to get here."""
        ...

    @property
    def has_terminated(self) -> bool:
        """True when the current state is terminal."""
        ...

    def distance(self) -> int | None:
        """Return how many expert steps the goal is away, or None when that is not known."""
        ...


class StepReward(BaseModel, ABC):
    """A named term that is added to the reward of every step.

    A subclass says its `kind`, has its settings as fields with bounds, and writes `term`; `measure`
    as well where the term compares states. It keeps nothing about an episode: one object may serve
    many at a time. As a document it is its settings and its kind.

    Attributes:
        kind: What it is asked for by; of a plugin, the name of its entry point.
        is_blocking: True when `measure` or `term` may take more than about a millisecond; the
            environment then is blocking too (see `StepEnv.is_blocking`).
        is_operator_only: True when a setting names something on the machine or in its network, such
            as an endpoint: a client of the server may not set this kind.
        is_keyed: True when states of equal `state_key` have equal measures: a step that leaves the
            key as it was is not measured again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str]
    is_blocking: ClassVar[bool] = False
    is_operator_only: ClassVar[bool] = False
    is_keyed: ClassVar[bool] = False

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$",
        description="Name of the reward term; the kind when left out. Two of one kind need two.",
    )

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        return {"kind": self.kind, **handler(self)}

    @property
    def term_name(self) -> str:
        """Name of the reward term."""
        return self.name or self.kind

    def check(self, env: RewardedEnv) -> None:
        """Look, when an episode has begun, whether the reward can be given here at all.

        Raises:
            InvalidOptions: It cannot; the message says what is missing.
        """

    def measure(self, env: RewardedEnv) -> float:
        """Return a quantity of the current state, such as its potential.

        It is taken when the episode begins and after each step, the last one included, and must be a
        function of what `env` shows.
        """
        return 0.0

    @abstractmethod
    def term(self, before: float, after: float, action: Action, outcome: Outcome) -> float:
        """Return what a step adds to the reward.

        Args:
            before: `measure` of the state that the action was taken in.
            after: `measure` of the state that it led to.
            action: The response, with the parser's issues.
            outcome: The step as the environment completed it: limit, `info`, and in `rejected` first
                what the parser refused (`action.rejections`), then what the environment did.
        """
